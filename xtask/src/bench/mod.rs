//! `cargo xtask bench`: the speed and size that netpoll-probe promises, measured on the command line tool as a user runs it.

mod inspect;
mod large;
mod measurement;
pub(crate) mod overhead;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netpoll_probe_tests::process::{Follow, Process, monotonic_ns};
use rustix::process::Signal;
use serde::Deserialize;

use self::measurement::{Measurement, print};
use crate::{golang, machine::Machine, probe, workspace};

/// How long a command may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Readers of the load program, each of which waits a thousand times a second.
const LOAD_READERS: u32 = 54;
/// The name of the largest executable.
const LARGER: &str = "larger, stripped";
/// How long the load runs before the probe attaches: Go's start is over.
const SETTLE: Duration = Duration::from_millis(300);

/// Measure attach, detach, memory and how much of the executable is read; and inspect.
///
/// Attaches the release build to a Go program that waits at a known rate: a small one, the same one with 68,000 more
/// functions linked in (60 MB stripped), and that one with uncompressed DWARF (more than 100 MB). Inspects these and
/// one with 110,000 more functions (100 MB stripped). Prints medians over
/// the rounds with the bounds they are held to, and writes all values to target/bench/bench.json. Needs root and Go.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long the load of 50,000 waits a second is recorded, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Only inspect a small and the largest executable, which needs no root
    #[arg(long)]
    inspect: bool,
}

