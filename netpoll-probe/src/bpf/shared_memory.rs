//! Memory of a map that this process shares with the programs.

use std::{io, os::fd::BorrowedFd, ptr};

use aya::{maps::MapError, sys::SyscallError};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping, until it is dropped.
pub(super) struct SharedMemory {
    start: *mut u8,
    bytes: usize,
}

impl SharedMemory {
    /// Maps the first bytes of a map.
    pub(super) fn map(map: BorrowedFd<'_>, bytes: usize, access: ProtFlags) -> Result<Self, MapError> {
        // SAFETY: a new mapping, of memory that stays while it is there, which the map sees to.
        let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, map, 0) };
        let start = start.map_err(|errno| {
            MapError::from(SyscallError { call: "mmap", io_error: io::Error::from(errno) })
        })?;
        Ok(Self { start: start.cast(), bytes })
    }

    /// Where it begins. The programs, or the kernel, write it.
    pub(super) const fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the whole of what was mapped, and nobody has it any longer. It cannot fail then.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}
