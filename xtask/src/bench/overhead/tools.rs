//! What the measurements take: the probe, the loads' program, and what other tools are told.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, ensure};
use netpoll_probe_tests::fixture::GoProgram;

use super::{hooks::Hooks, load::Load, subject};
use crate::{golang, machine::Machine, probe, workspace};

/// All of it, built.
#[derive(Debug)]
pub(super) struct Tools {
    /// netpoll-probe.
    pub(super) probe: PathBuf,
    /// Both sides of the loads (`xtask/go/overhead`).
    pub(super) program: PathBuf,
    /// The program that waits at a chosen rate (`xtask/go/load`).
    pub(super) waiting: PathBuf,
    /// Reads Go's execution traces (`tests/fixtures/go/exectrace`).
    pub(super) exectrace: PathBuf,
    /// For files.
    pub(super) folder: PathBuf,
    /// Those that the probe's programs are on, here.
    pub(super) tracepoints: BTreeSet<String>,
}

impl Tools {
    /// Builds them.
    pub(super) fn new() -> Result<Self> {
        let folder = workspace::target()?.join("bench");
        let build = |name: &str, file: &str| {
            let output = folder.join(file);
            golang::build(&workspace::root().join("xtask/go").join(name), &output, Machine::host(), &[])?;
            anyhow::Ok(output)
        };
        let mut tools = Self {
            program: build("overhead", "overhead")?,
            waiting: build("load", "load")?,
            exectrace: GoProgram::new("exectrace").build()?,
            probe: probe::build_release()?,
            folder,
            tracepoints: BTreeSet::new(),
        };
        let idle = Load::Saturated.start(&tools.program)?;
        let process = subject::netpoll_probe(&tools.probe, idle.pid, &["--hooks", "syscalls"], false)?;
        tools.tracepoints = Hooks::of(process.id())?.tracepoints;
        ensure!(!tools.tracepoints.is_empty(), "the kernel does not say which tracepoints the probe is on");
        Ok(tools)
    }
}
