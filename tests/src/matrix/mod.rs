//! The matrix of Go versions and ways to build: each cell builds the truth program, records it, and holds the records
//! against its own log.

mod mode;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

pub use self::mode::Mode;
use crate::{
    check::{Check, Verdict},
    compare::Bounds,
    fixture::GoProgram,
    live::{self, Options, Truth},
    process::{Follow, Process},
};

/// The newest patch of each minor version of Go that is supported (go.dev/doc/devel/release).
pub const VERSIONS: [&str; 10] = [
    "go1.18.10",
    "go1.19.13",
    "go1.20.14",
    "go1.21.13",
    "go1.22.12",
    "go1.23.12",
    "go1.24.13",
    "go1.25.14",
    "go1.26.11",
    "go1.27.4",
];

/// The first minor version whose `go build` has `-pgo` (go1.20 release notes, "Profile-guided optimization").
const FIRST_WITH_PROFILES: u16 = 20;

/// How long the load of a cell runs, seconds: about 4,000 calls, of which more than a thousand are exact waits.
const CELL_SECONDS: f64 = 1.2;

/// Goroutines of the scenario `manyRead` in a cell.
const CELL_MANY: u32 = 50;

/// Calls per second relative to the default in a program with the race detector, which takes five to ten times the CPU: all of
/// two CPUs otherwise, and then nothing can be said of times.
const RACE_INTENSITY: f64 = 0.4;

/// How long the load runs of which a profile is made, seconds.
const PROFILE_SECONDS: f64 = 4.0;

/// What is demanded of a cell: what depends on how the program was built. The tails of times, and shares that a thread breaks which
/// loses its CPU at the wrong moment, depend on the machine, and the default build's tests hold them (`live.rs`). Here they only have
/// to be far from what a wrong offset, register or site makes of them: no spurious wake-up is flagged, no deadline is seen, no estimate
/// (of which there are a dozen in a cell) holds, and durations are wrong by whole waits at the median.
const BOUNDS: Bounds = Bounds {
    error_p99_ns: 50_000_000,
    call_p99_ns: 100_000_000,
    spurious: 0.5,
    rearmed: 0.9,
    estimates: 0.5,
    ..Bounds::DEFAULT
};

/// How long the second set of hooks may take to be attached or refused.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// One version, built in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Such as `go1.18.10`.
    pub version: &'static str,
    /// The way.
    pub mode: Mode,
}

/// The cells of every CI run, and what each covers that no other does. The default build by the installed Go, which the other
/// live tests use, belongs to them: DWARF 5, and `.go.module`.
pub const EVERY_RUN: [(Cell, &str); 8] = [
    (
        Cell { version: "go1.18.10", mode: Mode::Default },
        "offsets from DWARF 4 in `.zdebug_*`; pclntab magic 0xfffffff0; no `push rbp` to probe; fds of `epoll_event` are pointers; \
         labels are a map",
    ),
    (
        Cell { version: "go1.19.13", mode: Mode::PieStripped },
        "offsets from the table; `.data.rel.ro.gopclntab`; moduledata by a value that a relocation sets; load bias",
    ),
    (
        Cell { version: "go1.20.14", mode: Mode::ExternalPieStripped },
        "pclntab magic 0xfffffff1 in no section of its own; epoll calls in a package of their own",
    ),
    (
        Cell { version: "go1.21.13", mode: Mode::StaticExternal },
        "tagged pointers of 19 bits, `fdseq`; `runtime.text` 0x600 behind `.text`; the C library's thread-local storage in the way",
    ),
    (
        Cell { version: "go1.24.13", mode: Mode::Race },
        "the race detector, linked by the system's linker; g with `syscallbp`; labels are a slice",
    ),
    (
        Cell { version: "go1.25.14", mode: Mode::PieStripped },
        "the last moduledata without a section; tagged pointers of 24 bits; `gobuf` without `ret`",
    ),
    (
        Cell { version: "go1.26.11", mode: Mode::PgoStripped },
        "`netpollready` inlined into `netpoll`, and `netpoll` into `findRunnable`: epoll events decoded by version",
    ),
    (
        Cell { version: "go1.27.4", mode: Mode::ExternalPieStripped },
        "the newest: another moduledata, no `.typelink`",
    ),
];

/// What a cell came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It cannot be.
    NotPossible(&'static str),
    /// The comparison was made.
    Compared(Box<Compared>),
}

/// A comparison.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The executable.
    pub program: PathBuf,
    /// What it came to.
    pub verdict: Verdict,
    /// Of profile-guided builds: whether `runtime.netpollready` is still a function of its own, in the tool's words.
    pub netpollready: Option<String>,
    /// How long the build took.
    pub build: Duration,
    /// How long the run took.
    pub run: Duration,
}

