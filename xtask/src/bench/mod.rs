//! `cargo xtask bench`: the speed and size that netpoll-probe promises, measured on the command line tool as a user runs it.

mod attach;
mod inspect;
mod large;
mod measurement;
pub(crate) mod overhead;
mod summary;
mod under_load;
mod waiting;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use self::{
    attach::{Attach, attach},
    measurement::{Measurement, print},
    under_load::{UnderLoad, under_load},
};
use crate::{golang, machine::Machine, probe, workspace};

/// How long a command may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Readers of the load program, each of which waits a thousand times a second.
const LOAD_READERS: u32 = 54;
/// The name of the largest executable.
const LARGER: &str = "larger, stripped";

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
            .map(|_| under_load(executable, &program, LOAD_READERS, Duration::from_secs(self.seconds)))
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
