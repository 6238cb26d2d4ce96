//! Where the slots of pollDescs are found: by a hash of their key; or, where system calls show the waits of one process and the key is an fd,
//! in an array, which saves a tenth of a microsecond in each of a wait's four lookups.

use netpoll_probe_common::slot::{NO_G, PollDescSlot};

use crate::{config::config, hint::seldom, maps, wait};

/// What a pollDesc is given when it is first seen. In .rodata: it is too large for the stack.
static EMPTY: PollDescSlot = PollDescSlot::EMPTY;

/// The slot of a key ([`slot_key`](netpoll_probe_common::slot::slot_key)), if it has one.
#[inline(always)]
pub fn find(key: u64) -> Option<*mut PollDescSlot> {
    let Some(slot) = in_array(key) else { return in_hash(key) };
    if is_used(slot) {
        return Some(slot);
    }
    seldom();
    // User space made it, for a wait that was open before. It stays where it is until the fd has another pollDesc: goroutines of both
    // directions may be at it, so it is not moved before. In the hash are those for which there is no room in the array.
    match maps::OPEN_SLOTS.get_ptr_mut(key as u32) {
        Some(slot) if is_used(slot) => Some(slot),
        Some(_) => None,
        None => in_hash(key),
    }
}

#[cold]
#[inline(always)]
fn in_hash(key: u64) -> Option<*mut PollDescSlot> {
    maps::SLOTS.get_ptr_mut(&key)
}

#[inline(always)]
fn is_used(slot: *mut PollDescSlot) -> bool {
    // SAFETY: a map value. User space writes this field last, in one piece.
    unsafe { (&raw const (*slot).pd).read_volatile() != 0 }
}

/// The slot of a key, for a pollDesc, made if it has none.
#[inline(always)]
pub fn make(key: u64, pd: u64) -> Option<*mut PollDescSlot> {
    let found = find(key);
    if let Some(slot) = found
        // SAFETY: a map value.
        && unsafe { (*slot).pd } == pd
    {
        return Some(slot);
    }
    if let Some(slot) = in_array(key) {
        will_be_read(key);
        return Some(slot);
    }
    if found.is_some() {
        return found;
    }
    let _ = maps::SLOTS.insert(&key, &EMPTY, 0);
    in_hash(key)
}

/// Whether nobody is in a wait on an fd in a direction that is followed, for sure. Most system calls on an fd neither begin nor end one: a
/// server's writes, and, where not every wait is followed, most of its reads. They are told by a load or two.
#[inline(always)]
pub fn has_nobody(key: u64, mode: u64) -> bool {
    let Some(slot) = in_array(key) else { return false };
    // SAFETY: a map value; see wait::begin_wait for who else writes it. Only the goroutine that reads or writes an fd begins and ends waits
    // there, and Go lets one at a time do that (`internal/poll/fd_mutex.go`).
    let wait = wait::of(unsafe { &mut *slot }, mode);
    if wait.g != 0 {
        return wait.start_ns == 0;
    }
    seldom();
    let Some(slot) = maps::OPEN_SLOTS.get_ptr_mut(key as u32) else { return false };
    // SAFETY: as above.
    let wait = wait::of(unsafe { &mut *slot }, mode);
    wait.g != 0 && wait.start_ns == 0
}

/// A system call has shown that nobody is: `slot` is where such a wait would be, if it has a place.
#[inline(always)]
pub fn know_nobody(key: u64, slot: Option<*mut PollDescSlot>, mode: u64) {
    let Some(slot) = slot.or_else(|| in_array(key)) else { return };
    // SAFETY: as in `has_nobody`.
    let wait = wait::of(unsafe { &mut *slot }, mode);
    if wait.g == 0 {
        wait.g = NO_G;
    }
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
