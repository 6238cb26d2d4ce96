//! What the programs of one session record, as one stream.

use std::{
    io,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use super::{own::now_ns, recording::event_loop};
use crate::{
    bpf::{reader::AsyncRing, session::Session, wait_buffers::WaitBuffers},
    error::Failure,
    event::{
        self, DecodeError, Event,
        order::{Order, Ring},
    },
};

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// What ended until now.
    Now,
    /// All that is there: for the last time.
    End,
}

/// How long the last reading waits for records that are still being written: longer than a CPU is taken from whoever writes one.
const PATIENCE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// The ring, and the buffers of waits.
#[derive(Debug)]
pub(super) struct Records {
    ring: AsyncRing,
    wait_buffers: WaitBuffers,
    order: Order,
    count: u64,
}

impl Records {
    /// Takes those of a session.
    pub(super) fn of(session: &mut Session) -> Result<Self, Failure> {
        let ring = session.take_ring()?.into_async().map_err(event_loop)?;
        let wait_buffers = session.take_wait_buffers()?;
        Ok(Self { ring, wait_buffers, order: Order::default(), count: 0 })
    }

    /// Whether the programs say that much is waiting.
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ring.poll_readable(context)
    }

    /// Gives what was recorded to `to`.
    pub(super) fn read(&mut self, until: Until, mut to: impl FnMut(Result<Event, DecodeError>)) {
        let Self { ring, wait_buffers, order, count } = self;
        let patience_ends = Instant::now() + PATIENCE;
        loop {
            // The clock first, then the buffers, then the ring: see `Order`.
            let until_ns = match until {
                Until::Now => now_ns(),
                Until::End => u64::MAX,
            };
            let gives_up = until == Until::End && Instant::now() > patience_ends;
            let mut ring = OneRound { written: ring.written(), gives_up, ring };
            wait_buffers.take(order.waits_mut());
            *count += order.round(until_ns, &mut ring, &mut to) as u64;
            if until == Until::Now || ring.is_read_up() {
                break;
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// The ring in one round.
struct OneRound<'ring> {
    ring: &'ring mut AsyncRing,
    /// How far it was written when the round began.
    written: u64,
    /// Nothing is held any longer.
    gives_up: bool,
}

impl Ring for OneRound<'_> {
    fn next(&mut self) -> Option<(usize, Result<Event, DecodeError>)> {
        self.ring.next(|bytes| (bytes.len(), event::decode(bytes)))
    }

    fn is_read_up(&self) -> bool {
        self.gives_up || self.ring.read() >= self.written
    }
}
