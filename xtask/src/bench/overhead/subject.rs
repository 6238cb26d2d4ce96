//! Who watches: nobody, netpoll-probe by its plans, and what people use today.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};
use rustix::process::Signal;
use serde::Serialize;

use super::{
    super::{PATIENCE, Summary, number},
    load::Target,
};

/// One way to watch a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Nobody.
    Nobody,
    /// netpoll-probe with `--hooks`.
    Probe(&'static str),
    /// netpoll-probe with `--aggregate`.
    Adding,
    /// netpoll-probe with `--max-overhead`.
    Budget(&'static str),
    /// netpoll-probe on another process, which does nothing: its programs run, and leave at once. What its hooks cost by themselves, and what
    /// everybody else on the machine pays.
    Floor,
    /// What a user of bpftrace would write.
    Bpftrace,
    /// Go's own execution tracer, in the program.
    ExecutionTrace,
    /// `strace -c`, which counts system calls.
    Strace,
}

/// The script that answers "how long do goroutines wait in the netpoller" by the tracer's usual means: entry probes on the
/// functions' symbols, a map from goroutine to time, a histogram.
const SCRIPT: &str = "\
uprobe:PROGRAM:runtime.netpollblock { @start[reg(\"r14\")] = nsecs; }
uprobe:PROGRAM:runtime.netpollready { @ready = count(); }
uprobe:PROGRAM:runtime.execute /@start[reg(\"ax\")]/ {
  @wait_ns = hist(nsecs - @start[reg(\"ax\")]); delete(@start[reg(\"ax\")]);
}
interval:s:1 { }
BEGIN { printf(\"attached\\n\"); }
";

/// How long other tools may take to end.
const OTHERS_PATIENCE: Duration = Duration::from_secs(10);

/// bpftrace, attached.
fn bpftrace(arguments: &[&str]) -> Result<Process> {
    let mut process = Process::spawn(Command::new("bpftrace").args(arguments), Follow::Stdout)?;
    process.wait_for_line("attached", PATIENCE)?;
    Ok(process)
}

/// A Go process that does nothing, and its pid.
fn idle(program: &Path) -> Result<(Process, String)> {
    let mut process = Process::spawn(Command::new(program).arg("server"), Follow::Stdout)?;
    let line = process.wait_for_line("READY", PATIENCE)?;
    let pid = line.split(' ').nth(1).context("no pid")?.to_owned();
    Ok((process, pid))
}

/// netpoll-probe, recording.
fn netpoll_probe(probe: &Path, pid: &str, how: &[&str], stats: bool) -> Result<Process> {
    let mut command = Command::new(probe);
    command.args(["attach", "--format", "json", "--pid", pid]).args(how);
    if stats {
        command.arg("--stats");
    }
    let mut process = Process::spawn(&mut command, Follow::Stderr)?;
    process.wait_for_line("recording", PATIENCE)?;
    Ok(process)
}

/// What a recording says of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Own {
    /// Waits that it saw, a second.
    pub(super) waits_per_second: f64,
    /// Events it lost.
    pub(super) lost: u64,
    /// Its own CPU time while the load works, of one CPU.
    pub(super) cpu_share: f64,
    /// Time in its eBPF programs for each wait, ns; 0 where it was not measured.
    pub(super) bpf_ns_per_wait: f64,
    /// The most memory it had, bytes.
    pub(super) resident_bytes: u64,
}

/// A subject at work.
#[derive(Debug)]
pub(super) struct Watching {
    subject: Subject,
    process: Option<Process>,
    /// Ends with it.
    _other: Option<Process>,
}

impl Subject {
    /// All, in the order in which a round has them.
    pub(super) const ALL: [Self; 9] = [
        Self::Nobody,
        Self::Probe("syscalls"),
        Self::Probe("pollwait"),
        Self::Adding,
        Self::Budget("1%"),
        Self::Floor,
        Self::ExecutionTrace,
        Self::Bpftrace,
        Self::Strace,
    ];

    /// What tables call it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Probe(hooks) => format!("netpoll-probe --hooks {hooks}"),
            Self::Adding => "netpoll-probe --aggregate".to_owned(),
            Self::Budget(share) => format!("netpoll-probe --max-overhead {share}"),
            Self::Floor => "netpoll-probe on another process".to_owned(),
            Self::Bpftrace => "bpftrace script".to_owned(),
            Self::ExecutionTrace => "runtime/trace".to_owned(),
            Self::Strace => "strace -c".to_owned(),
        }
    }

    /// The Debian package that has it.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::Bpftrace => Some("bpftrace"),
            Self::Strace => Some("strace"),
            _ => None,
        }
    }

    /// Whether it is netpoll-probe, which says what it cost.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Probe(_) | Self::Adding | Self::Budget(_))
    }

    /// Whether it takes a while to find out how much it may do.
    pub(super) fn settles(self) -> bool {
        matches!(self, Self::Budget(_))
    }

    /// Whether it can watch this program.
    pub(super) fn can_watch(self, target: &Target) -> bool {
        match self {
            Self::ExecutionTrace => target.has_trace_switch,
            Self::Bpftrace | Self::Strace => target.has_waits,
            _ => true,
        }
    }

    /// Begins to watch. `stats`: the time in eBPF programs is measured too, which costs something itself.
    pub(super) fn watch(
        self,
        probe: &Path,
        program: &Path,
        target: &Target,
        stats: bool,
    ) -> Result<Watching> {
        let pid = target.pid.to_string();
        let mut other = None;
        let process = match self {
            Self::Nobody => None,
            Self::Probe(hooks) => Some(netpoll_probe(probe, &pid, &["--hooks", hooks], stats)?),
            Self::Adding => Some(netpoll_probe(probe, &pid, &["--aggregate"], stats)?),
            Self::Budget(share) => Some(netpoll_probe(probe, &pid, &["--max-overhead", share], stats)?),
            Self::Floor => {
                let (process, pid) = idle(program)?;
                other = Some(process);
                Some(netpoll_probe(probe, &pid, &["--hooks", "syscalls"], stats)?)
            }
            Self::Bpftrace => {
                let script = SCRIPT.replace("PROGRAM", &program.display().to_string());
                Some(bpftrace(&["-p", &pid, "-e", &script])?)
            }
            Self::ExecutionTrace => {
                target.ask("/trace/start")?;
                None
            }
            Self::Strace => {
                let mut process =
                    Process::spawn(Command::new("strace").args(["-c", "-f", "-p", &pid]), Follow::Stderr)?;
                process.wait_for_line("strace: Process", PATIENCE)?;
                Some(process)
            }
        };
        Ok(Watching { subject: self, process, _other: other })
    }
}

impl Watching {
    /// CPU time that its first thread, which does all of the recording, has had so far, ns; 0 for who is no process.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        let Some(process) = &self.process else { return Ok(0) };
        let path = format!("/proc/{}/schedstat", process.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        text.split(' ').next().and_then(|ns| ns.parse().ok()).with_context(|| format!("{path}: {text:?}"))
    }

    /// Ends it; what it says of itself. It took `cpu_share` of a CPU while the load worked.
    pub(super) fn end(self, target: &Target, cpu_share: f64) -> Result<Option<Own>> {
        if self.subject == Subject::ExecutionTrace {
            target.ask("/trace/stop")?;
        }
        let Some(process) = self.process else { return Ok(None) };
        process.signal(Signal::INT)?;
        if !self.subject.is_ours() {
            // bpftrace does not always hear: then it is killed.
            let _ = process.finish(OTHERS_PATIENCE);
            return Ok(None);
        }
        let finished = process.finish(PATIENCE)?;
        ensure!(finished.status.success(), "the probe ended with {}:\n{}", finished.status, finished.stderr);
        let summary: Summary =
            serde_json::from_str(&finished.stdout).context("the summary is not as expected")?;
        let seconds = number(summary.duration_ns) / 1e9;
        let seen = number(summary.quality.seen + summary.quality.not_followed);
        Ok(Some(Own {
            waits_per_second: seen / seconds,
            lost: summary.quality.lost.values().sum(),
            cpu_share,
            bpf_ns_per_wait: number(summary.cost.bpf_run_ns.unwrap_or(0)) / seen.max(1.0),
            resident_bytes: summary.cost.peak_resident_bytes,
        }))
    }
}

/// User and system time of a process so far, clock ticks (`/proc/PID/stat`, proc(5): fields 14 and 15).
pub(super) fn cpu_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in parentheses may hold anything.
    let (_, fields) = text.rsplit_once(") ").with_context(|| format!("{path} has no name"))?;
    let field = |at: usize| fields.split(' ').nth(at - 3).and_then(|field| field.parse::<u64>().ok());
    Ok(field(14).zip(field(15)).with_context(|| format!("{path} has no times"))?)
        .map(|(user, system)| user + system)
}
