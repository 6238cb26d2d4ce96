//! Memory of a running process, read without stopping it.
//!
//! The one unsafe call of this module tree is `process_vm_readv`, which rustix does not have.

use std::{fmt, io, ops::Range, os::fd::OwnedFd, sync::Arc};

use super::{error::Error, process::pidfd_has_exited};

/// `UIO_MAXIOV` (include/uapi/linux/uio.h): more in one call is EINVAL.
const IOVECS_PER_CALL: usize = 1024;

/// A range longer than this is not asked for in one piece, so that a damaged length cannot take all memory.
pub const MAX_PIECE_BYTES: u64 = 1 << 28;

/// Memory that can be read by address. Tests use recorded bytes in place of a process.
pub trait ReadMemory {
    /// Reads all of `ranges`. A range that is not wholly readable, or longer than [`MAX_PIECE_BYTES`], is missing
    /// from the answer ([`Pieces::get`] gives `None`); that is no error.
    ///
    /// # Errors
    /// When nothing can be read at all: the process is gone, or access is refused.
    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Pieces, Error>;

    /// Reads one range; `None` when it is not wholly readable.
    ///
    /// # Errors
    /// As [`Self::read_many`].
    fn read(&self, range: Range<u64>) -> Result<Option<Vec<u8>>, Error> {
        let pieces = self.read_many(std::slice::from_ref(&range))?;
        Ok(pieces.get(0).map(<[u8]>::to_vec))
    }
}

/// The answer to [`ReadMemory::read_many`]: the bytes of each range, or that it could not be read.
#[derive(Debug, Default)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// Where each range's bytes are in `bytes`, and whether all of them were read.
    places: Vec<(Range<usize>, bool)>,
}

impl Pieces {
    /// Room for `ranges`, nothing read yet. A range that is empty backwards or too long is never readable.
    #[must_use]
    pub fn for_ranges(ranges: &[Range<u64>]) -> Self {
        let mut total = 0;
        let places = ranges
            .iter()
            .map(|range| {
                let length_bytes =
                    range.end.checked_sub(range.start).filter(|length| *length <= MAX_PIECE_BYTES);
                let start = total;
                total += length_bytes.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                (start..total, false)
            })
            .collect();
        Self { bytes: vec![0; total], places }
    }

    /// The bytes of the range with this index, `None` if not all of it was read.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (place, complete) = self.places.get(index)?;
        if *complete { self.bytes.get(place.clone()) } else { None }
    }

    /// Fills the range with this index. For implementations of [`ReadMemory`] over recorded bytes; the length must
    /// be the range's, otherwise the range stays unread.
    pub fn set(&mut self, index: usize, bytes: &[u8]) {
        if let Some((place, complete)) = self.places.get_mut(index)
            && place.len() == bytes.len()
            && let Some(room) = self.bytes.get_mut(place.clone())
        {
            room.copy_from_slice(bytes);
            *complete = true;
        }
    }

    /// How many ranges were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no range was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Memory of a running process.
#[derive(Clone)]
pub struct ProcessMemory {
    pid: u32,
    /// Tells that the pid is still this process's.
    pidfd: Arc<OwnedFd>,
}

impl fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessMemory").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl ProcessMemory {
    pub(super) fn new(pid: u32, pidfd: Arc<OwnedFd>) -> Self {
        Self { pid, pidfd }
    }

    /// Reads `remote` one after the other into `local`, which is as long as they are together. Returns the bytes read;
    /// fewer than asked for mean that the range in which they end is not wholly readable.
    fn readv(&self, local: &mut [u8], remote: &[libc::iovec]) -> io::Result<usize> {
        let pid = libc::pid_t::try_from(self.pid)
            .map_err(|_too_large| io::Error::from_raw_os_error(libc::ESRCH))?;
        let into = libc::iovec { iov_base: local.as_mut_ptr().cast(), iov_len: local.len() };
        // SAFETY: the kernel writes only into `into`, which is the whole of `local`, exclusively borrowed; addresses
        // in `remote` are of the other process and are checked by the kernel (EFAULT); both arrays outlive the call.
        let read = unsafe {
            libc::process_vm_readv(pid, &raw const into, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0)
        };
        usize::try_from(read).map_err(|_negative| io::Error::last_os_error())
    }
}

