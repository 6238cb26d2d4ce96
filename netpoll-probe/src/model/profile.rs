//! The sum of a recording: what every renderer and every comparison reads. [`super::builder`] makes it.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use super::{
    builder::{Cell, FdKey, GoroutineKey, OpenWait, Tracked},
    function::telling_frame,
    peer::Peer,
    quality::Quality,
    stack::{Stack, StackId, StackTable},
    sums::{PhaseSums, Sums, Totals},
    wait::{Outcome, Phase, Role},
};

/// A recording, added up.
#[derive(Debug, Default)]
pub struct Profile {
    /// What was recorded, when, by what.
    pub metadata: Metadata,
    /// The hooks that were used.
    pub plan: Plan,
    /// What the recording cost.
    pub cost: Cost,
    /// How far it can be trusted.
    pub quality: Quality,
    /// The stacks of the waits.
    pub stacks: StackTable,
    /// The peers of the waits, by [`PeerId`].
    pub peers: Vec<Peer>,
    /// The waits for an answer.
    pub active: Waits,
    /// The waits for work: accept loops, keep-alive reads between requests.
    pub idle: Waits,
}

/// What was recorded, when, by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The version of this tool.
    pub tool_version: String,
    /// The processes.
    pub targets: Vec<Target>,
    /// The machine's name, if it was asked for.
    pub host: Option<String>,
    /// When the recording began.
    pub started: SystemTime,
    /// When it began, CLOCK_MONOTONIC ns: the clock of the waits.
    pub started_ns: u64,
    /// How long it took, ns.
    pub duration_ns: u64,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            tool_version: String::new(),
            targets: Vec::new(),
            host: None,
            started: SystemTime::UNIX_EPOCH,
            started_ns: 0,
            duration_ns: 0,
        }
    }
}

/// A recorded process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its id in the PID namespace of this tool.
    pub pid: u32,
    /// Its name as the kernel has it.
    pub comm: String,
    /// The path of its executable.
    pub executable: String,
    /// The version of Go that built it, `go1.26.8`.
    pub go_version: String,
    /// The path of its main module, if the executable tells: functions below it are the program's own.
    pub module: Option<String>,
}

/// The hooks that were used (`design.md`, hook plan).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its name: `pollwait`, `syscalls`, `runtime`.
    pub name: String,
    /// Why this plan.
    pub why: String,
    /// One entry for each clock, in the order of time.
    pub clocks: Vec<PlanClock>,
}

/// How one clock was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanClock {
    /// The clock: `start`, `kernel_ready`, `poll`, `end`.
    pub clock: String,
    /// The hooks that take it.
    pub hook: String,
    /// Why these.
    pub why: String,
    /// What is not known with them; `None`: nothing.
    pub lost_without: Option<String>,
}

/// What the recording cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of this tool, user and system, ns.
    pub cpu_ns: Option<u64>,
    /// Time in its eBPF programs, in whatever process they ran, ns.
    pub bpf_run_ns: Option<u64>,
    /// How often they ran.
    pub bpf_run_count: Option<u64>,
    /// The most memory that this tool had resident, bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Records that came through the ring buffer.
    pub ring_records: u64,
}

/// A peer of a [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(super) u32);

/// The stack of a group of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackKey {
    /// This one.
    Known(StackId),
    /// Not known.
    Unknown,
    /// One of those beyond the number that a profile tells apart.
    Other,
}

/// The waits of one class (idle, or not), added up in every way that a report asks for.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// Over all of them.
    pub totals: Totals,
    /// By stack, peer, role and outcome.
    pub cells: Vec<(Cell, Sums)>,
    /// By goroutine: those that waited longest, and the sum of the others.
    pub goroutines: Kept<GoroutineKey>,
    /// By fd and peer: those that were waited for longest, and the sum of the others.
    pub fds: Kept<FdKey>,
    /// The longest ones of those that were open when the recording ended, longest first. `totals.sums.open` knows
    /// how many there were.
    pub open: Vec<OpenWait>,
}

/// The biggest entries of a table that would grow without bound.
#[derive(Clone, Debug)]
pub struct Kept<Key> {
    /// The entries that were kept, biggest total first. One that was dropped and came back lacks what it had before.
    pub entries: Vec<(Key, Tracked)>,
    /// The sum of those that were not; `None`: all were kept.
    pub other: Option<Tracked>,
}

impl<Key> Default for Kept<Key> {
    fn default() -> Self {
        Self { entries: Vec::new(), other: None }
    }
}

