//! What a process sent while a goroutine of it waited to read.

use netpoll_probe_common::{
    record::{FileRecord, flag},
    slot::WaitSlot,
};

/// What this process sent on a TCP connection that a goroutine of it waits to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Something since the last such wait ended, or that is not known: an answer may have been owed from the start.
    pub before: bool,
    /// The last time during the wait, CLOCK_MONOTONIC ns, to a jiffy of the kernel.
    pub last_ns: Option<u64>,
}

impl Sent {
    /// Of an open wait, from what the kernel says of its connection now.
    #[must_use]
    pub fn of_open(slot: &WaitSlot, file: Option<&FileRecord>) -> Self {
        let later = file.filter(|file| file.sent_bytes != slot.sent_bytes && file.sent_ns >= slot.start_ns);
        Self {
            before: file.is_none() || slot.flags & flag::SENT_BEFORE != 0,
            last_ns: later.map(|file| file.sent_ns),
        }
    }
}
