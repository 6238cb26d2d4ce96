//! What the programs of one session record, as one stream.

use std::{
    io,
    task::{Context, Poll},
};

use super::{own::now_ns, recording::event_loop};
use crate::{
    bpf::{reader::AsyncRing, session::Session, wait_buffers::WaitBuffers},
    error::Failure,
    event::{self, DecodeError, Event, order::Order},
};

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// What ended until now.
    Now,
    /// All that is there: for the last time.
    End,
}

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
    pub(super) fn read(&mut self, until: Until, to: impl FnMut(Result<Event, DecodeError>)) {
        let Self { ring, wait_buffers, order, count } = self;
        // The clock first, then the buffers, then the ring: see `Order`.
        let until_ns = match until {
            Until::Now => now_ns(),
            Until::End => u64::MAX,
        };
        wait_buffers.take(order.waits_mut());
        let next = || ring.next(|bytes| (bytes.len(), event::decode(bytes)));
        *count += order.round(until_ns, next, to) as u64;
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
