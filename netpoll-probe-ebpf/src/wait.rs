//! Start and end of a wait.

use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::ProbeContext};
use aya_log_ebpf::debug;
use netpoll_probe_common::{
    counter::Counter,
    record::{SpuriousRecord, WaitRecord, flag, kind, outcome, poller, source},
    slot::{FileFacts, PollDescSlot, WaitSlot, slot_key},
};

use crate::{
    config::config,
    emit, file, labels, maps, read, regs, stack,
    target::{self, Target},
};

/// `pdReady`, `runtime/netpoll.go`.
const PD_READY: u64 = 1;
/// Bits of `pollInfo`, `runtime/netpoll.go`.
const POLL_CLOSING: u32 = 1;
const POLL_EVENT_ERR: u32 = 2;
const POLL_EXPIRED_READ_DEADLINE: u32 = 4;
const POLL_EXPIRED_WRITE_DEADLINE: u32 = 8;

const READ: u64 = b'r' as u64;

/// What a pollDesc is given when it is first seen. In .rodata: it is too large for the stack.
static EMPTY: PollDescSlot =
    PollDescSlot { read: WaitSlot::NOBODY, write: WaitSlot::NOBODY, file: FileFacts::UNKNOWN };

/// A goroutine is about to park: `argument_0` is its pollDesc, `argument_1` the mode.
#[inline(always)]
pub fn start(ctx: &ProbeContext) {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(target) = target::current() else { return };
    if try_start(ctx, now_ns, target).is_none() {
        emit::count(Counter::ReadTarget);
    }
}

#[inline(always)]
fn try_start(ctx: &ProbeContext, now_ns: u64, target: Target) -> Option<()> {
    let pd = regs::argument_0(ctx);
    let mode = regs::argument_1(ctx) & 0xff;
    let g = regs::g(ctx);
    let goid: u64 = read::user(g + config!(g_goid))?;
    let fd: u64 = read::user(pd + config!(pd_fd))?;
    let tag = tag(pd)?;
    let info: u32 = read::user(pd + config!(pd_atomic_info))?;
    if ends_at_once(info, mode) {
        return Some(());
    }
    let gpp = if mode == READ { config!(pd_rg) } else { config!(pd_wg) };
    let ready = read::user::<u64>(pd + gpp)? == PD_READY;

    let key = slot_key(pd, target.index);
    let Some(slot) = slot_of(key) else {
        emit::count(Counter::SlotsFull);
        return Some(());
    };
    // SAFETY: the map's values live as long as the program. One goroutine at a time waits on a pollDesc in one
    // direction, so only polls and stamps on other CPUs touch the same wait, and they do nothing while start_ns is 0.
    let slot = unsafe { &mut *slot };
    file::refresh(&mut slot.file, fd as i32, tag, target);
    let state = file::state(&slot.file);
    let readable = mode == READ && file::readable(&slot.file, state);
    let sent_bytes = if mode == READ { file::sent_bytes(&slot.file, state) } else { 0 };
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    if wait.start_ns != 0 && wait.flags & flag::AFTER_REARM == 0 {
        emit::count(Counter::StartWithoutEnd);
    }
    set_start(wait, 0);
    if wait.last_g == g {
        report_spurious(wait, pd, goid, now_ns, mode, target);
    }
    wait.last_g = 0;
    wait.g = g;
    wait.goid = goid;
    wait.fd = fd as i32;
    if wait.tag != tag {
        wait.tag = tag;
        wait.last_poll_ns = 0;
        wait.sent_bytes = 0;
    }
    wait.poll_ns = 0;
    wait.poller = poller::UNKNOWN;
    wait.kernel_ready_after_ns = 0;
    wait.socket_state = u32::from(state);
    wait.flags = if ready { flag::READY_AT_START } else { 0 };
    if sent_bytes != wait.sent_bytes {
        wait.flags |= flag::SENT_BEFORE;
        wait.sent_bytes = sent_bytes;
    }
    if ready || readable {
        wait.kernel_ready_ns = now_ns;
        wait.kernel_ready_source = source::BEFORE_PARK;
    } else {
        wait.kernel_ready_ns = 0;
        wait.kernel_ready_source = source::NONE;
    }
    if config!(index_sockets) == 1 && slot.file.sk != 0 {
        index_socket(slot.file.sk, key);
    }
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    set_start(wait, now_ns);
    debug!(ctx, "goroutine {} waits on fd {}, mode {}", goid, fd, mode);
    Some(())
}

