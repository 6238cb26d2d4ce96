//! One process that is recorded.

use super::{adder::Adder, cells::Cells, go_process::GoProcess};
use crate::{bpf::plan::Plan, correlate::Correlator, symbolize::Symbolizer};

/// One process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) process: GoProcess,
    pub(super) correlator: Correlator,
}

impl Member {
    /// Hands on the waits that need not be held back any longer.
    pub(super) fn take_ready(&mut self, symbolizer: &mut Symbolizer, cells: &mut Cells, to: &mut Adder) {
        let bias = self.process.load_bias();
        self.correlator.take_ready(|correlated| to.name(correlated, symbolizer, bias, cells));
    }

    /// Hands on all waits.
    pub(super) fn take_all(&mut self, symbolizer: &mut Symbolizer, cells: &mut Cells, to: &mut Adder) {
        let bias = self.process.load_bias();
        self.correlator
            .take_all()
            .for_each(|mut correlated| to.name(&mut correlated, symbolizer, bias, cells));
    }
}

/// What makes waits of records, as the plan shows them.
pub(super) fn correlator(plan: &Plan, pid: u32) -> Correlator {
    if plan.follows_syscalls() { Correlator::by_syscalls(pid) } else { Correlator::new(pid) }
}
