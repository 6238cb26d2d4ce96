//! The loads: what is watched, and who makes it work.

use std::{path::Path, process::Command, sync::LazyLock};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};
use serde::{Deserialize, Serialize, Serializer};

use super::{super::PATIENCE, cpu};
use crate::workspace;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Short answers over HTTP, as many as possible.
    Saturated,
    /// The same at a fixed rate.
    Fixed,
    /// A proxy with many connections that are hardly used, and a few that are.
    Proxy,
    /// A byte to and fro, on a few connections: a wait every 10 µs.
    PingPong,
    /// No network.
    Compute,
    /// A program beside the watched one, which does nothing, makes system calls as programs do.
    Beside,
    /// The same makes as many system calls as possible.
    Others,
}

/// How long a load works in one measurement, seconds.
const SECONDS: &str = "0.5";
/// The same where 99 % and 99.9 % are of interest.
const FIXED_SECONDS: &str = "1";
/// The same for wrk, which knows whole seconds only.
const WRK_SECONDS: &str = "1";
/// Requests a second of [`Load::Fixed`].
const RATE: &str = "12500";
/// Files that [`Load::Proxy`] wants: its proxy has six for each connection, two sockets and the pipes that it splices through.
const FILES: &str = "--nofile=65536";

/// Connections of [`Load::Proxy`] that are only kept.
fn idle_connections() -> u32 {
    if may_have_files() { 10_000 } else { 3_000 }
}

/// Whether this machine lets a process have as many files as it wants. Where it does not, the usual limit is 20,000 at least.
fn may_have_files() -> bool {
    static MAY: LazyLock<bool> = LazyLock::new(|| {
        Command::new("prlimit").args([FILES, "--", "true"]).output().is_ok_and(|it| it.status.success())
    });
    *MAY
}

/// What who makes a load work prints: the load's program (`xtask/go/overhead`), or wrk (`wrk.lua`).
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Counted {
    pub(super) operations: f64,
    pub(super) seconds: f64,
    /// Latency, ns; 0 where there is none.
    pub(super) p50_ns: f64,
    /// Latency, ns.
    pub(super) p99_ns: f64,
    /// Latency, ns.
    pub(super) p999_ns: f64,
    /// CPU time of the load's program, ns; wrk does not tell its.
    #[serde(default)]
    cpu_ns: f64,
    /// Requests that failed; the load's program ends at the first.
    #[serde(default)]
    errors: u64,
}

/// A load has worked for a while.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Worked {
    pub(super) counted: Counted,
    /// CPU time for each operation, ns: of the watched process, or of the one beside it.
    pub(super) cpu_ns_per_operation: f64,
}

impl Worked {
    /// Operations a second.
    pub(super) fn per_second(&self) -> f64 {
        self.counted.operations / self.counted.seconds
    }
}

/// What is watched, and all that it needs.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) load: Load,
    /// The process that is watched.
    pub(super) pid: u32,
    addr: String,
    process: Process,
    /// Other processes, which end with it.
    _others: Vec<Process>,
}

impl Load {
    /// All.
    pub(super) const ALL: [Self; 7] = [
        Self::Saturated,
        Self::Fixed,
        Self::Proxy,
        Self::PingPong,
        Self::Compute,
        Self::Beside,
        Self::Others,
    ];