/// The slot of a pollDesc, made if it is new.
#[inline(always)]
fn slot_of(key: u64) -> Option<*mut PollDescSlot> {
    if let Some(slot) = maps::SLOTS.get_ptr_mut(&key) {
        return Some(slot);
    }
    let _ = maps::SLOTS.insert(&key, &EMPTY, 0);
    maps::SLOTS.get_ptr_mut(&key)
}

/// `pollDesc.fdseq`, cut to the bits that an epoll event's tag has; 0 where it does not exist.
#[inline(always)]
fn tag(pd: u64) -> Option<u32> {
    if config!(pd_has_fdseq) == 0 {
        return Some(0);
    }
    let sequence: u64 = read::user(pd + config!(pd_fdseq))?;
    Some((sequence & ((1 << config!(tag_bits)) - 1)) as u32)
}

/// `netpollcheckerr` at the start of `runtime_pollWait` will return at once: no wait, and no end.
#[inline(always)]
fn ends_at_once(info: u32, mode: u64) -> bool {
    info & POLL_CLOSING != 0
        || (mode == READ && info & (POLL_EXPIRED_READ_DEADLINE | POLL_EVENT_ERR) != 0)
        || (mode != READ && info & POLL_EXPIRED_WRITE_DEADLINE != 0)
}

/// Stamps and polls on other CPUs look at start_ns first, so it is written last, and cleared first.
#[inline(always)]
fn set_start(wait: &mut WaitSlot, start_ns: u64) {
    // SAFETY: a field of a live reference.
    unsafe { (&raw mut wait.start_ns).write_volatile(start_ns) };
}

#[inline(always)]
fn index_socket(sk: u64, key: u64) {
    // SAFETY: the value is copied at once.
    if unsafe { maps::SOCKETS.get(&sk) } != Some(&key) {
        let _ = maps::SOCKETS.insert(&sk, &key, 0);
    }
}

/// The same goroutine waits again after it was woken as ready. When it ran on the same P all the time (`schedtick`
/// unchanged) and made one system call (`syscalltick` one higher), that call was the one that said EAGAIN.
#[inline(always)]
fn report_spurious(wait: &WaitSlot, pd: u64, goid: u64, again_ns: u64, mode: u64, target: Target) {
    let Some((p, ticks)) = ticks_of(wait.last_g) else { return };
    let (schedtick, syscalltick) = (ticks as u32, (ticks >> 32) as u32);
    let (last_schedtick, last_syscalltick) = (wait.last_ticks as u32, (wait.last_ticks >> 32) as u32);
    if p == wait.last_p && schedtick == last_schedtick && syscalltick == last_syscalltick.wrapping_add(1) {
        let header = emit::header::<SpuriousRecord>(kind::SPURIOUS, target.tgid);
        emit::record(SpuriousRecord { header, pd, goid, again_ns, mode }, Counter::RingFullSpurious);
    }
}

/// A running goroutine's P, with that P's `schedtick` (low half) and `syscalltick` (high half).
#[inline(always)]
fn ticks_of(g: u64) -> Option<(u64, u64)> {
    let m: u64 = read::user(g + config!(g_m))?;
    let p: u64 = read::user(m + config!(m_p))?;
    if p == 0 {
        return None;
    }
    Some((p, read::user(p + config!(p_schedtick))?))
}

/// `netpollblock` has returned: result in `argument_0`.
#[inline(always)]
pub fn end(ctx: &ProbeContext) {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(target) = target::current() else { return };
    if try_end(ctx, now_ns, target).is_none() {
        emit::count(Counter::ReadTarget);
    }
}

