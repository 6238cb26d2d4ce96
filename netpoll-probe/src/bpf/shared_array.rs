//! An array of the object, in memory that this process shares with the programs.

use std::{fmt, marker::PhantomData, os::fd::AsFd as _};

use aya::{Ebpf, maps::Map};
use rustix::mm::ProtFlags;

use super::{session::SessionError, shared_memory::SharedMemory};

/// A mapped array of `T`, or none.
pub(super) struct SharedArray<T> {
    memory: Option<SharedMemory>,
    count: usize,
    values: PhantomData<*mut T>,
}

impl<T> SharedArray<T> {
    /// No array.
    pub(super) const NONE: Self = Self { memory: None, count: 0, values: PhantomData };

    /// Maps the array `name` of a loaded object, which was made to be mapped, and whose values are whole cache lines.
    pub(super) fn map(ebpf: &Ebpf, name: &'static str) -> Result<Self, SessionError> {
        let Some(Map::Array(map)) = ebpf.map(name) else { return Err(SessionError::Missing(name)) };
        let failed = |source| SessionError::Map { name, source };
        let info = map.info().map_err(failed)?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(SessionError::Missing(name));
        }
        let count = info.max_entries() as usize;
        // As many bytes as the map's values have (`array_map_mmap`, kernel/bpf/arraymap.c).
        let (bytes, access) = (count * size_of::<T>(), ProtFlags::READ | ProtFlags::WRITE);
        let memory = SharedMemory::map(map.fd().as_fd(), bytes, access).map_err(failed)?;
        Ok(Self { memory: Some(memory), count, values: PhantomData })
    }

    /// How many values it has.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The place of one; `None`: there is none. The programs write it, too.
    pub(super) fn at(&self, index: usize) -> Option<*mut T> {
        let memory = self.memory.as_ref().filter(|_| index < self.count)?;
        // SAFETY: inside the mapping.
        Some(unsafe { memory.start().cast::<T>().add(index) })
    }
}

impl<T> fmt::Debug for SharedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArray").field("count", &self.count).finish_non_exhaustive()
    }
}
