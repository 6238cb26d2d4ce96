//! Which waits a report is about.

use std::time::Duration;

use crate::model::wait::Wait;

/// Which waits are left out, and what is idle besides what always is.
#[derive(Debug)]
pub struct Filter {
    min_ns: u64,
    max_ns: u64,
    /// `--idle-function`
    pub(super) idle_functions: Vec<String>,
}

impl Filter {
    /// Waits between these durations; `idle_functions` make a wait idle.
    #[must_use]
    pub fn new(min: Option<Duration>, max: Option<Duration>, idle_functions: Vec<String>) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { min_ns: min.map_or(0, ns), max_ns: max.map_or(u64::MAX, ns), idle_functions }
    }

    pub(super) fn passes(&self, wait: &Wait) -> bool {
        (self.min_ns..=self.max_ns).contains(&wait.clocks.duration_ns())
    }
}
