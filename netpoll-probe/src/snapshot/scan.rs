//! Reads goroutines, each at one moment of its own, while the process runs.
//!
//! Long because the readings of a goroutine and the rules for accepting one are a single protocol.
#![forbid(unsafe_code)]

use std::{collections::HashSet, ops::Range, sync::Arc};

use super::{
    allgs::{self, AllgsError},
    g::GFields,
    goroutine::{Goroutine, PollMode, PollWait, Snapshot, StackState},
    unwind::{FrameTable, FrameWord, GoStack, StackBytes, Walk, WalkEnd, walk},
};
use crate::{
    goruntime::{
        constants::GStatus,
        layout::Layout,
        version::{Release, Stage},
    },
    target::{
        error::Error as TargetError,
        memory::{ReadMemory, u32_at, u64_at},
    },
};

/// Goroutines read together. Between reading a g and reading it again lie about 0.1 ms, in which 1 % of the goroutines of a busy server
/// run; more at once saves nothing.
const CHUNK: usize = 64;

/// How often a goroutine that ran meanwhile is read; after this it is called moving.
const TRIES: usize = 4;

/// g structs this close are read in one piece: the cost is per piece and page, not per byte.
const MERGE_GAP_BYTES: u64 = 4096;

/// Of a stack at most this is read, from the saved stack pointer on. The average is 570 bytes.
const MAX_STACK_BYTES: u64 = 256 * 1024;

/// From here on a goroutine can run between two system calls without a new `trackingSeq` (`runtime/proc.go`, `entersyscall`).
const SYSCALL_TICK_FROM: Release = Release { minor: 26, stage: Stage::Devel };

/// What goroutines are read from.
#[derive(Debug)]
pub struct Source<'a, M, F> {
    /// The process's memory.
    pub memory: &'a M,
    /// Frame sizes of its executable.
    pub frames: &'a F,
    /// Its runtime's structs.
    pub layout: &'a Layout,
    /// What is added to an address of the executable's file to get one in memory.
    pub load_bias: u64,
    /// The address of `runtime.allgs`, as the linker gave it.
    pub allgs: u64,
    /// Where `internal/poll.runtime_pollWait` keeps its pollDesc.
    pub poll_desc: FrameWord,
}

/// Which goroutines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that are not dead.
    All,
    /// Those in IO wait.
    IoWaits,
}

