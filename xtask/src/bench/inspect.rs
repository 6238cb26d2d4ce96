//! `inspect` on executables: how long it takes as a user runs it, and how much memory it has.

use std::{
    io::{Write as _, pipe},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::Measurement;

/// On an executable of 100 MB, stripped.
const TIME_BOUND_MS: f64 = 50.0;
/// Of the same.
const MEMORY_BOUND_MIB: f64 = 64.0;
/// A round takes milliseconds.
const RUNS_A_ROUND: u32 = 5;

/// Measures `rounds` rounds on `program`, which `target` names.
pub(super) fn measure(
    executable: &Path,
    target: &str,
    program: &Path,
    rounds: u32,
) -> Result<Vec<Measurement>> {
    let mut times = Vec::new();
    for _ in 0..rounds * RUNS_A_ROUND {
        let started = Instant::now();
        let status = Command::new(executable)
            .arg("inspect")
            .arg(program)
            .stdout(Stdio::null())
            .status()
            .context("cannot run the probe")?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(status.success(), "inspect of {} ended with {status}", program.display());
    }
    Ok(vec![
        Measurement::new(target, "inspect", "ms", Some(TIME_BOUND_MS), times),
        Measurement::new(
            target,
            "inspect, resident at most",
            "MiB",
            Some(MEMORY_BOUND_MIB),
            vec![resident_mebibytes(executable, program)?],
        ),
    ])
}

/// The most memory that it had when its report was ready: it waits to write it, as the pipe is full.
fn resident_mebibytes(executable: &Path, program: &Path) -> Result<f64> {
    /// What a pipe holds (pipe(7)).
    const PIPE_BYTES: usize = 65_536;
    /// Ten times what it may take.
    const READY: Duration = Duration::from_millis(500);
    let (reader, mut writer) = pipe().context("cannot make a pipe")?;
    writer.write_all(&vec![b'\n'; PIPE_BYTES]).context("cannot fill the pipe")?;
    let mut child = Command::new(executable)
        .arg("inspect")
        .arg(program)
        .stdout(writer)
        .spawn()
        .context("cannot run the probe")?;
    thread::sleep(READY);
    let peak = super::resident_peak_kibibytes(child.id());
    // Nobody reads it, which it takes as `| head`.
    drop(reader);
    let status = child.wait().context("cannot wait for the probe")?;
    ensure!(status.success(), "inspect of {} ended with {status}", program.display());
    Ok(super::mebibytes(peak?))
}
