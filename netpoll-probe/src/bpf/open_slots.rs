//! The map `OPEN_SLOTS`, in memory that this process shares with the programs: slots of waits that were open before these were there.
//!
//! The programs use a slot once its pollDesc's address stands in it, so that is written last. They read it and the rest without a barrier
//! between, so the rest is there a while before.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use aya::Ebpf;
use netpoll_probe_common::slot::PollDescSlot;

use super::{session::SessionError, shared_array::SharedArray};

/// The map.
pub(super) const OPEN_SLOTS: &str = "OPEN_SLOTS";

/// From the last field but one of a slot to the last: longer than any CPU holds a load or a store back.
const A_WHILE: Duration = Duration::from_micros(100);

/// The slots.
#[derive(Debug)]
pub(super) struct OpenSlots {
    slots: SharedArray<PollDescSlot>,
}

impl OpenSlots {
    /// Maps the map of a loaded object; one that has `no_room` has no slots.
    pub(super) fn map(ebpf: &Ebpf, no_room: bool) -> Result<Self, SessionError> {
        let slots = if no_room { SharedArray::NONE } else { SharedArray::map(ebpf, OPEN_SLOTS)? };
        Ok(Self { slots })
    }

    /// The slot of an fd, in use or not; `None`: there is no room for it.
    fn at(&self, fd: u32) -> Option<*mut PollDescSlot> {
        self.slots.at(usize::try_from(fd).ok()?)
    }

    /// Whether there is room for an fd's.
    pub(super) fn has_room(&self, fd: u32) -> bool {
        self.at(fd).is_some()
    }

    /// The slot of an fd, if it has one.
    pub(super) fn get(&self, fd: u32) -> Option<PollDescSlot> {
        let slot = self.at(fd)?;
        // SAFETY: inside the mapping; any bytes are one. The programs write it meanwhile, as they do where a system call copies it.
        let slot = unsafe { slot.read_volatile() };
        (slot.pd != 0).then_some(slot)
    }

    /// Makes slots, by fd, of those for which there is room.
    pub(super) fn put(&mut self, slots: &HashMap<u32, PollDescSlot>) {
        if slots.is_empty() {
            return;
        }
        let places = || slots.iter().filter_map(|(fd, slot)| Some((self.at(*fd)?, slot)));
        for (place, slot) in places() {
            // SAFETY: inside the mapping; the programs leave it alone until it has a pollDesc.
            unsafe { place.write_volatile(PollDescSlot { pd: 0, ..*slot }) };
        }
        thread::sleep(A_WHILE);
        for (place, slot) in places() {
            set_poll_desc(place, slot.pd);
        }
    }

    /// Takes an fd's away.
    pub(super) fn remove(&mut self, fd: u32) {
        if let Some(place) = self.at(fd) {
            set_poll_desc(place, 0);
        }
    }

    /// Those that there are, by fd.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, PollDescSlot)> {
        (0..u32::try_from(self.slots.count()).unwrap_or(u32::MAX)).filter_map(|fd| Some((fd, self.get(fd)?)))
    }
}

/// Writes the pollDesc's address of a slot of the mapping, in one piece, after all that was written before.
fn set_poll_desc(slot: *mut PollDescSlot, pd: u64) {
    // SAFETY: inside the slot.
    let field = unsafe { &raw mut (*slot).pd };
    // SAFETY: aligned, and others access it in one piece, too.
    unsafe { AtomicU64::from_ptr(field) }.store(pd, Ordering::Release);
}