/// What waits can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Whom they waited for.
    Peer,
    /// The whole stack.
    Stack,
    /// The function to point at: see [`telling_frame`].
    Function,
    /// The goroutine.
    Goroutine,
    /// The file descriptor, with its peer.
    Fd,
    /// Accept, connect, read, write.
    Role,
    /// How they ended.
    Outcome,
    /// The phase.
    Phase,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::Stack,
        Self::Function,
        Self::Goroutine,
        Self::Fd,
        Self::Role,
        Self::Outcome,
        Self::Phase,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Stack => "stack",
            Self::Function => "function",
            Self::Goroutine => "goroutine",
            Self::Fd => "fd",
            Self::Role => "role",
            Self::Outcome => "outcome",
            Self::Phase => "phase",
        }
    }
}

/// What the waits of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupKey {
    /// Their peer.
    Peer(Peer),
    /// Their stack.
    Stack(StackKey),
    /// The function to point at.
    Function(Arc<str>),
    /// Their goroutine.
    Goroutine(GoroutineKey),
    /// Their file descriptor and its peer.
    Fd {
        /// The process.
        pid: u32,
        /// The file descriptor.
        fd: i32,
        /// Whom it leads to.
        peer: Peer,
    },
    /// Their role.
    Role(Role),
    /// Their outcome.
    Outcome(Outcome),
    /// The phase; its "durations" are the lengths of this phase.
    Phase(Phase),
    /// The stack, and with it the function, is not known.
    NoStack,
    /// What a profile does not tell apart.
    Other,
}

/// A group of waits.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// Their sums.
    pub sums: Sums,
}

/// Waits of one group and stack: a leaf of a flame graph.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'profile> {
    /// The group's key; `None` when nothing was grouped.
    pub group: Option<&'profile GroupKey>,
    /// The stack.
    pub stack: StackKey,
    /// The time, by phase.
    pub phases: PhaseSums,
}

impl Profile {
    /// The main modules of the targets, where they are known.
    #[must_use]
    pub fn modules(&self) -> Vec<&str> {
        self.metadata.targets.iter().filter_map(|target| target.module.as_deref()).collect()
    }

