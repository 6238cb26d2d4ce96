//! Start and end of a wait, whoever saw them: uprobes in `runtime_pollWait` here, or system calls ([`crate::syscall`]).

use core::mem::offset_of;

use aya_ebpf::{helpers::generated::bpf_jiffies64, programs::ProbeContext};
use aya_log_ebpf::debug;
use netpoll_probe_common::{
    counter::Counter,
    record::{SpuriousRecord, flag, kind, outcome, poller, source},
    sampling::SLOW_AFTER_NS,
    slot::{FileFacts, PollDescSlot, WaitSlot, slot_key},
};

use crate::{
    cells,
    config::config,
    emit, file, goroutine, hand_over,
    hint::{opaque, seldom},
    labels, now,
    polldesc::{PollDesc, READ, WRITE},
    read, regs, sampling, slots, sockets, stack,
    target::{self, Target},
    ticks,
};

/// Who is about to park, and where.
#[repr(C)]
pub struct Parking {
    /// The slot's.
    pub key: u64,
    /// The `runtime.g`.
    pub g: u64,
    /// Its id.
    pub goid: u64,
    /// The direction.
    pub mode: u64,
    /// When.
    pub now_ns: u64,
    /// How many waits it stands for.
    pub stands_for: u32,
    /// Not 0: it has just registered the fd.
    pub registers: u32,
    /// The tag of its pollDesc.
    pub tag: u32,
    /// Not 0: an event was collected that nobody has waited for.
    pub is_ready: u32,
    /// Not 0: what the slot knows of the file was read for an earlier wait.
    pub is_same_file: u32,
}

/// A uprobe: a goroutine is about to park; `argument_0` is its pollDesc, `argument_1` the mode.
#[inline(always)]
pub fn start_in_poll_wait(ctx: &ProbeContext) {
    let now_ns = now();
    let Some(target) = target::current() else { return };
    if try_start(ctx, now_ns, target).is_none() {
        emit::count(Counter::ReadTarget);
    }
}

#[inline(always)]
fn try_start(ctx: &ProbeContext, now_ns: u64, target: Target) -> Option<()> {
    let pd = regs::argument_0(ctx);
    let mode = if regs::argument_1(ctx) & 0xff == READ { READ } else { WRITE };
    let g = regs::g(ctx);
    let goid = goroutine::id_of(g)?;
    let desc = PollDesc::read(pd)?;
    if desc.ends_at_once(mode) {
        return Some(());
    }
    let key = slot_key(pd, target.index);
    let Some(slot) = slots::make(key, pd) else {
        emit::count(Counter::SlotsFull);
        return Some(());
    };
    // SAFETY: see begin_wait.
    let slot = unsafe { &mut *slot };
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    if wait.start_ns != 0 && wait.flags & flag::AFTER_REARM == 0 {
        emit::count(Counter::StartWithoutEnd);
    }
    if wait.last_g == g {
        report_spurious(wait, pd, goid, now_ns, mode);
    }
    wait.last_g = 0;
    let stands_for = choose(wait);
    if stands_for == 0 {
        set_start(wait, 0);
        return Some(());
    }
    slot.pd = pd;
    let is_same_file = u32::from(file::refresh(&mut slot.file, desc.fd, desc.tag, target.index));
    let (tag, is_ready) = (desc.tag, u32::from(desc.is_ready(mode)));
    begin_wait(
        slot,
        &Parking { key, g, goid, mode, now_ns, stands_for, registers: 0, tag, is_ready, is_same_file },
    );
    debug!(ctx, "goroutine {} waits on fd {}, mode {}", goid, desc.fd, mode);
    Some(())
}

/// Fills the slot's part of a wait that begins, on a file that is known. A global function ([`crate`]).
///
/// `slot` is a value of the map, which lives as long as the program. One goroutine at a time waits on a pollDesc in one direction, so
/// only polls and stamps on other CPUs touch the same wait, and they do nothing while `start_ns` is 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_wait(slot: *mut PollDescSlot, parking: *const Parking) -> u64 {
    if slot.is_null() || parking.is_null() {
        return 0;
    }
    // SAFETY: the callers'; of the slot see above.
    let (slot, parking) = unsafe { (&mut *slot, &*parking) };
    let &Parking { key, g, goid, mode, now_ns, stands_for, registers, tag, is_ready, is_same_file } = parking;
    let is_same_file = is_same_file != 0;
    if !is_same_file {
        seldom();
        slot.is_told = 0;
    }
    let is_told = slot.is_told;
    // SAFETY: a part of the slot that `of` does not touch.
    let facts = unsafe { &*(&raw const slot.file) };
    let wait = of(slot, mode);
    set_start(wait, 0);
    wait.g = g;
    wait.goid = goid;
    wait.stands_for = stands_for;
    // Of a reader's socket the state matters once: whether it listens.
    if mode != READ || !is_same_file || wait.tag != tag || wait.socket_state == 0 {
        wait.socket_state = u32::from(file::state(facts));
    }
    if wait.tag != tag {
        seldom();
        wait.tag = tag;
        wait.last_poll_ns = 0;
        wait.sent_bytes = 0;
    }
    // A socket that was stamped by itself in the last wait can still be found.
    let is_indexed = is_same_file && wait.kernel_ready_source == source::DATA_READY;
    forget_clocks(wait);
    wait.flags = if is_ready != 0 { flag::READY_AT_START } else { 0 };
    if is_told != 0 {
        wait.flags |= flag::TOLD;
    }
    let state = wait.socket_state as u8;
    let sent_bytes = if mode == READ { file::sent_bytes(facts, state) } else { 0 };
    if sent_bytes != wait.sent_bytes {
        wait.flags |= flag::SENT_BEFORE;
        wait.sent_bytes = sent_bytes;
    }
    if config!(stand_ins) == 1 && facts.sk != 0 && !is_indexed {
        sockets::index(facts.sk, key);
    }
    set_start(wait, now_ns);
    // After the start: what comes from now on is stamped, so what is there without a stamp came before.
    if is_ready != 0 || (mode == READ && file::readable(facts, state)) {
        came_before(wait, now_ns);
    }
    if registers != 0 && wait.poll_ns == 0 {
        seldom();
        // A connect that was done at once is collected at once, perhaps before its wait was seen to begin.
        ticks::ran_then(wait);
    }
    0
}