impl Cell {
    /// Why it cannot be, if it cannot.
    #[must_use]
    pub fn not_possible(self) -> Option<&'static str> {
        if self.mode.needs_profile() && self.minor() < FIRST_WITH_PROFILES {
            return Some("go build has -pgo from 1.20 on");
        }
        if self.mode == Mode::Amd64V3 && !has_amd64_v3() {
            return Some("this machine's CPU lacks x86-64-v3");
        }
        None
    }

    fn minor(self) -> u16 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
    }

    /// How the program is built.
    fn program(self, cache: Option<&Path>, profile: Option<&Path>) -> GoProgram {
        let mut arguments: Vec<String> =
            self.mode.arguments().iter().map(|argument| (*argument).to_owned()).collect();
        if let (true, Some(profile)) = (self.mode.needs_profile(), profile) {
            arguments.push(format!("-pgo={}", profile.display()));
        }
        GoProgram {
            name: "truth",
            toolchain: Some(self.version.to_owned()),
            arguments,
            cgo: self.mode.needs_c(),
            amd64: if self.mode == Mode::Amd64V3 { "v3" } else { "" },
            cache: cache.map(Path::to_owned),
        }
    }

    /// Builds, runs and compares it. `profile` is needed by profile-guided builds; `cache` is Go's build cache.
    ///
    /// # Errors
    /// When it cannot be built or recorded.
    pub fn run(self, probe: &Path, cache: Option<&Path>, profile: Option<&Path>) -> Result<Outcome> {
        if let Some(reason) = self.not_possible() {
            return Ok(Outcome::NotPossible(reason));
        }
        ensure!(!self.mode.needs_profile() || profile.is_some(), "{} needs a profile", self.mode.name());
        let begun = Instant::now();
        let program = self.program(cache, profile).build()?;
        let build = begun.elapsed();
        let mut options = Options::new(probe.to_owned(), program.clone());
        options.seconds = CELL_SECONDS;
        options.many = CELL_MANY;
        options.bounds = BOUNDS;
        if self.mode == Mode::Race {
            options.intensity = RACE_INTENSITY;
        }
        let begun = Instant::now();
        let netpollready = if self.mode.needs_profile() { Some(netpollready(&options)?) } else { None };
        let verdict = by_both(options)?;
        let run = begun.elapsed();
        Ok(Outcome::Compared(Box::new(Compared { program, verdict, netpollready, build, run })))
    }
}

/// Records a program by each plan that `auto` may choose. The verdict on the first, or on the one that does not hold.
fn by_both(mut options: Options) -> Result<Verdict> {
    options.hooks = "pollwait".to_owned();
    let by_uprobes = live::truth_run(&options)?;
    options.hooks = "syscalls".to_owned();
    // In so short a run nobody may be woken for nothing.
    options.bounds.spurious = 0.0;
    let by_syscalls = live::truth_run(&options)?;
    Ok(if by_uprobes.good() { by_syscalls } else { by_uprobes })
}

/// What does not hold, a line each.
#[must_use]
pub fn broken(verdict: &Verdict) -> Vec<String> {
    let line = |check: &Check| {
        let detail = check.detail.lines().next().unwrap_or_default();
        format!("{}: {detail}", check.name)
    };
    verdict.checks().iter().filter(|check| !check.good).map(line).collect()
}

/// Makes a CPU profile of a truth program, with which it can be built again.
///
/// # Errors
/// When the program does not run, or was too idle for a profile.
pub fn profile(program: &Path, output: &Path) -> Result<()> {
    let files = tempfile::tempdir().context("cannot make a folder")?;
    let mut command = Command::new(program);
    command.arg("-log").arg(files.path().join("truth.ndjson")).arg("-cpuprofile").arg(output).args([
        "-seconds",
        &PROFILE_SECONDS.to_string(),
        "-intensity",
        "0.2",
        "-many",
        "10",
    ]);
    let timeout = Duration::from_secs(60);
    let mut process = Process::spawn(&mut command, Follow::Stdout)?;
    process.wait_for_line("READY", timeout)?;
    process.tell("go")?;
    process.wait_for_line("DONE", timeout)?;
    process.tell("quit")?;
    let finished = process.finish(timeout)?;
    ensure!(finished.status.success(), "truth ended with {}:\n{}", finished.status, finished.stderr);
    let length = fs::metadata(output).with_context(|| format!("no {}", output.display()))?.len();
    ensure!(length > 0, "{} is empty", output.display());
    Ok(())
}

/// The default build of a version, which is the one that is profiled.
///
/// # Errors
/// When it cannot be built.
pub fn build_default(version: &'static str, cache: Option<&Path>) -> Result<PathBuf> {
    Cell { version, mode: Mode::Default }.program(cache, None).build()
}

/// Whether a program's `runtime.netpollready` can be hooked, in the tool's words.
fn netpollready(options: &Options) -> Result<String> {
    let truth = Truth::start(options, false)?;
    let probe = Process::spawn(
        Command::new(&options.probe).args([
            "attach",
            "--hooks",
            "runtime",
            "--duration",
            "100ms",
            "--pid",
            &truth.id().to_string(),
        ]),
        Follow::Stderr,
    )?;
    let finished = probe.finish(ATTACH_TIMEOUT)?;
    if finished.status.success() {
        return Ok("runtime.netpollready is out of line".to_owned());
    }
    let inlined = finished.stderr.lines().find_map(|line| {
        let at = line.find("runtime.netpoll")?;
        let (function, caller) = line.get(at..)?.split_once(" is inlined into ")?;
        let caller = caller.split([' ', ',', ';']).next().unwrap_or_default().trim_end_matches('.');
        Some(format!("{function} is inlined into {caller}"))
    });
    inlined.with_context(|| {
        format!("attach --hooks runtime ended with {}:\n{}", finished.status, finished.stderr)
    })
}

/// Whether this CPU can run what is built with `GOAMD64=v3` (go.dev/wiki/MinimumRequirements#amd64).
fn has_amd64_v3() -> bool {
    const FLAGS: [&str; 7] = ["avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    FLAGS.iter().all(|flag| flags.contains(flag))
}
