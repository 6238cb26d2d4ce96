//! Builds the Go programs under `fixtures/go`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

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
    /// `GOAMD64`, such as `v3`; empty is Go's default.
    pub amd64: &'static str,
    /// `GOCACHE`; `None` is Go's default.
    pub cache: Option<PathBuf>,
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
        let mut command = self.go()?;
        command
            .current_dir(&source)
            .args(["build", "-o"])
            .arg(&output)
            .args(&self.arguments)
            .arg(".")
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOWORK", "off");
        if !self.amd64.is_empty() {
            command.env("GOAMD64", self.amd64);
        }
        if let Some(cache) = &self.cache {
            command.env("GOCACHE", cache);
        }
        let result = command.output().context("cannot run go: install Go 1.21 or newer")?;
        if !result.status.success() {
            bail!("go build of {} failed: {}", source.display(), String::from_utf8_lossy(&result.stderr));
        }
        Ok(output)
    }

    /// The go command: the installed one, or that of the toolchain, which the installed one fetches. Builds leave the CPU to
    /// whatever else runs on the machine.
    ///
    /// It is the toolchain's own, in another GOPATH, because Go 1.19 does not find its library when its go command runs from the
    /// module cache ("import of unknown directory").
    fn go(&self) -> Result<Command> {
        let mut command = Command::new("nice");
        command.arg("--adjustment=10");
        let Some(toolchain) = &self.toolchain else {
            command.arg("go");
            return Ok(command);
        };
        let result = Command::new("go")
            .args(["env", "GOROOT"])
            .env("GOTOOLCHAIN", toolchain)
            .env("GOWORK", "off")
            .output()
            .context("cannot run go: install Go 1.21 or newer")?;
        ensure!(
            result.status.success(),
            "cannot fetch {toolchain}: {}",
            String::from_utf8_lossy(&result.stderr)
        );
        let root = PathBuf::from(String::from_utf8_lossy(&result.stdout).trim_end());
        command
            .arg(root.join("bin/go"))
            .env("GOTOOLCHAIN", "local")
            .env("GOROOT", &root)
            .env("GOPATH", target_dir().join("go-fixtures/path"));
        Ok(command)
    }

    /// A name that tells the ways of building apart.
    fn file_name(&self) -> String {
        let mut name = self.name.to_owned();
        let parts = self.toolchain.iter().chain(&self.arguments).map(String::as_str);
        for part in parts.chain([self.amd64].into_iter().filter(|level| !level.is_empty())) {
            // The last part of a path tells enough.
            let part = part.rsplit('/').next().unwrap_or(part);
            name.push('-');
            name.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }));
        }
        if self.cgo {
            name.push_str("-cgo");
        }
        name
    }
}

/// Writes a copy of a Go executable whose build information names another minor version, of two digits, and gives that version.
/// The code stays as it is.
pub fn with_minor(executable: &Path, minor: &str, copy: &Path) -> Result<String> {
    /// How build information begins; then come 18 more bytes, the length, and the version (Go's `debug/buildinfo`).
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    ensure!(minor.len() == 2, "{minor:?} has not two digits");
    std::fs::copy(executable, copy)?;
    let mut bytes = std::fs::read(copy)?;
    let at = bytes.windows(MAGIC.len()).position(|window| window == MAGIC).context("no build information")?;
    let length = usize::from(*bytes.get(at + 32).context("no version")?);
    let version = bytes.get_mut(at + 33..at + 33 + length).context("no version")?;
    ensure!(version.starts_with(b"go1."), "{version:?} is no version");
    version.get_mut(4..6).context("no minor version")?.copy_from_slice(minor.as_bytes());
    let version = String::from_utf8(version.to_vec())?;
    std::fs::write(copy, bytes)?;
    Ok(version)
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
