//! What is added up over waits.

use std::cmp::Reverse;

use enum_map::EnumMap;

use super::{
    histogram::Histogram,
    profile::{PeerId, StackKey},
    wait::{KernelReadySource, Outcome, Phase, Phases, Poller, Wait},
};

/// Time in each phase, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseSums {
    /// Nothing had come yet.
    pub peer_ns: u64,
    /// It had come, and nobody polled.
    pub pickup_ns: u64,
    /// Runnable, and no P ran it.
    pub queue_ns: u64,
    /// Between two clocks with an unseen one in between.
    pub unknown_ns: u64,
}

impl PhaseSums {
    /// The time in one phase, ns.
    #[must_use]
    pub fn get_ns(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Peer => self.peer_ns,
            Phase::Pickup => self.pickup_ns,
            Phase::Queue => self.queue_ns,
            Phase::Unknown => self.unknown_ns,
        }
    }

    /// Only the time of one phase.
    #[must_use]
    pub fn only(&self, phase: Phase) -> Self {
        let ns = self.get_ns(phase);
        match phase {
            Phase::Peer => Self { peer_ns: ns, ..Self::default() },
            Phase::Pickup => Self { pickup_ns: ns, ..Self::default() },
            Phase::Queue => Self { queue_ns: ns, ..Self::default() },
            Phase::Unknown => Self { unknown_ns: ns, ..Self::default() },
        }
    }

    /// The same as often.
    pub(super) fn times(&self, count: u64) -> Self {
        let [peer_ns, pickup_ns, queue_ns, unknown_ns] =
            Phase::ALL.map(|phase| self.get_ns(phase).saturating_mul(count));
        Self { peer_ns, pickup_ns, queue_ns, unknown_ns }
    }

    /// Adds `other` to it.
    pub fn merge(&mut self, other: &Self) {
        self.peer_ns = self.peer_ns.saturating_add(other.peer_ns);
        self.pickup_ns = self.pickup_ns.saturating_add(other.pickup_ns);
        self.queue_ns = self.queue_ns.saturating_add(other.queue_ns);
        self.unknown_ns = self.unknown_ns.saturating_add(other.unknown_ns);
    }
}

impl From<&Phases> for PhaseSums {
    fn from(phases: &Phases) -> Self {
        let [peer_ns, pickup_ns, queue_ns, unknown_ns] = Phase::ALL.map(|phase| phases.get_ns(phase));
        Self { peer_ns, pickup_ns, queue_ns, unknown_ns }
    }
}

/// A wait as the sums see it, made once for all tables that it goes into.
#[derive(Debug)]
pub(super) struct Sample<'wait> {
    pub(super) wait: &'wait Wait,
    /// How many waits it stands for.
    pub(super) count: u64,
    /// Of one. Without its idle beginning.
    pub(super) duration_ns: u64,
    pub(super) idle_ns: u64,
    /// Of one.
    pub(super) phases: Phases,
    /// Of all.
    pub(super) phase_sums: PhaseSums,
    pub(super) peer: PeerId,
    pub(super) stack: StackKey,
}

impl<'wait> Sample<'wait> {
    /// Of a wait.
    pub(super) fn of(wait: &'wait Wait, stack: StackKey, peer: PeerId) -> Self {
        let mut phases = wait.phases();
        let idle_ns = wait.idle_ns.min(phases.peer_ns.unwrap_or(0));
        phases.peer_ns = phases.peer_ns.map(|peer_ns| peer_ns - idle_ns);
        let count = u64::from(wait.stands_for);
        Self {
            wait,
            count,
            duration_ns: wait.clocks.duration_ns() - idle_ns,
            idle_ns,
            phase_sums: PhaseSums::from(&phases).times(count),
            phases,
            peer,
            stack,
        }
    }
}

/// The longest wait of a group, to be found again in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Longest {
    /// How long, ns.
    pub duration_ns: u64,
    /// Since when, CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// The process.
    pub pid: u32,
    /// The goroutine.
    pub goid: u64,
    /// The file descriptor.
    pub fd: i32,
    /// The peer.
    pub peer: PeerId,
    /// The stack.
    pub stack: StackKey,
}

impl Longest {
    /// Of equally long waits the earliest counts, whatever the order of adding.
    fn rank(&self) -> impl Ord + use<> {
        let &Self { duration_ns, start_ns, pid, goid, fd, peer, stack } = self;
        (duration_ns, Reverse((start_ns, pid, goid, fd, peer, stack)))
    }
}

/// Sums over a group of waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Durations; knows their count and their sum, too.
    pub duration: Histogram,
    /// Time by phase; adds up to the sum of the durations.
    pub phases: PhaseSums,
    /// Waits that ended by their deadline.
    pub timeouts: u64,
    /// Waits that were woken for nothing.
    pub spurious: u64,
    /// Waits still open when the recording ended: they last longer than is known.
    pub open: u64,
    /// Waits open when the recording began: they have lasted longer than is known.
    pub started_before: u64,
    /// The longest one.
    pub longest: Option<Longest>,
}

