//! Records of the ring and waits of the CPUs' buffers → one stream in which nothing comes before what it follows from.
//!
//! A round takes all that is in the buffers, then all that is in the ring, and gives away what ended until a moment before both. That is
//! enough: what a record follows from (a wait on the file that its fd had before, the first wait on its file, its stack) was handed over
//! before its clock was read, so before that moment, and was there to be taken. The buffers' waits are in the order of their ends then. The
//! ring's order, that of reserving, is kept, and it is merged by the times in it; what has none (stacks, names) comes as early as it is found.
//! What stands behind a record that is still being written cannot be taken: waits that may follow from that are held.

use netpoll_probe_common::{limit::RING_BYTES, record::WaitRecord};

use super::{DecodeError, Event};

/// Where the ring's records come from.
pub trait Ring {
    /// The next one, and how many bytes it has; none when there is none, or it is still being written.
    fn next(&mut self) -> Option<(usize, Result<Event, DecodeError>)>;

    /// Whether all was read that it had when the round began, or the rest is waited for no longer.
    fn is_read_up(&self) -> bool;
}

/// What is held for the next round.
#[derive(Debug, Default)]
pub struct Order {
    /// Those that CPUs ended, one CPU after the other.
    waits: Vec<WaitRecord>,
    /// When each of them ended, and where it stands there, in the order of time.
    by_end: Vec<(u64, usize)>,
    /// Of the ring.
    next: Option<Event>,
}

impl Order {
    /// Where the waits of the buffers are put before each round.
    pub fn waits_mut(&mut self) -> &mut Vec<WaitRecord> {
        &mut self.waits
    }

    /// Gives away what ended until `until_ns`. No more is read than the ring holds, or a target that writes as fast as it is read would be read
    /// for ever. Returns how many records there were.
    pub fn round(
        &mut self,
        until_ns: u64,
        ring: &mut impl Ring,
        mut to: impl FnMut(Result<Event, DecodeError>),
    ) -> usize {
        self.by_end.clear();
        self.by_end.extend(self.waits.iter().enumerate().map(|(at, wait)| (wait.end_ns, at)));
        // Quick with what is in order but for a few seams.
        self.by_end.sort();
        let mut waits = self.by_end.iter().peekable();
        let mut waits_until = |until_ns: u64| {
            waits.next_if(|(end_ns, _)| *end_ns <= until_ns).and_then(|(_, at)| self.waits.get(*at))
        };
        let (mut given, mut bytes) = (0, 0);
        while bytes < RING_BYTES as usize {
            let held = self.next.take().map(|event| (0, Ok(event)));
            let Some((length, event)) = held.or_else(|| ring.next()) else { break };
            bytes += length;
            if let Some(at_ns) = event.as_ref().ok().and_then(Event::at_ns) {
                if at_ns > until_ns {
                    self.next = event.ok();
                    break;
                }
                while let Some(wait) = waits_until(at_ns) {
                    to(Ok(Event::Wait(*wait)));
                    given += 1;
                }
            }
            to(event);
            given += 1;
        }
        // What stands behind one that is newer is newer, too.
        let all_was_there = self.next.is_some() || ring.is_read_up();
        while all_was_there && let Some(wait) = waits_until(until_ns) {
            to(Ok(Event::Wait(*wait)));
            given += 1;
        }
        let held = waits.filter_map(|(_, at)| self.waits.get(*at).copied()).collect();
        self.waits = held;
        given
    }
}

#[cfg(test)]
mod tests;
