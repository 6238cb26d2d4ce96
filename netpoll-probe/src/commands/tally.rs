//! The end of a wait's way: its stack named, classified, filtered, added up.

use super::filter::Filter;
use crate::{
    correlate::{Correlated, Sent, cells::Added, classify::Told},
    model::{
        builder::{Common, ProfileBuilder},
        quality::Quality,
        stack::StackId,
        wait::Wait,
    },
    symbolize::{Symbolizer, leaf_first},
};

/// Adds completed waits up.
#[derive(Debug)]
pub struct Tally {
    /// What they add up to.
    pub builder: ProfileBuilder,
    /// Of the stacks; and of processes that have left.
    pub quality: Quality,
    filter: Filter,
    /// What each stack tells, by its id.
    told: Vec<Option<(Told, bool)>>,
}

impl Tally {
    /// Of the waits that `filter` lets pass.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { builder: ProfileBuilder::default(), quality: Quality::default(), filter, told: Vec::new() }
    }

    /// Gives a wait its stack. `bias` is what is added to an address of the executable's file to give one of the process.
    pub fn name(&mut self, correlated: &mut Correlated, symbolizer: &mut Symbolizer, bias: u64) {
        let table = self.builder.stacks_mut();
        correlated.wait.stack = correlated.pcs.as_deref().map(|pcs| match correlated.stack_hash {
            0 => symbolizer.walked(bias, leaf_first(pcs), table),
            hash => symbolizer.stack(hash, bias, pcs, table),
        });
    }

    /// Adds a wait that has its stack. Returns whether the filter let it pass.
    pub fn add(&mut self, wait: &mut Wait, sent: Sent) -> bool {
        let told = wait.stack.and_then(|id| self.told(id));
        self.quality.count_stack(told.map(|(_, truncated)| truncated));
        if let Some((told, _)) = told {
            told.of(wait, sent);
        }
        let passes = self.filter.passes(wait);
        if passes {
            self.builder.add(wait);
        }
        passes
    }

    /// Adds waits that were added up in the kernel.
    pub fn add_all(&mut self, common: &Common, added: &Added, is_ready_known: bool) {
        let (followed, count) = (added.followed, added.totals.sums.count());
        if count == 0 {
            return;
        }
        let truncated =
            common.stack.and_then(|stack| self.told(stack)).is_some_and(|(_, truncated)| truncated);
        self.quality.merge(&Quality {
            seen: followed,
            added_in_kernel: followed,
            not_followed: count.saturating_sub(followed),
            stack_truncated: if truncated { followed } else { 0 },
            kernel_ready_unknown: if is_ready_known { 0 } else { followed },
            ..Quality::default()
        });
        self.builder.add_all(common, &added.totals);
    }

    /// What the stack of a wait tells that was added.
    #[must_use]
    pub fn known(&self, id: StackId) -> Option<Told> {
        self.told.get(id.0 as usize).copied().flatten().map(|(told, _)| told)
    }

    /// What a stack tells, and whether it was cut short.
    fn told(&mut self, id: StackId) -> Option<(Told, bool)> {
        let at = id.0 as usize;
        if let Some(Some(told)) = self.told.get(at) {
            return Some(*told);
        }
        let stack = self.builder.stacks().get(id)?;
        let told = (Told::by(stack, &self.filter.idle_functions), stack.truncated);
        if self.told.len() <= at {
            self.told.resize(at + 1, None);
        }
        if let Some(entry) = self.told.get_mut(at) {
            *entry = Some(told);
        }
        Some(told)
    }
}