    /// The peer of an id of this profile.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> &Peer {
        self.peers.get(id.0 as usize).unwrap_or(&Peer::Other)
    }

    /// The stack of a key, if it has one.
    #[must_use]
    pub fn stack(&self, key: StackKey) -> Option<&Stack> {
        match key {
            StackKey::Known(id) => self.stacks.get(id).map(Arc::as_ref),
            StackKey::Unknown | StackKey::Other => None,
        }
    }

    /// The classes of waits that a report is about.
    pub fn classes(&self, include_idle: bool) -> impl Iterator<Item = &Waits> {
        [Some(&self.active), include_idle.then_some(&self.idle)].into_iter().flatten()
    }

    /// The sums over all waits that a report is about.
    #[must_use]
    pub fn totals(&self, include_idle: bool) -> Totals {
        let mut totals = Totals::default();
        for waits in self.classes(include_idle) {
            totals.merge(&waits.totals);
        }
        totals
    }

    /// The waits by group, biggest total first.
    #[must_use]
    pub fn group_by(&self, dimension: Dimension, include_idle: bool) -> Vec<Group> {
        let mut groups: HashMap<GroupKey, Sums> = HashMap::new();
        let mut add = |key: GroupKey, sums: &Sums| groups.entry(key).or_default().merge(sums);
        for waits in self.classes(include_idle) {
            match dimension {
                Dimension::Goroutine => {
                    for (key, tracked) in &waits.goroutines.entries {
                        add(GroupKey::Goroutine(*key), &tracked.sums);
                    }
                    if let Some(other) = &waits.goroutines.other {
                        add(GroupKey::Other, &other.sums);
                    }
                }
                Dimension::Fd => {
                    for (key, tracked) in &waits.fds.entries {
                        add(self.fd_key(key), &tracked.sums);
                    }
                    if let Some(other) = &waits.fds.other {
                        add(GroupKey::Other, &other.sums);
                    }
                }
                Dimension::Phase => {
                    for (phase, histogram) in &waits.totals.phases {
                        let phases = waits.totals.sums.phases.only(*phase);
                        let sums = Sums { duration: histogram.clone(), phases, ..Sums::default() };
                        add(GroupKey::Phase(*phase), &sums);
                    }
                }
                Dimension::Peer
                | Dimension::Stack
                | Dimension::Function
                | Dimension::Role
                | Dimension::Outcome => {
                    for (cell, sums) in &waits.cells {
                        add(self.cell_key(cell, dimension), sums);
                    }
                }
            }
        }
        let mut groups: Vec<_> = groups.into_iter().map(|(key, sums)| Group { key, sums }).collect();
        groups.sort_by(|a, b| b.sums.total_ns().cmp(&a.sums.total_ns()).then_with(|| a.key.cmp(&b.key)));
        groups
    }

    /// The functions ([`Dimension::Function`]) that waited for a peer, and how long, ns; longest first.
    #[must_use]
    pub fn functions_of_peer(&self, peer: &GroupKey, include_idle: bool) -> Vec<(GroupKey, u64)> {
        let mut functions: HashMap<GroupKey, u64> = HashMap::new();
        for (cell, sums) in self.classes(include_idle).flat_map(|waits| &waits.cells) {
            if self.cell_key(cell, Dimension::Peer) == *peer {
                *functions.entry(self.cell_key(cell, Dimension::Function)).or_default() += sums.total_ns();
            }
        }
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        functions
    }

    /// Hands out the time of every group and stack.
    pub fn for_each_leaf(
        &self,
        dimension: Option<Dimension>,
        include_idle: bool,
        mut visit: impl FnMut(Leaf<'_>),
    ) {
        for waits in self.classes(include_idle) {
            match dimension {
                Some(Dimension::Goroutine) => {
                    let known = waits.goroutines.entries.iter();
                    visit_tracked(
                        known.map(|(key, tracked)| (GroupKey::Goroutine(*key), tracked)),
                        &mut visit,
                    );
                    visit_tracked(
                        waits.goroutines.other.iter().map(|other| (GroupKey::Other, other)),
                        &mut visit,
                    );
                }
                Some(Dimension::Fd) => {
                    let known = waits.fds.entries.iter();
                    visit_tracked(known.map(|(key, tracked)| (self.fd_key(key), tracked)), &mut visit);
                    visit_tracked(waits.fds.other.iter().map(|other| (GroupKey::Other, other)), &mut visit);
                }
                Some(Dimension::Phase) => {
                    for (cell, sums) in &waits.cells {
                        for phase in Phase::ALL {
                            let phases = sums.phases.only(phase);
                            visit(Leaf { group: Some(&GroupKey::Phase(phase)), stack: cell.stack, phases });
                        }
                    }
                }
                Some(dimension) => {
                    for (cell, sums) in &waits.cells {
                        let key = self.cell_key(cell, dimension);
                        visit(Leaf { group: Some(&key), stack: cell.stack, phases: sums.phases });
                    }
                }
                None => {
                    for (cell, sums) in &waits.cells {
                        visit(Leaf { group: None, stack: cell.stack, phases: sums.phases });
                    }
                }
            }
        }
    }

    fn fd_key(&self, key: &FdKey) -> GroupKey {
        GroupKey::Fd { pid: key.pid, fd: key.fd, peer: self.peer(key.peer).clone() }
    }

    /// The key of a cell's group; dimensions that cells do not have are the caller's.
    fn cell_key(&self, cell: &Cell, dimension: Dimension) -> GroupKey {
        match (dimension, cell.stack) {
            (Dimension::Peer, _) => GroupKey::Peer(self.peer(cell.peer).clone()),
            (Dimension::Role, _) => GroupKey::Role(cell.role),
            (Dimension::Outcome, _) => GroupKey::Outcome(cell.outcome),
            (Dimension::Stack | Dimension::Function, StackKey::Unknown) => GroupKey::NoStack,
            (Dimension::Stack, stack @ StackKey::Known(_)) => GroupKey::Stack(stack),
            (Dimension::Function, stack @ StackKey::Known(_)) => {
                let frame = self.stack(stack).and_then(|stack| telling_frame(stack, &self.modules()));
                frame.map_or(GroupKey::NoStack, |frame| GroupKey::Function(Arc::clone(&frame.func)))
            }
            _ => GroupKey::Other,
        }
    }
}

fn visit_tracked<'tracked>(
    entries: impl Iterator<Item = (GroupKey, &'tracked Tracked)>,
    visit: &mut impl FnMut(Leaf<'_>),
) {
    for (key, tracked) in entries {
        for (stack, phases) in &tracked.stacks {
            visit(Leaf { group: Some(&key), stack: *stack, phases: *phases });
        }
    }
}
