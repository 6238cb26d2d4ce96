//! Records → waits. Pure: the only clock is in the records, so a recorded stream gives the same waits again.
//!
//! [`clocks`] holds the rules by which a record's stamps count, [`endpoint`] makes a socket of the kernel's facts,
//! [`classify`] says from the stack what the goroutine was about to do and whether it was idle.
//!
//! Where uprobes show the waits, each is held back for a moment ([`HOLD_NS`]): whether it was spurious is known only when its goroutine waits
//! again. Where system calls show them its record says so, and holding waits back would only take them out of the CPU's caches.
#![forbid(unsafe_code)]

pub mod bypass;
pub mod cells;
pub mod classify;
pub mod clocks;
mod codes;
pub mod endpoint;
mod labels;
mod recent;
mod sent;

use std::{collections::VecDeque, rc::Rc};

use foldhash::HashMap;
use netpoll_probe_common::{
    cell::CellKey,
    counter::Counter,
    limit::{LABEL_SETS, STACKS},
    record::{FileRecord, SpuriousRecord, WaitRecord, flag},
    slot::{FileFacts, PollDescSlot, WaitSlot},
};

use crate::{
    event::Event,
    model::{
        bypass::Bypass,
        quality::Quality,
        wait::{Endpoint, Labels, Mode, Outcome, Poller, Wait},
    },
};

pub use self::sent::Sent;
use self::{
    codes::{mode_of, outcome_of, poller_of, role_of},
    endpoint::Endpoints,
    recent::Recent,
};

/// How long a wait is held back for its spurious mark. The mark follows the wait's end by one system call, and the
/// ring is in the order of time but for what CPUs do at the same moment.
pub const HOLD_NS: u64 = 20_000_000;

/// Waits that are held back, all the same how late their ends are: three million a second would not reach it. A mark that comes
/// later is counted as unmatched.
const HELD: usize = 1 << 16;

/// Waits that are handed out together where none are held back: few enough to stay in the CPU's nearest cache.
const AT_ONCE: usize = 32;

/// Stacks of waits that ended after the recording; an open wait beyond them has none, and is counted as such.
const LATE_STACKS: usize = 1 << 16;

/// A wait whose stack still has no names.
#[derive(Clone, Debug)]
pub struct Correlated {
    /// The wait; `stack`, and what [`classify`] adds, are not set yet.
    pub wait: Wait,
    /// Names the stack; 0: not known.
    pub stack_hash: u64,
    /// The stack's addresses, leaf first; `None`: not known.
    pub pcs: Option<Rc<[u64]>>,
    /// What this process sent on the connection that it reads, as far as TCP tells.
    pub sent: Sent,
    /// Which waits are like it; `None`: it is out of the ordinary.
    pub like: Option<CellKey>,
}

/// The identity of a pollDesc's direction, for spurious marks.
type Key = (u64, u64, Mode);

/// Makes waits of records.
#[derive(Debug)]
pub struct Correlator {
    pid: u32,
    /// Spurious marks may come.
    marked: bool,
    endpoints: Endpoints,
    /// By pollDesc; there are as many of those as the process ever had files open at once.
    files: HashMap<u64, FileFacts>,
    stacks: Recent<u64, Rc<[u64]>>,
    labels: Recent<u64, Labels>,
    held: VecDeque<Correlated>,
    /// Number of the first wait in `held`.
    first: u64,
    /// The number of the last wait of each pollDesc's direction, while it is held.
    last: HashMap<Key, (u64, u64)>,
    newest_ns: u64,
    /// Stacks of waits that were open when the recording ended, and have ended since: by pollDesc, goroutine and start.
    late_stacks: HashMap<(u64, u64, u64), Rc<[u64]>>,
    /// Stacks of waits that were open when the recording began: by pollDesc and goroutine.
    early_stacks: HashMap<(u64, u64), Rc<[u64]>>,
    until_ns: u64,
    /// Calls of the C library's resolver.
    resolver: Option<Bypass>,
    quality: Quality,
}

