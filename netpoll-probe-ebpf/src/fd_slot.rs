//! The slot of an fd, where system calls show the waits: whose pollDesc the fd has, as the epoll items of its file say.

use netpoll_probe_common::{
    counter::Counter,
    slot::{PollDescSlot, of_slot_key, slot_key},
};

use crate::{
    config::config,
    emit, file, maps,
    poll::decode,
    polldesc::{self, PollDesc},
    read, slots, wait,
};

/// Epoll instances that one file is looked for in: Go's, and a few of the program's own.
const EPOLL_ITEMS: u32 = 4;

/// The slot of an fd by its key, and what stands in its pollDesc. `slot` is what it had the last time, or null. `None`: the fd is not in the
/// netpoller, so the program polls it itself, or does not poll; or there is no room for it.
#[inline(always)]
pub fn slot_of(key: u64, slot: *mut PollDescSlot, desc: &mut PollDesc) -> Option<*mut PollDescSlot> {
    let (fd, target) = of_slot_key(key);
    if !slot.is_null() && is_still(slot, fd, desc) != 0 {
        return Some(slot);
    }
    let pd = find(fd as i32, target)?;
    let Some(slot) = slots::make(key, pd) else {
        emit::count(Counter::SlotsFull);
        return None;
    };
    take_over(slot, pd, key);
    if !desc.read_into(pd) {
        emit::count(Counter::ReadTarget);
        return None;
    }
    Some(slot)
}

/// Not 0: the fd still has the pollDesc that it had the last time. `fdseq` changes when a pollDesc is freed. Where that does not exist
/// (before Go 1.21), every wait looks anew. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_still(slot: *const PollDescSlot, fd: u64, desc: *mut PollDesc) -> u64 {
    if config!(pd_has_fdseq) == 0 || slot.is_null() || desc.is_null() {
        return 0;
    }
    let fd = fd as i32;
    // SAFETY: the caller's, and a map value.
    let (slot, desc) = unsafe { (&*slot, &mut *desc) };
    let is_known = slot.file.known == 1 && slot.file.fd == fd;
    u64::from(
        is_known
            && desc.read_into(slot.pd)
            && slot.file.tag == desc.tag
            && desc.fd == fd
            && !desc.is_closing(),
    )
}

/// Makes the slot that of another pollDesc, if it was that of one. Nobody waits on the old one: an fd is closed when nobody uses it. A global
/// function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_over(slot: *mut PollDescSlot, pd: u64, key: u64) -> u64 {
    if slot.is_null() {
        return 0;
    }
    // SAFETY: see wait::begin_wait.
    let slot = unsafe { &mut *slot };
    if slot.pd != pd {
        // One that is new is empty, and the goroutine of the other direction may have begun its first wait on it by now.
        if slot.pd != 0 {
            for wait in [&mut slot.read, &mut slot.write] {
                wait::set_start(wait, 0);
                // No tag is as large, so nothing is taken for that of an earlier wait.
                wait.tag = u32::MAX;
            }
        }
        slot.file.known = 0;
        slot.pd = pd;
        let (fd, target) = of_slot_key(key);
        let _ = maps::FDS.insert(&slot_key(pd, target), &(fd as i32), 0);
    }
    0
}

/// The address of an fd's pollDesc: the epoll items of its file say what Go registered it with (`fs/eventpoll.c`, `struct epitem`).
#[inline(always)]
pub fn find(fd: i32, target: u32) -> Option<u64> {
    let pd = find_poll_desc(fd as u64, u64::from(target));
    (pd != 0).then_some(pd)
}

/// The same; 0: it has none. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_poll_desc(fd: u64, target: u64) -> u64 {
    search(fd as i32, target as u32).unwrap_or(0)
}

#[inline(always)]
fn search(fd: i32, target: u32) -> Option<u64> {
    let file = file::of_fd(fd as u64)?;
    let items: u64 = read::kernel(file + config!(file_ep))?;
    if items == 0 {
        return None;
    }
    let eventpoll = maps::EVENTPOLL.get(target).copied().unwrap_or(0);
    let mut link: u64 = read::kernel(items)?;
    let mut looked = 0;
    while looked < EPOLL_ITEMS {
        if link == 0 {
            return None;
        }
        let item = link - config!(epitem_link);
        let item_fd: i32 = read::kernel(item + config!(epitem_fd))?;
        let item_eventpoll: u64 = read::kernel(item + config!(epitem_ep))?;
        if item_fd == fd && (eventpoll == 0 || item_eventpoll == eventpoll) {
            let (pd, tag) = decode(read::kernel(item + config!(epitem_event_data))?);
            // Of an epoll instance that is not Go's, the data is anything.
            if polldesc::is_of(pd, fd, tag) {
                return Some(pd);
            }
        }
        link = read::kernel(link)?;
        looked += 1;
    }
    None
}