/// Nothing was stamped or collected yet.
#[inline(always)]
fn forget_clocks(wait: &mut WaitSlot) {
    // SAFETY: fields of a live reference. Volatile: other CPUs write them; and of neighbouring zeroes the compiler makes a call.
    unsafe {
        (&raw mut wait.kernel_ready_ns).write_volatile(0);
        (&raw mut wait.poll_ns).write_volatile(0);
    }
    wait.kernel_ready_source = source::NONE;
    wait.kernel_ready_after_ns = 0;
    wait.poller = poller::UNKNOWN;
}

/// It was ready before the goroutine parked, unless it was stamped meanwhile.
#[inline(always)]
fn came_before(wait: &mut WaitSlot, now_ns: u64) {
    // SAFETY: a field of a live reference. Volatile: another CPU may have stamped since it was cleared.
    unsafe {
        let stamp = &raw mut wait.kernel_ready_ns;
        if stamp.read_volatile() == 0 {
            stamp.write_volatile(now_ns);
            wait.kernel_ready_source = source::BEFORE_PARK;
        }
    }
}

/// The part of a slot for one direction. By arithmetic: the verifier would go through all that follows once for each.
#[inline(always)]
pub fn of(slot: &mut PollDescSlot, mode: u64) -> &mut WaitSlot {
    const {
        assert!(READ & 1 == 0 && WRITE & 1 == 1);
        assert!(offset_of!(PollDescSlot, read) == 0);
        assert!(offset_of!(PollDescSlot, write) == size_of::<WaitSlot>());
    }
    let offset = opaque(mode & 1) as usize * size_of::<WaitSlot>();
    // SAFETY: the first or the second of two that lie side by side.
    unsafe { &mut *(&raw mut *slot).cast::<u8>().add(offset).cast::<WaitSlot>() }
}

/// How many waits the one that begins now stands for; 0: it is not followed.
#[inline(always)]
pub fn choose(wait: &mut WaitSlot) -> u32 {
    if config!(may_leave_out) == 0 {
        return 1;
    }
    // SAFETY: the helper has no preconditions.
    let now_ticks = unsafe { bpf_jiffies64() } as u32;
    let slow_after = (SLOW_AFTER_NS / config!(tick_ns).max(1)) as u32 + 1;
    let stands_for = sampling::choose(now_ticks.wrapping_sub(wait.began_ticks) > slow_after);
    wait.began_ticks = now_ticks;
    stands_for
}

/// Stamps and polls on other CPUs look at `start_ns` first, so it is written last, and cleared first.
#[inline(always)]
pub fn set_start(wait: &mut WaitSlot, start_ns: u64) {
    // SAFETY: a field of a live reference.
    unsafe { (&raw mut wait.start_ns).write_volatile(start_ns) };
}

/// The same goroutine waits again after it was woken as ready. When it ran on the same P all the time (`schedtick`
/// unchanged) and made one system call (`syscalltick` one higher), that call was the one that said EAGAIN.
#[inline(always)]
fn report_spurious(wait: &WaitSlot, pd: u64, goid: u64, again_ns: u64, mode: u64) {
    let Some((p, ticks)) = ticks::of(wait.last_g) else { return };
    let (schedtick, syscalltick) = (ticks as u32, (ticks >> 32) as u32);
    let (last_schedtick, last_syscalltick) = (wait.last_ticks as u32, (wait.last_ticks >> 32) as u32);
    if p == wait.last_p && schedtick == last_schedtick && syscalltick == last_syscalltick.wrapping_add(1) {
        if wait.cell != 0 {
            return cells::was_spurious(wait.cell - 1, wait.stands_for);
        }
        let header = emit::header::<SpuriousRecord>(kind::SPURIOUS, target::tgid());
        emit::record(SpuriousRecord { header, pd, goid, again_ns, mode }, Counter::RingFullSpurious);
    }
}

