//! Log-linear histogram of nanoseconds: every octave is cut into 32 equal buckets, so a bucket is at most 1/32 of its
//! values wide and a quantile is within 1/64 (1.6 %) of the true one. Count, sum, minimum and maximum are exact.
//!
//! Only octaves that were hit are kept, 128 bytes each: waits between 1 µs and 10 s need 24 of them at most (3 KB), all of `u64` 60. A
//! profile keeps thousands of these, hence not `hdrhistogram`, whose counts are a dense array (for this range and error 12 KB from the
//! first value on). The few that every wait goes into are dense all the same ([`Histogram::dense`]).

use netpoll_probe_common::histogram::{BUCKETS, SUB, bounds_of, bucket_of};

/// Buckets of an octave.
const OF_OCTAVE: usize = 32;
const _: () = assert!(OF_OCTAVE as u64 == SUB);

/// Octaves of all of `u64`.
const OCTAVES: usize = BUCKETS / OF_OCTAVE;

/// A histogram of nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Counts,
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

/// How many values fell into each bucket.
#[derive(Clone, Debug)]
enum Counts {
    /// Those of octaves that were hit.
    Hit(Hit),
    /// All.
    All(Box<[u64; BUCKETS]>),
}

/// The buckets of octaves that were hit.
#[derive(Clone, Debug)]
struct Hit {
    /// Where in `counts` each octave is, counted from one; 0: it was not hit.
    places: [u8; OCTAVES],
    counts: Vec<[u32; OF_OCTAVE]>,
}

impl Default for Counts {
    fn default() -> Self {
        Self::Hit(Hit { places: [0; OCTAVES], counts: Vec::new() })
    }
}

impl Hit {
    /// Adds to a bucket. Returns false, and adds nothing, when it cannot count as far.
    fn add(&mut self, bucket: u64, count: u64) -> bool {
        let octave = usize::try_from(bucket / SUB).unwrap_or(usize::MAX);
        let Some(place) = self.places.get_mut(octave) else { return true };
        if *place == 0 {
            self.counts.push([0; OF_OCTAVE]);
            // There are fewer than 256 octaves.
            *place = u8::try_from(self.counts.len()).unwrap_or(0);
        }
        let counts = self.counts.get_mut(usize::from(*place).wrapping_sub(1));
        let Some(known) = counts.and_then(|counts| counts.get_mut((bucket % SUB) as usize)) else {
            return true;
        };
        let sum = u32::try_from(u64::from(*known).saturating_add(count));
        if let Ok(sum) = sum {
            *known = sum;
        }
        sum.is_ok()
    }

    /// Number and count of each bucket that was hit, by rising number.
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).zip(&self.places).filter(|(_, place)| **place > 0).flat_map(|(octave, place)| {
            let counts = self.counts.get(usize::from(*place) - 1).into_iter().flatten();
            (octave * SUB..).zip(counts).map(|(bucket, count)| (bucket, u64::from(*count)))
        })
    }
}

/// Equal when they hold the same values, however they keep them.
impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        let range = |it: &Self| (it.count, it.sum_ns, it.min_ns, it.max_ns);
        range(self) == range(other) && self.hits().eq(other.hits())
    }
}

impl Eq for Histogram {}

/// One bucket that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its smallest value.
    pub lower_ns: u64,
    /// Its largest value.
    pub upper_ns: u64,
    /// How many values fell into it.
    pub count: u64,
}

impl Histogram {
    /// An empty one for many values: it takes 15 KB, and adding is quick.
    #[must_use]
    pub fn dense() -> Self {
        Self { counts: Counts::All(Box::new([0; BUCKETS])), ..Self::default() }
    }