impl<M: ReadMemory, F: FrameTable> Source<'_, M, F> {
    /// Reads the goroutines.
    ///
    /// # Errors
    /// When the process is gone, access is refused, or `runtime.allgs` is not where it should be.
    pub fn snapshot(&self, wanted: Wanted) -> Result<Snapshot, AllgsError> {
        let mut pending = allgs::read(self.memory, self.load_bias.wrapping_add(self.allgs))?;
        let mut taken = Taken { snapshot: Snapshot::default(), stacks: HashSet::new() };
        taken.snapshot.counts.gs = pending.len() as u64;
        for attempt in 1..=TRIES {
            let mut ran = Vec::new();
            for chunk in pending.chunks(CHUNK) {
                for reading in self.read_chunk(chunk, wanted, &mut taken)? {
                    if attempt < TRIES {
                        ran.push(reading.g);
                    } else {
                        taken.give_up(&reading);
                    }
                }
            }
            pending = ran;
        }
        Ok(taken.snapshot)
    }

    /// Reads a chunk; returns the goroutines to be read again.
    fn read_chunk(
        &self,
        chunk: &[u64],
        wanted: Wanted,
        taken: &mut Taken,
    ) -> Result<Vec<Reading>, TargetError> {
        let mut readings = Vec::new();
        for (g, fields) in chunk.iter().zip(self.read_gs(chunk)?) {
            match fields {
                None => taken.snapshot.counts.unreadable += 1,
                Some(fields) => match fields.status() {
                    GStatus::Dead | GStatus::DeadExtra | GStatus::Idle => taken.snapshot.counts.dead += 1,
                    _ if wanted == Wanted::IoWaits && !fields.is_io_wait() => {}
                    _ => readings.push(Reading::new(*g, fields)),
                },
            }
        }
        // Only those with saved registers can have changed in a way that matters.
        let (mut parked, running): (Vec<Reading>, Vec<Reading>) =
            readings.into_iter().partition(|reading| reading.fields.saved_registers().is_some());
        for reading in &running {
            taken.add(reading, StackState::Running, None);
        }
        if parked.is_empty() {
            return Ok(Vec::new());
        }
        let ticks_before = self.read_syscall_ticks(&parked)?;
        self.read_stacks(&mut parked)?;
        self.read_poll_descs(&mut parked)?;
        let ticks_after = self.read_syscall_ticks(&parked)?;
        let addresses: Vec<u64> = parked.iter().map(|reading| reading.g).collect();
        let fields_after = self.read_gs(&addresses)?;
        let mut ran = Vec::new();
        let after = fields_after.into_iter().zip(ticks_before.into_iter().zip(ticks_after));
        for (mut reading, (fields, ticks)) in parked.into_iter().zip(after) {
            reading.did_not_run = fields.is_some_and(|fields| {
                reading.fields.did_not_run(&fields)
                    && match ticks {
                        (None, None) => true,
                        (Some(Some(before)), Some(Some(after))) => {
                            before == after && reading.fields.m == fields.m
                        }
                        _ => false,
                    }
            });
            if !taken.accept(&reading) {
                ran.push(reading);
            }
        }
        Ok(ran)
    }

    /// The fields of each g; neighbours are read together. `addresses` are in ascending order.
    fn read_gs(&self, addresses: &[u64]) -> Result<Vec<Option<GFields>>, TargetError> {
        let offsets = &self.layout.offsets.g;
        let size = u64::from(offsets.size);
        let range_of = |g: u64| g..g.saturating_add(size);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut places = Vec::with_capacity(addresses.len());
        for g in addresses {
            match ranges.last_mut() {
                Some(last) if *g <= last.end.saturating_add(MERGE_GAP_BYTES) => {
                    last.end = last.end.max(range_of(*g).end);
                }
                _ => ranges.push(range_of(*g)),
            }
            let start = ranges.last().map_or(*g, |range| range.start);
            places.push((ranges.len() - 1, usize::try_from(g - start).unwrap_or(usize::MAX)));
        }
        let pieces = self.memory.read_many(&ranges)?;
        let mut gs: Vec<Option<GFields>> = places
            .iter()
            .map(|(piece, offset)| {
                let bytes = pieces.get(*piece)?.get(*offset..)?;
                GFields::read(bytes, offsets)
            })
            .collect();
        // A gap between two g structs that is not mapped spoils the piece; each is readable by itself.
        let missing: Vec<usize> =
            (0..gs.len()).filter(|index| gs.get(*index).is_some_and(Option::is_none)).collect();
        if !missing.is_empty() {
            let singles: Vec<Range<u64>> =
                missing.iter().filter_map(|index| Some(range_of(*addresses.get(*index)?))).collect();
            let pieces = self.memory.read_many(&singles)?;
            for (piece, index) in missing.into_iter().enumerate() {
                if let Some(g) = gs.get_mut(index) {
                    *g = pieces.get(piece).and_then(|bytes| GFields::read(bytes, offsets));
                }
            }
        }
        Ok(gs)
    }

    /// `m.syscalltick` of those in system calls, where the g alone does not tell that they ran; `None` for the others.
    fn read_syscall_ticks(&self, readings: &[Reading]) -> Result<Vec<Option<Option<u32>>>, TargetError> {
        let needed = |reading: &Reading| {
            self.layout.release >= SYSCALL_TICK_FROM && reading.fields.status() == GStatus::Syscall
        };
        if !readings.iter().any(needed) {
            return Ok(vec![None; readings.len()]);
        }
        let offset = u64::from(self.layout.offsets.m.syscall_tick);
        let ranges: Vec<Range<u64>> = readings
            .iter()
            .map(|reading| {
                let start = if needed(reading) { reading.fields.m.saturating_add(offset) } else { 0 };
                start..start.saturating_add(if needed(reading) { 4 } else { 0 })
            })
            .collect();
        let pieces = self.memory.read_many(&ranges)?;
        let tick = |index| pieces.get(index).and_then(|bytes| u32_at(bytes, 0));
        Ok(readings.iter().enumerate().map(|(index, reading)| needed(reading).then(|| tick(index))).collect())
    }

    /// Reads and walks the stacks.
    fn read_stacks(&self, readings: &mut [Reading]) -> Result<(), TargetError> {
        let ranges: Vec<Range<u64>> = readings.iter().map(Reading::stack_range).collect();
        let pieces = self.memory.read_many(&ranges)?;
        for (index, (reading, range)) in readings.iter_mut().zip(ranges).enumerate() {
            let (Some((pc, sp)), Some(bytes)) = (reading.fields.saved_registers(), pieces.get(index)) else {
                continue;
            };
            if bytes.is_empty() {
                continue;
            }
            let stack = StackBytes { sp, bytes, is_whole: range.end == reading.fields.stack_hi };
            reading.walk = Some(walk(self.frames, self.load_bias, pc, stack, self.poll_desc));
        }
        Ok(())
    }

    /// Reads the pollDescs of those in IO wait and keeps the ones that name the g.
    fn read_poll_descs(&self, readings: &mut [Reading]) -> Result<(), TargetError> {
        let size = u64::from(self.layout.offsets.poll_desc.size);
        let found = |reading: &Reading| {
            let (frame, poll_desc) = reading.walk.as_ref()?.found?;
            (reading.fields.is_io_wait() && poll_desc != 0 && poll_desc.is_multiple_of(8))
                .then_some((frame, poll_desc))
        };
        let (indexes, ranges): (Vec<usize>, Vec<Range<u64>>) = readings
            .iter()
            .enumerate()
            .filter_map(|(index, reading)| {
                let (_, poll_desc) = found(reading)?;
                Some((index, poll_desc..poll_desc.saturating_add(size)))
            })
            .unzip();
        if ranges.is_empty() {
            return Ok(());
        }
        let pieces = self.memory.read_many(&ranges)?;
        for (piece, index) in indexes.into_iter().enumerate() {
            if let (Some(reading), Some(bytes)) = (readings.get_mut(index), pieces.get(piece))
                && let Some((frame, poll_desc)) = found(reading)
            {
                reading.poll = self.poll_wait_of(reading.g, poll_desc, frame, bytes);
            }
        }
        Ok(())
    }

    /// What `g` waits for, if this pollDesc names it.
    fn poll_wait_of(&self, g: u64, poll_desc: u64, frame: usize, bytes: &[u8]) -> Option<PollWait> {
        let offsets = &self.layout.offsets.poll_desc;
        let word = |offset: u32| u64_at(bytes, offset as usize);
        let (mode, deadline) = if word(offsets.rg)? == g {
            (PollMode::Read, word(offsets.rd)?)
        } else if word(offsets.wg)? == g {
            (PollMode::Write, word(offsets.wd)?)
        } else {
            return None;
        };
        Some(PollWait {
            poll_desc,
            mode,
            fd: i32::try_from(word(offsets.fd)?).ok()?,
            fdseq: match offsets.fdseq {
                Some(fdseq) => Some(word(fdseq)?),
                None => None,
            },
            // 0: none; negative: expired (`runtime/netpoll.go`).
            deadline_ns: i64::try_from(deadline)
                .ok()
                .filter(|deadline| *deadline > 0)
                .map(i64::cast_unsigned),
            frame,
        })
    }
}

