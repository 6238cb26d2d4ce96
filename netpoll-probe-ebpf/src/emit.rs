//! Records into the ring, and counts of what did not go there.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use netpoll_probe_common::{
    counter::Counter,
    limit::{RING_OF_MANY_BYTES, RING_WAKEUP_BYTES},
    record::Header,
};

use crate::maps;

/// Counts one failure.
#[cold]
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(n) = maps::COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU value; a count lost to preemption between load and store is accepted.
        unsafe { *n += 1 };
    }
}

/// Puts one record into the ring, or counts that it did not fit.
#[inline(always)]
pub fn record<T: 'static>(record: T, full: Counter) -> bool {
    put(record, full, wakeup())
}

/// The same, and wakes the reader: it has to look at the process while it is there.
#[inline(always)]
pub fn record_now<T: 'static>(record: T, full: Counter) -> bool {
    put(record, full, u64::from(BPF_RB_FORCE_WAKEUP))
}

#[inline(always)]
fn put<T: 'static>(record: T, full: Counter, flags: u64) -> bool {
    let Some(mut entry) = maps::RING.reserve::<T>(0) else {
        count(full);
        return false;
    };
    entry.write(record);
    entry.submit(flags);
    true
}

/// Whether the reader is woken: it looks every few milliseconds by itself, so only when much is waiting.
#[inline(always)]
pub fn wakeup() -> u64 {
    if maps::RING.query(u64::from(BPF_RB_AVAIL_DATA)) >= RING_WAKEUP_BYTES {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// The same for one of the many records, at `now_ns`. Asking takes two calls, so only one in 64 asks, as the clock has it: they are 8 KiB
/// of the ring.
#[inline(always)]
pub fn wakeup_at(now_ns: u64) -> u64 {
    if now_ns % 64 == 0 { wakeup() } else { u64::from(BPF_RB_NO_WAKEUP) }
}

/// Whether the ring takes waits that found no room elsewhere: some of it is kept for what comes once.
#[inline(always)]
pub fn has_room_for_many() -> bool {
    maps::RING.query(u64::from(BPF_RB_AVAIL_DATA)) < RING_OF_MANY_BYTES
}

/// Wakes the reader, by a record that nobody sees.
#[inline(always)]
pub fn wake() {
    if let Some(entry) = maps::RING.reserve::<Header>(0) {
        entry.discard(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

/// The header of a record of type `T` of a process.
#[inline(always)]
pub const fn header<T>(kind: u16, tgid: u32) -> Header {
    Header { kind, bytes: size_of::<T>() as u16, tgid }
}
