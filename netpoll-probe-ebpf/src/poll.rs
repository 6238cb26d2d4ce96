//! The runtime's poller collects events: the exit of `epoll_pwait`, decoded to pollDescs.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_loop, bpf_probe_read_user},
    },
    programs::{ProbeContext, TracePointContext},
};
use netpoll_probe_common::{
    counter::Counter,
    limit::{POLL_EVENTS, POLL_SCRATCH_BYTES},
    record::{flag, poller, source},
    slot::{PollDescSlot, ThreadSlot, WaitSlot, slot_key},
};

use crate::{config::config, emit, file, maps, read, regs, target};

/// `EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR` and `EPOLLOUT|EPOLLHUP|EPOLLERR`: what wakes a reader and a writer
/// (`runtime/netpoll_epoll.go`, `netpoll`).
pub const READ_EVENTS: u32 = 0x2019;
pub const WRITE_EVENTS: u32 = 0x1c;

/// `epoll_pwait` takes milliseconds.
const NS_PER_MS: u64 = 1_000_000;

/// `field:long ret` of the tracepoint `sys_exit_epoll_pwait`; the same for every `sys_exit_*`.
const RET: usize = 16;

/// A thread of the target enters `epoll_pwait`.
#[inline(always)]
pub fn entry() {
    if target::current().is_none() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let poll_entry_ns = unsafe { bpf_ktime_get_ns() };
    let _ = maps::THREADS.insert(&target::thread(), &ThreadSlot { poll_entry_ns, waking_ns: 0 }, 0);
}

/// One `epoll_pwait` that returned events.
struct Poll {
    now_ns: u64,
    /// The poller's last waking in this call, when it returned one event only; else 0.
    waking_ns: u64,
    /// The bound for what it returned: not ready before this; 0: none.
    ready_after_ns: u64,
    poller: u64,
    epfd: u64,
    target: u32,
}

/// A thread of the target returns from `epoll_pwait`.
#[inline(always)]
pub fn exit(ctx: &TracePointContext) {
    let Some(target) = target::current() else { return };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the field is inside the tracepoint's record.
    let Ok(count) = (unsafe { ctx.read_at::<i64>(RET) }) else { return };
    let call = regs::syscall();
    let thread = leave();
    let mut poll = Poll {
        now_ns,
        waking_ns: if count == 1 && !timed_out(&thread, &call) { thread.waking_ns } else { 0 },
        ready_after_ns: 0,
        poller: 0,
        epfd: call.argument_0,
        target: target.index,
    };
    if let Some(last) = maps::LAST_POLL.get_ptr_mut(target.index) {
        // SAFETY: a map value. Two pollers at once may mix: then the bound is the older or the newer entry, both true.
        unsafe {
            poll.ready_after_ns = *last;
            if thread.poll_entry_ns != 0 {
                // A call that was full may have left something behind.
                *last = if count < call.argument_2 as i64 { thread.poll_entry_ns } else { 0 };
            }
        }
    }
    if count <= 0 {
        return;
    }
    let taken = if count as usize > POLL_EVENTS {
        emit::count(Counter::PollEventsCut);
        POLL_EVENTS
    } else {
        count as usize
    };
    let Some(scratch) = maps::POLL_EVENTS_SCRATCH.get_ptr_mut(0) else { return };
    // The mask changes nothing; it shows the verifier a bound.
    let bytes = (taken as u32 * config!(epoll_event_bytes) as u32) & (POLL_SCRATCH_BYTES as u32 - 1);
    // SAFETY: bytes is less than the scratch's size. Tracepoint programs are not preempted, so it is ours.
    if unsafe { bpf_probe_read_user(scratch.cast(), bytes, call.argument_1 as *const _) } != 0 {
        emit::count(Counter::ReadPollEvents);
        return;
    }
    poll.poller = u64::from(poller_of(&call));
    // SAFETY: the callback has the signature that the helper wants, and gets a context that outlives the loop.
    unsafe {
        bpf_loop(taken as u32, each_event as *mut c_void, (&raw mut poll).cast(), 0);
    }
}

/// The thread's slot, and marks that it is in no `epoll_pwait` any more.
#[inline(always)]
fn leave() -> ThreadSlot {
    if config!(trace_poll_entry) == 0 {
        return ThreadSlot { poll_entry_ns: 0, waking_ns: 0 };
    }
    let Some(slot) = maps::THREADS.get_ptr_mut(&target::thread()) else {
        return ThreadSlot { poll_entry_ns: 0, waking_ns: 0 };
    };
    // SAFETY: a map value; only this thread and its wakers touch it, and they only while it sleeps.
    unsafe {
        let was = *slot;
        (*slot).poll_entry_ns = 0;
        was
    }
}

/// Whether the thread's last waking was, or may have been, its own timeout: then what it collected came at some time
/// on its way, or earlier, and not at the waking.
#[inline(always)]
fn timed_out(thread: &ThreadSlot, call: &regs::Syscall) -> bool {
    let timeout_ms = call.argument_3 as i32;
    timeout_ms >= 0 && thread.waking_ns >= thread.poll_entry_ns + timeout_ms as u64 * NS_PER_MS
}