    /// What it is called on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Saturated => "http",
            Self::Fixed => "http-fixed",
            Self::Proxy => "proxy",
            Self::PingPong => "pingpong",
            Self::Compute => "compute",
            Self::Beside => "beside",
            Self::Others => "others",
        }
    }

    /// What it is, for the page.
    pub(super) fn what(self) -> String {
        let what = match self {
            Self::Saturated => "HTTP, short answers on 16 connections, as many as possible",
            Self::Fixed => "HTTP at 12,500 requests/s",
            Self::Proxy => {
                return format!("A TCP proxy with {} idle connections and 16 busy ones", idle_connections());
            }
            Self::PingPong => "A byte over TCP to and fro on 4 connections: a wait each, every 10 µs",
            Self::Compute => "No network: computing",
            Self::Beside => "A program that is not watched: reads a file in pieces of 4 KiB and hashes them",
            Self::Others => {
                "A program that is not watched: system calls that do nothing, as many as possible"
            }
        };
        what.to_owned()
    }

    /// Whether what is watched waits for the network while it works.
    pub(super) const fn has_waits(self) -> bool {
        matches!(self, Self::Saturated | Self::Fixed | Self::Proxy | Self::PingPong)
    }

    /// Whether those waits are for a `read(2)`. Whoever copies from a connection to a connection splices.
    pub(super) const fn waits_in_read(self) -> bool {
        matches!(self, Self::Saturated | Self::Fixed)
    }

    /// Whether it is another program that works, and not the watched one.
    pub(super) const fn is_beside(self) -> bool {
        matches!(self, Self::Beside | Self::Others)
    }

    /// Starts what is watched.
    pub(super) fn start(self, program: &Path) -> Result<Target> {
        let spawn = |arguments: &[&str]| -> Result<(Process, u32, String)> {
            let mut command = Command::new(program);
            if may_have_files() {
                command = Command::new("prlimit");
                command.args([FILES, "--"]).arg(program);
            }
            command.args(arguments);
            let mut process = Process::spawn(&mut command, Follow::Stdout)?;
            let line = process.wait_for_line("READY", PATIENCE)?;
            let mut words = line.split(' ').skip(1);
            let pid = words.next().and_then(|pid| pid.parse().ok()).context("no pid")?;
            Ok((process, pid, words.next().context("no address")?.to_owned()))
        };
        let mut others = Vec::new();
        let (process, pid, addr) = match self {
            Self::Saturated | Self::Fixed | Self::Beside | Self::Others => spawn(&["server"])?,
            Self::PingPong => spawn(&["echo"])?,
            Self::Compute => spawn(&["spin", "-seconds", SECONDS])?,
            Self::Proxy => {
                let (server, _, backend) = spawn(&["server"])?;
                let proxy = spawn(&["proxy", "-target", &backend])?;
                let (idle, ..) =
                    spawn(&["idle", "-target", &proxy.2, "-connections", &idle_connections().to_string()])?;
                others.extend([idle, server]);
                proxy
            }
        };
        Ok(Target { load: self, pid, addr, process, _others: others })
    }
}

/// As on the command line.
impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Target {
    /// Works for a while, and is counted.
    pub(super) fn work(&mut self, program: &Path) -> Result<Worked> {
        let before_ns = cpu::of_process(self.pid)?;
        let counted = self.count(program)?;
        let watched_ns = cpu::of_process(self.pid)?.saturating_sub(before_ns);
        ensure!(counted.errors == 0, "{} requests of the load failed", counted.errors);
        ensure!(counted.operations > 0.0, "the load did nothing");
        let cpu_ns = if self.load.is_beside() { counted.cpu_ns } else { super::super::number(watched_ns) };
        Ok(Worked { counted, cpu_ns_per_operation: cpu_ns / counted.operations })
    }

    fn count(&mut self, program: &Path) -> Result<Counted> {
        let mut command = Command::new(program);
        match self.load {
            Load::Compute => {
                self.process.tell("go")?;
                return parse(&self.process.wait_for_line("{", PATIENCE)?);
            }
            // A client that takes little CPU itself.
            Load::Saturated | Load::Proxy => {
                command = Command::new("wrk");
                command
                    .args(["-t1", "-c16", "-d", WRK_SECONDS, "-s"])
                    .arg(workspace::root().join("xtask/src/bench/overhead/wrk.lua"))
                    .arg(format!("http://{}/", self.addr));
            }
            Load::Fixed => {
                command.args(["http", "-connections", "16", "-rate", RATE, "-seconds", FIXED_SECONDS]);
                command.args(["-target", &self.addr]);
            }
            Load::PingPong => {
                command.args(["pingpong", "-connections", "4", "-seconds", SECONDS, "-target", &self.addr]);
            }
            Load::Beside => {
                command.args(["hash", "-seconds", SECONDS]);
            }
            Load::Others => {
                command.args(["syscalls", "-seconds", SECONDS]);
            }
        }
        let finished = Process::spawn(&mut command, Follow::Stdout)?.finish(PATIENCE)?;
        ensure!(finished.status.success(), "the load ended with {}:\n{}", finished.status, finished.stderr);
        parse(finished.stdout.lines().last().unwrap_or_default())
    }

    /// Switches Go's execution tracer on in the watched process: to a file, or to nowhere.
    pub(super) fn start_trace(&mut self, file: Option<&Path>) -> Result<()> {
        match file {
            Some(file) => self.process.tell(&format!("trace {}", file.display()))?,
            None => self.process.tell("trace")?,
        }
        self.process.wait_for_line("tracing", PATIENCE).map(drop)
    }

    /// Switches it off; all of the trace is written then.
    pub(super) fn stop_trace(&mut self) -> Result<()> {
        self.process.tell("stop")?;
        self.process.wait_for_line("stopped", PATIENCE).map(drop)
    }
}

fn parse(line: &str) -> Result<Counted> {
    serde_json::from_str(line).with_context(|| format!("{line:?} is no count"))
}
