//! Hands over a wait that has ended, as a record.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_smp_processor_id};
use netpoll_probe_common::{
    counter::Counter,
    record::{FirstWaitRecord, WaitRecord, flag, kind, outcome},
    slot::PollDescSlot,
};

use crate::{cells::How, config::config, emit, hint::seldom, maps, publish, wait};

/// Hands over a wait that has ended; with its file, if user space did not know that when it began: then whoever merges the records by their
/// ends has the file first.
#[inline(always)]
pub fn hand_over(slot: &mut PollDescSlot, how: How, start_ns: u64, now_ns: u64, sent_ns: u64) {
    let is_known = slot.file.known == 1;
    if !is_known || wait::of(slot, how.mode()).flags & flag::TOLD == 0 {
        hand_over_with_file(slot, how, start_ns, now_ns, sent_ns);
        return;
    }
    // System calls show no other outcome; those come from uprobes, whose programs are preempted.
    let has_buffer = config!(wait_buffer_records) != 0 && how.outcome() == outcome::READY;
    if has_buffer && put_in_buffer(slot, how, start_ns, now_ns, sent_ns) {
        return;
    }
    seldom();
    if (!has_buffer || emit::has_room_for_many())
        && let Some(mut entry) = maps::RING.reserve::<WaitRecord>(0)
    {
        // SAFETY: the entry is a record's bytes.
        unsafe { fill(entry.as_mut_ptr(), slot, how, start_ns, now_ns, sent_ns) };
        entry.submit(emit::wakeup_at(now_ns));
    } else {
        emit::count(Counter::RingFullWait);
    }
}

#[cold]
#[inline(always)]
fn hand_over_with_file(slot: &mut PollDescSlot, how: How, start_ns: u64, now_ns: u64, sent_ns: u64) {
    let Some(mut entry) = maps::RING.reserve::<FirstWaitRecord>(0) else {
        emit::count(Counter::RingFullWait);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a record's bytes; every field is written.
    let told = unsafe {
        fill(&raw mut (*record).wait, slot, how, start_ns, now_ns, sent_ns);
        (*record).wait.header.kind = kind::FIRST_WAIT;
        (*record).wait.header.bytes = size_of::<FirstWaitRecord>() as u16;
        (&raw const slot.file).copy_to_nonoverlapping(&raw mut (*record).file, 1);
        (*record).file.known
    };
    entry.submit(emit::wakeup_at(now_ns));
    slot.is_told = told;
}

/// Into this CPU's buffer. Returns false when that is full.
#[inline(always)]
fn put_in_buffer(slot: &mut PollDescSlot, how: How, start_ns: u64, now_ns: u64, sent_ns: u64) -> bool {
    let records = config!(wait_buffer_records) as u32;
    // SAFETY: it has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(cursors) = maps::WAIT_CURSORS.get_ptr_mut(cpu) else { return false };
    // SAFETY: a map value. Volatile: user space writes the other.
    let (written, read) = unsafe { ((*cursors).written, (&raw const (*cursors).read).read_volatile()) };
    let is_full = written.wrapping_sub(read) >= u64::from(records);
    let at = cpu * records + (written as u32 & (records - 1));
    let (false, Some(place)) = (is_full, maps::WAIT_BUFFERS.get_ptr_mut(at)) else {
        return false;
    };
    // SAFETY: a map value, and its place is this CPU's until it is counted as written.
    unsafe {
        fill(&raw mut (*place).record, slot, how, start_ns, now_ns, sent_ns);
        publish::add_one(&raw mut (*cursors).written);
    }
    let half = u64::from(records / 2);
    if written & (half - 1) == half - 1 {
        seldom();
        emit::wake();
    }
    true
}

/// Fills a record. Field by field, because one would fill a quarter of the stack that a program has.
///
/// # Safety
/// There is room for one.
#[inline(always)]
unsafe fn fill(
    record: *mut WaitRecord,
    slot: &mut PollDescSlot,
    how: How,
    start_ns: u64,
    now_ns: u64,
    sent_ns: u64,
) {
    let thread = bpf_get_current_pid_tgid();
    let (pd, fd) = (slot.pd, slot.file.fd);
    let wait = wait::of(slot, how.mode());
    // SAFETY: the caller's; every field is written.
    unsafe {
        (*record).header = emit::header::<WaitRecord>(kind::WAIT, (thread >> 32) as u32);
        (*record).pd = pd;
        (*record).goid = wait.goid;
        (*record).start_ns = start_ns;
        (*record).kernel_ready_ns = wait.kernel_ready_ns;
        (*record).kernel_ready_after_ns = wait.kernel_ready_after_ns;
        (*record).poll_ns = wait.poll_ns;
        (*record).last_poll_ns = wait.last_poll_ns;
        (*record).end_ns = now_ns;
        (*record).sent_ns = sent_ns;
        (*record).stack_hash = wait.stack_hash;
        (*record).labels_hash = wait.labels_hash;
        (*record).fd = fd;
        (*record).tid = thread as u32;
        (*record).socket_state = wait.socket_state;
        (*record).flags = wait.flags & !flag::OF_SLOT;
        (*record).mode = how.mode() as u8;
        (*record).outcome = how.outcome();
        (*record).kernel_ready_source = wait.kernel_ready_source;
        (*record).poller = wait.poller;
        (*record).reserved = 0;
        (*record).stands_for = wait.stands_for;
    }
}