impl Correlator {
    /// For a process whose waits uprobes show. `pid` is what the waits will say.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            marked: true,
            endpoints: Endpoints::default(),
            files: HashMap::default(),
            // As many as the programs believe are here.
            stacks: Recent::new(STACKS as usize),
            labels: Recent::new(LABEL_SETS as usize),
            held: VecDeque::new(),
            first: 0,
            last: HashMap::default(),
            newest_ns: 0,
            late_stacks: HashMap::default(),
            early_stacks: HashMap::default(),
            until_ns: u64::MAX,
            resolver: None,
            quality: Quality::default(),
        }
    }

    /// For a process whose waits system calls show.
    #[must_use]
    pub fn by_syscalls(pid: u32) -> Self {
        Self { marked: false, ..Self::new(pid) }
    }

    /// A file that was open when the recording began: listeners tell which connections came in.
    pub fn open_file(&mut self, file: &FileFacts, socket_state: u32) {
        self.endpoints.learn(file, socket_state);
    }

    /// The stack of a wait that was open when the recording began, for when its end brings none. `pcs` as [`Correlated::pcs`].
    pub fn open_stack(&mut self, pd: u64, goid: u64, pcs: Rc<[u64]>) {
        self.early_stacks.insert((pd, goid), pcs);
    }

    /// The addresses of the stack with this hash.
    #[must_use]
    pub fn stack_of(&mut self, hash: u64) -> Option<Rc<[u64]>> {
        known(&mut self.stacks, hash)
    }

    /// Where a file leads to.
    #[must_use]
    pub fn endpoint_of(&mut self, file: &FileRecord) -> Rc<Endpoint> {
        self.endpoints.of(&file.file, file.socket_state)
    }

    /// One record.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Wait(record) => self.wait(&record),
            Event::FirstWait(record) => {
                self.files.insert(record.wait.pd, record.file);
                self.wait(&record.wait);
            }
            Event::Stack(record) => {
                let frames = usize::try_from(record.frames).unwrap_or(usize::MAX).min(record.pcs.len());
                let pcs = record.pcs.get(..frames).unwrap_or_default();
                self.stacks.insert(record.hash, pcs.into());
            }
            Event::UnixName(record) => self.endpoints.name(&record),
            Event::Labels(record) => {
                self.labels.insert(record.hash, labels::of(&record));
            }
            Event::Spurious(record) => self.spurious(&record),
            Event::Resolve(record) => self.resolve(record.start_ns, record.end_ns),
            // What follows is of another program, and for another correlator.
            Event::Exec(_) => {}
        }
    }

    /// A call of the C library's resolver; one that is not back yet ends with the recording.
    pub fn resolve(&mut self, start_ns: u64, end_ns: u64) {
        if start_ns < self.until_ns {
            let call_ns = end_ns.min(self.until_ns).saturating_sub(start_ns);
            self.resolver.get_or_insert_with(|| Bypass::of_resolver(self.pid)).add_call(call_ns);
        }
    }

    /// The recording ended at `end_ns`: records of later ends are of waits that were open then, and not counted twice.
    pub fn end_at(&mut self, end_ns: u64) {
        self.until_ns = end_ns;
    }

    /// Whether it is time to hand out waits, where none are held back.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.marked && self.held.len() >= AT_ONCE
    }

    /// Gives the waits away that need not be held back any longer.
    pub fn take_ready(&mut self, mut to: impl FnMut(&mut Correlated)) {
        if !self.marked {
            // Where they stand: a wait is too long to be moved once more.
            self.first += self.held.len() as u64;
            self.held.iter_mut().for_each(to);
            self.held.clear();
            return;
        }
        let before_ns = self.newest_ns.saturating_sub(HOLD_NS);
        while self.held.len() > HELD || self.held.front().is_some_and(|it| it.wait.clocks.end_ns < before_ns)
        {
            self.first += 1;
            let Some(mut correlated) = self.held.pop_front() else { return };
            self.forget(&correlated.wait);
            to(&mut correlated);
        }
    }

    /// All waits that are held back.
    pub fn take_all(&mut self) -> impl Iterator<Item = Correlated> {
        self.first += self.held.len() as u64;
        self.last.clear();
        std::mem::take(&mut self.held).into_iter()
    }

    /// A slot was taken, and its goroutine did not park: its deadline passed, or the fd was closed, at that moment.
    pub fn turned_away(&mut self) {
        *self.quality.unmatched.entry(Counter::StartWithoutEnd.name().to_owned()).or_default() += 1;
    }

    /// The addresses of an open wait's stack, if it ended soon after the recording did.
    #[must_use]
    pub fn late_stack(&self, pd: u64, goid: u64, start_ns: u64) -> Option<Rc<[u64]>> {
        self.late_stacks.get(&(pd, goid, start_ns)).cloned()
    }

    /// The waits of a slot that were open when the recording ended, each with the slot's part that it is in.
    pub fn open(&mut self, slot: &PollDescSlot, end_ns: u64) -> Vec<(WaitSlot, Wait)> {
        [(&slot.read, Mode::Read), (&slot.write, Mode::Write)]
            .into_iter()
            .filter(|(wait, _)| wait.start_ns != 0 && wait.start_ns <= end_ns)
            .map(|(wait, mode)| (*wait, self.open_wait(wait, mode, &slot.file, end_ns)))
            .collect()
    }

    /// What could not be known, so far. `counters` are the programs' own.
    #[must_use]
    pub fn quality(&self, counters: &[(Counter, u64)]) -> Quality {
        let mut quality = self.quality.clone();
        quality.bypasses.extend(self.resolver.clone());
        for (counter, count) in counters.iter().filter(|(_, count)| *count > 0) {
            let table = match counter {
                Counter::ReadAtPoll => {
                    quality.park_unknown += *count;
                    continue;
                }
                Counter::EndWithoutStart | Counter::StartWithoutEnd => &mut quality.unmatched,
                _ => &mut quality.lost,
            };
            *table.entry(counter.name().to_owned()).or_default() += *count;
        }
        quality
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        *self.quality.lost.entry("undecodable".to_owned()).or_default() += 1;
    }

    fn wait(&mut self, record: &WaitRecord) {
        let (Some(mode), Some(outcome)) = (mode_of(u64::from(record.mode)), outcome_of(record.outcome))
        else {
            self.undecodable();
            return;
        };
        if record.end_ns > self.until_ns {
            if self.late_stacks.len() < LATE_STACKS
                && let Some(pcs) = known(&mut self.stacks, record.stack_hash)
            {
                self.late_stacks.insert((record.pd, record.goid, record.start_ns), pcs);
            }
            return;
        }
        let file = self.files.get(&record.pd).copied().unwrap_or(FileFacts::UNKNOWN);
        let judged = clocks::judge(record, &file, mode, outcome);
        let endpoint = self.endpoints.of(&file, record.socket_state);
        let wait = Wait {
            pid: self.pid,
            goid: record.goid,
            tid: record.tid,
            fd: record.fd,
            mode,
            outcome,
            spurious: outcome == Outcome::Ready && record.flags & flag::SPURIOUS != 0,
            started_before: record.flags & flag::STARTED_BEFORE != 0,
            clocks: judged.clocks,
            poller: if judged.clocks.poll_ns.is_some() { poller_of(record.poller) } else { Poller::Unknown },
            idle: false,
            idle_ns: 0,
            role: role_of(mode, record.socket_state),
            endpoint,
            stack: None,
            labels: known(&mut self.labels, record.labels_hash),
            stands_for: record.stands_for.max(1),
        };
        self.quality.clamped += u64::from(judged.clamped);
        self.count(&wait, file.known == 1);
        self.newest_ns = self.newest_ns.max(record.end_ns);
        if self.marked {
            let number = self.first + self.held.len() as u64;
            self.last.insert((record.pd, record.goid, mode), (number, record.end_ns));
        }
        let early =
            if wait.started_before { self.early_stacks.remove(&(record.pd, record.goid)) } else { None };
        let pcs = known(&mut self.stacks, record.stack_hash).or(early);
        let sent = Sent {
            before: record.flags & flag::SENT_BEFORE != 0,
            last_ns: (record.sent_ns != 0).then_some(record.sent_ns),
        };
        let like = cells::key_of(record, &file);
        self.held.push_back(Correlated { wait, stack_hash: record.stack_hash, pcs, sent, like });
    }

    fn spurious(&mut self, record: &SpuriousRecord) {
        let mode = mode_of(record.mode);
        let held = mode
            .and_then(|mode| self.last.get(&(record.pd, record.goid, mode)))
            .and_then(|(number, _)| usize::try_from(number.checked_sub(self.first)?).ok())
            .and_then(|index| self.held.get_mut(index));
        match held {
            Some(correlated) if correlated.wait.outcome == Outcome::Ready => correlated.wait.spurious = true,
            _ => *self.quality.unmatched.entry("spurious_mark".to_owned()).or_default() += 1,
        }
    }

    /// Drops the marks' index entries of waits that were handed out; a few at a time is enough.
    fn forget(&mut self, wait: &Wait) {
        if self.last.len() > 2 * self.held.len() + 1024 {
            let first = self.first;
            self.last.retain(|_, (number, _)| *number >= first);
        }
        debug_assert!(wait.clocks.end_ns >= wait.clocks.start_ns);
    }

    fn open_wait(&mut self, slot: &WaitSlot, mode: Mode, file: &FileFacts, end_ns: u64) -> Wait {
        let wait = Wait {
            pid: self.pid,
            goid: slot.goid,
            tid: 0,
            fd: file.fd,
            mode,
            outcome: Outcome::Open,
            spurious: false,
            started_before: slot.flags & flag::STARTED_BEFORE != 0,
            clocks: clocks::of_open(slot, end_ns),
            poller: poller_of(slot.poller),
            idle: false,
            idle_ns: 0,
            role: role_of(mode, slot.socket_state),
            endpoint: self.endpoints.of(file, slot.socket_state),
            stack: None,
            labels: None,
            // Of those that were open when the recording began, each one is known.
            stands_for: slot.stands_for.max(1),
        };
        self.quality.open += 1;
        self.count(&wait, file.known == 1);
        wait
    }

    fn count(&mut self, wait: &Wait, endpoint_known: bool) {
        let quality = &mut self.quality;
        quality.seen += 1;
        quality.not_followed += u64::from(wait.stands_for.saturating_sub(1));
        quality.started_before += u64::from(wait.started_before);
        quality.endpoint_unknown += u64::from(!endpoint_known);
        if wait.outcome == Outcome::Ready {
            quality.kernel_ready_unknown += u64::from(wait.clocks.kernel_ready_ns.is_none());
            quality.poll_unknown += u64::from(wait.clocks.poll_ns.is_none());
        }
    }
}

/// What a hash names; 0 names nothing.
fn known<T: Clone>(table: &mut Recent<u64, T>, hash: u64) -> Option<T> {
    if hash == 0 { None } else { table.get(hash, T::clone) }
}

#[cfg(test)]
mod tests;
