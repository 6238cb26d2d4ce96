//! Adds waits up while they come: cheap for each, and bounded whatever the target does.
//!
//! Every table has a number of entries; what is beyond it goes into an explicit "other", so that all tables always
//! add up to the totals. Stacks and peers are taken as they come; goroutines and fds, of which a server makes new
//! ones without end, are sifted: when a table is twice as big as it may be, its smaller half goes into "other".
//! Before the tables, waits that are alike are added up ([`super::alike`]).

use std::cmp::Reverse;

use foldhash::HashMap;

use super::{
    alike::{Alike, Begun, Groups},
    peer::Peer,
    profile::{Cost, Metadata, PeerId, Plan, Profile, StackKey, Waits},
    quality::Quality,
    sieve::Sieve,
    stack::{StackId, StackTable},
    sums::{PhaseSums, Sample, Sums, Totals},
    wait::{Mode, Outcome, Role, Wait},
};

/// Peers that are told apart.
const PEERS: usize = 4096;
/// Combinations of stack, peer, role and outcome that are told apart; beyond it as many without the stack.
const CELLS: usize = 4096;
/// Goroutines that are kept.
const GOROUTINES: usize = 2048;
/// Fds, with their peer, that are kept.
const FDS: usize = 1024;
/// Open waits that are listed.
const OPEN: usize = 256;

/// What the waits of a cell have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The stack.
    pub stack: StackKey,
    /// The peer.
    pub peer: PeerId,
    /// What the goroutine was about to do.
    pub role: Role,
    /// How it ended.
    pub outcome: Outcome,
    /// It was open when the recording began and still was when it ended: stuck, or waiting for work, such as a
    /// subscription or an idle connection.
    pub throughout: bool,
}

/// What waits have in common that were added up before they came here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Common {
    /// Their stack, one of the builder's; `None`: not known.
    pub stack: Option<StackId>,
    /// Their peer.
    pub peer: Peer,
    /// What the goroutines were about to do.
    pub role: Role,
    /// How they ended.
    pub outcome: Outcome,
    /// They waited for work, not for an answer.
    pub idle: bool,
}

/// A goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoroutineKey {
    /// The process.
    pub pid: u32,
    /// Its id.
    pub goid: u64,
}

/// A file descriptor, with whom it led to at the time: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdKey {
    /// The process.
    pub pid: u32,
    /// The file descriptor.
    pub fd: i32,
    /// The peer.
    pub peer: PeerId,
}

/// Where a wait goes in the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) cell: Cell,
    pub(super) goroutine: GoroutineKey,
    pub(super) fd: FdKey,
}

impl Keys {
    pub(super) fn of(sample: &Sample<'_>) -> Self {
        let &Sample { wait, peer, stack, .. } = sample;
        let (role, outcome, throughout) = (wait.role, wait.outcome, wait.throughout());
        Self {
            cell: Cell { stack, peer, role, outcome, throughout },
            goroutine: GoroutineKey { pid: wait.pid, goid: wait.goid },
            fd: FdKey { pid: wait.pid, fd: wait.fd, peer },
        }
    }
}

/// The sums of one goroutine or fd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// Its sums.
    pub sums: Sums,
    /// Time by stack, for the first few stacks; the others together are [`StackKey::Other`].
    pub stacks: Vec<(StackKey, PhaseSums)>,
}

/// A wait that was open when the recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWait {
    /// How long it had lasted, ns.
    pub duration_ns: u64,
    /// It had begun before the recording did, so it has lasted longer than that.
    pub started_before: bool,
    /// The process.
    pub pid: u32,
    /// The goroutine.
    pub goid: u64,
    /// The file descriptor.
    pub fd: i32,
    /// Read or write.
    pub mode: Mode,
    /// What the goroutine was about to do.
    pub role: Role,
    /// The peer.
    pub peer: PeerId,
    /// The stack.
    pub stack: StackKey,
}

/// Adds waits up.
#[derive(Debug)]
pub struct ProfileBuilder {
    stacks: StackTable,
    peers: Peers,
    alike: Groups,
    active: Class,
    idle: Class,
}

impl Default for ProfileBuilder {
    fn default() -> Self {
        Self {
            stacks: StackTable::default(),
            peers: Peers::new(),
            alike: Groups::new(),
            active: Class::new(),
            idle: Class::new(),
        }
    }
}

impl ProfileBuilder {
    /// The stacks of the waits.
    #[must_use]
    pub fn stacks(&self) -> &StackTable {
        &self.stacks
    }

    /// The stacks of the waits, to add one.
    pub fn stacks_mut(&mut self) -> &mut StackTable {
        &mut self.stacks
    }