    /// Of values that were counted elsewhere: buckets by their number, how many fell into each; and the values' sum, smallest and largest.
    #[must_use]
    pub fn of_buckets(
        counts: impl Iterator<Item = (u64, u64)>,
        sum_ns: u64,
        min_ns: u64,
        max_ns: u64,
    ) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in counts.filter(|(_, count)| *count > 0) {
            histogram.count = histogram.count.saturating_add(count);
            histogram.add_to_bucket(bucket, count);
        }
        if histogram.count > 0 {
            (histogram.sum_ns, histogram.min_ns, histogram.max_ns) = (sum_ns, min_ns, max_ns);
        }
        histogram
    }

    /// Takes all values out, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        match &mut self.counts {
            Counts::Hit(hit) => {
                hit.places.fill(0);
                hit.counts.clear();
            }
            Counts::All(counts) => counts.fill(0),
        }
        (self.count, self.sum_ns, self.min_ns, self.max_ns) = (0, 0, 0, 0);
    }

    /// Adds one value.
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Adds a value as often as it stands for one.
    pub fn record_many(&mut self, ns: u64, count: u64) {
        if count > 0 {
            self.add_range(ns, ns, count, ns.saturating_mul(count));
            self.add_to_bucket(bucket_of(ns), count);
        }
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.add_range(other.min_ns, other.max_ns, other.count, other.sum_ns);
        for (index, count) in other.hits() {
            self.add_to_bucket(index, count);
        }
    }

    /// How many values it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, ns.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The smallest, ns; `None` when it is empty.
    #[must_use]
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The largest, ns; `None` when it is empty.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The value that `per_mille` of 1,000 values do not exceed (500 is the median, 999 is p99.9), within 1/64 of it;
    /// `None` when it is empty.
    #[must_use]
    pub fn quantile_ns(&self, per_mille: u16) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = (u128::from(self.count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        if rank >= u128::from(self.count) {
            return Some(self.max_ns);
        }
        let mut below = 0_u128;
        for bucket in self.buckets() {
            below += u128::from(bucket.count);
            if below >= rank {
                let middle_ns = bucket.lower_ns + (bucket.upper_ns - bucket.lower_ns) / 2;
                return Some(middle_ns.clamp(self.min_ns, self.max_ns));
            }
        }
        Some(self.max_ns)
    }

    /// The buckets that were hit, smallest values first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.hits().map(|(index, count)| {
            let (lower_ns, upper_ns) = bounds_of(index);
            Bucket { lower_ns, upper_ns, count }
        })
    }

    /// Number and count of each bucket that was hit, by rising number.
    fn hits(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (hit, all) = match &self.counts {
            Counts::Hit(hit) => (Some(hit), None),
            Counts::All(counts) => (None, Some((0..).zip(counts.iter().copied()))),
        };
        let hit = hit.into_iter().flat_map(Hit::iter);
        hit.chain(all.into_iter().flatten()).filter(|(_, count)| *count > 0)
    }

    fn add_range(&mut self, min_ns: u64, max_ns: u64, count: u64, sum_ns: u64) {
        self.min_ns = if self.count == 0 { min_ns } else { self.min_ns.min(min_ns) };
        self.max_ns = self.max_ns.max(max_ns);
        self.count = self.count.saturating_add(count);
        self.sum_ns = self.sum_ns.saturating_add(sum_ns);
    }

    fn add_to_bucket(&mut self, bucket: u64, count: u64) {
        if let Counts::Hit(hit) = &mut self.counts {
            if hit.add(bucket, count) {
                return;
            }
            let mut all = Box::new([0; BUCKETS]);
            for (bucket, count) in hit.iter() {
                add(&mut all, bucket, count);
            }
            self.counts = Counts::All(all);
        }
        if let Counts::All(counts) = &mut self.counts {
            add(counts, bucket, count);
        }
    }
}

