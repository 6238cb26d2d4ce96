//! Where the slots of pollDescs are found: by a hash of their key, or, where system calls show the waits of one process and the key is an
//! fd, by that in an array, which saves a tenth of a microsecond in each of a wait's four lookups.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use netpoll_probe_common::slot::PollDescSlot;

use crate::{config::config, maps};

/// What a pollDesc is given when it is first seen. In .rodata: it is too large for the stack.
static EMPTY: PollDescSlot = PollDescSlot::EMPTY;

/// The slot of a key ([`slot_key`](netpoll_probe_common::slot::slot_key)), if it has one.
#[inline(always)]
pub fn find(key: u64) -> Option<*mut PollDescSlot> {
    match near(key) {
        // SAFETY: a map value.
        Some(slot) if unsafe { (*slot).pd } != 0 => Some(slot),
        // User space put it there, for a wait that was open before.
        _ => maps::SLOTS.get_ptr_mut(&key),
    }
}

/// The slot of a key, made if it has none.
#[inline(always)]
pub fn make(key: u64) -> Option<*mut PollDescSlot> {
    if let Some(slot) = find(key) {
        return Some(settle(key, slot));
    }
    if let Some(slot) = near(key) {
        will_be_read(key);
        return Some(slot);
    }
    let _ = maps::SLOTS.insert(&key, &EMPTY, 0);
    maps::SLOTS.get_ptr_mut(&key)
}

/// Where the slot of a key should be: one that user space put, in the array from now on, if nobody is in a wait on it.
#[inline(always)]
pub fn settle(key: u64, slot: *mut PollDescSlot) -> *mut PollDescSlot {
    let Some(near) = near(key) else { return slot };
    // SAFETY: map values.
    unsafe {
        if (*near).pd != 0 || (*slot).read.start_ns != 0 || (*slot).write.start_ns != 0 {
            return slot;
        }
    }
    move_slot(near, slot);
    will_be_read(key);
    near
}

/// Lets user space read the place of this fd.
#[inline(always)]
fn will_be_read(fd: u64) {
    if let Some(end) = maps::FD_SLOTS_END.get_ptr_mut(0) {
        // SAFETY: a value of this CPU; only the program at the exit of system calls gives such slots, and it is not preempted.
        unsafe { *end = (*end).max(fd as u32 + 1) };
    }
}

/// The place in the array; `None`: the key has none (`Config::has_fd_slots`).
#[inline(always)]
fn near(key: u64) -> Option<*mut PollDescSlot> {
    if config!(follow_syscalls) == 0 || config!(tgid) == 0 || key > u64::from(u32::MAX) {
        return None;
    }
    maps::FD_SLOTS.get_ptr_mut(key as u32)
}

/// Moves what is known of a pollDesc. A pollDesc's address of 0 says that it is not there any more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn move_slot(to: *mut PollDescSlot, from: *mut PollDescSlot) -> u64 {
    if to.is_null() || from.is_null() {
        return 0;
    }
    // SAFETY: the callers' map values. By the helper: the compiler would copy word by word.
    unsafe {
        bpf_probe_read_kernel(to.cast(), size_of::<PollDescSlot>() as u32, from.cast());
        (*from).pd = 0;
    }
    0
}