/// Who polls: with a timeout an M that may sleep; without, one that holds a P, or `sysmon`, which holds none.
#[inline(always)]
fn poller_of(call: &regs::Syscall) -> u8 {
    if call.argument_3 as i32 != 0 {
        return poller::BLOCKING;
    }
    let p = (|| {
        let m: u64 = read::user(call.g + config!(g_m))?;
        let g0: u64 = read::user(m + config!(m_g0))?;
        if g0 != call.g {
            return None;
        }
        read::user::<u64>(m + config!(m_p))
    })();
    match p {
        None => poller::UNKNOWN,
        Some(0) => poller::SYSMON,
        Some(_) => poller::NONBLOCKING,
    }
}

/// One event of the array: a callback of `bpf_loop`.
unsafe extern "C" fn each_event(index: u64, poll: *mut c_void) -> i64 {
    // SAFETY: `exit` passes a Poll.
    let poll = unsafe { &*poll.cast::<Poll>() };
    let Some(scratch) = maps::POLL_EVENTS_SCRATCH.get_ptr(0) else { return 1 };
    // The mask changes nothing; it shows the verifier a bound.
    let event = (index as usize & (POLL_EVENTS - 1)) * config!(epoll_event_bytes) as usize;
    // SAFETY: an event has at most 16 bytes, so 128 of them fill half of the scratch; its fields are 4-byte aligned.
    let (events, low, high) = unsafe {
        let event = scratch.byte_add(event).cast::<u32>();
        let data = event.byte_add(config!(epoll_event_data) as usize);
        (event.read(), data.read(), data.add(1).read())
    };
    let (pd, tag) = decode(u64::from(low) | u64::from(high) << 32);
    let Some(slot) = maps::SLOTS.get_ptr_mut(&slot_key(pd, poll.target)) else { return 0 };
    // SAFETY: a map value; see wait::try_start for who else writes it.
    let slot = unsafe { &mut *slot };
    let mut known = collect(&mut slot.read, events & READ_EVENTS != 0, tag, poll);
    known |= collect(&mut slot.write, events & WRITE_EVENTS != 0, tag, poll);
    if known {
        learn_eventpoll(poll);
    }
    0
}

/// The pollDesc and tag in an epoll event's data word (`runtime/tagptr_64bit.go`, `taggedPointer`; before Go 1.21 the
/// word is the address).
#[inline(always)]
pub fn decode(data: u64) -> (u64, u32) {
    let tag_bits = config!(tag_bits);
    if tag_bits == 0 {
        return (data, 0);
    }
    let pd = regs::shift_tag_out(data, tag_bits) << config!(pd_align_bits);
    (pd, (data & ((1 << tag_bits) - 1)) as u32)
}

/// Gives a wait its poll clock, if it has none. Returns whether somebody waited.
#[inline(always)]
fn collect(wait: &mut WaitSlot, hit: bool, tag: u32, poll: &Poll) -> bool {
    if wait.start_ns == 0 || wait.tag != tag || wait.poll_ns != 0 {
        if hit && wait.tag == tag {
            wait.last_poll_ns = poll.now_ns;
        }
        return false;
    }
    if !hit {
        // The item was delivered for the other direction, so what was stamped was not for this one.
        if wait.kernel_ready_source != source::BEFORE_PARK {
            wait.kernel_ready_ns = 0;
            wait.kernel_ready_source = source::NONE;
        }
        return true;
    }
    if wait.last_poll_ns == 0 && config!(pd_has_fdseq) == 1 {
        wait.flags |= flag::FIRST_EVENT;
    }
    wait.last_poll_ns = poll.now_ns;
    wait.poll_ns = poll.now_ns;
    wait.poller = poll.poller as u8;
    if wait.kernel_ready_ns == 0 {
        if poll.waking_ns >= wait.start_ns {
            wait.kernel_ready_ns = poll.waking_ns;
            wait.kernel_ready_source = source::POLLER_WAKEUP;
        } else {
            wait.kernel_ready_after_ns = poll.ready_after_ns;
        }
    }
    true
}

/// The `struct eventpoll` of the netpoller, if user space did not know it at attach (the target had polled nothing).
#[inline(always)]
fn learn_eventpoll(poll: &Poll) {
    let Some(known) = maps::EVENTPOLL.get_ptr_mut(poll.target) else { return };
    // SAFETY: a map value; every writer writes the same.
    unsafe {
        if *known == 0
            && let Some(file) = file::of_fd(poll.epfd)
            && let Some(eventpoll) = read::kernel::<u64>(file + config!(file_private_data))
        {
            *known = eventpoll;
            let _ = maps::EVENTPOLLS.insert(&eventpoll, &poll.target, 0);
        }
    }
}

/// `netpollready(toRun, pd, mode)`, mode `'r'`, `'w'` or their sum: the second opinion on what was collected.
#[inline(always)]
pub fn netpollready(ctx: &ProbeContext) {
    let Some(target) = target::current() else { return };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let mode = regs::argument_2(ctx) as u32;
    let Some(slot) = maps::SLOTS.get_ptr_mut(&slot_key(regs::argument_1(ctx), target.index)) else { return };
    // SAFETY: as in each_event.
    let slot: &mut PollDescSlot = unsafe { &mut *slot };
    let poll = Poll { now_ns, waking_ns: 0, ready_after_ns: 0, poller: 0, epfd: 0, target: target.index };
    const R: u32 = b'r' as u32;
    const W: u32 = b'w' as u32;
    let (read_tag, write_tag) = (slot.read.tag, slot.write.tag);
    collect(&mut slot.read, mode == R || mode == R + W, read_tag, &poll);
    collect(&mut slot.write, mode == W || mode == R + W, write_tag, &poll);
}