impl Sums {
    /// Empty ones, for many waits.
    pub(super) fn of_many() -> Self {
        Self { duration: Histogram::dense(), ..Self::default() }
    }

    /// Takes all waits out, and keeps the memory for the next ones.
    pub(super) fn clear(&mut self) {
        let mut duration = std::mem::take(&mut self.duration);
        duration.clear();
        *self = Self { duration, ..Self::default() };
    }

    /// How many waits.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.duration.count()
    }

    /// Their durations together, ns.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.duration.sum_ns()
    }

    pub(super) fn add(&mut self, sample: &Sample<'_>) {
        let (wait, count) = (sample.wait, sample.count);
        self.duration.record_many(sample.duration_ns, count);
        self.phases.merge(&sample.phase_sums);
        self.timeouts += count * u64::from(wait.outcome == Outcome::Timeout);
        self.spurious += count * u64::from(wait.spurious);
        self.open += count * u64::from(wait.outcome == Outcome::Open);
        self.started_before += count * u64::from(wait.started_before);
        let longest = Longest {
            duration_ns: sample.duration_ns,
            start_ns: wait.clocks.start_ns,
            pid: wait.pid,
            goid: wait.goid,
            fd: wait.fd,
            peer: sample.peer,
            stack: sample.stack,
        };
        if self.longest.is_none_or(|known| known.rank() < longest.rank()) {
            self.longest = Some(longest);
        }
    }

    /// Adds `other` to it.
    pub fn merge(&mut self, other: &Self) {
        self.duration.merge(&other.duration);
        self.phases.merge(&other.phases);
        self.timeouts += other.timeouts;
        self.spurious += other.spurious;
        self.open += other.open;
        self.started_before += other.started_before;
        self.longest = [self.longest, other.longest].into_iter().flatten().max_by_key(Longest::rank);
    }
}

/// Sums over all waits of one class (idle, or not).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sums that every group has.
    pub sums: Sums,
    /// The length of each phase over the waits in which it is known.
    pub phases: EnumMap<Phase, Histogram>,
    /// Pickup and queue together, over the waits in which both are known: from ready to running.
    pub after_ready: Histogram,
    /// How `kernel_ready_ns` is known, over the waits that ended as ready.
    pub kernel_ready_sources: EnumMap<KernelReadySource, u64>,
    /// Who collected the event, over the waits that ended as ready.
    pub pollers: EnumMap<Poller, u64>,
    /// Waits that were open when the recording began and still were when it ended.
    pub throughout: u64,
    /// Waits with an idle beginning, which is in no other sum.
    pub idle_beginnings: u64,
    /// The idle beginnings together, ns.
    pub idle_beginnings_ns: u64,
}

impl Totals {
    /// Empty ones, for every wait of a recording.
    pub(super) fn of_many() -> Self {
        let phases = EnumMap::from_fn(|_| Histogram::dense());
        Self { sums: Sums::of_many(), phases, after_ready: Histogram::dense(), ..Self::default() }
    }

    /// Adds a wait to all but the sums that every group has.
    pub(super) fn add_but_sums(&mut self, sample: &Sample<'_>) {
        let Sample { wait, phases, count, .. } = sample;
        let unknown_ns = Some(phases.unknown_ns).filter(|ns| *ns > 0);
        let lengths = [phases.peer_ns, phases.pickup_ns, phases.queue_ns, unknown_ns];
        for (phase, ns) in Phase::ALL.into_iter().zip(lengths) {
            if let Some(ns) = ns {
                self.phases[phase].record_many(ns, *count);
            }
        }
        if let (Some(pickup_ns), Some(queue_ns)) = (phases.pickup_ns, phases.queue_ns) {
            self.after_ready.record_many(pickup_ns.saturating_add(queue_ns), *count);
        }
        if wait.outcome == Outcome::Ready {
            self.kernel_ready_sources[wait.clocks.kernel_ready_source] += count;
            self.pollers[wait.poller] += count;
        }
        self.idle_beginnings += count * u64::from(sample.idle_ns > 0);
        self.idle_beginnings_ns =
            self.idle_beginnings_ns.saturating_add(sample.idle_ns.saturating_mul(*count));
        self.throughout += count * u64::from(wait.throughout());
    }

    /// Adds `other` to it.
    pub fn merge(&mut self, other: &Self) {
        self.sums.merge(&other.sums);
        self.merge_but_sums(other);
    }

    /// Adds all of `other` but the sums that every group has.
    pub(super) fn merge_but_sums(&mut self, other: &Self) {
        for (phase, histogram) in &other.phases {
            self.phases[phase].merge(histogram);
        }
        self.after_ready.merge(&other.after_ready);
        for (source, count) in &other.kernel_ready_sources {
            self.kernel_ready_sources[source] += count;
        }
        for (poller, count) in &other.pollers {
            self.pollers[poller] += count;
        }
        self.throughout += other.throughout;
        self.idle_beginnings += other.idle_beginnings;
        self.idle_beginnings_ns = self.idle_beginnings_ns.saturating_add(other.idle_beginnings_ns);
    }
}