    /// Adds one wait. Its stack is one of [`Self::stacks`].
    pub fn add(&mut self, wait: &Wait) {
        let stack = wait.stack.map_or(StackKey::Unknown, StackKey::Known);
        if let Some(group) = self.alike.find(wait, stack) {
            let sample = Sample::of(wait, stack, group.keys.cell.peer);
            group.sums.add(&sample);
            self.class(wait.idle).count(&sample);
            return;
        }
        let sample = Sample::of(wait, stack, self.peers.id(Peer::of(wait)));
        self.class(wait.idle).count(&sample);
        // Those that are open are listed one by one.
        let begun = if wait.outcome == Outcome::Open { Begun::No } else { self.alike.begin(&sample) };
        match begun {
            Begun::Yes => {}
            Begun::InsteadOf(group) => self.class(group.idle).add_group(&group),
            Begun::No => self.class(wait.idle).add(&sample),
        }
    }

    fn class(&mut self, idle: bool) -> &mut Class {
        if idle { &mut self.idle } else { &mut self.active }
    }

    /// Adds waits that were added up before. Their goroutines and fds are not told apart.
    pub fn add_all(&mut self, common: &Common, totals: &Totals) {
        let cell = Cell {
            stack: common.stack.map_or(StackKey::Unknown, StackKey::Known),
            peer: self.peers.id(common.peer.clone()),
            role: common.role,
            outcome: common.outcome,
            throughout: false,
        };
        let class = self.class(common.idle);
        class.count += totals.sums.count();
        class.totals.merge_but_sums(totals);
        class.sums_of(cell).merge(&totals.sums);
        class.goroutines.add_without_key(cell.stack, &totals.sums);
        class.fds.add_without_key(cell.stack, &totals.sums);
    }

    /// How many waits were added that were not idle, and how many that were: for a progress line.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.active.count, self.idle.count)
    }

    /// Everything added up.
    #[must_use]
    pub fn finish(mut self, metadata: Metadata, plan: Plan, cost: Cost, quality: Quality) -> Profile {
        for group in self.alike.take() {
            self.class(group.idle).add_group(&group);
        }
        Profile {
            metadata,
            plan,
            cost,
            quality,
            stacks: self.stacks,
            peers: self.peers.list,
            active: self.active.finish(),
            idle: self.idle.finish(),
        }
    }
}

/// Every distinct peer once, up to a number.
#[derive(Debug)]
struct Peers {
    list: Vec<Peer>,
    ids: HashMap<Peer, PeerId>,
}

impl Peers {
    const OTHER: PeerId = PeerId(0);

    fn new() -> Self {
        Self { list: vec![Peer::Other], ids: HashMap::default() }
    }

    fn id(&mut self, peer: Peer) -> PeerId {
        if let Some(id) = self.ids.get(&peer) {
            return *id;
        }
        match u32::try_from(self.list.len()) {
            Ok(number) if self.list.len() < PEERS => {
                self.list.push(peer.clone());
                self.ids.insert(peer, PeerId(number));
                PeerId(number)
            }
            _ => Self::OTHER,
        }
    }
}

/// The waits of one class (idle, or not).
#[derive(Debug)]
struct Class {
    /// How many waits.
    count: u64,
    /// Their sums are the cells' together, and empty until the end.
    totals: Totals,
    cells: HashMap<Cell, Sums>,
    goroutines: Sieve<GoroutineKey>,
    fds: Sieve<FdKey>,
    open: Vec<OpenWait>,
}

impl Class {
    fn new() -> Self {
        Self {
            count: 0,
            totals: Totals::of_many(),
            cells: HashMap::default(),
            goroutines: Sieve::new(GOROUTINES),
            fds: Sieve::new(FDS),
            open: Vec::new(),
        }
    }

    /// Adds a wait to what is not in the tables.
    fn count(&mut self, sample: &Sample<'_>) {
        self.count += sample.count;
        self.totals.add_but_sums(sample);
    }

    /// Adds waits to the tables.
    fn add_group(&mut self, group: &Alike) {
        let Alike { keys, sums, .. } = group;
        self.sums_of(keys.cell).merge(sums);
        self.goroutines.merge(keys.goroutine, keys.cell.stack, sums);
        self.fds.merge(keys.fd, keys.cell.stack, sums);
    }

    /// Adds a wait to the tables.
    fn add(&mut self, sample: &Sample<'_>) {
        let &Sample { wait, peer, stack, .. } = sample;
        let keys = Keys::of(sample);
        match self.cells.get_mut(&keys.cell) {
            Some(sums) => sums.add(sample),
            None => self.sums_of(keys.cell).add(sample),
        }
        self.goroutines.add(keys.goroutine, sample);
        self.fds.add(keys.fd, sample);
        if wait.outcome == Outcome::Open {
            self.open.push(OpenWait {
                duration_ns: sample.duration_ns,
                started_before: wait.started_before,
                pid: wait.pid,
                goid: wait.goid,
                fd: wait.fd,
                mode: wait.mode,
                role: wait.role,
                peer,
                stack,
            });
            if self.open.len() >= 2 * OPEN {
                self.keep_longest_open();
            }
        }
    }

