//! Building Go programs.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{machine::Machine, process::CommandExt as _};

/// Builds the package in `folder` to `output` for a machine, without C code, so that it runs on any Linux.
pub(crate) fn build(folder: &Path, output: &Path, machine: Machine, arguments: &[&str]) -> Result<()> {
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent)?;
    }
    Command::new("go")
        .args(["build", "-o"])
        .arg(output)
        .args(arguments)
        .arg(".")
        .current_dir(folder)
        .envs([("CGO_ENABLED", "0"), ("GOOS", "linux"), ("GOARCH", machine.debian())])
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off")
        .run()
        .with_context(|| format!("cannot build the Go program in {}", folder.display()))
}
