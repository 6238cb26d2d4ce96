//! The ring buffer, as bytes.

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    task::{Context, Poll},
};

use aya::maps::{MapData, RingBuf};
use netpoll_probe_common::limit::RING_BYTES;
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

    /// Gives each waiting record to `each`, and returns how many there were: no more than the ring holds, or a target that writes as fast as
    /// it is read would be read for ever.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let (mut records, mut bytes) = (0, 0);
        while bytes < RING_BYTES as usize {
            let Some(record) = self.ring.next() else { break };
            bytes += record.len();
            each(&record);
            records += 1;
        }
        records
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

    /// [`RingReader::drain`]
    pub fn drain(&mut self, each: impl FnMut(&[u8])) -> usize {
        self.fd.get_mut().drain(each)
    }
}
