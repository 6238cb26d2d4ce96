//! Attaching to a program and detaching, as a user does it.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process, monotonic_ns};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{PATIENCE, mebibytes, megabytes, milliseconds, number_after, resident_peak_kibibytes, waiting};

/// Readers of the load program meanwhile.
const READERS: u32 = 5;

/// One round of attaching and detaching.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Attach {
    /// From starting the command to the start of the first wait that it saw begin.
    pub(super) first_wait_ms: f64,
    /// From starting the command to its line "recording".
    pub(super) recording_ms: f64,
    /// From Ctrl-C to its end, the report written.
    pub(super) detach_ms: f64,
    /// What it read until then, of all files.
    pub(super) read_megabytes: f64,
    /// The most memory it had.
    pub(super) resident_mebibytes: f64,
}

/// What is read of a record.
#[derive(Debug, Deserialize)]
struct Record {
    start_ns: u64,
}

/// One round: the probe in `executable`, on the load program; what it writes goes to `folder`.
pub(super) fn attach(executable: &Path, program: &Path, folder: &Path) -> Result<Attach> {
    let load = waiting::start(program, READERS)?;
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

/// Bytes that a process has read by system calls (`rchar`, proc_pid_io(5)).
fn read_bytes(pid: u32) -> Result<u64> {
    number_after(&format!("/proc/{pid}/io"), "rchar:")
}
