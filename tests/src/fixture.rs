//! Builds the Go programs under `fixtures/go`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// How to build a program. Results stay in the target folder, one for each way; Go's own cache decides what to redo.
#[derive(Clone, Debug, Default)]
pub struct GoProgram {
    /// Its folder under `fixtures/go`.
    pub name: &'static str,
    /// `GOTOOLCHAIN`, such as `go1.18.10`; `None` is the installed Go.
    pub toolchain: Option<String>,
    /// Further arguments of `go build`, such as `-ldflags=-s -w`.
    pub arguments: Vec<String>,
    /// With C code linked in (`CGO_ENABLED=1`).
    pub cgo: bool,
}

impl GoProgram {
    /// The program of that name, built by the installed Go.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Builds it and gives the path of the executable.
    pub fn build(&self) -> Result<PathBuf> {
        let source = crate_dir().join("fixtures/go").join(self.name);
        let output = target_dir().join("go-fixtures").join(self.file_name());
        let mut command = Command::new("go");
        command
            .current_dir(&source)
            .args(["build", "-o"])
            .arg(&output)
            .args(&self.arguments)
            .arg(".")
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOWORK", "off");
        if let Some(toolchain) = &self.toolchain {
            command.env("GOTOOLCHAIN", toolchain);
        }
        let result = command.output().context("cannot run go: install Go 1.21 or newer")?;
        if !result.status.success() {
            bail!("go build of {} failed: {}", source.display(), String::from_utf8_lossy(&result.stderr));
        }
        Ok(output)
    }

    /// A name that tells the ways of building apart.
    fn file_name(&self) -> String {
        let mut name = self.name.to_owned();
        for part in self.toolchain.iter().chain(&self.arguments) {
            name.push('-');
            name.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }));
        }
        if self.cgo {
            name.push_str("-cgo");
        }
        name
    }
}

/// This crate's folder.
pub(crate) fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's target folder.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate_dir().join("../target"), PathBuf::from)
}
