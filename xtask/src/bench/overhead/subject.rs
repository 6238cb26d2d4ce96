//! Who watches: nobody, netpoll-probe by its plans, and what people use today.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};
use rustix::process::Signal;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    super::{PATIENCE, summary::Summary},
    load::{Load, Target},
    tools::Tools,
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
    /// netpoll-probe on another process, which does nothing: its programs run, and leave at once. What everybody else on the machine pays.
    Elsewhere,
    /// Programs that do nothing, on the same tracepoints: the floor of what others pay.
    Empty,
    /// Programs on the same tracepoints that do for each wait of the target what nobody can leave out: the floor of what it pays.
    Least,
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
/// The probe has its eBPF programs timed for the first 200 ms of a recording, which makes them dearer: nothing is measured in that time.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// How long a load works for a budget to find out what it may do.
const SETTLE: Duration = Duration::from_millis(2500);

/// bpftrace, attached.
fn bpftrace(arguments: &[&str]) -> Result<Process> {
    let mut process = Process::spawn(Command::new("bpftrace").args(arguments), Follow::Stdout)?;
    process.wait_for_line("attached", PATIENCE)?;
    Ok(process)
}

/// Programs of the load's program, attached: those that `how` says.
fn floor(program: &Path, how: &[&str], tracepoints: &BTreeSet<String>, stats: bool) -> Result<Process> {
    let names = tracepoints.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut command = Command::new(program);
    command.args(how).args(["-on", &names]);
    if stats {
        command.arg("-timed");
    }
    let mut process = Process::spawn(&mut command, Follow::Stdout)?;
    process.wait_for_line("READY", PATIENCE)?;
    Ok(process)
}

/// netpoll-probe, recording.
pub(super) fn netpoll_probe(probe: &Path, pid: u32, how: &[&str], stats: bool) -> Result<Process> {
    let mut command = Command::new(probe);
    command.args(["attach", "--format", "json", "--pid", &pid.to_string()]).args(how);
    if stats {
        command.arg("--stats");
    }
    let mut process = Process::spawn(&mut command, Follow::Stderr)?;
    process.wait_for_line("recording", PATIENCE)?;
    Ok(process)
}

/// A subject at work.
#[derive(Debug)]
pub(super) struct Watching {
    subject: Subject,
    process: Option<Process>,
    /// What it watches instead; ends with it.
    _elsewhere: Option<Target>,
}

impl Subject {
    /// All but nobody, in the order in which a round has them.
    const ALL: [Self; 10] = [
        Self::Probe("syscalls"),
        Self::Probe("pollwait"),
        Self::Adding,
        Self::Elsewhere,
        Self::Empty,
        Self::Least,
        Self::Budget("1%"),
        Self::ExecutionTrace,
        Self::Bpftrace,
        Self::Strace,
    ];

