//! Where each completed wait goes: into the sums, and to the outputs that have every one.

use super::{cells::Cells, outputs::Outputs, tally::Tally, tell};
use crate::{
    correlate::{Correlated, Sent},
    error::Failure,
    model::wait::Wait,
    symbolize::Symbolizer,
};

/// The sums and the outputs of one recording.
#[derive(Debug)]
pub(super) struct Adder {
    pub(super) tally: Tally,
    pub(super) outputs: Outputs,
    /// An output failed; the others are finished all the same.
    pub(super) failure: Option<Failure>,
}

impl Adder {
    pub(super) fn new(tally: Tally, outputs: Outputs) -> Self {
        Self { tally, outputs, failure: None }
    }

    /// Names a wait's stack, and adds it; those like it may be added up. `bias` is that of its process.
    pub(super) fn name(
        &mut self,
        correlated: &mut Correlated,
        symbolizer: &mut Symbolizer,
        bias: u64,
        cells: &mut Cells,
    ) {
        self.tally.name(correlated, symbolizer, bias);
        let Correlated { wait, sent, like, .. } = correlated;
        self.add(wait, *sent);
        if let Some(like) = *like {
            cells.saw(like, wait, &self.tally);
        }
    }

    /// Adds a wait that has its stack, and writes it.
    pub(super) fn add(&mut self, wait: &mut Wait, sent: Sent) {
        if self.tally.add(wait, sent) {
            let written = self.outputs.wait(wait, self.tally.builder.stacks());
            self.note(written);
        }
    }

    /// Sends everything so far on its way to the readers.
    pub(super) fn flush(&mut self) {
        let flushed = self.outputs.flush();
        self.note(flushed);
    }

    /// An output that failed is told at once, and ends the command as failed when it is done.
    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            tell(&failure.to_string());
            self.failure.get_or_insert(failure);
        }
    }
}