    /// The sums of a cell, or, where there are too many, of a coarser one.
    fn sums_of(&mut self, exact: Cell) -> &mut Sums {
        let without_stack = Cell { stack: StackKey::Other, ..exact };
        let coarsest = Cell { peer: Peers::OTHER, ..without_stack };
        let room = self.cells.len();
        let cell = if room < CELLS || self.cells.contains_key(&exact) {
            exact
        } else if room < 2 * CELLS || self.cells.contains_key(&without_stack) {
            without_stack
        } else {
            coarsest
        };
        self.cells.entry(cell).or_default()
    }

    fn keep_longest_open(&mut self) {
        self.open.sort_by_key(|open| (Reverse(open.duration_ns), open.pid, open.goid, open.fd));
        self.open.truncate(OPEN);
    }

    fn finish(mut self) -> Waits {
        self.keep_longest_open();
        for sums in self.cells.values() {
            self.totals.sums.merge(sums);
        }
        let mut cells: Vec<_> = self.cells.into_iter().collect();
        cells.sort_by_key(|(cell, _)| *cell);
        Waits {
            totals: self.totals,
            cells,
            goroutines: self.goroutines.finish(),
            fds: self.fds.finish(),
            open: self.open,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::{
        group::{Dimension, GroupKey},
        sieve::STACKS_OF_ONE,
        testing::{stack, tcp, wait},
        wait::{Direction, Phase},
    };

    fn finish(builder: ProfileBuilder) -> Profile {
        builder.finish(Metadata::default(), Plan::default(), Cost::default(), Quality::default())
    }

    /// Every grouping holds all waits and all their time, once.
    fn assert_adds_up(profile: &Profile, count: u64) {
        for include_idle in [false, true] {
            let totals = profile.totals(include_idle).sums;
            for dimension in Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Phase) {
                let mut sum = Sums::default();
                for group in profile.group_by(dimension, include_idle) {
                    sum.merge(&group.sums);
                }
                assert_eq!(sum, totals, "{}", dimension.name());
            }
            for dimension in Dimension::ALL.into_iter().map(Some).chain([None]) {
                let mut phases = PhaseSums::default();
                profile.for_each_leaf(dimension, include_idle, |leaf| phases.merge(&leaf.phases));
                assert_eq!(phases, totals.phases, "{dimension:?}");
            }
            let total_ns: u64 = Phase::ALL.iter().map(|phase| totals.phases.get_ns(*phase)).sum();
            assert_eq!(total_ns, totals.total_ns());
        }
        assert_eq!(profile.totals(true).sums.count(), count);
    }

    #[test]
    fn tables_are_bounded_and_still_add_up() {
        let mut builder = ProfileBuilder::default();
        let stacks: Vec<_> = (0..20)
            .map(|line| builder.stacks_mut().intern(stack(&[&format!("main.f main.go:{line}")])))
            .collect();
        let mut count = 0;
        for number in 0..30_000_u64 {
            let remote = format!("10.0.{}.{}:80", number / 250 % 250, number % 250);
            builder.add(&Wait {
                goid: number,
                fd: i32::try_from(number).unwrap(),
                stack: stacks.get(usize::try_from(number % 21).unwrap()).copied(),
                idle: number % 7 == 0,
                endpoint: tcp("10.0.0.1:4000", Some(&remote), Direction::Outbound),
                ..wait(number, 2 * number + 10)
            });
            count += 1;
        }
        assert_eq!(builder.peers.list.len(), PEERS);
        for class in [&builder.active, &builder.idle] {
            assert!(class.cells.len() <= 2 * CELLS + 100, "{} cells", class.cells.len());
            assert!(class.goroutines.len() < 2 * GOROUTINES);
            assert!(class.fds.len() < 2 * FDS);
        }
        let profile = finish(builder);
        assert_adds_up(&profile, count);
        let goroutines = profile.group_by(Dimension::Goroutine, true);
        let longest = goroutines.iter().find(|group| group.key != GroupKey::Other).unwrap();
        assert_eq!(longest.key, GroupKey::Goroutine(GoroutineKey { pid: 4242, goid: 29_999 }));
    }

    #[test]
    fn what_returns_after_it_was_sifted_out_is_not_counted_twice() {
        let mut builder = ProfileBuilder::default();
        for round in 0..3 {
            for goid in 0..3 * GOROUTINES as u64 {
                builder.add(&Wait { goid, ..wait(round, round + 1 + goid % 1000) });
            }
        }
        assert_adds_up(&finish(builder), 9 * GOROUTINES as u64);
    }

    #[test]
    fn one_goroutine_with_many_stacks_keeps_a_few() {
        let mut builder = ProfileBuilder::default();
        for line in 0..100 {
            let id = builder.stacks_mut().intern(stack(&[&format!("main.f main.go:{line}")]));
            builder.add(&Wait { stack: Some(id), ..wait(0, 10) });
        }
        let profile = finish(builder);
        let (_, goroutine) = profile.active.goroutines.entries.first().unwrap();
        assert_eq!(goroutine.stacks.len(), STACKS_OF_ONE + 1);
        assert_adds_up(&profile, 100);
    }

    /// Adds a wait to the tables at once.
    fn add_alone(builder: &mut ProfileBuilder, wait: &Wait) {
        let stack = wait.stack.map_or(StackKey::Unknown, StackKey::Known);
        let sample = Sample::of(wait, stack, builder.peers.id(Peer::of(wait)));
        let class = builder.class(wait.idle);
        class.count(&sample);
        class.add(&sample);
    }

    #[test]
    fn adding_up_what_is_alike_changes_nothing() {
        let (mut together, mut alone) = (ProfileBuilder::default(), ProfileBuilder::default());
        let stacks = [1, 2, 3].map(|line| stack(&[&format!("main.f main.go:{line}")]));
        let ids = stacks
            .map(|stack| (together.stacks_mut().intern(stack.clone()), alone.stacks_mut().intern(stack)));
        let endpoints =
            [1, 2].map(|port| tcp("10.0.0.1:4000", Some(&format!("10.0.0.2:{port}")), Direction::Outbound));
        let mut random = 1_u64;
        let mut next = |below: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((random >> 33) % u64::from(below)).unwrap()
        };
        // More goroutines than there are groups; and later others, for which those have to give way.
        for first in [0, 5_000] {
            for _ in 0..40_000 {
                let goid = first + next(700);
                let (together_id, alone_id) = ids[goid as usize % ids.len()];
                let endpoint = Rc::clone(&endpoints[next(2) as usize]);
                let outcome = if next(10) == 0 { Outcome::Timeout } else { Outcome::Ready };
                let start = u64::from(next(1_000_000));
                let wait = Wait {
                    goid: u64::from(goid),
                    fd: next(2).cast_signed(),
                    outcome,
                    idle: goid % 5 == 0,
                    spurious: next(20) == 0,
                    stands_for: 1 + next(2),
                    endpoint,
                    ..wait(start, start + 1 + u64::from(next(100_000)))
                };
                together.add(&Wait { stack: Some(together_id), ..wait.clone() });
                add_alone(&mut alone, &Wait { stack: Some(alone_id), ..wait });
            }
        }
        assert_eq!(together.counts(), alone.counts());
        let (together, alone) = (finish(together), finish(alone));
        for include_idle in [false, true] {
            assert_eq!(together.totals(include_idle), alone.totals(include_idle));
            for dimension in Dimension::ALL {
                let groups = |profile: &Profile| -> Vec<_> {
                    profile
                        .group_by(dimension, include_idle)
                        .into_iter()
                        .map(|it| (it.key, it.sums))
                        .collect()
                };
                assert_eq!(groups(&together), groups(&alone), "{}", dimension.name());
            }
        }
    }

