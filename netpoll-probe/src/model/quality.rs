//! How far a recording can be trusted: what was seen, what was lost, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bypass::Bypass;

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
    /// How often it could not be read whether a goroutine was parked for an event; who had been told EAGAIN is taken to have.
    pub park_unknown: u64,
    /// Clocks out of order that were clamped.
    pub clamped: u64,
    /// Waits that were not followed, to stay within a budget, by what those stand for that were: an estimate.
    pub not_followed: u64,
    /// Waits that were added up in the kernel: of these nothing else is known than their sums.
    pub added_in_kernel: u64,
    /// How the processes wait past the netpoller, where no wait is seen.
    pub bypasses: Vec<Bypass>,
}

impl Quality {
    /// Counts how far the stack of a wait is known: whether it was cut short; `None`: not at all.
    pub fn count_stack(&mut self, truncated: Option<bool>) {
        match truncated {
            None => self.stack_unknown += 1,
            Some(truncated) => self.stack_truncated += u64::from(truncated),
        }
    }

    /// Adds what another part of the recording says of itself.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            seen,
            started_before,
            open,
            lost,
            unmatched,
            kernel_ready_unknown,
            poll_unknown,
            stack_unknown,
            stack_truncated,
            endpoint_unknown,
            park_unknown,
            clamped,
            not_followed,
            added_in_kernel,
            bypasses,
        } = other;
        self.seen += seen;
        self.started_before += started_before;
        self.open += open;
        for (into, from) in [(&mut self.lost, lost), (&mut self.unmatched, unmatched)] {
            for (cause, count) in from {
                *into.entry(cause.clone()).or_default() += count;
            }
        }
        self.kernel_ready_unknown += kernel_ready_unknown;
        self.poll_unknown += poll_unknown;
        self.stack_unknown += stack_unknown;
        self.stack_truncated += stack_truncated;
        self.endpoint_unknown += endpoint_unknown;
        self.park_unknown += park_unknown;
        self.clamped += clamped;
        self.not_followed += not_followed;
        self.added_in_kernel += added_in_kernel;
        self.bypasses.extend_from_slice(bypasses);
    }

    /// All losses together.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut quality = Quality::default();
        for truncated in [Some(false), Some(true), Some(true), None] {
            quality.count_stack(truncated);
        }
        assert_eq!((quality.stack_unknown, quality.stack_truncated), (1, 2));

        quality.lost.insert("ring_full_wait".to_owned(), 3);
        let mut both = quality.clone();
        both.merge(&quality);
        assert_eq!((both.stack_truncated, both.lost_total()), (4, 6));
    }
}
