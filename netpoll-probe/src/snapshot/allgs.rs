//! `runtime.allgs`: the addresses of all g structs.
#![forbid(unsafe_code)]

use crate::target::{
    error::Error as TargetError,
    memory::{MAX_PIECE_BYTES, ReadMemory, u64_at},
};

/// The array can move while it is read, when it grows. It doubles, so that this many moves in a row do not happen.
const TRIES: usize = 4;

/// Why the goroutines cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllgsError {
    /// The process's memory cannot be read.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Memory at the address of `runtime.allgs` is not readable.
    #[error("runtime.allgs is not mapped at {address:#x}")]
    NotMapped {
        /// Its run-time address.
        address: u64,
    },
    /// What is there is no slice.
    #[error(
        "runtime.allgs at {address:#x} is no slice: pointer {pointer:#x}, length {length}, capacity {capacity}"
    )]
    NoSlice {
        /// Its run-time address.
        address: u64,
        /// The first word.
        pointer: u64,
        /// The second.
        length: u64,
        /// The third.
        capacity: u64,
    },
    /// The array moved at every try.
    #[error("runtime.allgs moved {TRIES} times while it was read")]
    Moved,
}

/// Reads `runtime.allgs` at this run-time address: the addresses of all g structs, in ascending order. A g is never freed, so all
/// stay valid; goroutines that begin afterwards may be missing.
///
/// # Errors
/// When there is no slice, or it cannot be read.
pub fn read(memory: &impl ReadMemory, address: u64) -> Result<Vec<u64>, AllgsError> {
    for _ in 0..TRIES {
        let Header { pointer, length } = read_header(memory, address)?;
        let bytes = length.saturating_mul(8);
        let array = memory.read(pointer..pointer.saturating_add(bytes))?;
        // The runtime sets the pointer before the length, and the old array stays as it was until it is collected.
        let still_there = read_header(memory, address)?.pointer == pointer;
        if let (Some(array), true) = (array, still_there) {
            let mut addresses: Vec<u64> = array.chunks_exact(8).filter_map(|word| u64_at(word, 0)).collect();
            addresses.retain(|g| *g != 0);
            addresses.sort_unstable();
            addresses.dedup();
            return Ok(addresses);
        }
    }
    Err(AllgsError::Moved)
}

/// The address of the first g that there ever was, the main goroutine's. The array keeps its order.
///
/// # Errors
/// As [`read`].
pub fn first(memory: &impl ReadMemory, address: u64) -> Result<Option<u64>, AllgsError> {
    let Header { pointer, .. } = read_header(memory, address)?;
    let word = memory.read(pointer..pointer.saturating_add(8))?;
    Ok(word.and_then(|word| u64_at(&word, 0)))
}

struct Header {
    pointer: u64,
    length: u64,
}

fn read_header(memory: &impl ReadMemory, address: u64) -> Result<Header, AllgsError> {
    let bytes = memory.read(address..address.saturating_add(24))?.ok_or(AllgsError::NotMapped { address })?;
    let word = |offset| u64_at(&bytes, offset).unwrap_or(0);
    let (pointer, length, capacity) = (word(0), word(8), word(16));
    let is_slice = pointer != 0
        && pointer.is_multiple_of(8)
        && (1..=capacity).contains(&length)
        && length <= MAX_PIECE_BYTES / 8;
    if is_slice {
        Ok(Header { pointer, length })
    } else {
        Err(AllgsError::NoSlice { address, pointer, length, capacity })
    }
}