/// One goroutine while it is being read.
#[derive(Debug)]
struct Reading {
    g: u64,
    fields: GFields,
    walk: Option<Walk>,
    poll: Option<PollWait>,
    /// It did not run between the first and the second reading, so that everything read belongs together.
    did_not_run: bool,
}

impl Reading {
    fn new(g: u64, fields: GFields) -> Self {
        Self { g, fields, walk: None, poll: None, did_not_run: false }
    }

    /// The part of the stack that is read; empty when the saved stack pointer is not in the stack.
    fn stack_range(&self) -> Range<u64> {
        match self.fields.saved_registers() {
            Some((_, sp)) if (self.fields.stack_lo..self.fields.stack_hi).contains(&sp) => {
                sp..self.fields.stack_hi.min(sp.saturating_add(MAX_STACK_BYTES))
            }
            _ => 0..0,
        }
    }
}

/// A snapshot being taken.
#[derive(Debug)]
struct Taken {
    snapshot: Snapshot,
    /// Every distinct stack once.
    stacks: HashSet<Arc<GoStack>>,
}

impl Taken {
    /// Adds a goroutine that did not run while it was read. `false`: it ran, it is just being woken, or its stack could not be
    /// read, so it has to be read again.
    fn accept(&mut self, reading: &Reading) -> bool {
        let Some(walk) = reading.walk.as_ref().filter(|_| reading.did_not_run) else { return false };
        if reading.fields.is_io_wait() && reading.poll.is_none() {
            return false;
        }
        self.add_walked(reading, walk);
        true
    }

    /// Adds a goroutine that could not be accepted at any try.
    fn give_up(&mut self, reading: &Reading) {
        match &reading.walk {
            Some(walk) if reading.did_not_run => {
                self.snapshot.counts.unconfirmed += 1;
                self.add_walked(reading, walk);
            }
            _ => {
                self.snapshot.counts.moving += 1;
                self.add(reading, StackState::Moving, None);
            }
        }
    }

    fn add_walked(&mut self, reading: &Reading, walk: &Walk) {
        if walk.stack.end != WalkEnd::Complete {
            self.snapshot.counts.incomplete_stacks += 1;
        }
        let stack = match self.stacks.get(&walk.stack) {
            Some(known) => Arc::clone(known),
            None => {
                let stack = Arc::new(walk.stack.clone());
                self.stacks.insert(Arc::clone(&stack));
                stack
            }
        };
        self.add(reading, StackState::Walked(stack), reading.poll);
    }

    fn add(&mut self, reading: &Reading, stack: StackState, poll: Option<PollWait>) {
        let fields = &reading.fields;
        let status = fields.status();
        let waits = matches!(status, GStatus::Waiting | GStatus::Leaked);
        self.snapshot.goroutines.push(Goroutine {
            g: reading.g,
            goid: fields.goid,
            status,
            wait_reason: waits.then_some(fields.wait_reason),
            waiting_before_ns: (waits && fields.wait_since != 0).then_some(fields.wait_since),
            tracking_seq: fields.tracking_seq,
            created_by_pc: fields.gopc,
            start_pc: fields.start_pc,
            stack,
            poll,
        });
    }
}
