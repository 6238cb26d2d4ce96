//! Offsets of a Go that is not known, confirmed or refused by the memory of a running process.
//!
//! Needs a `go` in PATH (1.21 or newer), which fetches the toolchains named here. A version is made unknown by patching the stripped
//! executable's build information.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not in test functions")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use netpoll_probe::{
    gobin::GoBinary,
    goruntime::{
        binary::{Error as RuntimeError, GoRuntime},
        layout::{self, LayoutError, LayoutSource},
        version::{GoVersion, Release},
    },
    snapshot::confirm::{ConfirmError, Confirmed, Refused, looks},
    target::process::Process,
};

/// How long a process is looked at until it does what must be seen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Program {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the Go program, without DWARF, with a toolchain's own go command.
fn build(version: &str, executable: &Path) {
    let root = Command::new("go").args(["env", "GOROOT"]).env("GOTOOLCHAIN", version).output().unwrap();
    let root = PathBuf::from(String::from_utf8(root.stdout).unwrap().trim_end());
    let built = Command::new(root.join("bin/go"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goroutines"))
        .args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(executable)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOROOT", &root)
        .env("GOPATH", executable.with_file_name("path"))
        .status()
        .unwrap();
    assert!(built.success(), "cannot build with {version}: {built}");
}

/// Replaces the version in the build information by one of the same length.
fn pretend(executable: &Path, version: &str, other: &str) {
    assert_eq!(version.len(), other.len());
    let mut bytes = fs::read(executable).unwrap();
    let magic = b"\xff Go buildinf:";
    let start = bytes.windows(magic.len()).position(|window| window == magic).unwrap();
    let offset =
        bytes[start..].windows(version.len()).position(|window| window == version.as_bytes()).unwrap();
    // 32 bytes of header, then the length, then the version (debug/buildinfo).
    assert_eq!(offset, 33);
    bytes[start + offset..][..other.len()].copy_from_slice(other.as_bytes());
    fs::write(executable, bytes).unwrap();
}

/// Starts the program, built by one version and said to be of another.
fn start(version: &str, other: &str, arguments: &[&str]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let executable = folder.path().join("goroutines");
    build(version, &executable);
    pretend(&executable, version, other);
    let mut child = Command::new(&executable)
        .arg("50")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "ready"));
    Program { child, folder }
}

/// Looks at the process until its offsets are confirmed, or something speaks against them.
fn look(program: &Program, patience: Duration) -> Result<Confirmed, Refused> {
    let process = Process::open(program.child.id()).unwrap();
    let binary = Arc::new(GoBinary::open(&program.folder.path().join("goroutines")).unwrap());
    let runtime = GoRuntime::of(&binary).unwrap();
    assert!(matches!(runtime.layout(), Err(RuntimeError::Layout(LayoutError::UnknownVersion { .. }))));
    match looks::look(&process, &binary, &runtime, patience) {
        Ok(confirmed) => Ok(confirmed),
        Err(looks::Error::Confirm(ConfirmError::Refused(refused))) => Err(refused),
        Err(error) => panic!("{error}"),
    }
}

#[expect(clippy::print_stdout, reason = "the findings, for --nocapture")]
fn confirmed(program: &Program) -> Confirmed {
    let confirmed = look(program, PATIENCE).unwrap_or_else(|refused| panic!("{refused}"));
    for finding in &confirmed.findings {
        println!("{finding}");
    }
    confirmed
}

fn refused(program: &Program, patience: Duration) -> Refused {
    look(program, patience).err().unwrap_or_else(|| panic!("offsets of another release are confirmed"))
}

#[test]
fn confirms_an_unknown_release_with_known_offsets() {
    for (version, other) in [("go1.26.8", "go1.99.8"), ("go1.27.4", "go1.27.9"), ("go1.24.13", "go1.24.99")] {
        let program = start(version, other, &[]);
        let confirmed = confirmed(&program);
        let known = layout::from_table(&GoVersion::parse(version).unwrap()).unwrap();
        // Of a newer minor version the newest row is tried, which differs from 1.26's in nothing.
        assert_eq!(confirmed.layout.offsets, known, "{version}");
        assert!(matches!(confirmed.layout.source, LayoutSource::Confirmed(_)));
        assert_eq!(confirmed.layout.release, GoVersion::parse(other).unwrap().release());
        let seen = |field: &str| {
            confirmed.findings.iter().any(|finding| finding.field == field && finding.is_confirmed())
        };
        for field in ["g.goid", "g.m", "m.p", "m.g0", "m.procid", "m.curg", "p.schedtick", "pollDesc.fd"] {
            assert!(seen(field), "{version}: {field}");
        }
    }
}

#[test]
fn refuses_offsets_that_are_others() {
    // goid is at 160 there, and at 152 in the newest release.
    let refused = refused(&start("go1.24.13", "go1.99.13", &[]), PATIENCE);
    let text = refused.to_string();
    assert!(!refused.may_be_confirmed_later(), "{text}");
    assert!(text.contains("go1.99.13") && text.contains("g.goid at 152 is wrong"), "{text}");
    let Refused { like, against, .. } = refused;
    assert_eq!(like, Release::new(27, 4));
    for field in ["g.goid", "g.atomicstatus"] {
        assert!(against.iter().any(|finding| finding.field == field), "{field}: {against:#?}");
    }
}

#[test]
fn does_not_believe_what_an_idle_process_does_not_show() {
    let program = start("go1.26.8", "go1.99.8", &["idle"]);
    // Nothing runs: no P is held by an M. Nothing speaks against the offsets, and yet they are not confirmed.
    let process = Process::open(program.child.id()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!process.has_exited());
    let refused = refused(&program, Duration::from_secs(2));
    assert!(refused.may_be_confirmed_later(), "{refused}");
    assert!(refused.to_string().contains("m.p at 208 could not be seen"), "{refused}");
}