/// A uprobe: `netpollblock` has returned, with its result in `argument_0`.
#[inline(always)]
pub fn end_in_poll_wait(ctx: &ProbeContext) {
    end_by_uprobe(ctx, regs::argument_0(ctx) & 0xff != 0);
}

/// A uprobe on the way that `runtime_pollWait` takes when `netpollblock` has returned false.
#[inline(always)]
pub fn broken_off(ctx: &ProbeContext) {
    end_by_uprobe(ctx, false);
}

#[inline(always)]
fn end_by_uprobe(ctx: &ProbeContext, ready: bool) {
    let now_ns = now();
    let Some(target) = target::current() else { return };
    if try_end(ctx, now_ns, ready, target).is_none() {
        emit::count(Counter::ReadTarget);
    }
}

#[inline(always)]
fn try_end(ctx: &ProbeContext, now_ns: u64, ready: bool, target: Target) -> Option<()> {
    let g = regs::g(ctx);
    let pd: u64 = read::user(regs::stack_pointer(ctx) + config!(pd_home))?;
    // Before the ways part: the verifier goes through their loops once for each way. Where system calls show the waits, the stack was
    // taken at the start.
    let by_syscalls = config!(follow_syscalls) == 1;
    let stack_hash = if by_syscalls { 0 } else { stack::hash_of_uprobe(ctx, target.index) };
    let labels_hash = if by_syscalls { 0 } else { labels::hash(labels::of(g), target.index) };
    let desc = if ready && !by_syscalls { None } else { PollDesc::read(pd) };
    let key = match &desc {
        Some(desc) if by_syscalls => slot_key(desc.fd as u64, target.index),
        _ => slot_key(pd, target.index),
    };
    let Some(slot) = slots::find(key) else {
        sampling::count_unless_sampled(Counter::EndWithoutStart);
        return Some(());
    };
    // SAFETY: see begin_wait.
    let slot = unsafe { &mut *slot };
    let mode = if slot.pd == pd && slot.read.start_ns != 0 && slot.read.g == g {
        READ
    } else if slot.pd == pd && slot.write.start_ns != 0 && slot.write.g == g {
        WRITE
    } else {
        sampling::count_unless_sampled(Counter::EndWithoutStart);
        return Some(());
    };
    let outcome = if ready {
        outcome::READY
    } else {
        let Some(desc) = desc else {
            let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
            set_start(wait, 0);
            emit::count(Counter::ReadOutcome);
            return Some(());
        };
        desc.outcome(mode)
    };
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    if !by_syscalls {
        (wait.stack_hash, wait.labels_hash) = (stack_hash, labels_hash);
    } else if wait.goid == 0 {
        // It could not be read when the wait began. Its labels stay unknown: no uprobe reads them here ([`crate::scratch`]).
        wait.goid = goroutine::id_of(g).unwrap_or(0);
        if labels::of(g) != 0 {
            emit::count(Counter::ReadLabels);
        }
    }
    end_wait(slot, mode, u64::from(outcome), now_ns);
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    if !by_syscalls {
        // Of the next wait's stack nothing is known until it ends.
        wait.stack_hash = 0;
    }
    debug!(ctx, "goroutine {} waited, outcome {}", wait.goid, outcome);
    if outcome == outcome::REARMED {
        restart(wait, now_ns);
    } else if ready && let Some((p, ticks)) = ticks::of(g) {
        wait.last_g = g;
        wait.last_p = p;
        wait.last_ticks = ticks;
    }
    Some(())
}

/// A wait has ended, as [`outcome`] says, of the current thread's goroutine: it is added to its cell, or handed over. Its stack and labels
/// stand in the slot. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_wait(slot: *mut PollDescSlot, mode: u64, outcome: u64, now_ns: u64) -> u64 {
    if slot.is_null() {
        return 0;
    }
    // SAFETY: see begin_wait.
    let slot = unsafe { &mut *slot };
    // SAFETY: a part of the slot that `of` does not touch.
    let facts = unsafe { &*(&raw const slot.file) };
    let wait = of(slot, mode);
    let start_ns = wait.start_ns;
    set_start(wait, 0);
    if wait.goid == 0 {
        emit::count(Counter::ReadTarget);
        return 0;
    }
    let sent_ns = if mode == READ { sent_since(wait, facts, start_ns, now_ns) } else { 0 };
    // Plus zero, which the verifier does not know ([`regs::Syscall::nothing`]), in all bits.
    let sent_ns = sent_ns ^ (start_ns >> 60).wrapping_mul(u64::MAX / 15);
    let how = cells::How::new(mode, outcome as u8);
    if config!(may_add_up) == 0 || !cells::add(slot, how, start_ns, now_ns, sent_ns) {
        hand_over::hand_over(slot, how, start_ns, now_ns, sent_ns);
    }
    0
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

/// `runtime_pollWait` loops: the goroutine blocks again without passing the start site.
#[inline(always)]
fn restart(wait: &mut WaitSlot, now_ns: u64) {
    forget_clocks(wait);
    wait.flags = flag::AFTER_REARM;
    set_start(wait, now_ns);
}