    #[test]
    fn a_wait_that_stands_for_others_counts_as_often() {
        let (mut one_by_one, mut at_once) = (ProfileBuilder::default(), ProfileBuilder::default());
        for (duration, stands_for) in [(10, 8), (1_000, 1), (77, 1_024)] {
            let wait = Wait { outcome: Outcome::Timeout, idle_ns: 3, ..wait(0, duration) };
            at_once.add(&Wait { stands_for, ..wait.clone() });
            for _ in 0..stands_for {
                one_by_one.add(&wait);
            }
        }
        let (one_by_one, at_once) = (finish(one_by_one), finish(at_once));
        assert_eq!(one_by_one.totals(true), at_once.totals(true));
        assert_adds_up(&at_once, 1_033);
    }

    #[test]
    fn the_longest_open_waits_are_listed() {
        let mut builder = ProfileBuilder::default();
        for goid in 0..5 * OPEN as u64 {
            let started_before = goid == 0;
            builder.add(&Wait { goid, started_before, outcome: Outcome::Open, ..wait(goid, 10_000) });
        }
        let profile = finish(builder);
        assert_eq!(profile.active.totals.sums.open, 5 * OPEN as u64);
        assert_eq!(profile.active.totals.throughout, 1);
        assert_eq!(profile.active.open.len(), OPEN);
        assert!(profile.active.open[0].started_before);
        assert!(profile.active.open.iter().all(|open| open.goid < OPEN as u64));
    }
}