#[inline(always)]
fn try_end(ctx: &ProbeContext, now_ns: u64, target: Target) -> Option<()> {
    let g = regs::g(ctx);
    let pd: u64 = read::user(regs::stack_pointer(ctx) + config!(pd_home))?;
    // Before the ways part: the verifier goes through their loops once for each way.
    let stack_hash = stack::hash(ctx, target);
    let labels_hash = labels::hash(g, target);
    let Some(slot) = maps::SLOTS.get_ptr_mut(&slot_key(pd, target.index)) else {
        emit::count(Counter::EndWithoutStart);
        return Some(());
    };
    // SAFETY: as in try_start.
    let slot = unsafe { &mut *slot };
    let mode = if slot.read.start_ns != 0 && slot.read.g == g {
        READ
    } else if slot.write.start_ns != 0 && slot.write.g == g {
        u64::from(b'w')
    } else {
        emit::count(Counter::EndWithoutStart);
        return Some(());
    };
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    let start_ns = wait.start_ns;
    set_start(wait, 0);
    let ready = regs::argument_0(ctx) & 0xff != 0;
    let outcome = if ready {
        outcome::READY
    } else {
        let Some(info) = read::user::<u32>(pd + config!(pd_atomic_info)) else {
            emit::count(Counter::ReadOutcome);
            return Some(());
        };
        outcome_of(info, mode)
    };
    let sent_ns = if mode == READ { sent_since(&mut slot.read, &slot.file, start_ns, now_ns) } else { 0 };
    if let Some(mut entry) = maps::RING.reserve::<WaitRecord>(0) {
        let wait = if mode == READ { &slot.read } else { &slot.write };
        entry.write(WaitRecord {
            header: emit::header::<WaitRecord>(kind::WAIT, target.tgid),
            pd,
            g,
            goid: wait.goid,
            start_ns,
            kernel_ready_ns: wait.kernel_ready_ns,
            kernel_ready_after_ns: wait.kernel_ready_after_ns,
            poll_ns: wait.poll_ns,
            last_poll_ns: wait.last_poll_ns,
            end_ns: now_ns,
            sent_ns,
            stack_hash,
            labels_hash,
            file: slot.file,
            fd: wait.fd,
            tid: target::thread(),
            socket_state: wait.socket_state,
            flags: wait.flags,
            mode: mode as u8,
            outcome,
            kernel_ready_source: wait.kernel_ready_source,
            poller: wait.poller,
            reserved: [0; 6],
        });
        entry.submit(emit::wakeup());
    } else {
        emit::count(Counter::RingFullWait);
    }
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    debug!(ctx, "goroutine {} waited {} ns, outcome {}", wait.goid, now_ns - start_ns, outcome);
    if outcome == outcome::REARMED {
        restart(wait, now_ns);
    } else if ready && let Some((p, ticks)) = ticks_of(g) {
        wait.last_g = g;
        wait.last_p = p;
        wait.last_ticks = ticks;
    }
    Some(())
}

/// When this process last sent something on the socket in this wait; 0: it did not.
#[inline(always)]
fn sent_since(wait: &mut WaitSlot, facts: &FileFacts, start_ns: u64, now_ns: u64) -> u64 {
    let before = wait.sent_bytes;
    wait.sent_bytes = file::sent_bytes(facts, wait.socket_state as u8);
    if wait.sent_bytes == before {
        return 0;
    }
    file::last_sent_ns(facts, now_ns).max(start_ns).min(now_ns)
}

/// `netpollcheckerr`, `runtime/netpoll.go`, in its order.
#[inline(always)]
fn outcome_of(info: u32, mode: u64) -> u8 {
    let expired = if mode == READ { POLL_EXPIRED_READ_DEADLINE } else { POLL_EXPIRED_WRITE_DEADLINE };
    if info & POLL_CLOSING != 0 {
        outcome::CLOSED
    } else if info & expired != 0 {
        outcome::TIMEOUT
    } else if mode == READ && info & POLL_EVENT_ERR != 0 {
        outcome::ERROR
    } else {
        outcome::REARMED
    }
}

/// `runtime_pollWait` loops: the goroutine blocks again without passing the start site.
#[inline(always)]
fn restart(wait: &mut WaitSlot, now_ns: u64) {
    wait.kernel_ready_ns = 0;
    wait.kernel_ready_after_ns = 0;
    wait.kernel_ready_source = source::NONE;
    wait.poll_ns = 0;
    wait.poller = poller::UNKNOWN;
    wait.flags = flag::AFTER_REARM;
    set_start(wait, now_ns);
}
