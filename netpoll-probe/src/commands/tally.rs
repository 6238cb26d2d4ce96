//! The end of a wait's way: its stack named, classified, filtered, added up.

use super::filter::Filter;
use crate::{
    correlate::{Correlated, Sent, classify},
    model::{builder::ProfileBuilder, quality::Quality, wait::Wait},
    symbolize::Symbolizer,
};

/// Adds completed waits up.
#[derive(Debug)]
pub struct Tally {
    /// What they add up to.
    pub builder: ProfileBuilder,
    /// Of the stacks; and of processes that have left.
    pub quality: Quality,
    filter: Filter,
}

impl Tally {
    /// Of the waits that `filter` lets pass.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { builder: ProfileBuilder::default(), quality: Quality::default(), filter }
    }

    /// Gives a wait its stack. `bias` is what is added to an address of the executable's file to give one of the process.
    pub fn name(&mut self, correlated: Correlated, symbolizer: &mut Symbolizer, bias: u64) -> (Wait, Sent) {
        let Correlated { mut wait, stack_hash, pcs, sent } = correlated;
        if let Some(pcs) = pcs {
            wait.stack = Some(symbolizer.stack(stack_hash, bias, &pcs, self.builder.stacks_mut()));
        }
        (wait, sent)
    }

    /// Adds a wait that has its stack. Returns whether the filter let it pass.
    pub fn add(&mut self, wait: &mut Wait, sent: Sent) -> bool {
        let stack = wait.stack.and_then(|id| self.builder.stacks().get(id));
        self.quality.count_stack(stack.map(AsRef::as_ref));
        if let Some(stack) = stack {
            wait.role = classify::role(wait, stack);
            wait.idle = classify::idle(wait, stack, &self.filter.idle_functions);
            classify::split_idle(wait, sent, stack);
        }
        let passes = self.filter.passes(wait);
        if passes {
            self.builder.add(wait);
        }
        passes
    }
}
