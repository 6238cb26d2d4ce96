//! Where the slots of pollDescs are found: by a hash of their key; or, where system calls show the waits of one process and the key is an fd,
//! in an array, which saves a tenth of a microsecond in each of a wait's four lookups.

use netpoll_probe_common::slot::PollDescSlot;

use crate::{config::config, maps};

/// What a pollDesc is given when it is first seen. In .rodata: it is too large for the stack.
static EMPTY: PollDescSlot = PollDescSlot::EMPTY;

/// The slot of a key ([`slot_key`](netpoll_probe_common::slot::slot_key)), if it has one.
#[inline(always)]
pub fn find(key: u64) -> Option<*mut PollDescSlot> {
    match in_array(key) {
        // SAFETY: a map value.
        Some(slot) if unsafe { (*slot).pd } != 0 => Some(slot),
        // User space put it there, for a wait that was open before: only a hash can be told to leave alone what the programs have written. It
        // stays there until the fd has another pollDesc; goroutines of both directions may be at it, so it is not moved before.
        _ => maps::SLOTS.get_ptr_mut(&key),
    }
}

/// The slot of a key, for a pollDesc, made if it has none.
#[inline(always)]
pub fn make(key: u64, pd: u64) -> Option<*mut PollDescSlot> {
    if let Some(slot) = find(key)
        // SAFETY: a map value.
        && unsafe { (*slot).pd } == pd
    {
        return Some(slot);
    }
    if let Some(slot) = in_array(key) {
        will_be_read(key);
        return Some(slot);
    }
    if let Some(slot) = maps::SLOTS.get_ptr_mut(&key) {
        return Some(slot);
    }
    let _ = maps::SLOTS.insert(&key, &EMPTY, 0);
    maps::SLOTS.get_ptr_mut(&key)
}

/// Lets user space read the place of this fd.
#[inline(always)]
fn will_be_read(fd: u64) {
    if let Some(end) = maps::FD_SLOTS_END.get_ptr_mut(0) {
        // SAFETY: a value of this CPU; only the program at the exit of system calls makes such slots, and it is not preempted.
        unsafe { *end = (*end).max(fd as u32 + 1) };
    }
}

/// The place in the array, whether or not it is in use; `None`: the key has none (`Config::has_fd_slots`).
#[inline(always)]
fn in_array(key: u64) -> Option<*mut PollDescSlot> {
    if config!(follow_syscalls) == 0 || config!(tgid) == 0 || key > u64::from(u32::MAX) {
        return None;
    }
    maps::FD_SLOTS.get_ptr_mut(key as u32)
}
