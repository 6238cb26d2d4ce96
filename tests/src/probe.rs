//! Runs the command line tool.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    fixture::{crate_dir, target_dir},
    process::{Finished, Follow, Process, monotonic_ns},
    record::{self, Record},
};

/// The tool's executable: `NETPOLL_PROBE_BIN`, else built now.
pub fn executable() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NETPOLL_PROBE_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let result = Command::new(cargo)
        .current_dir(crate_dir())
        .args(["build", "--quiet", "--package", "netpoll-probe", "--bin", "netpoll-probe"])
        .output()
        .context("cannot run cargo")?;
    ensure!(result.status.success(), "cargo build failed: {}", String::from_utf8_lossy(&result.stderr));
    Ok(target_dir().join("debug/netpoll-probe"))
}

/// A copy of the tool's executable where anybody may run it, in a folder that goes when it is dropped.
pub fn for_everybody(executable: &Path) -> Result<(TempDir, PathBuf)> {
    let files = tempfile::tempdir().context("cannot make a folder")?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    let program = files.path().join("netpoll-probe");
    fs::copy(executable, &program)?;
    Ok((files, program))
}

/// The exit codes that the README documents.
pub mod exit {
    /// It did what was asked.
    pub const GOOD: i32 = 0;
    /// The command line is wrong.
    pub const USAGE: i32 = 2;
    /// A permission is missing, or the kernel lacks something.
    pub const KERNEL: i32 = 3;
    /// The target is gone, is not a Go program, or is not supported.
    pub const TARGET: i32 = 4;
}

/// Fails when not run as root: these tests load eBPF programs.
pub fn require_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this test loads eBPF programs into the kernel: run it as root"
    );
    Ok(())
}

/// The moments that bound a recording, CLOCK_MONOTONIC ns.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Just before the tool was started.
    pub attach_ns: u64,
    /// Its line "recording" was seen.
    pub recording_ns: u64,
    /// Just before it was told to stop.
    pub interrupt_ns: u64,
    /// It was gone.
    pub end_ns: u64,
}

/// A recording that runs.
#[derive(Debug)]
pub struct Recording {
    process: Process,
    files: TempDir,
    attach_ns: u64,
    recording_ns: u64,
}

/// A program of the fixtures that is recorded.
#[derive(Debug)]
pub struct Watched {
    /// The program.
    pub target: Process,
    /// What it printed when it was ready.
    pub ready: String,
    /// The recording, from then on.
    pub recording: Recording,
}

impl Watched {
    /// Starts it by a command, and attaches to it with further arguments once it has printed `READY`.
    pub fn start(command: &mut Command, choices: &[&str], timeout: Duration) -> Result<Self> {
        require_root()?;
        let mut target = Process::spawn(command, Follow::Stdout)?;
        let ready = target.wait_for_line("READY", timeout)?;
        let recording = Recording::start(&executable()?, target.id(), choices, timeout)?;
        Ok(Self { target, ready, recording })
    }
}

/// A recording that is over.
#[derive(Debug)]
pub struct Recorded {
    /// When it was.
    pub window: Window,
    /// Its waits.
    pub records: Vec<Record>,
    /// Its summary, `.json`.
    pub summary: serde_json::Value,
    /// Exit status and outputs.
    pub finished: Finished,
    /// The folder of the files it wrote.
    pub files: TempDir,
}

impl Recorded {
    /// The processes that the summary names.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<u64> {
        let targets = self.summary.get("targets").and_then(serde_json::Value::as_array);
        targets.into_iter().flatten().filter_map(|target| target.get("pid")?.as_u64()).collect()
    }
}

impl Recording {
    /// Attaches to `pid`, with further arguments, and returns once everything is recorded.
    pub fn start(executable: &Path, pid: u32, choices: &[&str], timeout: Duration) -> Result<Self> {
        let pid = pid.to_string();
        Self::of(Command::new(executable).args(["attach", "--pid", &pid]).args(choices), &[], timeout)
    }