    /// Those that are measured on a load.
    pub(super) fn on(load: Load) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |subject| match subject {
            Self::Nobody | Self::Probe(_) | Self::Empty => true,
            // Where nothing is waited for they run as `Self::Probe` does.
            Self::Adding | Self::Elsewhere | Self::Budget(_) => load.has_waits(),
            Self::Least => load.waits_in_read(),
            Self::ExecutionTrace => !load.is_beside(),
            Self::Bpftrace | Self::Strace => load.has_waits(),
        })
    }

    /// What tables call it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Probe(hooks) => format!("netpoll-probe --hooks {hooks}"),
            Self::Adding => "netpoll-probe --aggregate".to_owned(),
            Self::Budget(share) => format!("netpoll-probe --max-overhead {share}"),
            Self::Elsewhere => "netpoll-probe on another process".to_owned(),
            Self::Empty => "empty programs".to_owned(),
            Self::Least => "the least programs".to_owned(),
            Self::Bpftrace => "bpftrace script".to_owned(),
            Self::ExecutionTrace => "runtime/trace".to_owned(),
            Self::Strace => "strace -c".to_owned(),
        }
    }

    /// The Debian packages that it takes.
    pub(super) const PACKAGES: [&str; 2] = ["bpftrace", "strace"];

    /// Whether few measurements tell enough of it: a budget takes its time, and what the others cost is plain.
    pub(super) fn takes_few(self) -> bool {
        matches!(self, Self::Budget(_) | Self::ExecutionTrace | Self::Bpftrace | Self::Strace)
    }

    /// Whether it is netpoll-probe, which says what it cost.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Probe(_) | Self::Adding | Self::Budget(_) | Self::Elsewhere)
    }

    /// Whether what it records is the target.
    pub(super) fn watches_target(self) -> bool {
        self != Self::Elsewhere
    }

    /// Whether it follows each wait of what is watched.
    pub(super) fn follows_all(self) -> bool {
        matches!(self, Self::Probe(_) | Self::Adding)
    }

    /// Begins to watch. `stats`: the time in eBPF programs is measured too, which costs something itself.
    pub(super) fn watch(self, tools: &Tools, target: &mut Target, stats: bool) -> Result<Watching> {
        let probe = |pid, how: &[&str]| netpoll_probe(&tools.probe, pid, how, stats);
        let pid = target.pid.to_string();
        let mut watching = Watching { subject: self, process: None, _elsewhere: None };
        watching.process = match self {
            Self::Nobody => None,
            Self::Probe(hooks) => Some(probe(target.pid, &["--hooks", hooks])?),
            Self::Adding => Some(probe(target.pid, &["--aggregate"])?),
            Self::Budget(share) => Some(probe(target.pid, &["--max-overhead", share])?),
            Self::Elsewhere => {
                let idle = Load::Saturated.start(&tools.program)?;
                let process = probe(idle.pid, &["--hooks", "syscalls"])?;
                watching._elsewhere = Some(idle);
                Some(process)
            }
            Self::Empty => Some(floor(&tools.program, &["empty"], &tools.tracepoints, stats)?),
            Self::Least => Some(floor(&tools.program, &["least", "-pid", &pid], &tools.tracepoints, stats)?),
            Self::Bpftrace => {
                let script = SCRIPT.replace("PROGRAM", &tools.program.display().to_string());
                Some(bpftrace(&["-p", &pid, "-e", &script])?)
            }
            Self::ExecutionTrace => {
                target.start_trace(None)?;
                None
            }
            Self::Strace => {
                let mut process =
                    Process::spawn(Command::new("strace").args(["-c", "-f", "-p", &pid]), Follow::Stderr)?;
                process.wait_for_line("strace: Process", PATIENCE)?;
                Some(process)
            }
        };
        if self.is_ours() {
            thread::sleep(FIRST_LOOK);
        }
        Ok(watching)
    }
}

/// As in tables.
impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl Watching {
    /// Has the load work until it is at what it may do; returns for how long the load worked, seconds.
    pub(super) fn settle(&self, target: &mut Target, program: &Path) -> Result<f64> {
        let mut seconds = 0.0;
        let begun = Instant::now();
        while matches!(self.subject, Subject::Budget(_)) && begun.elapsed() < SETTLE {
            seconds += target.work(program)?.counted.seconds;
        }
        Ok(seconds)
    }

    /// How many waits there were until now, of [`Subject::Least`].
    pub(super) fn waits(&mut self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Counted {
            waits: u64,
        }
        let process = self.process.as_mut().context("it is no process")?;
        process.tell("go")?;
        let line = process.wait_for_line("{", PATIENCE)?;
        let counted: Counted =
            serde_json::from_str(&line).with_context(|| format!("{line:?} is no count"))?;
        Ok(counted.waits)
    }

    /// The process that watches; `None`: it is none.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Ends it; what netpoll-probe says of the recording.
    pub(super) fn end(self, target: &mut Target) -> Result<Option<Summary>> {
        if self.subject == Subject::ExecutionTrace {
            target.stop_trace()?;
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
        serde_json::from_str(&finished.stdout).context("the summary is not as expected").map(Some)
    }
}
