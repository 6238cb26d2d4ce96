//! Runs of the probe on the program that knows its own waits, each ending in a verdict.
//!
//! Both `tests/live.rs` and the program `live-check` (for virtual machines that have nothing but busybox) call this.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    agree,
    check::Verdict,
    compare, exectrace,
    kernel_ready::ReadyHooks,
    probe::{Recorded, Recording},
    process::{Follow, Process, monotonic_ns},
    record::Record,
    truth::{self, Call},
};

/// One run at a time: two loads on one machine would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for its turn, and holds it until dropped.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much earlier a wait may begin, and later end, than the truth has it, where system calls show it: from the exit of the one that said
/// EAGAIN to the exit of the next one. A few microseconds, and what a thread loses that is preempted there.
const SYSCALLS_AROUND_NS: u64 = 20_000_000;

/// The bounds of [`compare::Bounds::error_p50_ns`] and `error_p99_ns` then: on either side of an exact wait is a system call more. 5 to 11 µs
/// were measured at the median, 90 to 250 µs at p99.
const SYSCALLS_ERROR_NS: (i64, i64) = (25_000, 1_000_000);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The probe's executable.
    pub probe: PathBuf,
    /// The truth program's executable.
    pub truth: PathBuf,
    /// `--hooks`
    pub hooks: String,
    /// `--kernel-ready`
    pub kernel_ready: String,
    /// Length of the load.
    pub seconds: f64,
    /// Calls per second relative to the truth program's default.
    pub intensity: f64,
    /// Goroutines that wait long and seldom.
    pub many: u32,
    /// Goroutines that only burn CPU.
    pub hogs: u32,
    /// How much longer everything takes than on a usual machine: the program's own delays, and every time limit.
    pub patience: u32,
    /// What is demanded against the truth.
    pub bounds: compare::Bounds,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(probe: PathBuf, truth: PathBuf) -> Self {
        Self {
            probe,
            truth,
            hooks: "auto".to_owned(),
            kernel_ready: "auto".to_owned(),
            seconds: 5.0,
            intensity: 1.0,
            many: 200,
            hogs: 0,
            patience: 1,
            bounds: compare::Bounds::default(),
        }
    }

    /// A short load, for tests of several processes.
    #[must_use]
    pub fn short(mut self) -> Self {
        self.seconds = 1.5;
        self.intensity = 0.3;
        self.many = 20;
        // Whose waits they are is the question then, and two loads share two processors.
        self.bounds.spurious = 0.0;
        self.bounds.error_p99_ns = 20_000_000;
        self.bounds.call_p99_ns = 100_000_000;
        self
    }

    fn record(&self, truth: &Truth, hooks: &str) -> Result<Recording> {
        let choices = ["--hooks", hooks, "--kernel-ready", &self.kernel_ready];
        Recording::start(&self.probe, truth.id(), &choices, self.timeout())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(30) * self.patience
    }
}

/// The truth program, running.
#[derive(Debug)]
pub struct Truth {
    process: Process,
    files: TempDir,
    timeout: Duration,
}

impl Truth {
    /// Starts it. When this returns, the goroutines that wait from the beginning are parked, and the load is not yet.
    pub fn start(options: &Options, traced: bool) -> Result<Self> {
        Self::start_by(&mut Command::new(&options.truth), options, traced)
    }

    /// The same by a command that ends in the truth program, such as one that makes namespaces for it.
    pub fn start_by(command: &mut Command, options: &Options, traced: bool) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a folder")?;
        command.arg("-log").arg(files.path().join("truth.ndjson")).args([
            "-seconds",
            &options.seconds.to_string(),
            "-intensity",
            &options.intensity.to_string(),
            "-many",
            &options.many.to_string(),
            "-hogs",
            &options.hogs.to_string(),
            "-slower",
            &options.patience.to_string(),
        ]);
        if traced {
            command.arg("-trace").arg(files.path().join("trace.out"));
        }
        let mut process = Process::spawn(command, Follow::Stdout)?;
        process.wait_for_line("READY", options.timeout())?;
        let timeout = options.timeout() + Duration::from_secs_f64(options.seconds);
        Ok(Self { process, files, timeout })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Runs the load, to its end. The goroutines that wait from the beginning wait on.
    pub fn load(&mut self) -> Result<()> {
        self.process.tell("go")?;
        self.process.wait_for_line("DONE", self.timeout).map(drop)
    }

    /// Where its execution trace is.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.files.path().join("trace.out")
    }

    /// Ends it. Gives its log, and the folder of its files.
    pub fn end(mut self) -> Result<(Vec<Call>, TempDir)> {
        self.process.tell("quit")?;
        let finished = self.process.finish(self.timeout)?;
        ensure!(finished.status.success(), "truth ended with {}:\n{}", finished.status, finished.stderr);
        Ok((truth::read(&self.files.path().join("truth.ndjson"))?, self.files))
    }
}

