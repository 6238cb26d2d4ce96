//! Adds a wait that has ended to the cell that user space opened for its like ([`netpoll_probe_common::cell`]).
//!
//! Sums are this CPU's own. Those of uprobes are added to by atomic instructions all the same: their programs are preempted by each other,
//! and every count is exact. The program at the exit of system calls is not preempted.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use netpoll_probe_common::{
    cell::{
        BUCKETS, CELL_COUNT_MAX, CellEntry, CellKey, CellSums, Ended, PARTS, POLLERS, SOURCES, Split, part,
    },
    histogram::bucket_of_small,
    record::flag,
    slot::PollDescSlot,
};

use crate::{config::config, maps, sampling, wait};

/// A wait's direction and outcome, as one number: a function has five arguments at most.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct How(u64);

impl How {
    /// Of both.
    #[inline(always)]
    pub const fn new(mode: u64, outcome: u8) -> Self {
        Self(mode << 8 | outcome as u64)
    }

    /// The direction.
    #[inline(always)]
    pub const fn mode(self) -> u64 {
        self.0 >> 8
    }

    /// [`netpoll_probe_common::record::outcome`]
    #[inline(always)]
    pub const fn outcome(self) -> u8 {
        self.0 as u8
    }
}

/// Adds the wait, if it is one of an open cell and out of the ordinary in nothing. A function of its own for the verifier, and for its
/// stack.
#[inline(never)]
pub fn add(slot: &mut PollDescSlot, how: How, start_ns: u64, end_ns: u64, sent_ns: u64) -> bool {
    // SAFETY: a part of the slot that `of` does not touch.
    let facts = unsafe { &*(&raw const slot.file) };
    let wait = wait::of(slot, how.mode());
    // Not written again and again: what is read next of that line would wait until this CPU has it for itself.
    if wait.cell != 0 {
        wait.cell = 0;
    }
    if !sampling::adds_up() || wait.stack_hash == 0 || facts.known != 1 {
        return false;
    }
    let ended = Ended {
        start_ns,
        kernel_ready_ns: wait.kernel_ready_ns,
        poll_ns: wait.poll_ns,
        last_poll_ns: wait.last_poll_ns,
        end_ns,
        sent_ns,
        socket_state: wait.socket_state,
        flags: wait.flags,
        mode: how.mode() as u8,
        outcome: how.outcome(),
        kernel_ready_source: wait.kernel_ready_source,
    };
    let Some(mut split) = Split::of(&ended) else { return false };
    // Zero, which the verifier does not know ([`crate::regs::Syscall::nothing`]): it goes through what follows once, and not once for each kind.
    let nothing = (start_ns >> 60) as u32;
    split.kind ^= nothing;
    split.source ^= nothing as u8;
    split.before_asked_ns ^= nothing;
    let key = CellKey {
        stack_hash: wait.stack_hash,
        inode: facts.inode,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        fd: facts.fd,
        kind: split.kind,
        reserved: 0,
    };
    // SAFETY: the value is copied at once.
    let Some(CellEntry { cell, reads_answers }) = (unsafe { maps::CELLS.get(&key) }).copied() else {
        return false;
    };
    let (Some(sums), Some(histograms)) =
        (maps::CELL_SUMS.get_ptr_mut(cell), maps::CELL_HISTOGRAMS.get_ptr_mut(cell))
    else {
        return false;
    };
    // One or zero times.
    split.before_asked_ns *= reads_answers;
    split = split.without_idle_beginning();
    if is_extreme(sums, &split.parts_ns) {
        return false;
    }
    let (weight, weight_64) = (wait.stands_for, u64::from(wait.stands_for));
    let mut at = 0;
    while at < PARTS {
        let bucket = bucket_of_small(split.parts_ns[at]) as usize;
        // It always is less; this shows the verifier a bound.
        if bucket < BUCKETS {
            // SAFETY: inside a map value.
            add_32(unsafe { histograms.cast::<u32>().add(at * BUCKETS + bucket) }, weight);
        }
        at += 1;
    }
    let place = |offset: usize| sums.cast::<u8>().wrapping_add(offset).cast::<u64>();
    for (at, part) in [part::FIRST, part::PICKUP, part::QUEUE].into_iter().enumerate() {
        add_64(place(offset_of!(CellSums, sums_ns) + at * 8), u64::from(split.parts_ns[part]) * weight_64);
    }
    add_64(place(offset_of!(CellSums, followed)), 1);
    add_64(place(offset_of!(CellSums, count)), weight_64);
    if split.before_asked_ns != 0 {
        add_64(place(offset_of!(CellSums, idle_beginnings)), weight_64);
        add_64(place(offset_of!(CellSums, idle_beginnings_ns)), u64::from(split.before_asked_ns) * weight_64);
    }
    let spurious = u64::from(wait.flags & flag::SPURIOUS) / u64::from(flag::SPURIOUS);
    add_64(place(offset_of!(CellSums, spurious)), spurious * weight_64);
    let known_by = known_by(split.source, wait.poller);
    add_32(place(offset_of!(CellSums, known_by) + known_by * 4).cast(), weight);
    wait.cell = cell + 1;
    true
}

