//! Debian packages: which are installed, and installing those that are missing.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::process::CommandExt as _;

/// The version of an installed package; `None` when it is not installed.
pub(crate) fn version(package: &str) -> Result<Option<String>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Version}", package])
        .stdin(Stdio::null())
        .output()
        .context("cannot run dpkg-query: these commands know only Debian and its kin")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.strip_prefix("installed ").map(str::to_owned))
}

/// Installs those of `packages` that are missing, with `apt-get update` first; says so, and does nothing when none is.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut missing = Vec::new();
    for &package in packages {
        if version(package)?.is_none() {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    ensure!(is_root()?, "missing Debian packages, and only root can install them: {install}");
    eprintln!("{install}");
    update()?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing);
    apt_get(&arguments)
}

/// Fetches the lists of packages; only root can, so others go on with those that are there.
pub(crate) fn update() -> Result<()> {
    if is_root()? { apt_get(&["update"]) } else { Ok(()) }
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(Command::new("id").arg("-u").stdout_text()?.trim() == "0")
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    Command::new("apt-get")
        .arg("--quiet=2")
        .args(["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}
