//! Recording a program that waits as often as it is told to.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};
use rustix::process::Signal;
use serde::Serialize;

use super::{PATIENCE, mebibytes, milliseconds, number, resident_peak_kibibytes, summary::Summary, waiting};

/// One round under load.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct UnderLoad {
    /// What the program says of the time between two moments of the recording.
    pub(super) waits_per_second: f64,
    /// What the probe says of the whole recording.
    pub(super) recorded_per_second: f64,
    /// The second of the first.
    pub(super) recorded_percent: f64,
    /// Of all causes.
    pub(super) lost: f64,
    /// The probe's own CPU time in user space.
    pub(super) cpu_percent: f64,
    /// The most memory the probe had.
    pub(super) resident_mebibytes: f64,
}

/// One round: the probe in `executable`, on the load program with `readers`, for some time.
pub(super) fn under_load(
    executable: &Path,
    program: &Path,
    readers: u32,
    time: Duration,
) -> Result<UnderLoad> {
    let mut load = waiting::start(program, readers)?;
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
    let before = waiting::so_far(&mut load)?;
    thread::sleep(time);
    let after = waiting::so_far(&mut load)?;
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
