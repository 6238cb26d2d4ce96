//! How far a recording can be trusted: what was seen, what was lost, and why.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts over one recording. Anything but zero in `lost` or `unmatched` is printed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Waits in the report (ended, and open at the end).
    pub seen: u64,
    /// Of these, open when the recording began.
    pub started_before: u64,
    /// Of these, still open when it ended.
    pub open: u64,
    /// Records or parts of records lost, by cause (the counter's name), zero counts left out.
    pub lost: BTreeMap<String, u64>,
    /// Ends that no start was known for, by reason, zero counts left out.
    pub unmatched: BTreeMap<String, u64>,
    /// Waits whose kernel-ready clock is not known.
    pub kernel_ready_unknown: u64,
    /// Waits that ended as ready with no poll seen.
    pub poll_unknown: u64,
    /// Waits without a stack.
    pub stack_unknown: u64,
    /// Waits with a stack that was cut short.
    pub stack_truncated: u64,
    /// Waits whose socket is not known.
    pub endpoint_unknown: u64,
    /// Clocks out of order that were clamped.
    pub clamped: u64,
}

impl Quality {
    /// All losses together.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }
}
