//! The log of `fixtures/go/truth`: a program that knows its own waits.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::record::{Mode, Outcome};

/// What the call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Op {
    Read,
    Write,
    Accept,
    Connect,
}

impl Op {
    /// The direction it waits for.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self {
            Self::Read | Self::Accept => Mode::Read,
            Self::Write | Self::Connect => Mode::Write,
        }
    }

    /// The record's `role`.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Accept => "accept",
            Self::Connect => "connect",
        }
    }
}

/// A call, or one wait in it (`exact`): `type Call` of the program says what each field means.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the Go type of the same name has the docs")]
pub struct Call {
    pub scenario: String,
    pub goid: u64,
    pub op: Op,
    pub kind: String,
    pub fd: i32,
    pub before_ns: u64,
    pub after_ns: u64,
    pub not_before_ns: u64,
    pub peer_ns: u64,
    pub outcome: Outcome,
    pub local: Option<String>,
    pub remote: Option<String>,
    pub expect_wait: bool,
    pub exact: bool,
    pub spurious: bool,
    pub rearmed: i32,
    pub frames: Vec<String>,
}

impl Call {
    /// How often its deadline fired and was moved before the goroutine ran, where the program knows.
    #[must_use]
    pub fn rearmed(&self) -> Option<usize> {
        usize::try_from(self.rearmed).ok()
    }

    /// For messages.
    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "{} {} {} goroutine {} fd {} at {} for {} µs",
            self.scenario,
            self.kind,
            self.op.role(),
            self.goid,
            self.fd,
            self.before_ns,
            self.after_ns.saturating_sub(self.before_ns) / 1000
        )
    }
}

/// Reads a log.
pub fn read(path: &Path) -> Result<Vec<Call>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}: {line}", path.display(), index + 1))
        })
        .collect()
}
