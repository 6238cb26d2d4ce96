//! The probe's executable.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{debian, machine::Machine, process::CommandExt as _, workspace};

/// Builds the probe as a user would and gives its path.
pub(crate) fn build_release() -> Result<PathBuf> {
    Command::new(workspace::cargo())
        .args(["build", "--locked", "--release", "--package", "netpoll-probe"])
        .current_dir(workspace::root())
        .run()?;
    Ok(workspace::target()?.join("release/netpoll-probe"))
}

/// Builds a binary of a package so that it needs no shared library, with what that takes installed.
pub(crate) fn build_static(machine: Machine, package: &str, binary: &str) -> Result<PathBuf> {
    debian::install(machine.linker_packages())?;
    add_target(machine)?;
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args(["build", "--locked", "--release", "--package", package, "--bin", binary])
        // With a target named, the flags hold for the program and not for build scripts and procedural macros, which
        // cannot be static.
        .args(["--target", machine.target()])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace::root());
    if let Some((variable, linker)) = machine.linker() {
        cargo.env(variable, linker);
    }
    cargo.run()?;
    Ok(workspace::target()?.join(machine.target()).join("release").join(binary))
}

/// Sees that the probe compiles for a machine, which takes no linker.
pub(crate) fn check(machine: Machine) -> Result<()> {
    add_target(machine)?;
    Command::new(workspace::cargo())
        .args(["check", "--locked", "--package", "netpoll-probe", "--target", machine.target()])
        .current_dir(workspace::root())
        .run()
}

/// Fetches Rust's standard library for the machine, if it is not there.
fn add_target(machine: Machine) -> Result<()> {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", machine.target()])
        .current_dir(workspace::root())
        .stdout_text()?;
    if !Path::new(libraries.trim()).is_dir() {
        Command::new("rustup")
            .args(["target", "add", machine.target()])
            .current_dir(workspace::root())
            .run()?;
    }
    Ok(())
}

/// Fails when this is not root, who alone may load eBPF programs.
pub(crate) fn require_root(what: &str) -> Result<()> {
    ensure!(debian::is_root()?, "{what} loads eBPF programs into the kernel: run it as root");
    Ok(())
}
