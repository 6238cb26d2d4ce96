//! The slot of an fd, where system calls show the waits: whose pollDesc the fd has, as the epoll items of its file say.

use netpoll_probe_common::{
    counter::Counter,
    slot::{PollDescSlot, of_slot_key, slot_key},
};

use crate::{
    config::config,
    emit, file,
    hint::seldom,
    maps,
    poll::{decode, is_plain},
    polldesc, read, slots, wait,
};

/// Epoll instances that one file is looked for in: Go's, and a few of the program's own.
const EPOLL_ITEMS: u32 = 4;

/// The slot of an fd by its key, and the tag of its pollDesc. `slot` is what it had the last time, or null. `None`: the fd is not in the
/// netpoller, so the program polls it itself, or does not poll; or there is no room for it.
#[inline(always)]
pub fn slot_of(key: u64, slot: *mut PollDescSlot) -> Option<(*mut PollDescSlot, u32)> {
    // SAFETY: a map value; see `has_new_file` for who else writes this.
    if !slot.is_null() && unsafe { (*slot).is_current } == 1 {
        // SAFETY: as above.
        return Some((slot, unsafe { (*slot).file.tag }));
    }
    seldom();
    let (fd, target) = of_slot_key(key);
    let data = find_event_data(fd, u64::from(target));
    if data == 0 {
        return None;
    }
    let (pd, tag) = decode(data);
    let Some(slot) = slots::make(key, pd) else {
        emit::count(Counter::SlotsFull);
        return None;
    };
    take_over(slot, pd, key);
    Some((slot, tag))
}

/// The fd of this key was registered with the epoll instance `epfd`. If that is the netpoller's, it is a new file: Go does that once for each,
/// before anybody reads or writes it. If it is another one, the fd may have left the netpoller. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has_new_file(key: u64, epfd: u64) -> u64 {
    let Some(slot) = slots::find(key) else { return 0 };
    // SAFETY: a map value. At a new file there is nobody else: the last one was closed when nobody used it.
    let slot = unsafe { &mut *slot };
    slot.is_current = 0;
    let eventpoll = maps::EVENTPOLL.get(of_slot_key(key).1).copied().unwrap_or(0);
    if eventpoll != 0 && file::eventpoll_of(epfd).is_some_and(|other| other != eventpoll) {
        return 0;
    }
    slot.file.known = 0;
    forget_waits(slot);
    0
}

/// The fd of this key was closed: what has its number next need not be in the netpoller.
#[inline(always)]
pub fn was_closed(key: u64) {
    if let Some(slot) = slots::find(key) {
        // SAFETY: a map value. If the number was taken again meanwhile, the epoll item is asked once more.
        unsafe { (*slot).is_current = 0 };
    }
}

/// What was known of waits on another file.
#[inline(always)]
fn forget_waits(slot: &mut PollDescSlot) {
    for wait in [&mut slot.read, &mut slot.write] {
        wait::set_start(wait, 0);
        // No tag is as large, so nothing is taken for that of an earlier wait.
        wait.tag = u32::MAX;
    }
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
    // One that is new is empty, and the goroutine of the other direction may have begun its first wait on it by now.
    if slot.pd != pd && slot.pd != 0 {
        forget_waits(slot);
    }
    // Before Go 1.21 no tag tells one file of the same pollDesc from the next; this one may be from a moment before the programs came.
    if slot.pd != pd || config!(pd_has_fdseq) == 0 {
        slot.file.known = 0;
    }
    slot.pd = pd;
    let (fd, target) = of_slot_key(key);
    let _ = maps::FDS.insert(&slot_key(pd, target), &(fd as i32), 0);
    0
}

/// What Go registered an fd with: the data word of the epoll item of its file (`fs/eventpoll.c`, `struct epitem`), which has its pollDesc and
/// tag ([`decode`]); 0: it is not in the netpoller. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_event_data(fd: u64, target: u64) -> u64 {
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
            let data = read::kernel(item + config!(epitem_event_data))?;
            let is_netpoller = eventpoll != 0 && config!(tag_bits) != 0 && !is_plain(data);
            let (pd, tag) = decode(data);
            // Of an epoll instance that is not Go's, the data is anything; of one that is, memory that cannot be read now does not matter.
            if is_netpoller || polldesc::is_of(pd, fd, tag) {
                return Some(data);
            }
        }
        link = read::kernel(link)?;
        looked += 1;
    }
    None
}