/// Records a whole load and holds the records against the truth.
pub fn truth_run(options: &Options) -> Result<Verdict> {
    let mut truth = Truth::start(options, false)?;
    let recording = options.record(&truth, &options.hooks)?;
    truth.load()?;
    let recorded = recording.stop(options.timeout())?;
    let (calls, files) = truth.end()?;
    keep_for_inspection(&files, &[&recorded])?;
    Ok(judge(&calls, &recorded, None, &options.bounds))
}

/// Records one load with two sets of hooks at the same time, and holds the one against the other.
pub fn agree_run(options: &Options, [one, other]: [&str; 2], bounds: &agree::Bounds) -> Result<Verdict> {
    let mut truth = Truth::start(options, false)?;
    let first = options.record(&truth, one)?;
    let second = options.record(&truth, other)?;
    let from_ns = monotonic_ns();
    truth.load()?;
    let to_ns = monotonic_ns();
    let first = first.stop(options.timeout())?;
    let second = second.stop(options.timeout())?;
    let (_calls, files) = truth.end()?;
    keep_for_inspection(&files, &[&first, &second])?;
    Ok(agree::compare(&first.records, &second.records, from_ns, to_ns, bounds))
}

/// Records one load and holds it against Go's execution trace of it. `tool` reads the trace.
pub fn exectrace_run(
    options: &Options,
    tool: &std::path::Path,
    bounds: &exectrace::Bounds,
) -> Result<Verdict> {
    let mut truth = Truth::start(options, true)?;
    let recording = options.record(&truth, &options.hooks)?;
    truth.load()?;
    let recorded = recording.stop(options.timeout())?;
    let trace = truth.trace();
    let (_calls, files) = truth.end()?;
    keep_for_inspection(&files, &[&recorded])?;
    let waits = exectrace::read(tool, &trace)?;
    // The trace ends a little before DONE; its own first and last events bound it.
    let from_ns = waits.iter().map(|wait| wait.block_ns).min().context("no wait in the trace")?;
    let to_ns = waits.iter().map(|wait| wait.run_ns).max().context("no wait in the trace")?;
    Ok(exectrace::compare(&waits, &recorded.records, from_ns, to_ns, bounds))
}

/// Holds the truth program's log against Go's execution trace, without any probe: whether the truth is true.
pub fn truth_of_the_truth(truth: PathBuf, tool: &std::path::Path) -> Result<Verdict> {
    let mut truth = Truth::start(&Options::new(PathBuf::new(), truth), true)?;
    truth.load()?;
    let trace = truth.trace();
    let (calls, _files) = truth.end()?;
    Ok(exectrace::compare_truth(&exectrace::read(tool, &trace)?, &calls))
}

/// Holds what was recorded of one process, or of the only one, against its own log.
#[must_use]
pub fn judge(calls: &[Call], recorded: &Recorded, pid: Option<u32>, bounds: &compare::Bounds) -> Verdict {
    let is_its = |record: &&Record| pid.is_none_or(|pid| record.pid == pid);
    let records: Vec<Record> = recorded.records.iter().filter(is_its).cloned().collect();
    let hooks = ReadyHooks::of_summary(&recorded.summary);
    let by_syscalls = recorded.summary.pointer("/plan/name").is_some_and(|name| name == "syscalls");
    let mut bounds = *bounds;
    let mut around_ns = 0;
    if by_syscalls {
        // Where everything is slow, so is the next system call: five times what an exact wait may be off.
        let off_ns = u64::try_from(bounds.error_p99_ns).unwrap_or(0);
        around_ns = SYSCALLS_AROUND_NS.max(5 * off_ns);
        bounds.error_p50_ns = bounds.error_p50_ns.max(SYSCALLS_ERROR_NS.0);
        bounds.error_p99_ns = bounds.error_p99_ns.max(SYSCALLS_ERROR_NS.1);
    }
    let mut verdict = compare::compare(calls, &records, recorded.window, (hooks, around_ns), &bounds);
    compare::losses(&mut verdict, &recorded.summary, &bounds);
    verdict
}

/// With `NETPOLL_PROBE_KEEP=DIR` the files of the last run stay there, for looking into a failure.
fn keep_for_inspection(truth: &TempDir, recorded: &[&Recorded]) -> Result<()> {
    let Some(folder) = std::env::var_os("NETPOLL_PROBE_KEEP").map(PathBuf::from) else { return Ok(()) };
    std::fs::create_dir_all(&folder)?;
    for (index, from) in
        std::iter::once(truth).chain(recorded.iter().map(|recorded| &recorded.files)).enumerate()
    {
        for entry in std::fs::read_dir(from.path())? {
            let entry = entry?;
            let name = format!("{index}-{}", entry.file_name().to_string_lossy());
            std::fs::copy(entry.path(), folder.join(name))?;
        }
    }
    Ok(())
}
