//! The poller collects events: the exit of `epoll_pwait`, and `runtime.netpollready`.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_user},
    programs::ProbeContext,
};
use netpoll_probe_common::{
    counter::Counter,
    limit::{POLL_EVENTS, POLL_SCRATCH_BYTES},
    record::{flag, source},
    slot::{PollDescSlot, WaitSlot, slot_key},
};

use crate::{
    config::config,
    emit, fd_slot, file, goroutine,
    hint::{opaque, seldom},
    maps, now,
    polldesc::{self, PollDesc, READ, WRITE},
    poller,
    regs::{self, Syscall, epoll_event},
    sampling,
    scratch::ThisCpu,
    slots,
    target::{self, Target},
    ticks, wait,
};

/// `EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR` and `EPOLLOUT|EPOLLHUP|EPOLLERR`: what wakes a reader and a writer
/// (`runtime/netpoll_epoll.go`, `netpoll`).
pub const READ_EVENTS: u32 = 0x2019;
pub const WRITE_EVENTS: u32 = 0x1c;

/// From the system call that said EAGAIN a goroutine goes straight to where it parks; longer than this only if its thread loses its CPU.
const ON_ITS_WAY_NS: u64 = 1_000_000;

/// One `epoll_pwait` that returned events. Those that begin as zero do not stand together: the compiler would make a call of it.
#[repr(C)]
struct Poll {
    /// The fd, and below the pollDesc's address, of a goroutine that waits and has no slot; 0: none was seen.
    unseen_fd: u64,
    now_ns: u64,
    /// The poller's last waking in this call, when it returned one event only; else 0.
    waking_ns: u64,
    /// The bound for what it returned: not ready before this; 0: none.
    ready_after_ns: u64,
    poller: u64,
    epfd: u64,
    /// The target's number.
    target: u64,
    /// See `unseen_fd`.
    unseen_pd: u64,
}

/// One event of it.
#[repr(C)]
struct Event {
    pd: u64,
    tag: u32,
    /// `epoll_event.events`
    events: u32,
    /// What stands in the pollDesc, if that could be read and was of interest.
    desc: PollDesc,
}

impl Event {
    /// Whether it wakes whoever waits in this direction.
    #[inline(always)]
    fn is_of(&self, mode: u64) -> bool {
        self.events & if mode == READ { READ_EVENTS } else { WRITE_EVENTS } != 0
    }
}

/// A thread of the target returns from `epoll_pwait`. A function of its own for its stack.
#[inline(never)]
pub fn exit(call: Syscall, target: Target) {
    let count = call.result();
    let sleeps = call.argument::<3>() as i32 != 0;
    // Where tracepoints stand in for the callback, the sleeper's waking is kept, and so are calls that returned nothing.
    let stands_in = config!(stand_ins) == 1;
    if count <= 0 && !stands_in {
        return;
    }
    let now_ns = now();
    let slot = if stands_in { poller::thread_slot(target.thread) } else { None };
    let (left_ns, waking_ns) = poller::left(slot, now_ns);
    let ready_after_ns =
        if stands_in && sleeps { poller::bound(call, waking_ns, target) } else { poller::last_bound(target) };
    if count <= 0 {
        return;
    }
    // Or the verifier would go through the events once for each combination of what follows.
    let nothing = call.nothing();
    let taken = if count as usize > POLL_EVENTS {
        emit::count(Counter::PollEventsCut);
        POLL_EVENTS
    } else {
        count as usize
    } ^ nothing as usize;
    let Some(scratch) = ThisCpu::poll_events() else { return };
    // The mask changes nothing; it shows the verifier a bound. Opaque, or the compiler sees that.
    let bytes = opaque((taken * epoll_event::BYTES) as u64) as u32 & (POLL_SCRATCH_BYTES as u32 - 1);
    // SAFETY: bytes is less than the scratch's size. Tracepoint programs are not preempted, so it is ours.
    if unsafe { bpf_probe_read_user(scratch.cast(), bytes, call.argument::<1>() as *const _) } != 0 {
        emit::count(Counter::ReadPollEvents);
        return;
    }
    let is_its_waking = count == 1 && !poller::may_have_timed_out(left_ns, waking_ns, call);
    let mut poll = Poll {
        now_ns,
        waking_ns: if is_its_waking { waking_ns } else { 0 } ^ nothing,
        ready_after_ns: ready_after_ns ^ nothing,
        poller: u64::from(poller::of(call, slot)) ^ nothing,
        epfd: call.argument::<0>(),
        target: u64::from(target.index),
        unseen_fd: 0,
        unseen_pd: 0,
    };
    // SAFETY: the callback has the signature that the helper wants, and gets a context that outlives the loop.
    unsafe {
        bpf_loop(taken as u32, each_event as *mut c_void, (&raw mut poll).cast(), 0);
    }
    // What the runtime wakes its poller with is no pollDesc, and the kernel has it by another fd. Not asked in the loop: together, programs
    // and functions have 512 bytes of stack.
    if poll.unseen_pd != 0
        && decode(fd_slot::find_event_data(poll.unseen_fd, poll.target)).0 == poll.unseen_pd
    {
        sampling::count_unless_sampled(Counter::StartUnseen);
    }
}

