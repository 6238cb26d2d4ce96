//! What the benchmarks read of the probe's summary (`--format json`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// What is read of a summary.
#[derive(Debug, Deserialize)]
pub(super) struct Summary {
    pub(super) duration_ns: u64,
    pub(super) quality: Quality,
    pub(super) cost: Cost,
    pub(super) totals: Totals,
    pub(super) idle: Totals,
    /// Whether the totals hold the idle waits, too.
    pub(super) idle_included: bool,
}

/// Of waits of a kind.
#[derive(Debug, Deserialize)]
pub(super) struct Totals {
    /// Open when the recording began, and still when it ended.
    pub(super) throughout: u64,
}

/// How far it can be trusted.
#[derive(Debug, Deserialize)]
pub(super) struct Quality {
    /// Waits, ended or open.
    pub(super) seen: u64,
    /// Of these, open when the recording began.
    pub(super) started_before: u64,
    /// Of these, open when it ended.
    pub(super) open: u64,
    /// Others that it stands for.
    pub(super) not_followed: u64,
    pub(super) lost: BTreeMap<String, u64>,
}

/// What it cost.
#[derive(Debug, Deserialize)]
pub(super) struct Cost {
    pub(super) cpu_ns: u64,
    pub(super) peak_resident_bytes: u64,
}

impl Summary {
    /// Waits that began and ended in the recording, with those that others stand for.
    pub(super) fn whole_waits(&self) -> u64 {
        let idle = if self.idle_included { 0 } else { self.idle.throughout };
        let Quality { seen, started_before, open, not_followed, .. } = &self.quality;
        (seen + not_followed + self.totals.throughout + idle).saturating_sub(started_before + open)
    }
}
