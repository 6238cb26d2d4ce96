//! The buckets of a log-linear histogram of nanoseconds: every octave is cut into 32 equal ones, so a bucket is at most 1/32 of its values
//! wide. Both sides count in the same ones, so what the programs count goes into a report as it is.

/// log2 of the buckets in an octave.
const SUB_BITS: u32 = 5;

/// Buckets in an octave.
pub const SUB: u64 = 1 << SUB_BITS;

/// Buckets of all of `u64`.
pub const BUCKETS: usize = bucket_of(u64::MAX) as usize + 1;

/// The bucket of a value: values below 32 have one each, then 32 to an octave.
#[inline(always)]
#[must_use]
pub const fn bucket_of(ns: u64) -> u64 {
    let shift = (ns | (2 * SUB - 1)).ilog2() - SUB_BITS;
    shift as u64 * SUB + (ns >> shift)
}

/// The same of a value that is not large: an eBPF machine has no instruction that counts leading zeros, and takes half as many others.
#[inline(always)]
#[must_use]
pub const fn bucket_of_small(ns: u32) -> u32 {
    let shift = (ns | (2 * SUB as u32 - 1)).ilog2() - SUB_BITS;
    shift * SUB as u32 + (ns >> shift)
}

/// The smallest and the largest value of a bucket.
#[must_use]
pub const fn bounds_of(bucket: u64) -> (u64, u64) {
    match bucket / SUB {
        0 => (bucket, bucket),
        octave => {
            let shift = octave - 1;
            let lower = (SUB + bucket % SUB) << shift;
            (lower, lower + ((1 << shift) - 1))
        }
    }
}
