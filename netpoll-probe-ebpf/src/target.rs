//! Whether the current task is one that is wanted, and which.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::{config::config, maps};

/// One target process.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its number among the targets of this session.
    pub index: u32,
    /// The current thread's id, in the initial PID namespace.
    pub thread: u32,
}

/// The current task's process, if it is a target.
#[inline(always)]
pub fn current() -> Option<Target> {
    let both = bpf_get_current_pid_tgid();
    let (tgid, thread) = ((both >> 32) as u32, both as u32);
    Some(Target { index: index_of(tgid)?, thread })
}

/// The current task's thread group.
#[inline(always)]
pub fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The number of the target with this thread group.
#[inline(always)]
pub fn index_of(tgid: u32) -> Option<u32> {
    if config!(tgid) != 0 {
        return (u64::from(tgid) == config!(tgid)).then_some(0);
    }
    // SAFETY: the value is copied at once.
    unsafe { maps::TARGETS.get(&tgid) }.copied()
}

/// The target whose netpoller this `struct eventpoll` is.
#[inline(always)]
pub fn of_eventpoll(eventpoll: u64) -> Option<u32> {
    if config!(tgid) != 0 {
        return (maps::EVENTPOLL.get(0).copied() == Some(eventpoll)).then_some(0);
    }
    // SAFETY: the value is copied at once.
    unsafe { maps::EVENTPOLLS.get(&eventpoll) }.copied()
}
