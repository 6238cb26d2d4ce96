//! Positioned reads of a file, and a small cache of its blocks.
//!
//! The file is never mapped: whoever truncates a mapped file kills every process that touches the lost pages with SIGBUS,
//! and this one runs as root beside production. A positioned read of a cut file is an error and nothing more.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use super::error::Error;

/// Something that can be read at any position without a cursor: a file, or bytes in memory (tests, fuzzing).
pub trait ReadAt: Send + Sync {
    /// The size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `buf.len()` bytes at `offset` and returns how many; 0 at and beyond the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let tail = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = tail.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), tail.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

/// A contiguous part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileRange {
    /// First byte, as an offset in the file.
    pub(super) start: u64,
    /// One past the last byte.
    pub(super) end: u64,
}

impl FileRange {
    /// The offset `relative` bytes into the range, if `len` bytes from there still lie in it.
    pub(super) fn at(&self, relative: u64, len: u64) -> Option<u64> {
        let offset = self.start.checked_add(relative)?;
        (offset.checked_add(len)? <= self.end).then_some(offset)
    }
}

/// Bytes of a cached block. Tables are walked from front to back over short distances, so one block serves many reads.
const BLOCK_BYTES: usize = 16 << 10;
/// Blocks kept: 2 MiB, enough for the tables around the few hundred functions that a profile touches.
const BLOCKS_KEPT: usize = 128;
/// Bytes read at once by streaming passes.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

struct Block {
    bytes: Box<[u8]>,
    used: u64,
}

#[derive(Default)]
struct BlockCache {
    blocks: HashMap<u64, Block>,
    clock: u64,
}

/// A file with its size and a least-recently-used cache of blocks behind a mutex, so that reading needs `&self` only.
pub(super) struct Source {
    reader: Box<dyn ReadAt>,
    size_bytes: u64,
    cache: Mutex<BlockCache>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(reader: Box<dyn ReadAt>) -> Result<Self, Error> {
        let size_bytes = reader.size().map_err(|source| Error::Read { offset: 0, len_bytes: 0, source })?;
        Ok(Self { reader, size_bytes, cache: Mutex::default() })
    }

    /// Size of the file when it was opened.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fails unless `len` bytes at `offset` lie in the file. Called before any buffer of a length that the file chose.
    fn check(&self, offset: u64, len: usize) -> Result<(), Error> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(self.truncated(offset, len)),
        }
    }

    fn truncated(&self, offset: u64, len_bytes: usize) -> Error {
        Error::Truncated { offset, len_bytes, size_bytes: self.size_bytes }
    }

    /// Reads up to `buf.len()` bytes past the cache; fewer only at the end of the file.
    fn read_some(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let len_bytes = rest.len();
            let at = offset.saturating_add(done as u64);
            match self.reader.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => done += count.min(len_bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { offset: at, len_bytes, source }),
            }
        }
        Ok(done)
    }

    /// Fills `buf` from `offset` past the cache: for big or one-off reads.
    pub(super) fn read_direct(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.check(offset, buf.len())?;
        if self.read_some(offset, buf)? < buf.len() {
            return Err(self.truncated(offset, buf.len()));
        }
        Ok(())
    }

    /// `len` bytes at `offset`, past the cache.
    pub(super) fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        self.check(offset, len)?;
        let mut buf = vec![0; len];
        self.read_direct(offset, &mut buf)?;
        Ok(buf)
    }

    /// Fills `buf` from `offset` through the cache: for small reads at scattered places.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.check(offset, buf.len())?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let (number, skip) =
                (at / BLOCK_BYTES as u64, usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0));
            let block = self.block(&mut cache, number)?;
            let Some(from) = block.get(skip..).filter(|from| !from.is_empty()) else {
                return Err(self.truncated(at, buf.len() - done));
            };
            let count = from.len().min(buf.len() - done);
            if let (Some(to), Some(from)) = (buf.get_mut(done..done + count), from.get(..count)) {
                to.copy_from_slice(from);
            }
            done += count;
        }
        Ok(())
    }

    /// `N` bytes at `offset` through the cache.
    pub(super) fn read_array<const N: usize>(&self, offset: u64) -> Result<[u8; N], Error> {
        let mut buf = [0; N];
        self.read(offset, &mut buf)?;
        Ok(buf)
    }

    /// The `u32` at `offset`.
    pub(super) fn read_u32(&self, offset: u64) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.read_array(offset)?))
    }

    fn block<'c>(&self, cache: &'c mut BlockCache, number: u64) -> Result<&'c [u8], Error> {
        cache.clock += 1;
        let clock = cache.clock;
        if !cache.blocks.contains_key(&number) {
            let mut bytes = vec![0; BLOCK_BYTES];
            let count = self.read_some(number * BLOCK_BYTES as u64, &mut bytes)?;
            bytes.truncate(count);
            if cache.blocks.len() >= BLOCKS_KEPT {
                let oldest =
                    cache.blocks.iter().min_by_key(|(_, block)| block.used).map(|(number, _)| *number);
                if let Some(oldest) = oldest {
                    cache.blocks.remove(&oldest);
                }
            }
            cache.blocks.insert(number, Block { bytes: bytes.into(), used: clock });
        }
        Ok(match cache.blocks.get_mut(&number) {
            Some(block) => {
                block.used = clock;
                &block.bytes
            }
            None => &[],
        })
    }

    /// The bytes from `offset` up to, not including, the next NUL, which must come within `max_bytes` and before `end`.
    pub(super) fn read_c_string(&self, offset: u64, end: u64, max_bytes: usize) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        let mut chunk = [0u8; 64];
        let mut at = offset;
        let end = end.min(self.size_bytes);
        while at < end && text.len() < max_bytes {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
            let Some(buf) = chunk.get_mut(..count) else { break };
            self.read(at, buf)?;
            if let Some(nul) = buf.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(buf.get(..nul).unwrap_or_default());
                return Ok(text);
            }
            text.extend_from_slice(buf);
            at += count as u64;
        }
        Err(Error::broken("string table", offset, format!("no end of string within {} bytes", text.len())))
    }

    /// Streams `range` in windows that overlap by `overlap` bytes (so that nothing shorter is cut in two) to `visit`,
    /// which gets the window's file offset. What lies beyond the end of the file is left out.
    pub(super) fn scan<T>(
        &self,
        range: FileRange,
        overlap: usize,
        mut visit: impl FnMut(u64, &[u8]) -> ControlFlow<T>,
    ) -> Result<Option<T>, Error> {
        let end = range.end.min(self.size_bytes);
        let mut buf = vec![0; WINDOW_BYTES];
        let mut at = range.start;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(buf.len());
            let Some(window) = buf.get_mut(..count) else { break };
            self.read_direct(at, window)?;
            if let ControlFlow::Break(found) = visit(at, window) {
                return Ok(Some(found));
            }
            let reached = at + count as u64;
            at = if reached < end { reached - (overlap.min(count - 1)) as u64 } else { reached };
        }
        Ok(None)
    }
}

