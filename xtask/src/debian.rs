//! Debian packages: which are installed, installing those that are missing, and reading those of other machines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

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

/// The packages of one architecture, to look at and to download; nothing of them is installed.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Of all apt commands.
    options: Vec<String>,
}

impl Archive {
    /// This machine's, with its lists brought up to date.
    pub(crate) fn own() -> Result<Self> {
        update()?;
        Ok(Self { options: Vec::new() })
    }

    /// Those of another architecture, with lists of their own under `folder`: this machine's apt does not come to know of it.
    pub(crate) fn of(architecture: &str, folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mut options = Vec::new();
        for option in [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("APT::Architectures::={architecture}"),
            format!("Dir::State::lists={}", folder.join("lists").display()),
            format!("Dir::Cache={}", folder.join("cache").display()),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        Command::new("apt-get").args(&options).args(["--quiet=2", "update"]).run()?;
        Ok(Self { options })
    }

    /// The first package that another depends on.
    pub(crate) fn depends(&self, package: &str) -> Result<String> {
        let text = Command::new("apt-cache").args(&self.options).args(["depends", package]).stdout_text()?;
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on nothing"))
    }

    /// Downloads a package and unpacks its files to a folder under `folder`.
    pub(crate) fn extract(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        let (packed, extracted) = (folder.join("packed"), folder.join("extracted"));
        for old in [&packed, &extracted] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
            fs::create_dir_all(old)?;
        }
        Command::new("apt-get")
            .args(&self.options)
            .args(["--quiet", "download", package])
            .current_dir(&packed)
            .run()?;
        for entry in fs::read_dir(&packed)? {
            Command::new("dpkg-deb").arg("--extract").args([&entry?.path(), &extracted]).run()?;
        }
        fs::remove_dir_all(&packed)?;
        Ok(extracted)
    }
}

/// Fetches the lists of packages; only root can, so others go on with those that are there.
fn update() -> Result<()> {
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
