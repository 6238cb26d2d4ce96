//! The cells of a session, in which the programs add waits up.

use netpoll_probe_common::cell::{CellEntry, CellHistograms, CellKey, CellSums};
use zerocopy::{FromBytes as _, transmute};

use super::{
    maps::failed,
    session::{Session, SessionError},
    wait_buffers::cpus,
};

/// Memory that cells take at most, bytes, on all CPUs together.
const MOST_BYTES: usize = 64 << 20;
/// Cells that there are at least, and at most: programs have hundreds of stacks that wait often.
const FEWEST: usize = 64;
const MOST: usize = 1024;

/// Which waits are added up, and where.
const CELLS: &str = "CELLS";
/// The map of sums.
pub(super) const SUMS: &str = "CELL_SUMS";
/// The map of histograms.
pub(super) const HISTOGRAMS: &str = "CELL_HISTOGRAMS";

/// As in [`super::maps`], bytes stand in for the maps' types.
type KeyBytes = [u8; size_of::<CellKey>()];
type EntryBytes = [u8; size_of::<CellEntry>()];
type SumsBytes = [u8; size_of::<CellSums>()];
type HistogramsBytes = [u8; size_of::<CellHistograms>()];

/// How many cells there is room for on this machine. Each has a place for every CPU that there may be.
#[must_use]
pub fn room() -> u32 {
    let cpus = cpus() as usize;
    let most = MOST_BYTES / (cpus * (size_of::<CellSums>() + size_of::<CellHistograms>()));
    u32::try_from(most.clamp(FEWEST, MOST)).unwrap_or(u32::MAX)
}

impl Session {
    /// Lets waits be added up.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn open_cell(&mut self, key: &CellKey, entry: CellEntry) -> Result<(), SessionError> {
        let (key, entry): (KeyBytes, EntryBytes) = (transmute!(*key), transmute!(entry));
        self.hash_map::<KeyBytes, EntryBytes>(CELLS)?.insert(key, entry, 0).map_err(failed(CELLS))
    }

    /// Lets them come as records again.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn close_cell(&mut self, key: &CellKey) -> Result<(), SessionError> {
        let key: KeyBytes = transmute!(*key);
        self.remove_key::<_, EntryBytes>(CELLS, key)
    }

    /// What a cell holds, on each CPU.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn cell(&mut self, cell: u32) -> Result<Vec<(CellSums, Box<CellHistograms>)>, SessionError> {
        let all_sums = self.cell_sums(cell)?;
        let histograms = self.per_cpu_array::<HistogramsBytes>(HISTOGRAMS)?;
        let histograms = histograms.get(&cell, 0).map_err(failed(HISTOGRAMS))?;
        let histograms =
            histograms.iter().filter_map(|bytes| CellHistograms::read_from_bytes(bytes).ok().map(Box::new));
        Ok(all_sums.into_iter().zip(histograms).collect())
    }

    /// The sums of a cell, on each CPU.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn cell_sums(&mut self, cell: u32) -> Result<Vec<CellSums>, SessionError> {
        let sums = self.per_cpu_array::<SumsBytes>(SUMS)?;
        let sums = sums.get(&cell, 0).map_err(failed(SUMS))?;
        Ok(sums.iter().filter_map(|bytes| CellSums::read_from_bytes(bytes).ok()).collect())
    }
}
