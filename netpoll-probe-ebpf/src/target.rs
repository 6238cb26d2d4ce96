//! Whether the current task is one that is wanted, and which.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::{config::config, maps};

/// One target process.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its thread group.
    pub tgid: u32,
    /// Its number among the targets of this session.
    pub index: u32,
}

/// The current task's process, if it is a target.
#[inline(always)]
pub fn current() -> Option<Target> {
    of(thread_group())
}

/// The target with this thread group.
#[inline(always)]
pub fn of(tgid: u32) -> Option<Target> {
    if config!(tgid) != 0 {
        return (u64::from(tgid) == config!(tgid)).then_some(Target { tgid, index: 0 });
    }
    // SAFETY: the value is copied at once.
    let index = unsafe { maps::TARGETS.get(&tgid) }.copied()?;
    Some(Target { tgid, index })
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

/// The current thread's group, in the initial PID namespace.
#[inline(always)]
pub fn thread_group() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The current thread's id, in the initial PID namespace.
#[inline(always)]
pub fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}
