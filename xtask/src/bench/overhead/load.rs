//! The loads: what is watched, and who makes it work.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};
use serde::{Deserialize, Serialize};

use super::{super::PATIENCE, wrk};

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Short answers over HTTP, as many as possible.
    Saturated,
    /// The same at a fixed rate.
    Fixed,
    /// A proxy with many connections that are hardly used, and a few that are.
    Proxy,
    /// A byte to and fro.
    PingPong,
    /// No network.
    Compute,
    /// System calls of a process that is not watched, while one is that does nothing.
    Others,
}

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

/// What a load's program prints.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Counted {
    pub(super) operations: f64,
    pub(super) seconds: f64,
    /// Latency, ns.
    pub(super) p50_ns: f64,
    /// Latency, ns.
    pub(super) p99_ns: f64,
    /// Latency, ns; wrk does not tell it.
    pub(super) p999_ns: Option<f64>,
}

impl Counted {
    /// Operations a second.
    pub(super) fn per_second(&self) -> f64 {
        self.operations / self.seconds
    }

    /// How many there were.
    pub(super) fn operations(&self) -> f64 {
        self.operations
    }
}

/// What is watched, and all that it needs.
#[derive(Debug)]
pub(super) struct Target {
    load: Load,
    /// The process that is watched.
    pub(super) pid: u32,
    addr: String,
    process: Process,
    /// Other processes, which end with it.
    _others: Vec<Process>,
    /// It has Go's execution tracer on a switch.
    pub(super) has_trace_switch: bool,
    /// It waits for the network while it works.
    pub(super) has_waits: bool,
}

impl Load {
    /// All.
    pub(super) const ALL: [Self; 6] =
        [Self::Saturated, Self::Fixed, Self::Proxy, Self::PingPong, Self::Compute, Self::Others];

    /// What it is called on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Saturated => "http",
            Self::Fixed => "http-fixed",
            Self::Proxy => "proxy",
            Self::PingPong => "pingpong",
            Self::Compute => "compute",
            Self::Others => "others",
        }
    }

    /// What it is, for the page.
    pub(super) fn what(self) -> String {
        let what = match self {
            Self::Saturated => "HTTP, short answers on 16 connections, as many as possible",
            Self::Fixed => "HTTP at 12,500 requests/s",
            Self::Proxy => {
                return format!("a TCP proxy with {} idle connections and 16 busy ones", idle_connections());
            }
            Self::PingPong => "a byte over TCP to and fro, one wait each",
            Self::Compute => "no network: computing",
            Self::Others => "system calls of a process that is not watched",
        };
        what.to_owned()
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
            Self::Saturated | Self::Fixed | Self::Others => spawn(&["server"])?,
            Self::PingPong => spawn(&["echo"])?,
            Self::Compute => spawn(&["spin", "-seconds", super::SECONDS])?,
            Self::Proxy => {
                let (server, _, backend) = spawn(&["server"])?;
                let proxy = spawn(&["proxy", "-target", &backend])?;
                let (idle, ..) =
                    spawn(&["idle", "-target", &proxy.2, "-connections", &idle_connections().to_string()])?;
                others.extend([idle, server]);
                proxy
            }
        };
        let has_trace_switch = matches!(self, Self::Saturated | Self::Fixed | Self::Others);
        let has_waits = !matches!(self, Self::Compute | Self::Others);
        Ok(Target { load: self, pid, addr, process, _others: others, has_trace_switch, has_waits })
    }
}

impl Target {
    /// Works for a while, and is counted.
    pub(super) fn work(&mut self, program: &Path) -> Result<Counted> {
        let arguments: &[&str] = match self.load {
            Load::Saturated | Load::Proxy => return self.saturate(),
            Load::Fixed => &["http", "-connections", "16", "-rate", RATE],
            Load::PingPong => &["pingpong"],
            Load::Others => &["syscalls"],
            Load::Compute => {
                self.process.tell("go")?;
                let line = self.process.wait_for_line("{", PATIENCE)?;
                return serde_json::from_str(&line).with_context(|| format!("{line:?} is no count"));
            }
        };
        let mut command = Command::new(program);
        command.args(arguments).args(["-target", &self.addr, "-seconds", super::SECONDS]);
        let finished = Process::spawn(&mut command, Follow::Stdout)?.finish(PATIENCE)?;
        ensure!(finished.status.success(), "the load ended with {}:\n{}", finished.status, finished.stderr);
        let line = finished.stdout.trim();
        serde_json::from_str(line).with_context(|| format!("{line:?} is no count"))
    }

    /// As many requests as possible, by a client that takes little CPU itself.
    fn saturate(&self) -> Result<Counted> {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", "-c16", "--latency", "-d", super::SECONDS])
            .arg(format!("http://{}/", self.addr));
        let finished = Process::spawn(&mut command, Follow::Stdout)?.finish(PATIENCE)?;
        ensure!(finished.status.success(), "wrk ended with {}:\n{}", finished.status, finished.stderr);
        wrk::parse(&finished.stdout).with_context(|| format!("{:?} is no count", finished.stdout))
    }

    /// Asks the server for a path.
    pub(super) fn ask(&self, path: &str) -> Result<()> {
        let mut stream =
            TcpStream::connect(&self.addr).with_context(|| format!("cannot ask {}", self.addr))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 "), "{path}: {answer}");
        Ok(())
    }
}
