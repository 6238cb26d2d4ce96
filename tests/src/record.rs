//! The probe's NDJSON records, as a script would read them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// `mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Mode {
    Read,
    Write,
}

/// `outcome`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Outcome {
    Ready,
    Timeout,
    Closed,
    Error,
    Rearmed,
    Open,
}

/// `kernel_ready_source`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Source {
    Callback,
    DataReady,
    StateChange,
    Reset,
    WriteEstimate,
    PollerWakeup,
    BeforePark,
    None,
}

/// `poller`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Poller {
    Blocking,
    Nonblocking,
    Sysmon,
    Unknown,
}

/// A frame of `stack`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Frame {
    pub func: String,
    pub file: String,
    pub line: u32,
}

/// One line: one wait. Times are CLOCK_MONOTONIC ns.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's, which the README describes")]
pub struct Record {
    pub pid: u32,
    pub goid: u64,
    pub tid: u32,
    pub fd: i32,
    pub mode: Mode,
    pub outcome: Outcome,
    pub spurious: bool,
    pub started_before: bool,
    pub start_ns: u64,
    pub kernel_ready_ns: Option<u64>,
    pub kernel_ready_source: Source,
    pub poll_ns: Option<u64>,
    pub end_ns: u64,
    pub peer_ns: Option<u64>,
    pub pickup_ns: Option<u64>,
    pub queue_ns: Option<u64>,
    pub unknown_ns: u64,
    pub poller: Poller,
    pub idle: bool,
    pub idle_ns: u64,
    pub kind: String,
    pub role: String,
    pub local: Option<String>,
    pub remote: Option<String>,
    pub stack: Vec<Frame>,
    pub labels: BTreeMap<String, String>,
    pub stands_for: u32,
}

impl Record {
    /// From start to end, ns.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Whether the goroutine really parked: when the fd was collected before the start, `netpollblock` returns at once.
    #[must_use]
    pub fn parked(&self) -> bool {
        self.kernel_ready_source != Source::BeforePark
            || self.poll_ns.is_none_or(|poll_ns| poll_ns > self.start_ns)
    }
}

/// Reads a file of records.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    parse(&fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
}

/// Parses records, a line each.
pub fn parse(text: &str) -> Result<Vec<Record>> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("record {}: {line}", index + 1))
        })
        .collect()
}
