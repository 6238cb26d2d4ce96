//! Groups the waits of a [`Profile`] by what they have in common.

use std::{collections::HashMap, sync::Arc};

use super::{
    builder::{Cell, FdKey, GoroutineKey, Tracked},
    function::telling_frame,
    peer::Peer,
    profile::{Profile, StackKey},
    sums::{PhaseSums, Sums},
    wait::{Outcome, Phase, Role},
};

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
                    for (phase, histogram) in waits.totals.phases.iter().filter(|(_, it)| it.count() > 0) {
                        let phases = waits.totals.sums.phases.only(phase);
                        let sums = Sums { duration: histogram.clone(), phases, ..Sums::default() };
                        add(GroupKey::Phase(phase), &sums);
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
        sorted(groups)
    }

    /// The waits that began or ended in the recording by peer, biggest total first: without those that lasted
    /// throughout it, which tell nothing of how long an answer takes.
    #[must_use]
    pub fn passing_peers(&self, include_idle: bool) -> Vec<Group> {
        let mut groups: HashMap<GroupKey, Sums> = HashMap::new();
        for (cell, sums) in self.classes(include_idle).flat_map(|waits| &waits.cells) {
            if !cell.throughout {
                groups.entry(self.cell_key(cell, Dimension::Peer)).or_default().merge(sums);
            }
        }
        sorted(groups)
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

fn sorted(groups: HashMap<GroupKey, Sums>) -> Vec<Group> {
    let mut groups: Vec<_> = groups.into_iter().map(|(key, sums)| Group { key, sums }).collect();
    groups.sort_by(|a, b| b.sums.total_ns().cmp(&a.sums.total_ns()).then_with(|| a.key.cmp(&b.key)));
    groups
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