fn add(counts: &mut [u64; BUCKETS], bucket: u64, count: u64) {
    if let Some(known) = usize::try_from(bucket).ok().and_then(|bucket| counts.get_mut(bucket)) {
        *known = known.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use netpoll_probe_common::histogram::bucket_of_small;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(*value);
        }
        histogram
    }

    /// Spread over all octaves, as waits are, rather than uniform.
    fn any_ns() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
    }

    #[test]
    fn buckets_tile_the_whole_range() {
        let mut next = 0_u64;
        assert_eq!(BUCKETS, 1920);
        for bucket in 0..1920 {
            let (lower, upper) = bounds_of(bucket);
            assert_eq!(lower, next, "bucket {bucket} leaves a gap");
            assert_eq!((bucket_of(lower), bucket_of(upper)), (bucket, bucket));
            for small in [lower, upper].into_iter().filter_map(|ns| u32::try_from(ns).ok()) {
                assert_eq!(u64::from(bucket_of_small(small)), bucket);
            }
            next = upper.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at u64::MAX");
    }

    #[test]
    fn empty_knows_nothing() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.sum_ns(), empty.buckets().count()), (0, 0, 0));
        assert_eq!((empty.min_ns(), empty.max_ns(), empty.quantile_ns(500)), (None, None, None));
    }

    #[test]
    fn a_range_of_waits_stays_small() {
        let mut histogram = Histogram::default();
        let mut ns = 1_000;
        while ns < 10_000_000_000 {
            histogram.record(ns);
            ns += (ns / 200).max(1);
        }
        assert_eq!(histogram.buckets().count(), 744);
    }

    #[test]
    fn counts_beyond_what_a_few_bytes_hold() {
        let mut histogram = of(&[5, 700]);
        for _ in 0..3 {
            histogram.record_many(700, u64::from(u32::MAX));
        }
        let counts: Vec<u64> = histogram.buckets().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [1, 3 * u64::from(u32::MAX) + 1]);
        assert_eq!(histogram.count(), 3 * u64::from(u32::MAX) + 2);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_bound(mut values in prop::collection::vec(any_ns(), 1..300), per_mille in 0_u16..=1000) {
            let histogram = of(&values);
            values.sort_unstable();
            let rank = (values.len() * usize::from(per_mille)).div_ceil(1000).max(1);
            let truth = values[rank - 1];
            let found = histogram.quantile_ns(per_mille).unwrap();
            prop_assert!(found.abs_diff(truth) <= truth / 64, "{found} for {truth}");
            prop_assert_eq!(histogram.min_ns(), values.first().copied());
            prop_assert_eq!(histogram.quantile_ns(1000), values.last().copied());
        }

        #[test]
        fn merging_is_recording_all(a in prop::collection::vec(any_ns(), 0..200), b in prop::collection::vec(any_ns(), 0..200)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }

        #[test]
        fn dense_ones_hold_the_same(a in prop::collection::vec(any_ns(), 0..200), b in prop::collection::vec(any_ns(), 0..200)) {
            let mut dense = Histogram::dense();
            a.iter().for_each(|ns| dense.record(*ns));
            prop_assert_eq!(&dense, &of(&a));
            dense.merge(&of(&b));
            let all = of(&[a, b].concat());
            prop_assert_eq!(&dense, &all);
            prop_assert_eq!(dense.quantile_ns(990), all.quantile_ns(990));
            dense.clear();
            prop_assert_eq!(dense, Histogram::default());
        }

        #[test]
        fn counted_elsewhere_is_the_same(values in prop::collection::vec(any_ns(), 0..200)) {
            let histogram = of(&values);
            let counts = histogram.buckets().map(|bucket| (bucket_of(bucket.lower_ns), bucket.count));
            let (min_ns, max_ns) = (histogram.min_ns().unwrap_or(7), histogram.max_ns().unwrap_or(9));
            prop_assert_eq!(&Histogram::of_buckets(counts, histogram.sum_ns(), min_ns, max_ns), &histogram);
        }

        #[test]
        fn buckets_hold_every_value(values in prop::collection::vec(any_ns(), 0..200)) {
            let histogram = of(&values);
            prop_assert_eq!(histogram.buckets().map(|bucket| bucket.count).sum::<u64>(), values.len() as u64);
            for value in &values {
                prop_assert!(histogram.buckets().any(|bucket| (bucket.lower_ns..=bucket.upper_ns).contains(value)));
            }
        }
    }
}