impl Bench {
    /// Builds, measures, prints.
    pub(crate) fn run(&self) -> Result<()> {
        if !self.inspect {
            probe::require_root("the benchmark")?;
        }
        let folder = workspace::target()?.join("bench");
        let programs = programs(&folder, self.inspect)?;
        let executable = probe::build_release()?;
        let mut measurements = Vec::new();
        for (target, program) in &programs {
            eprintln!("inspect {target}: {} rounds", self.rounds);
            measurements.extend(inspect::measure(&executable, target, program, self.rounds)?);
        }
        if !self.inspect {
            self.attach(&executable, &programs, &folder, &mut measurements)?;
        }

        print(&measurements);
        let json = folder.join("bench.json");
        fs::write(&json, serde_json::to_string_pretty(&measurements)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        println!("all values: {}", json.display());
        Ok(())
    }

    /// What attaching takes, and recording under load.
    fn attach(
        &self,
        executable: &Path,
        programs: &[(&'static str, PathBuf)],
        folder: &Path,
        measurements: &mut Vec<Measurement>,
    ) -> Result<()> {
        // The largest is for inspect: attaching to it has no bound of its own.
        for (target, program) in programs.iter().filter(|(target, _)| *target != LARGER) {
            let size = megabytes(fs::metadata(program).context("cannot read its size")?.len());
            eprintln!("attach to {target}, {size:.0} MB: {} rounds", self.rounds);
            let rounds =
                (0..self.rounds).map(|_| attach(executable, program, folder)).collect::<Result<Vec<_>>>()?;
            let all = |value: fn(&Attach) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
            measurements.extend([
                Measurement::new(target, "size of the executable", "MB", None, vec![size]),
                Measurement::new(target, "attach to first wait", "ms", Some(300.0), all(|a| a.first_wait_ms)),
                Measurement::new(
                    target,
                    "attach to all hooks in place",
                    "ms",
                    Some(100.0),
                    all(|a| a.recording_ms),
                ),
                Measurement::new(target, "detach and report", "ms", Some(300.0), all(|a| a.detach_ms)),
                Measurement::new(target, "read while attaching", "MB", None, all(|a| a.read_megabytes)),
                Measurement::new(
                    target,
                    "resident, at most",
                    "MiB",
                    Some(64.0),
                    all(|a| a.resident_mebibytes),
                ),
            ]);
        }

        let program = folder.join("load");
        eprintln!("load of 50,000 waits a second for {} s: {} rounds", self.seconds, self.rounds);
        let rounds = (0..self.rounds)
            .map(|_| under_load(executable, &program, Duration::from_secs(self.seconds)))
            .collect::<Result<Vec<_>>>()?;
        let all = |value: fn(&UnderLoad) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let target = "under load";
        measurements.extend([
            Measurement::new(target, "waits of the program", "1/s", None, all(|l| l.waits_per_second)),
            Measurement::new(target, "waits recorded", "1/s", None, all(|l| l.recorded_per_second)),
            Measurement::new(
                target,
                "waits recorded, of the program's",
                "%",
                None,
                all(|l| l.recorded_percent),
            ),
            Measurement::new(target, "events lost", "", None, all(|l| l.lost)),
            Measurement::new(target, "own CPU, of one", "%", None, all(|l| l.cpu_percent)),
            Measurement::new(target, "resident, at most", "MiB", Some(64.0), all(|l| l.resident_mebibytes)),
        ]);
        Ok(())
    }
}

/// Builds the targets: what each is called, and its executable; or only the smallest and the largest.
fn programs(folder: &Path, two: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    let load = workspace::root().join("xtask/go/load");
    let large = folder.join("large-source");
    let larger = folder.join("larger-source");
    eprintln!("building the Go programs: five minutes the first time");
    if !two {
        large::generate(&load, &large, large::LARGE_PACKAGES)?;
    }
    large::generate(&load, &larger, large::LARGER_PACKAGES)?;
    let programs = [
        ("small", &load, "load", "-ldflags="),
        ("large, stripped", &large, "large-stripped", "-ldflags=-s -w"),
        ("large, with DWARF", &large, "large", "-ldflags=-compressdwarf=false"),
        (LARGER, &larger, "larger-stripped", "-ldflags=-s -w"),
    ];
    programs
        .into_iter()
        .filter(|(name, ..)| !two || matches!(*name, "small" | LARGER))
        .map(|(name, source, file, flags)| {
            let output = folder.join(file);
            golang::build(source, &output, Machine::host(), &[flags])?;
            Ok((name, output))
        })
        .collect()
}

/// Starts the load program and waits until it waits.
fn start_load(program: &Path, readers: u32) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(["-readers", &readers.to_string(), "-tick", "1ms"]);
    let mut load = Process::spawn(&mut command, Follow::Stdout)?;
    load.wait_for_line("ready", PATIENCE)?;
    thread::sleep(SETTLE);
    Ok(load)
}

/// One round of attaching and detaching.
#[derive(Debug)]
struct Attach {
    /// From starting the command to the start of the first wait that it saw begin.
    first_wait_ms: f64,
    /// From starting the command to its line "recording".
    recording_ms: f64,
    /// From Ctrl-C to its end, the report written.
    detach_ms: f64,
    /// What it read until then, of all files.
    read_megabytes: f64,
    /// The most memory it had.
    resident_mebibytes: f64,
}

/// What is read of a record.
#[derive(Debug, Deserialize)]
struct Record {
    start_ns: u64,
}

fn attach(executable: &Path, program: &Path, folder: &Path) -> Result<Attach> {
    let load = start_load(program, 5)?;
    let waits = folder.join("waits.ndjson");
    let started_ns = monotonic_ns();
    let mut probe = Process::spawn(
        Command::new(executable)
            .args(["attach", "--idle", "--pid", &load.id().to_string(), "--output"])
            .arg(&waits),
        Follow::Stderr,
    )?;
    probe.wait_for_line("recording", PATIENCE)?;
    let recording_ns = monotonic_ns();
    let read_bytes = read_bytes(probe.id())?;
    thread::sleep(Duration::from_secs(1));
    let resident = resident_peak_kibibytes(probe.id())?;
    let interrupted = Instant::now();
    probe.signal(Signal::INT)?;
    let finished = probe.finish(PATIENCE)?;
    let detach = interrupted.elapsed();
    ensure!(finished.status.success(), "the probe ended with {}:\n{}", finished.status, finished.stderr);

    let text = fs::read_to_string(&waits).with_context(|| format!("cannot read {}", waits.display()))?;
    let first_ns = text
        .lines()
        .map(|line| serde_json::from_str::<Record>(line).map(|record| record.start_ns))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        // Those that were open before are known from the snapshot of goroutines, not from a hook.
        .filter(|&start_ns| start_ns >= started_ns)
        .min()
        .context("the probe saw no wait begin")?;
    Ok(Attach {
        first_wait_ms: milliseconds(first_ns.saturating_sub(started_ns)),
        recording_ms: milliseconds(recording_ns.saturating_sub(started_ns)),
        detach_ms: detach.as_secs_f64() * 1e3,
        read_megabytes: megabytes(read_bytes),
        resident_mebibytes: mebibytes(resident),
    })
}

/// One round under load.
#[derive(Debug)]
struct UnderLoad {
    /// What the program says of the time between two moments of the recording.
    waits_per_second: f64,
    /// What the probe says of the whole recording.
    recorded_per_second: f64,
    /// The second of the first.
    recorded_percent: f64,
    /// Of all causes.
    lost: f64,
    /// The probe's own CPU time in user space.
    cpu_percent: f64,
    /// The most memory the probe had.
    resident_mebibytes: f64,
}

/// What is read of a summary.
#[derive(Debug, Deserialize)]
struct Summary {
    duration_ns: u64,
    quality: Quality,
    cost: Cost,
}

#[derive(Debug, Deserialize)]
struct Quality {
    seen: u64,
    /// Others that it stands for.
    not_followed: u64,
    lost: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Cost {
    cpu_ns: u64,
    /// Where it was measured.
    bpf_run_ns: Option<u64>,
    peak_resident_bytes: u64,
}

fn under_load(executable: &Path, program: &Path, time: Duration) -> Result<UnderLoad> {
    let mut load = start_load(program, LOAD_READERS)?;
    let mut probe = Process::spawn(
        Command::new(executable).args([
            "attach",
            "--idle",
            "--format",
            "json",
            "--pid",
            &load.id().to_string(),
        ]),
        Follow::Stderr,
    )?;
    probe.wait_for_line("recording", PATIENCE)?;
    let before = waits_so_far(&mut load)?;
    thread::sleep(time);
    let after = waits_so_far(&mut load)?;
    // Read before the report is made, and so beside what the probe says of itself.
    let resident = resident_peak_kibibytes(probe.id())?;
    probe.signal(Signal::INT)?;
    let finished = probe.finish(PATIENCE)?;
    ensure!(finished.status.success(), "the probe ended with {}:\n{}", finished.status, finished.stderr);
    let summary: Summary =
        serde_json::from_str(&finished.stdout).context("the summary is not as expected")?;
    load.signal(Signal::TERM)?;
    load.finish(PATIENCE)?;
    let seconds = milliseconds(summary.duration_ns) / 1e3;
    let program_seconds = milliseconds(after.ns.saturating_sub(before.ns)) / 1e3;
    let waits_per_second = number(after.waits.saturating_sub(before.waits)) / program_seconds;
    let recorded_per_second = number(summary.quality.seen) / seconds;
    Ok(UnderLoad {
        waits_per_second,
        recorded_per_second,
        recorded_percent: recorded_per_second / waits_per_second * 100.0,
        lost: number(summary.quality.lost.values().sum()),
        cpu_percent: milliseconds(summary.cost.cpu_ns) / 1e3 / seconds * 100.0,
        resident_mebibytes: mebibytes(resident.max(summary.cost.peak_resident_bytes / 1024)),
    })
}

/// What the load program says of itself.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// How often its readers waited so far.
    waits: u64,
    /// Since its start.
    ns: u64,
}

/// Asks the load program how often it has waited.
fn waits_so_far(load: &mut Process) -> Result<Waits> {
    load.signal(Signal::USR1)?;
    let line = load.wait_for_line("waits", PATIENCE)?;
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(waits), Some(ns)) => Ok(Waits { waits, ns }),
        _ => bail!("the load program says {line:?}"),
    }
}

/// Bytes that a process has read by system calls (`rchar`, proc_pid_io(5)).
fn read_bytes(pid: u32) -> Result<u64> {
    number_after(&format!("/proc/{pid}/io"), "rchar:")
}

/// The most memory a process has had resident, KiB (`VmHWM`, proc_pid_status(5)).
fn resident_peak_kibibytes(pid: u32) -> Result<u64> {
    number_after(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn number_after(path: &str, key: &str) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {path}: has the probe ended?"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {key}"))
}

fn milliseconds(ns: u64) -> f64 {
    number(ns) / 1e6
}

fn megabytes(bytes: u64) -> f64 {
    number(bytes) / 1e6
}

fn mebibytes(kibibytes: u64) -> f64 {
    number(kibibytes) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with a digit after the point")]
fn number(value: u64) -> f64 {
    value as f64
}