/// One event of the array: a callback of `bpf_loop`.
unsafe extern "C" fn each_event(index: u64, poll: *mut c_void) -> i64 {
    // SAFETY: `exit` passes a Poll.
    let poll = unsafe { &mut *poll.cast::<Poll>() };
    let Some(scratch) = ThisCpu::poll_events() else { return 1 };
    // The mask changes nothing; it shows the verifier a bound.
    let event = (index as usize & (POLL_EVENTS - 1)) * epoll_event::BYTES;
    // SAFETY: an event has at most 16 bytes, so 128 of them fill half of the scratch; its fields are 4-byte aligned.
    let (events, low, high) = unsafe {
        let event = scratch.byte_add(event).cast::<u32>();
        let data = event.byte_add(epoll_event::DATA);
        (event.read(), data.read(), data.add(1).read())
    };
    let data = u64::from(low) | u64::from(high) << 32;
    if is_plain(data) {
        return 0;
    }
    let (pd, tag) = decode(data);
    let mut event = Event { pd, tag, events, desc: PollDesc::NONE };
    // What the slot is found by.
    let mut of = pd;
    if config!(follow_syscalls) == 1 {
        if event.desc.read_into(pd) {
            of = event.desc.fd as u64;
        } else {
            emit::count(Counter::ReadAtPoll);
            // SAFETY: the value is copied at once.
            let fd = unsafe { maps::FDS.get(&slot_key(pd, poll.target as u32)) }.copied();
            let Some(fd) = fd else { return 0 };
            of = fd as u64;
        }
    }
    let slot = slots::find(slot_key(of, poll.target as u32));
    let known = match slot {
        Some(slot) => collect_event(slot, &event, poll, READ).max(collect_event(slot, &event, poll, WRITE)),
        None => seen::NOT,
    };
    if known == seen::NOT && event.desc.is_known() && waits(&event) {
        (poll.unseen_fd, poll.unseen_pd) = (of, pd);
    }
    if known == seen::WAITED {
        learn_eventpoll(poll);
    }
    0
}

/// What an event meant.
mod seen {
    /// The slot is not that of its pollDesc.
    pub const NOT: u64 = 0;
    /// Nobody is known to wait.
    pub const NOBODY: u64 = 1;
    /// Somebody waited.
    pub const WAITED: u64 = 2;
}

/// Whether a goroutine is parked for the event, as its pollDesc says.
#[inline(always)]
fn waits(event: &Event) -> bool {
    let Event { desc, .. } = event;
    desc.tag == event.tag
        && (event.is_of(READ) && desc.is_waited_on(READ) || event.is_of(WRITE) && desc.is_waited_on(WRITE))
}

/// The poller has an event for a pollDesc that has this slot: what it means for who waits in this direction. Returns [`seen`]. A global function
/// ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn collect_event(
    slot: *mut PollDescSlot,
    event: *const Event,
    poll: *const Poll,
    mode: u64,
) -> u64 {
    if slot.is_null() || event.is_null() || poll.is_null() {
        return seen::NOT;
    }
    // SAFETY: the caller's; of the slot see wait::begin_wait for who else writes it.
    let (slot, event, poll) = unsafe { (&mut *slot, &*event, &*poll) };
    let &Event { pd, tag, ref desc, .. } = event;
    if slot.pd != pd {
        return seen::NOT;
    }
    let is_known = desc.is_known();
    if is_known && desc.tag != tag {
        return seen::NOBODY;
    }
    let wait = wait::of(slot, mode);
    let hit = event.is_of(mode);
    // The runtime has not handled the event yet, so whoever waits for it stands in the pollDesc.
    let is_for_it = !hit || !is_known || is_for(wait, event, mode, poll.now_ns);
    if is_for_it && collect(wait, hit, tag, poll) { seen::WAITED } else { seen::NOBODY }
}