/// The place of a source and a poller in [`CellSums::known_by`]. The mask changes nothing; it shows the verifier a bound. By assembler, so
/// that it comes last: the compiler would rather mask both and combine them by `or`, whose result has no bound for the verifier of Linux 6.1.
#[inline(always)]
fn known_by(source: u8, poller: u8) -> usize {
    let mut index = source as usize * POLLERS + poller as usize;
    // SAFETY: it changes this register and nothing else.
    unsafe {
        asm!(
            "{index} &= {mask}",
            index = inout(reg) index,
            mask = const SOURCES * POLLERS - 1,
            options(pure, nomem, nostack),
        );
    }
    index
}

/// The last wait that was added to the cell turns out to have been woken for nothing.
#[inline(always)]
pub fn was_spurious(cell: u32, stands_for: u32) {
    if let Some(sums) = maps::CELL_SUMS.get_ptr_mut(cell) {
        // SAFETY: inside a map value.
        add_64(unsafe { &raw mut (*sums).spurious }, u64::from(stands_for));
    }
}

/// Whether any part is longer or shorter than any before, or the cell is full. From now on no more than this one is out of the ordinary.
/// (Of two that are preempted by each other one may be added; then a report's minimum or maximum is that of the other.)
#[inline(always)]
fn is_extreme(sums: *mut CellSums, parts_ns: &[u32; PARTS]) -> bool {
    // SAFETY: a map value.
    let sums = unsafe { &mut *sums };
    let mut is_extreme = sums.count >= CELL_COUNT_MAX;
    let mut at = 0;
    while at < PARTS {
        let ns = parts_ns[at];
        if ns > sums.most_ns[at] {
            sums.most_ns[at] = ns;
            is_extreme = true;
        }
        if !ns > sums.inverse_least_ns[at] {
            sums.inverse_least_ns[at] = !ns;
            is_extreme = true;
        }
        at += 1;
    }
    is_extreme
}

/// Adds to a sum in a map value.
#[inline(always)]
fn add_64(place: *mut u64, value: u64) {
    // SAFETY: the callers' places are aligned, and inside a map value.
    unsafe {
        if config!(follow_syscalls) == 1 {
            *place = (*place).wrapping_add(value);
        } else {
            // By assembler: rustc believes that this machine has no atomic instructions.
            asm!("lock *(u64 *)({place} + 0) += {value}", place = in(reg) place, value = in(reg) value, options(nostack));
        }
    }
}

/// Adds to a count in a map value.
#[inline(always)]
fn add_32(place: *mut u32, value: u32) {
    // SAFETY: as in `add_64`.
    unsafe {
        if config!(follow_syscalls) == 1 {
            *place = (*place).wrapping_add(value);
        } else {
            asm!("lock *(u32 *)({place} + 0) += {value}", place = in(reg) place, value = in(reg) u64::from(value), options(nostack));
        }
    }
}
