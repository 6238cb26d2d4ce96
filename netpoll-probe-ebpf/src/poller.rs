//! Who polls: the thread in `epoll_pwait`, when it was woken, and what it can have missed.

use netpoll_probe_common::{
    record::poller,
    slot::{ThreadSlot, thread_entry},
};

use crate::{goroutine, hint::seldom, maps, regs::Syscall, target::Target};

/// `epoll_pwait` takes milliseconds.
const NS_PER_MS: u64 = 1_000_000;

/// The slot of a thread, made if it has none.
#[inline(always)]
pub fn thread_slot(thread: u32) -> Option<*mut ThreadSlot> {
    let slot = maps::THREADS.get_ptr_mut(thread_entry(thread))?;
    let owner = owner(slot);
    if owner == thread {
        return Some(slot);
    }
    seldom();
    if owner == 0 {
        // SAFETY: a map value, and nobody's. Of two threads that take it at once one does not find itself there the next time.
        unsafe { (&raw mut (*slot).thread).write_volatile(thread) };
        return Some(slot);
    }
    if let Some(slot) = maps::CROWDED_THREADS.get_ptr_mut(&thread) {
        return Some(slot);
    }
    let _ = maps::CROWDED_THREADS.insert(&thread, &ThreadSlot::default(), 0);
    maps::CROWDED_THREADS.get_ptr_mut(&thread)
}

#[inline(always)]
fn owner(slot: *mut ThreadSlot) -> u32 {
    // SAFETY: a map value. Volatile: another CPU may take it.
    unsafe { (&raw const (*slot).thread).read_volatile() }
}

/// Marks that the thread has left its call. Returns when it had left the one before, and when it was last woken in this one.
#[inline(always)]
pub fn left(slot: Option<*mut ThreadSlot>, now_ns: u64) -> (u64, u64) {
    let Some(slot) = slot else { return (0, 0) };
    // SAFETY: a map value; only this thread and its wakers touch it, and they only while it sleeps.
    unsafe {
        let was = ((*slot).left_ns, (*slot).waking_ns);
        (*slot).left_ns = now_ns;
        (*slot).waking_ns = 0;
        was
    }
}

/// The bound for what this call returned, from calls before. What this one left behind was not ready when it looked, which was after its
/// waking.
#[inline(always)]
pub fn bound(call: Syscall, waking_ns: u64, target: Target) -> u64 {
    let Some(last) = maps::LAST_POLL.get_ptr_mut(target.index) else { return 0 };
    // SAFETY: a map value. Two pollers at once may mix: then the bound is the older or the newer one, both true.
    unsafe {
        let before_ns = *last;
        if call.result() >= call.argument::<2>() as i64 {
            // A call that was full may have left something behind.
            *last = 0;
        } else if waking_ns != 0 {
            *last = waking_ns;
        }
        before_ns
    }
}

#[inline(always)]
pub fn last_bound(target: Target) -> u64 {
    maps::LAST_POLL.get(target.index).copied().unwrap_or(0)
}

/// Whether the thread's last waking may have been its own timeout: then what it collected came at some time on its way, or earlier, and
/// not at the waking. The call began after the thread had left the one before.
#[inline(always)]
pub fn may_have_timed_out(left_ns: u64, waking_ns: u64, call: Syscall) -> bool {
    let timeout_ms = call.argument::<3>() as i32;
    timeout_ms >= 0 && waking_ns >= left_ns + timeout_ms as u64 * NS_PER_MS
}

/// Who polls: with a timeout an M that may sleep; without, one that runs goroutines, or `sysmon`, which never holds a P. That a thread runs
/// goroutines is remembered in its slot, which saves two reads; and between giving its P away and going to sleep it holds none, either.
#[inline(always)]
pub fn of(call: Syscall, slot: Option<*mut ThreadSlot>) -> u8 {
    let sleeps = call.argument::<3>() as i32 != 0;
    // SAFETY: a map value; only this thread touches this field.
    let is_known = slot.is_some_and(|slot| unsafe { (*slot).runs_goroutines } == 1);
    if !is_known {
        seldom();
        if !sleeps {
            match goroutine::p_of_scheduler(call.g()) {
                None => return poller::UNKNOWN,
                Some(0) => return poller::SYSMON,
                Some(_) => {}
            }
        }
        if let Some(slot) = slot {
            // SAFETY: as above.
            unsafe { (*slot).runs_goroutines = 1 };
        }
    }
    if sleeps { poller::BLOCKING } else { poller::NONBLOCKING }
}
