//! The buffers in which the program at the exit of system calls hands over waits: one of each CPU, in memory that user space shares. The
//! ring has one lock for all CPUs, and its submit waits until the record has gone to memory; together 0.15 µs a wait (perf, 12,500/s).
//!
//! All buffers stand in one array, one after the other. The program is not preempted, so a CPU has one writer; user space reads.

use crate::record::WaitRecord;

/// Records that all buffers hold together at most, 64 MiB.
const RECORDS: u32 = 1 << 19;

/// Records that one holds at most, 128 KiB: 25 ms at 40,000 waits/s of one CPU, while user space looks every 20 ms, and is woken when it is
/// half full. It is written from end to end, so it is no larger than stays in the CPU's cache beside what the target has there: with
/// 2 MiB, as much as the cache, an HTTP server at saturation was 2 % slower. When it is full, waits go through the ring.
const RECORDS_OF_ONE: u32 = 1 << 10;

/// Records that one holds where there are so many CPUs: a power of two.
#[must_use]
pub const fn records_of_each(cpus: u32) -> u32 {
    let share = RECORDS / if cpus == 0 { 1 } else { cpus };
    if share >= RECORDS_OF_ONE {
        return RECORDS_OF_ONE;
    }
    // Two at least: the reader is woken at each half.
    1 << if share < 2 { 1 } else { share.ilog2() }
}

/// A record in a buffer: whole cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// The record.
    pub record: WaitRecord,
    /// Zero.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Place>() == 2 * 64);

/// How far a buffer was written and read. Both only grow; a record's place is its number modulo the records of a buffer. In a cache line
/// each, or writer and reader would take it from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cursors {
    /// How many records were written, by the program.
    pub written: u64,
    /// Fills the line.
    pub reserved: [u64; 7],
    /// How many were read, by user space: their places may be written again.
    pub read: u64,
    /// Fills the line.
    pub reserved_too: [u64; 7],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_they_are_bounded() {
        for cpus in [0, 1, 2, 32, 33, 48, 128, 8192, RECORDS, u32::MAX] {
            let records = records_of_each(cpus);
            assert!(records.is_power_of_two() && records >= 2);
            let is_bounded = u64::from(records) * u64::from(cpus) <= u64::from(RECORDS);
            assert!(is_bounded || records == 2, "{cpus}");
        }
        assert_eq!(records_of_each(2), RECORDS_OF_ONE);
        assert_eq!(records_of_each(1024), 512);
    }
}
