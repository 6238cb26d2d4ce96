//! An array of the object, in memory that this process shares with the programs.

use std::{fmt, io, os::fd::AsFd as _, ptr};

use aya::{Ebpf, maps::Map, sys::SyscallError};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::session::SessionError;

/// A mapped array of `T`, or none.
pub(super) struct SharedArray<T> {
    values: *mut T,
    count: usize,
}

impl<T> SharedArray<T> {
    /// No array.
    pub(super) const NONE: Self = Self { values: ptr::null_mut(), count: 0 };

    /// Maps the array `name` of a loaded object, which was made to be mapped, and whose values are whole cache lines.
    pub(super) fn map(ebpf: &Ebpf, name: &'static str) -> Result<Self, SessionError> {
        let Some(Map::Array(map)) = ebpf.map(name) else { return Err(SessionError::Missing(name)) };
        let info = map.info().map_err(|source| SessionError::Map { name, source })?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(SessionError::Missing(name));
        }
        let count = info.max_entries() as usize;
        let (bytes, access) = (count * size_of::<T>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping, of as many bytes as the map's values have (`array_map_mmap`, kernel/bpf/arraymap.c).
        let memory = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, map.fd().as_fd(), 0) };
        let memory = memory.map_err(|errno| {
            let error = SyscallError { call: "mmap", io_error: io::Error::from(errno) };
            SessionError::Map { name, source: error.into() }
        })?;
        Ok(Self { values: memory.cast(), count })
    }

    /// How many values it has.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The place of one; `None`: there is none. The programs write it, too.
    pub(super) fn at(&self, index: usize) -> Option<*mut T> {
        if index >= self.count {
            return None;
        }
        // SAFETY: inside the mapping.
        Some(unsafe { self.values.add(index) })
    }
}

impl<T> fmt::Debug for SharedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArray").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        // SAFETY: the whole of what was mapped, and nobody has it any longer. It cannot fail then.
        let _ = unsafe { munmap(self.values.cast(), self.count * size_of::<T>()) };
    }
}
