//! What netpoll-probe's recordings say of themselves, in runs apart from those that are compared: measuring costs something, too.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::exectrace;
use serde::Serialize;

use super::{
    super::{number, number_after},
    cpu,
    hooks::{Hooks, Runs},
    load::Target,
    subject::Subject,
    tools::Tools,
};

/// A run in which the eBPF programs were timed all along.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Timed {
    /// How long the load worked, seconds.
    pub(super) seconds: f64,
    /// Waits that began while it did, with those that others stand for.
    pub(super) waits: u64,
    /// Events that were lost, of all causes.
    pub(super) lost: u64,
    /// Runs of the eBPF programs while the load worked.
    pub(super) runs: Runs,
    /// CPU time of the recording thread while the load worked, of one CPU.
    pub(super) cpu_share: f64,
    /// Memory that it had when the load had worked, bytes.
    pub(super) resident_bytes: u64,
    /// The most that it had, attaching and reporting included, bytes.
    pub(super) peak_resident_bytes: u64,
}

impl Timed {
    /// So much for each wait; of hardly any there is no share.
    pub(super) fn per_wait(&self, value: u64) -> Option<f64> {
        (self.waits >= 100).then(|| number(value) / number(self.waits))
    }

    /// Waits a second.
    pub(super) fn waits_per_second(&self) -> f64 {
        number(self.waits) / self.seconds
    }

    /// Time in eBPF programs for each wait, ns.
    pub(super) fn ns_per_wait(&self) -> Option<f64> {
        self.per_wait(self.runs.ns)
    }

    /// The load on a target, while `subject`, a netpoll-probe, records.
    pub(super) fn measure(subject: Subject, tools: &Tools, target: &mut Target) -> Result<Self> {
        let watching = subject.watch(tools, target, true)?;
        let pid = watching.pid().context("it is no process")?;
        let runs_before = Hooks::of(pid)?.runs();
        let settled = watching.settle(target, &tools.program)?;
        let cpu_before = cpu::of_first_thread(pid)?;
        let seconds = target.work(&tools.program)?.counted.seconds;
        let cpu_ns = cpu::of_first_thread(pid)?.saturating_sub(cpu_before);
        let runs = Hooks::of(pid)?.runs().since(runs_before);
        let resident_bytes = number_after(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024;
        let summary = watching.end(target)?.context("it says nothing")?;
        let quality = &summary.quality;
        Ok(Self {
            seconds: settled + seconds,
            waits: (quality.seen + quality.not_followed).saturating_sub(quality.started_before),
            lost: quality.lost.values().sum(),
            runs,
            cpu_share: number(cpu_ns) / 1e9 / seconds,
            resident_bytes,
            peak_resident_bytes: summary.cost.peak_resident_bytes,
        })
    }
}

/// What the kernel takes for a run of an eBPF program that does nothing, ns: its reading of the clock. The load works meanwhile, or the clock
/// would be faster to read.
pub(super) fn clock_ns_per_run(tools: &Tools, target: &mut Target) -> Result<f64> {
    let watching = Subject::Empty.watch(tools, target, true)?;
    let runs = runs_of(watching.pid(), tools, target)?;
    watching.end(target)?;
    ensure!(runs.count > 0, "no program ran");
    Ok(number(runs.ns) / number(runs.count))
}

/// The load on a target, and how often the programs of a process run meanwhile, and how long.
fn runs_of(pid: Option<u32>, tools: &Tools, target: &mut Target) -> Result<Runs> {
    let pid = pid.context("it is no process")?;
    let before = Hooks::of(pid)?.runs();
    target.work(&tools.program)?;
    Ok(Hooks::of(pid)?.runs().since(before))
}

/// A run of [`Subject::Least`] in which its programs were timed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Least {
    /// Waits while the load worked.
    pub(super) waits: u64,
    /// Runs of its programs meanwhile.
    pub(super) runs: Runs,
}

impl Least {
    /// The load on a target, while nothing but the least is done.
    pub(super) fn measure(tools: &Tools, target: &mut Target) -> Result<Self> {
        let mut watching = Subject::Least.watch(tools, target, true)?;
        let before = watching.waits()?;
        let runs = runs_of(watching.pid(), tools, target)?;
        let waits = watching.waits()?.saturating_sub(before);
        watching.end(target)?;
        ensure!(waits > 0, "no wait was seen");
        Ok(Self { waits, runs })
    }
}

/// A run in which Go's execution tracer recorded, too: it stamps each park of a goroutine in the netpoller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Traced {
    /// Waits that began and ended, by the tracer.
    pub(super) made: u64,
    /// By netpoll-probe, with those that found their fd ready while they parked, which the tracer does not have.
    pub(super) seen: u64,
}

/// From the load's end to that of the trace: what is watched sees its connections close.
const CLOSING: Duration = Duration::from_millis(100);

impl Traced {
    /// The load on a target, while `subject`, a netpoll-probe, records.
    pub(super) fn measure(subject: Subject, tools: &Tools, target: &mut Target) -> Result<Self> {
        let trace = tools.folder.join("overhead.trace");
        let watching = subject.watch(tools, target, false)?;
        target.start_trace(Some(&trace))?;
        target.work(&tools.program)?;
        thread::sleep(CLOSING);
        target.stop_trace()?;
        let summary = watching.end(target)?.context("it says nothing")?;
        let made = exectrace::read(&tools.exectrace, &trace)?.len() as u64;
        fs::remove_file(&trace).with_context(|| format!("cannot remove {}", trace.display()))?;
        Ok(Self { made, seen: summary.whole_waits() })
    }
}