/// Whether an event is for the wait that is open, if one is: for a goroutine that parked. If it is not, the wait is left alone: without a poll
/// its goroutine's next system call on the fd tells that it was none. It is not taken back here, where the next one may have begun.
///
/// Whoever is parked stands in the pollDesc. A goroutine that was told EAGAIN and does not may be on its way: it parks if it gets there before
/// the runtime handles the event. One that is nowhere to be seen may have got there since the pollDesc was read: it leaves its M before it is
/// parked, and after it stands there. Or a deadline woke it, or a close, and it has not run yet: then the event is what `netpollblock` tells it
/// of (`pdReady`), and it asks the kernel once more; as Go has it, it has waited for that event all the time. (Not seen: that it is just being
/// made runnable, or has just begun to run; and a deadline that passed and was moved.)
#[inline(always)]
fn is_for(wait: &mut WaitSlot, event: &Event, mode: u64, now_ns: u64) -> bool {
    let &Event { pd, tag, ref desc, .. } = event;
    if wait.start_ns == 0 || wait.tag != tag {
        if desc.is_waited_on(mode) {
            sampling::count_unless_sampled(Counter::StartUnseen);
        }
        return true;
    }
    if wait.poll_ns != 0 {
        return true;
    }
    let has_parked = if desc.is_waited_on(mode) {
        let is_it = desc.is_waited_on_by(wait.g, mode);
        if !is_it {
            sampling::count_unless_sampled(Counter::StartUnseen);
        }
        is_it
    } else if desc.ends_at_once(mode) && goroutine::was_woken(wait.g, wait.goid) {
        true
    } else if now_ns > wait.start_ns + ON_ITS_WAY_NS {
        false
    } else if ticks::ran_then(wait) {
        return true;
    } else {
        polldesc::waits_now(pd, mode, wait.g)
    };
    // One that was parked when the programs came has left since, if it is not there now.
    let over = if has_parked { flag::RAN_THEN } else { flag::RAN_THEN | flag::STARTED_BEFORE };
    // Not written again and again: see [`collect`].
    if wait.flags & over != 0 {
        wait.flags &= !over;
    }
    if !has_parked {
        wait.last_poll_ns = now_ns;
    }
    has_parked
}

/// Where pollDescs are tagged, the data word of the runtime's own eventfd is not: the address of a global (`netpollEventFd`).
#[inline(always)]
pub fn is_plain(data: u64) -> bool {
    config!(tag_bits) != 0 && data < 1 << 47
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
        // Where nobody waits, that there was one is enough: each event wakes writers, too, and other CPUs would read again what they know.
        let is_news = wait.start_ns != 0 || wait.last_poll_ns == 0;
        if hit && wait.tag == tag && is_news {
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
    // All is read before anything of it is written: another CPU wrote this line last, and what is read of it then would wait until this one has it
    // for itself.
    let is_stamped = wait.kernel_ready_ns != 0;
    let is_first = wait.last_poll_ns == 0 && config!(pd_has_fdseq) == 1;
    let is_waking = poll.waking_ns >= wait.start_ns;
    if is_first {
        wait.flags |= flag::FIRST_EVENT;
    }
    wait.last_poll_ns = poll.now_ns;
    wait.poll_ns = poll.now_ns;
    wait.poller = poll.poller as u8;
    if !is_stamped {
        if is_waking {
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
    let target = poll.target as u32;
    let Some(known) = maps::EVENTPOLL.get_ptr_mut(target) else { return };
    // SAFETY: a map value; every writer writes the same.
    unsafe {
        if *known != 0 {
            return;
        }
        seldom();
        if let Some(eventpoll) = file::eventpoll_of(poll.epfd) {
            *known = eventpoll;
            let _ = maps::EVENTPOLLS.insert(&eventpoll, &target, 0);
        }
    }
}

/// `netpollready(toRun, pd, mode)`, mode `'r'`, `'w'` or their sum: the second opinion on what was collected.
#[inline(always)]
pub fn netpollready(ctx: &ProbeContext) {
    let Some(target) = target::current() else { return };
    let mode = regs::argument_2(ctx) as u32;
    let Some(slot) = slots::find(slot_key(regs::argument_1(ctx), target.index)) else { return };
    // SAFETY: see wait::begin_wait for who else writes it.
    let slot: &mut PollDescSlot = unsafe { &mut *slot };
    let poll = Poll {
        now_ns: now(),
        waking_ns: 0,
        ready_after_ns: 0,
        poller: 0,
        epfd: 0,
        target: u64::from(target.index),
        unseen_fd: 0,
        unseen_pd: 0,
    };
    const R: u32 = READ as u32;
    const W: u32 = WRITE as u32;
    let (read_tag, write_tag) = (slot.read.tag, slot.write.tag);
    collect(&mut slot.read, mode == R || mode == R + W, read_tag, &poll);
    collect(&mut slot.write, mode == W || mode == R + W, write_tag, &poll);
}
