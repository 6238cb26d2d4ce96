//! Waits that are added up in the kernel: which cells are opened for them, and what is in those in the end.

use foldhash::{HashMap, HashSet};
use netpoll_probe_common::{
    cell::{CellEntry, CellKey},
    limit::CELL_ENTRIES,
    sampling::Sampling,
};

use super::{attached::Attached, tally::Tally};
use crate::{
    bpf::session::Session,
    correlate::cells::{added, is_ready_known},
    error::Failure,
    model::{builder::Common, peer::Peer, wait::Wait},
};

/// Records of waits that are alike before a cell is opened for them: what comes once is not worth a call of the kernel.
const ALIKE: u8 = 3;

/// Kinds of waits that came as records and are counted; beyond it counting begins anew.
const COUNTED: usize = 1 << 16;

/// The cells of one session.
#[derive(Debug)]
pub(super) struct Cells {
    /// How many there may be.
    room: usize,
    is_on: bool,
    /// What the waits of each have in common.
    list: Vec<Of>,
    numbers: HashMap<Of, u32>,
    /// How many of each kind came as records.
    counted: HashMap<CellKey, u8>,
    /// Those that a cell was opened for.
    opened: HashSet<CellKey>,
    /// Those that one is to be opened for.
    coming: Vec<(CellKey, CellEntry)>,
}

/// What the waits of a cell have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Of {
    common: Common,
    is_ready_known: bool,
}

impl Cells {
    /// With room for so many.
    pub(super) fn new(room: u32) -> Self {
        Self {
            room: room as usize,
            is_on: false,
            list: Vec::new(),
            numbers: HashMap::default(),
            counted: HashMap::default(),
            opened: HashSet::default(),
            coming: Vec::new(),
        }
    }

    /// Whether waits are to be added up from now on.
    pub(super) fn switch(&mut self, on: bool) {
        self.is_on = on;
    }

    /// A wait came as a record, and is named by now. `like` are those that may be added up with it.
    pub(super) fn saw(&mut self, like: CellKey, wait: &Wait, tally: &Tally) {
        if !self.is_on || self.opened.contains(&like) {
            return;
        }
        let Some(told) = wait.stack.and_then(|stack| tally.known(stack)) else { return };
        if self.counted.len() >= COUNTED {
            self.counted.clear();
        }
        let count = self.counted.entry(like).or_default();
        *count += 1;
        if *count < ALIKE {
            return;
        }
        self.counted.remove(&like);
        let common = Common {
            stack: wait.stack,
            peer: Peer::of(wait),
            role: wait.role,
            outcome: wait.outcome,
            idle: wait.idle,
        };
        let Some(cell) = self.number(Of { common, is_ready_known: is_ready_known(&like) }) else { return };
        self.coming.push((like, CellEntry { cell, reads_answers: u32::from(told.reads_answers()) }));
    }

    /// The cell's number; `None`: there is no room for it.
    fn number(&mut self, of: Of) -> Option<u32> {
        if let Some(number) = self.numbers.get(&of) {
            return Some(*number);
        }
        let number = u32::try_from(self.list.len()).ok().filter(|_| self.list.len() < self.room)?;
        self.list.push(of.clone());
        self.numbers.insert(of, number);
        Some(number)
    }

    /// Opens those that are to be opened.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn open(&mut self, session: &mut Session) -> Result<(), Failure> {
        if self.opened.len() + self.coming.len() > CELL_ENTRIES as usize {
            for like in self.opened.drain() {
                session.close_cell(&like)?;
            }
        }
        for (like, entry) in self.coming.drain(..).take(CELL_ENTRIES as usize) {
            session.open_cell(&like, entry)?;
            self.opened.insert(like);
        }
        Ok(())
    }

    /// How many waits were added up so far that were not idle, and how many that were.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn counts(&self, session: &mut Session) -> Result<(u64, u64), Failure> {
        let (mut waits, mut idle) = (0, 0);
        for (number, of) in (0..).zip(&self.list) {
            let count: u64 = session.cell_sums(number)?.iter().map(|sums| sums.count).sum();
            *(if of.common.idle { &mut idle } else { &mut waits }) += count;
        }
        Ok((waits, idle))
    }

    /// Adds what is in them to the sums of the recording.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn add_to(&self, tally: &mut Tally, session: &mut Session) -> Result<(), Failure> {
        for (number, of) in (0..).zip(&self.list) {
            let added = added(&session.cell(number)?, of.is_ready_known);
            tally.add_all(&of.common, &added, of.is_ready_known);
        }
        Ok(())
    }
}

impl Attached {
    /// Follows other waits from now on, and adds them up or not.
    pub(super) fn follow(&mut self, sampling: Sampling) -> Result<(), Failure> {
        self.sampling = Some(sampling);
        self.cells.switch(sampling.adds_up != 0);
        Ok(self.session.follow(sampling)?)
    }

    /// Has waits like those that came added up, as far as they are to be.
    pub(super) fn open_cells(&mut self) -> Result<(), Failure> {
        self.cells.open(&mut self.session)
    }

    /// How many waits were added up so far that were not idle, and how many that were.
    pub(super) fn counts_in_kernel(&mut self) -> Result<(u64, u64), Failure> {
        self.cells.counts(&mut self.session)
    }

    /// From now on waits come as records, which say when they ended.
    pub(super) fn stop_adding_up(&mut self) -> Result<(), Failure> {
        match self.sampling {
            Some(sampling) if sampling.adds_up != 0 => self.follow(Sampling { adds_up: 0, ..sampling }),
            _ => Ok(()),
        }
    }

    /// Hands on what was added up in the kernel.
    pub(super) fn take_cells(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        self.cells.add_to(tally, &mut self.session)
    }
}
