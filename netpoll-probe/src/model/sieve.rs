//! A table that keeps the entries with the biggest totals, for keys that come without end.

use std::{
    cmp::Reverse,
    hash::{BuildHasher as _, Hash},
};

use foldhash::HashMap;

use super::{
    builder::Tracked,
    profile::{Kept, StackKey},
    sums::{PhaseSums, Sample, Sums},
};

/// Stacks that are told apart for each goroutine and fd.
pub(super) const STACKS_OF_ONE: usize = 8;

/// Sums of keys without an entry that are told apart, by their hash only; 64 KB.
const PASSED: usize = 1 << 13;

/// When it has twice as many entries as it may keep, its smaller half goes into `other`. From then on a new key has to come to
/// as much as the biggest of those before it gets an entry: most never do, and a wait of theirs costs little.
#[derive(Debug)]
pub(super) struct Sieve<Key> {
    keep: usize,
    /// Where each key stands in `entries`.
    places: HashMap<Key, usize>,
    /// One for each key of `places`; after them empty ones, kept for their memory.
    entries: Vec<(Key, Tracked)>,
    other: Option<Tracked>,
    /// What keys without an entry have come to together, ns, by their hash; empty until some were left out.
    passed: Vec<u64>,
    /// The biggest total that was left out, ns.
    left_out_ns: u64,
}

impl<Key: Copy + Eq + Hash + Ord> Sieve<Key> {
    /// An empty one that keeps so many.
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            places: HashMap::default(),
            entries: Vec::new(),
            other: None,
            passed: Vec::new(),
            left_out_ns: 0,
        }
    }

    /// Adds a wait to the entry of its key.
    pub(super) fn add(&mut self, key: Key, sample: &Sample<'_>) {
        let Some(tracked) = self.of(key, sample.duration_ns.saturating_mul(sample.count)) else { return };
        tracked.sums.add(sample);
        tracked.add_phases(sample.stack, &sample.phase_sums);
    }

    /// Adds waits at one stack to the entry of their key.
    pub(super) fn merge(&mut self, key: Key, stack: StackKey, sums: &Sums) {
        let Some(tracked) = self.of(key, sums.total_ns()) else { return };
        tracked.sums.merge(sums);
        tracked.add_phases(stack, &sums.phases);
    }

    /// Where waits that have lasted so long together are to be added.
    fn of(&mut self, key: Key, ns: u64) -> Option<&mut Tracked> {
        if let Some(place) = self.places.get(&key) {
            return self.entries.get_mut(*place).map(|(_, tracked)| tracked);
        }
        if !self.passed.is_empty() && self.passes_by(&key, ns) {
            return self.other.as_mut();
        }
        if self.places.len() + 1 >= 2 * self.keep {
            self.sift();
        }
        let place = self.places.len();
        self.places.insert(key, place);
        if place == self.entries.len() {
            self.entries.push((key, Tracked::default()));
        }
        let (of, tracked) = self.entries.get_mut(place)?;
        *of = key;
        Some(tracked)
    }

    /// Whether a key without an entry gets none for these waits either.
    fn passes_by(&mut self, key: &Key, ns: u64) -> bool {
        let hash = self.places.hasher().hash_one(key);
        let at = usize::try_from(hash % PASSED as u64).unwrap_or(0);
        let Some(passed_ns) = self.passed.get_mut(at) else { return false };
        *passed_ns = passed_ns.saturating_add(ns);
        let passes_by = *passed_ns < self.left_out_ns;
        if !passes_by {
            *passed_ns = 0;
        }
        passes_by
    }

    /// Adds waits of which no key is known.
    pub(super) fn add_without_key(&mut self, stack: StackKey, sums: &Sums) {
        let other = self.other.get_or_insert_with(Tracked::of_many);
        other.sums.merge(sums);
        other.add_phases(stack, &sums.phases);
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Sums up all but the biggest entries.
    fn sift(&mut self) {
        let rank = |(key, tracked): &(Key, Tracked)| (Reverse(tracked.sums.total_ns()), *key);
        let mut ranks: Vec<_> = self.entries.iter().take(self.places.len()).map(rank).collect();
        if ranks.len() <= self.keep {
            return;
        }
        let (_, first_out, _) = ranks.select_nth_unstable(self.keep);
        let first_out = *first_out;
        self.left_out_ns = first_out.0.0;
        self.passed.resize(PASSED, 0);
        let other = self.other.get_or_insert_with(Tracked::of_many);
        let mut kept = 0;
        for at in 0..self.places.len() {
            let Some(entry) = self.entries.get_mut(at) else { break };
            if rank(entry) < first_out {
                self.entries.swap(kept, at);
                kept += 1;
            } else {
                other.merge(&entry.1);
                entry.1.clear();
            }
        }
        self.places.clear();
        self.places.extend(self.entries.iter().take(kept).enumerate().map(|(at, (key, _))| (*key, at)));
    }

    /// The biggest entries, and the sum of the others.
    pub(super) fn finish(mut self) -> Kept<Key> {
        self.sift();
        self.entries.truncate(self.places.len());
        self.entries.sort_unstable_by_key(|(key, tracked)| (Reverse(tracked.sums.total_ns()), *key));
        Kept { entries: self.entries, other: self.other }
    }
}

impl Tracked {
    fn of_many() -> Self {
        Self { sums: Sums::of_many(), stacks: Vec::new() }
    }

    fn add_phases(&mut self, stack: StackKey, phases: &PhaseSums) {
        if let Some((_, sums)) = self.stacks.iter_mut().find(|(known, _)| *known == stack) {
            return sums.merge(phases);
        }
        let stack = if self.stacks.len() >= STACKS_OF_ONE { StackKey::Other } else { stack };
        match self.stacks.iter_mut().find(|(known, _)| *known == stack) {
            Some((_, sums)) => sums.merge(phases),
            None => self.stacks.push((stack, *phases)),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.sums.merge(&other.sums);
        for (stack, phases) in &other.stacks {
            self.add_phases(*stack, phases);
        }
    }

    fn clear(&mut self) {
        self.sums.clear();
        self.stacks.clear();
    }
}
