//! The ring buffer, as bytes.

use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use aya::maps::{MapData, MapError, RingBuf};
use rustix::{mm::ProtFlags, param::page_size};
use tokio::io::{Interest, unix::AsyncFd};

use super::shared_memory::SharedMemory;

/// Hands out the ring's records. The programs wake it only when much is waiting, so who reads must also look by itself.
pub struct RingReader {
    ring: RingBuf<MapData>,
    positions: Positions,
}

/// How far the ring was read and written. `RingBuf` does not tell, and gives nothing when a record is still being written, as if it were the last.
struct Positions {
    /// A page for each, `struct bpf_ringbuf` from `consumer_pos` on (`kernel/bpf/ringbuf.c`).
    pages: SharedMemory,
}

impl Positions {
    fn map(ring: RawFd) -> Result<Self, MapError> {
        // SAFETY: the ring's, which is open as long as it is used here.
        let ring = unsafe { BorrowedFd::borrow_raw(ring) };
        Ok(Self { pages: SharedMemory::map(ring, 2 * page_size(), ProtFlags::READ)? })
    }

    fn read(&self) -> u64 {
        self.at(0)
    }

    fn written(&self) -> u64 {
        self.at(page_size())
    }

    fn at(&self, offset: usize) -> u64 {
        // SAFETY: inside the mapping.
        let position = unsafe { self.pages.start().add(offset) };
        // SAFETY: aligned; the kernel and `RingBuf` write it in one piece, too.
        unsafe { AtomicU64::from_ptr(position.cast()) }.load(Ordering::Acquire)
    }
}

/// The ring as something that tokio can wait for.
#[derive(Debug)]
pub struct AsyncRing {
    fd: AsyncFd<RingReader>,
}

impl RingReader {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, MapError> {
        let positions = Positions::map(ring.as_raw_fd())?;
        Ok(Self { ring, positions })
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

    /// How far it is written, in bytes since it was made; some of that may still be being written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.fd.get_ref().positions.written()
    }

    /// How far it was read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.fd.get_ref().positions.read()
    }

    /// [`RingReader::next`]
    pub fn next<T>(&mut self, to: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.fd.get_mut().next(to)
    }
}