/// Reads a range from front to back in large windows. Going back is an error, so the bytes read are bounded by the range
/// whatever offsets a broken table holds.
pub(super) struct ForwardReader<'s> {
    source: &'s Source,
    range: FileRange,
    at: u64,
    window: Vec<u8>,
}

impl<'s> ForwardReader<'s> {
    pub(super) fn new(source: &'s Source, range: FileRange) -> Self {
        let range = FileRange { start: range.start, end: range.end.min(source.size_bytes()) };
        Self { source, range, at: range.start, window: Vec::new() }
    }

    /// `len` bytes at file offset `offset`, which must not lie before the window of the last call.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let end = self.range.end;
        let bytes = self.at_least(offset, len)?;
        match bytes.get(..len) {
            Some(bytes) => Ok(bytes),
            None => Err(Error::Truncated { offset, len_bytes: len, size_bytes: end }),
        }
    }

    /// As [`Self::bytes`], with whatever else is in memory behind them.
    pub(super) fn at_least(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        if offset < self.at {
            return Err(Error::broken("table", offset, "its offsets do not ascend"));
        }
        let end = offset.saturating_add(len as u64);
        if end > self.range.end {
            return Err(Error::Truncated { offset, len_bytes: len, size_bytes: self.range.end });
        }
        if end > self.at + self.window.len() as u64 {
            let left = usize::try_from(self.range.end - offset).unwrap_or(usize::MAX);
            self.window.resize(left.min(WINDOW_BYTES.max(len)), 0);
            self.at = offset;
            if let Err(error) = self.source.read_direct(offset, &mut self.window) {
                self.window.clear();
                return Err(error);
            }
        }
        let skip = usize::try_from(offset - self.at).unwrap_or(usize::MAX);
        let size_bytes = self.range.end;
        // Not ok_or: hundreds of thousands of calls would make and drop an error each.
        match self.window.get(skip..) {
            Some(bytes) => Ok(bytes),
            None => Err(Error::Truncated { offset, len_bytes: len, size_bytes }),
        }
    }

    /// A full window from `offset` on, less only at the end of the range; at least one byte.
    pub(super) fn window(&mut self, offset: u64) -> Result<&[u8], Error> {
        let left = usize::try_from(self.range.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.bytes(offset, left.clamp(1, WINDOW_BYTES))
    }
}

/// A range as a [`Read`], for decompressors.
pub(super) struct RangeReader<'s> {
    source: &'s Source,
    range: FileRange,
}

impl<'s> RangeReader<'s> {
    pub(super) fn new(source: &'s Source, range: FileRange) -> Self {
        Self { source, range }
    }
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end.saturating_sub(self.range.start);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..count) else { return Ok(0) };
        let count = self.source.reader.read_at(buf, self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}
