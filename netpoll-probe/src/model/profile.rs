//! The sum of a recording: what every renderer and every comparison reads. [`super::builder`] makes it,
//! [`super::group`] groups it.

use std::{sync::Arc, time::SystemTime};

use super::{
    builder::{Cell, FdKey, GoroutineKey, OpenWait, Tracked},
    peer::Peer,
    quality::Quality,
    stack::{Stack, StackId, StackTable},
    sums::{Sums, Totals},
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
    /// Its id in its own PID namespace, such as a container's, where that is another.
    pub namespace_pid: Option<u32>,
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
    pub lost: Option<String>,
}

/// What the recording cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of this tool, user and system, ns.
    pub cpu_ns: Option<u64>,
    /// Time in its eBPF programs, in whatever process they ran, ns. What was measured for a part of the recording is
    /// taken for the whole of it.
    pub bpf_run_ns: Option<u64>,
    /// How often they ran, likewise.
    pub bpf_run_count: Option<u64>,
    /// For how long that was measured, ns.
    pub bpf_measured_ns: u64,
    /// The most memory that this tool had resident, bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Records that came through the ring buffer.
    pub ring_records: u64,
    /// What it was allowed to cost; `None`: whatever it takes.
    pub budget: Option<Budget>,
}

/// What a recording was allowed to cost, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// CPU time of this tool and of its eBPF programs: millionths of one core.
    pub most_ppm: u64,
    /// What it cost when it was last measured, likewise; `None`: it never was.
    pub last_ppm: Option<u64>,
    /// When it was changed which waits are followed, in the order of time; at first all were.
    pub changes: Vec<BudgetChange>,
}

/// From now on other waits are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetChange {
    /// When, ns since the recording began.
    pub after_ns: u64,
    /// What it had cost until then, millionths of one core.
    pub cost_ppm: u64,
    /// Of the waits on busy fds one in so many is followed.
    pub busy_one_in: u32,
    /// They are added up in the kernel.
    pub adds_up: bool,
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
    /// The entries that were kept, biggest total first. One that came, or came back, when others had been left out may lack
    /// what it had before.
    pub entries: Vec<(Key, Tracked)>,
    /// The sum of those that were not; `None`: all were kept.
    pub other: Option<Tracked>,
}

impl<Key> Default for Kept<Key> {
    fn default() -> Self {
        Self { entries: Vec::new(), other: None }
    }
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
}
