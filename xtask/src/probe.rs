//! The probe's executable.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{debian, process::CommandExt as _, workspace};

/// Rust's name of the machines that static executables are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the probe as a user would and gives its path.
pub(crate) fn build_release() -> Result<PathBuf> {
    Command::new(workspace::cargo())
        .args(["build", "--locked", "--release", "--package", "netpoll-probe"])
        .current_dir(workspace::root())
        .run()?;
    Ok(workspace::target()?.join("release/netpoll-probe"))
}

/// Builds a binary of a package so that it needs no shared library: for virtual machines that have none.
pub(crate) fn build_static(package: &str, binary: &str) -> Result<PathBuf> {
    Command::new(workspace::cargo())
        .args(["build", "--locked", "--release", "--package", package, "--bin", binary])
        // With a target named, the flags hold for the program and not for build scripts and procedural macros, which
        // cannot be static.
        .args(["--target", TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace::root())
        .run()?;
    Ok(workspace::target()?.join(TARGET).join("release").join(binary))
}

/// Fails when this is not root, who alone may load eBPF programs.
pub(crate) fn require_root(what: &str) -> Result<()> {
    ensure!(debian::is_root()?, "{what} loads eBPF programs into the kernel: run it as root");
    Ok(())
}