impl ReadMemory for ProcessMemory {
    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Pieces, Error> {
        let mut pieces = Pieces::for_ranges(ranges);
        let Pieces { bytes, places } = &mut pieces;
        let mut next = 0;
        while next < places.len() {
            let batch_end = places.len().min(next + IOVECS_PER_CALL);
            let remote: Vec<libc::iovec> = ranges
                .iter()
                .zip(places.iter())
                .take(batch_end)
                .skip(next)
                .map(|(range, (place, _))| libc::iovec {
                    iov_base: std::ptr::without_provenance_mut(usize::try_from(range.start).unwrap_or(0)),
                    iov_len: place.len(),
                })
                .collect();
            let local_start = places.get(next).map_or(0, |(place, _)| place.start);
            let local_end = places.get(batch_end - 1).map_or(0, |(place, _)| place.end);
            let Some(local) = bytes.get_mut(local_start..local_end) else { break };
            let read = match self.readv(local, &remote) {
                Ok(read) => read,
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
                Err(error) => return Err(self.error(error)),
            };
            // Ranges that end within the bytes read are complete; the first other one is not readable, and the rest
            // is asked for again without it.
            let mut complete_end = next;
            for (place, complete) in places.iter_mut().take(batch_end).skip(next) {
                if place.end - local_start > read {
                    break;
                }
                *complete = true;
                complete_end += 1;
            }
            next = if complete_end == batch_end { batch_end } else { complete_end + 1 };
        }
        for (range, (place, complete)) in ranges.iter().zip(places.iter_mut()) {
            // An empty place of a range that is not empty was refused by `for_ranges`.
            *complete &= range.end.checked_sub(range.start) == u64::try_from(place.len()).ok();
        }
        // The pid may have been given to another process; what was read is then not this process's.
        if pidfd_has_exited(&self.pidfd) { Err(Error::Exited { pid: self.pid }) } else { Ok(pieces) }
    }
}

impl ProcessMemory {
    fn error(&self, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::ESRCH) => Error::Exited { pid: self.pid },
            Some(libc::EPERM) => Error::Permission { pid: self.pid, what: "memory" },
            _ => Error::Memory { pid: self.pid, source },
        }
    }
}

/// Eight bytes of `bytes` at `offset`, little-endian (both architectures that Go's netpoller is traced on are).
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Four bytes of `bytes` at `offset`, little-endian.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::process::Process;

    fn own_memory() -> ProcessMemory {
        Process::open(std::process::id()).unwrap().memory()
    }

    fn range_of<T>(values: &[T]) -> Range<u64> {
        let range = values.as_ptr_range();
        range.start as u64..range.end as u64
    }

    #[test]
    fn reads_what_is_there_and_says_what_is_not() {
        let memory = own_memory();
        let values: Vec<u64> = (0..3000).collect();
        // More ranges than one call takes, with unreadable ones among them.
        let mut ranges: Vec<Range<u64>> = values.chunks(1).map(range_of).collect();
        for unreadable in [0, 1, 1023, 1024, 1500, 2999] {
            ranges[unreadable] = 8..16;
        }
        let pieces = memory.read_many(&ranges).unwrap();
        assert_eq!(pieces.len(), 3000);
        for (index, value) in values.iter().enumerate() {
            let expected = value.to_le_bytes();
            let readable = ![0, 1, 1023, 1024, 1500, 2999].contains(&index);
            assert_eq!(pieces.get(index), readable.then_some(&expected[..]), "range {index}");
        }
    }

    #[test]
    fn refuses_lengths_that_cannot_be_true() {
        let memory = own_memory();
        let value = [7u8; 4];
        let good = range_of(&value);
        let pieces = memory
            .read_many(&[0..u64::MAX, good.clone(), good.end..good.start, good.start..good.start])
            .unwrap();
        assert_eq!(pieces.get(0), None);
        assert_eq!(pieces.get(1), Some(&value[..]));
        assert_eq!(pieces.get(2), None);
        assert_eq!(pieces.get(3), Some(&[][..]));
        assert_eq!(pieces.get(4), None);
    }

    #[test]
    fn tells_that_the_process_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let memory = Process::open(child.id()).unwrap().memory();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(memory.read(0x1000..0x1008), Err(Error::Exited { .. })));
    }
}