    /// Runs a command that is `netpoll-probe attach` or `run` with its arguments so far, or ends in it, and returns once
    /// everything is recorded. `command_line` follows the last argument.
    pub fn of(command: &mut Command, command_line: &[&str], timeout: Duration) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a folder")?;
        Self::into(command, command_line, files, timeout)
    }

    /// The same, with its files in a folder that is there already.
    pub fn into(
        command: &mut Command,
        command_line: &[&str],
        files: TempDir,
        timeout: Duration,
    ) -> Result<Self> {
        let attach_ns = monotonic_ns();
        command
            .arg("--idle")
            .arg("-o")
            .arg(files.path().join("waits.ndjson"))
            .arg("-o")
            .arg(files.path().join("summary.json"))
            .args(command_line);
        let mut process = Process::spawn(command, Follow::Stderr)?;
        process.wait_for_line("recording", timeout)?;
        Ok(Self { process, files, attach_ns, recording_ns: monotonic_ns() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until its process, or what it has started, says a line that begins so; gives that line.
    pub fn wait_for_output(&self, prefix: &str, timeout: Duration) -> Result<String> {
        let until = Instant::now() + timeout;
        loop {
            let output = self.process.output(Follow::Stdout);
            if let Some(line) = output.lines().find(|line| line.starts_with(prefix)) {
                return Ok(line.to_owned());
            }
            ensure!(Instant::now() < until, "no line {prefix:?} in {timeout:?}; its output:\n{output}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes a line to its standard input, which is also that of what it has started.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        self.process.tell(line)
    }

    /// Ends it as Ctrl-C does and reads what it wrote.
    pub fn stop(self, timeout: Duration) -> Result<Recorded> {
        let interrupt_ns = monotonic_ns();
        self.process.signal(Signal::INT)?;
        self.collect(interrupt_ns, timeout)
    }

    /// Waits until it ends by itself and reads what it wrote.
    pub fn wait(self, timeout: Duration) -> Result<Recorded> {
        self.collect(monotonic_ns(), timeout)
    }

    fn collect(self, interrupt_ns: u64, timeout: Duration) -> Result<Recorded> {
        let finished = self.process.finish(timeout)?;
        let window = Window {
            attach_ns: self.attach_ns,
            recording_ns: self.recording_ns,
            interrupt_ns,
            end_ns: monotonic_ns(),
        };
        if finished.status.code() != Some(0) {
            bail!("attach ended with {}:\n{}", finished.status, finished.stderr);
        }
        let records = record::read(&self.files.path().join("waits.ndjson"))?;
        let summary = summary_in(&self.files)?;
        Ok(Recorded { window, records, summary, finished, files: self.files })
    }
}

/// A recording that leaves a summary and no record of each wait, so that waits may be added up in the kernel.
#[derive(Debug)]
pub struct Summing {
    process: Process,
    files: TempDir,
}

impl Summing {
    /// Attaches to `pid`, with further arguments, and returns once everything is recorded.
    pub fn start(executable: &Path, pid: u32, choices: &[&str], timeout: Duration) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a folder")?;
        let mut command = Command::new(executable);
        command.args(["attach", "--idle", "--pid", &pid.to_string()]).args(choices);
        command.arg("-o").arg(files.path().join("summary.json"));
        let mut process = Process::spawn(&mut command, Follow::Stderr)?;
        process.wait_for_line("recording", timeout)?;
        Ok(Self { process, files })
    }

    /// Ends it as Ctrl-C does and reads the summary.
    pub fn stop(self, timeout: Duration) -> Result<serde_json::Value> {
        self.process.signal(Signal::INT)?;
        let finished = self.process.finish(timeout)?;
        ensure!(finished.status.success(), "attach ended with {}:\n{}", finished.status, finished.stderr);
        summary_in(&self.files)
    }
}

/// The summary in a folder of files that the tool wrote.
fn summary_in(files: &TempDir) -> Result<serde_json::Value> {
    let summary = fs::read(files.path().join("summary.json")).context("cannot read the summary")?;
    serde_json::from_slice(&summary).context("the summary is not JSON")
}
