//! Hands over a wait that has ended, as a record.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use netpoll_probe_common::{
    counter::Counter,
    record::{FirstWaitRecord, WaitRecord, flag, kind},
    slot::PollDescSlot,
};

use crate::{cells::How, emit, maps, wait};

/// Hands over a wait that has ended; with its file, if user space does not know that.
#[inline(always)]
pub fn hand_over(slot: &mut PollDescSlot, how: How, start_ns: u64, now_ns: u64, sent_ns: u64) {
    if slot.is_told == 1 && slot.file.known == 1 {
        let Some(mut entry) = maps::RING.reserve::<WaitRecord>(0) else {
            emit::count(Counter::RingFullWait);
            return;
        };
        // SAFETY: the entry is a record's bytes.
        unsafe { fill(entry.as_mut_ptr(), slot, how, start_ns, now_ns, sent_ns) };
        entry.submit(emit::wakeup_at(now_ns));
        return;
    }
    let Some(mut entry) = maps::RING.reserve::<FirstWaitRecord>(0) else {
        emit::count(Counter::RingFullWait);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: as above; every field is written.
    let told = unsafe {
        fill(&raw mut (*record).wait, slot, how, start_ns, now_ns, sent_ns);
        (*record).wait.header.kind = kind::FIRST_WAIT;
        (*record).wait.header.bytes = size_of::<FirstWaitRecord>() as u16;
        (&raw const slot.file).copy_to_nonoverlapping(&raw mut (*record).file, 1);
        (*record).file.known
    };
    entry.submit(emit::wakeup_at(now_ns));
    // Who sees this gets a later place in the ring.
    slot.is_told = told;
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
    let pd = slot.pd;
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
        (*record).fd = wait.fd;
        (*record).tid = thread as u32;
        (*record).socket_state = wait.socket_state;
        (*record).flags = wait.flags & !flag::RAN_THEN;
        (*record).mode = how.mode() as u8;
        (*record).outcome = how.outcome();
        (*record).kernel_ready_source = wait.kernel_ready_source;
        (*record).poller = wait.poller;
        (*record).reserved = 0;
        (*record).stands_for = wait.stands_for;
    }
}
