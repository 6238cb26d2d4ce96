//! The load program, which waits at a chosen rate and counts its waits (`xtask/go/load`).

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Result, bail};
use netpoll_probe_tests::process::{Follow, Process};
use rustix::process::Signal;

use super::PATIENCE;

/// How long it runs before the probe attaches: Go's start is over.
const SETTLE: Duration = Duration::from_millis(300);

/// Starts it, with readers each of which waits a thousand times a second, and waits until it waits.
pub(super) fn start(program: &Path, readers: u32) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(["-readers", &readers.to_string(), "-tick", "1ms"]);
    let mut load = Process::spawn(&mut command, Follow::Stdout)?;
    load.wait_for_line("ready", PATIENCE)?;
    thread::sleep(SETTLE);
    Ok(load)
}

/// What the load program says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// How often its readers waited so far.
    pub(super) waits: u64,
    /// Since its start.
    pub(super) ns: u64,
}

/// Asks it how often it has waited.
pub(super) fn so_far(load: &mut Process) -> Result<Waits> {
    load.signal(Signal::USR1)?;
    let line = load.wait_for_line("waits", PATIENCE)?;
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(waits), Some(ns)) => Ok(Waits { waits, ns }),
        _ => bail!("the load program says {line:?}"),
    }
}
