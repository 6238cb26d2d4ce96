//! The ring buffer, as bytes.

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    task::{Context, Poll},
};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Hands out the ring's records. The programs wake it only when much is waiting, so who reads must also look by itself.
pub struct RingReader {
    ring: RingBuf<MapData>,
}

/// The ring as something that tokio can wait for.
#[derive(Debug)]
pub struct AsyncRing {
    fd: AsyncFd<RingReader>,
}

impl RingReader {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Gives the next record to `to`, if one is waiting.
    pub fn next<T>(&mut self, to: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.ring.next().map(|record| to(&record))
    }

    /// Registers it with the running tokio reactor.
    ///
    /// # Errors
    /// When the reactor refuses.
    pub fn into_async(self) -> io::Result<AsyncRing> {
        // SAFETY: the descriptor is the map's, which the ring owns for as long as it lives, and the AsyncFd owns the ring.
        let fd = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?;
        Ok(AsyncRing { fd })
    }
}

impl fmt::Debug for RingReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingReader").finish_non_exhaustive()
    }
}

impl AsRawFd for RingReader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsyncRing {
    /// Whether the programs say that much is waiting; if not, wakes the task when they do.
    ///
    /// # Errors
    /// When the reactor is gone.
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fd.poll_read_ready_mut(context) {
            Poll::Ready(Ok(mut guard)) => {
                guard.clear_ready();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// [`RingReader::next`]
    pub fn next<T>(&mut self, to: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.fd.get_mut().next(to)
    }
}
