//! Waits that were added up in the kernel → the sums of a report.

use enum_map::{EnumArray, EnumMap};
use netpoll_probe_common::{
    cell::{BUCKETS, CellHistograms, CellKey, CellSums, Ended, Split, kind, part},
    record::WaitRecord,
    slot::FileFacts,
};

use super::{clocks::source_of, codes::poller_of};
use crate::model::{
    histogram::Histogram,
    sums::{PhaseSums, Sums, Totals},
    wait::Phase,
};

/// Which waits are like this one, on `file`, as far as they can be added up in the kernel; `None`: it is out of the ordinary.
#[must_use]
pub fn key_of(record: &WaitRecord, file: &FileFacts) -> Option<CellKey> {
    if record.stack_hash == 0 || file.known != 1 {
        return None;
    }
    let split = Split::of(&ended(record))?;
    Some(CellKey {
        stack_hash: record.stack_hash,
        inode: file.inode,
        tgid: record.header.tgid,
        fd: record.fd,
        kind: split.kind,
        reserved: 0,
    })
}

fn ended(record: &WaitRecord) -> Ended {
    Ended {
        start_ns: record.start_ns,
        kernel_ready_ns: record.kernel_ready_ns,
        poll_ns: record.poll_ns,
        last_poll_ns: record.last_poll_ns,
        end_ns: record.end_ns,
        sent_ns: record.sent_ns,
        socket_state: record.socket_state,
        flags: record.flags,
        mode: record.mode,
        outcome: record.outcome,
        kernel_ready_source: record.kernel_ready_source,
    }
}

/// Whether it is known when the kernel made the fds of such waits ready.
#[must_use]
pub fn is_ready_known(key: &CellKey) -> bool {
    key.kind & kind::READY_UNKNOWN == 0
}

/// One cell, added up over the CPUs.
#[derive(Clone, Debug, Default)]
pub struct Added {
    /// How many waits were followed.
    pub followed: u64,
    /// What they add up to.
    pub totals: Totals,
}

/// What a cell holds on one CPU.
pub type OnCpu = (CellSums, Box<CellHistograms>);

/// What a cell holds, on each CPU.
#[must_use]
pub fn added(on_cpus: &[OnCpu], is_ready_known: bool) -> Added {
    let sum = |value: fn(&CellSums) -> u64| on_cpus.iter().map(|(sums, _)| value(sums)).sum::<u64>();
    let [first_ns, pickup_ns, queue_ns] = [0, 1, 2].map(|at: usize| {
        let on_cpu = on_cpus.iter().filter_map(|(sums, _)| sums.sums_ns.get(at));
        on_cpu.fold(0_u64, |sum, ns| sum.saturating_add(*ns))
    });
    let after_ready_ns = pickup_ns.saturating_add(queue_ns);
    let duration_ns = first_ns.saturating_add(after_ready_ns);
    let histogram = |part: usize, sum_ns: u64| {
        let counts = (0..BUCKETS).map(|bucket| {
            let on_cpu = |(_, histograms): &OnCpu| {
                u64::from(histograms.get(part).and_then(|counts| counts.get(bucket)).copied().unwrap_or(0))
            };
            (bucket as u64, on_cpus.iter().map(on_cpu).sum())
        });
        // What was shorter or longer than all before came as a record, so these two are of waits that there are.
        let used = || on_cpus.iter().filter(|(sums, _)| sums.count > 0);
        let least_ns =
            used().filter_map(|(sums, _)| sums.inverse_least_ns.get(part)).map(|least| !least).min();
        let most_ns = used().filter_map(|(sums, _)| sums.most_ns.get(part)).max();
        let range = (least_ns.map_or(0, u64::from), most_ns.map_or(0, |most| u64::from(*most)));
        Histogram::of_buckets(counts, sum_ns, range.0, range.1)
    };
    let first = if is_ready_known { Phase::Peer } else { Phase::Unknown };
    let mut phases = PhaseSums { queue_ns, ..PhaseSums::default() };
    let mut lengths = EnumMap::default();
    lengths[first] = histogram(part::FIRST, first_ns);
    lengths[Phase::Queue] = histogram(part::QUEUE, queue_ns);
    let mut after_ready = Histogram::default();
    if is_ready_known {
        (phases.peer_ns, phases.pickup_ns) = (first_ns, pickup_ns);
        lengths[Phase::Pickup] = histogram(part::PICKUP, pickup_ns);
        after_ready = histogram(part::AFTER_READY, after_ready_ns);
    } else {
        phases.unknown_ns = first_ns;
    }
    let totals = Totals {
        sums: Sums {
            duration: histogram(part::DURATION, duration_ns),
            phases,
            spurious: sum(|sums| sums.spurious),
            ..Sums::default()
        },
        phases: lengths,
        after_ready,
        kernel_ready_sources: known_by(on_cpus, |source, _| source_of(source)),
        pollers: known_by(on_cpus, |_, poller| poller_of(poller)),
        idle_beginnings: sum(|sums| sums.idle_beginnings),
        idle_beginnings_ns: sum(|sums| sums.idle_beginnings_ns),
        ..Totals::default()
    };
    Added { followed: sum(|sums| sums.followed), totals }
}

fn known_by<T: EnumArray<u64>>(on_cpus: &[OnCpu], meaning: fn(u8, u8) -> T) -> EnumMap<T, u64> {
    let mut by = EnumMap::default();
    for (source, counts) in on_cpus.iter().flat_map(|(sums, _)| (0..).zip(&sums.known_by)) {
        for (poller, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
            by[meaning(source, poller)] += u64::from(*count);
        }
    }
    by
}

#[cfg(test)]
mod tests {
    use netpoll_probe_common::{
        cell::{CELL_COUNT_MAX, LONG_NS},
        histogram::bucket_of,
        record::{FirstWaitRecord, flag, outcome},
    };
    use proptest::prelude::*;
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::{
        correlate::{Correlated, Correlator, classify::Told},
        event::Event,
        model::{
            builder::{Common, ProfileBuilder},
            peer::Peer,
            profile::{Cost, Metadata, Plan, Profile},
            quality::Quality,
            stack::{Frame, Stack},
        },
    };

    fn correlated(record: WaitRecord) -> Correlated {
        let mut correlator = Correlator::new(1);
        let file = FileFacts { known: 1, inode: 77, ..FileFacts::UNKNOWN };
        correlator.push(Event::FirstWait(Box::new(FirstWaitRecord { wait: record, file })));
        correlator.take_all().next().unwrap()
    }

    /// A client's reader of answers, whose idle beginnings count apart.
    fn told() -> Told {
        let function = "net/http.(*persistConn).readLoop".into();
        let frame = Frame { func: function, file: "transport.go".into(), line: 1, inlined: false };
        Told::by(&Stack { frames: vec![frame], truncated: false }, &[])
    }

    prop_compose! {
        /// Most are ordinary.
        fn any_record()(
            start_ns in 1_u64..1 << 40,
            clocks in prop::array::uniform4(0_u64..1 << 14),
            shift in 0_u32..18,
            absent in 0_u8..32,
            flags in prop_oneof![Just(0), Just(flag::SENT_BEFORE), Just(flag::READY_AT_START), 0_u16..128],
            outcome in prop_oneof![9 => Just(outcome::READY), 1 => 1_u8..6],
            is_write in any::<bool>(),
            socket_state in 0_u32..12,
            source in 1_u8..8,
            poller in 0_u8..4,
        ) -> WaitRecord {
            let mut sorted = clocks.map(|ns| start_ns + (ns << shift));
            if absent != 31 {
                sorted.sort_unstable();
            }
            let [sent_ns, kernel_ready_ns, poll_ns, end_ns] = sorted;
            let unless = |bit: u8, ns| if absent & bit == bit { 0 } else { ns };
            let mut record = WaitRecord::new_zeroed();
            (record.start_ns, record.end_ns) = (start_ns, end_ns);
            record.kernel_ready_ns = unless(3, kernel_ready_ns);
            record.poll_ns = unless(12, poll_ns);
            record.last_poll_ns = if flags & 1 == 0 { record.poll_ns } else { start_ns - 1 };
            record.sent_ns = if is_write { 0 } else { unless(17, sent_ns) };
            (record.flags, record.outcome, record.socket_state) = (flags, outcome, socket_state);
            record.mode = if is_write { b'w' } else { b'r' };
            (record.kernel_ready_source, record.poller) = (source, poller);
            (record.stack_hash, record.stands_for, record.fd) = (5, 1, 9);
            record
        }
    }

    /// As the programs do it (`cells.rs` of netpoll-probe-ebpf).
    fn add(cell: &mut OnCpu, record: &WaitRecord) -> bool {
        let (sums, histograms) = cell;
        let Some(mut split) = Split::of(&ended(record)) else { return false };
        let mut idle_beginnings = 0;
        if split.kind & kind::ASKED_MEANWHILE != 0 {
            idle_beginnings = u64::from(split.before_asked_ns != 0);
            split = split.without_idle_beginning();
        }
        let mut is_extreme = sums.count >= CELL_COUNT_MAX;
        for (part, ns) in split.parts_ns.into_iter().enumerate() {
            is_extreme |= ns > sums.most_ns[part] || !ns > sums.inverse_least_ns[part];
            sums.most_ns[part] = sums.most_ns[part].max(ns);
            sums.inverse_least_ns[part] = sums.inverse_least_ns[part].max(!ns);
        }
        if is_extreme {
            return false;
        }
        let weight = u64::from(record.stands_for);
        for (part, ns) in split.parts_ns.into_iter().enumerate() {
            histograms[part][usize::try_from(bucket_of(ns.into())).unwrap()] += record.stands_for;
        }
        for (at, part) in [part::FIRST, part::PICKUP, part::QUEUE].into_iter().enumerate() {
            sums.sums_ns[at] += u64::from(split.parts_ns[part]) * weight;
        }
        sums.followed += 1;
        sums.count += weight;
        sums.idle_beginnings += idle_beginnings * weight;
        sums.idle_beginnings_ns += idle_beginnings * u64::from(split.before_asked_ns) * weight;
        sums.spurious += weight * u64::from(record.flags & flag::SPURIOUS != 0);
        sums.known_by[usize::from(split.source)][usize::from(record.poller)] += record.stands_for;
        true
    }

    fn empty() -> OnCpu {
        (CellSums::default(), Box::new([[0; BUCKETS]; 5]))
    }

    proptest! {
        /// What the programs make of a wait is what the rules for records make of it.
        #[test]
        fn an_ordinary_wait_is_split_as_its_record_is(record in any_record()) {
            let Correlated { mut wait, sent, like, .. } = correlated(record);
            let Some(like) = like else { return Ok(()) };
            let mut split = Split::of(&ended(&record)).unwrap();
            prop_assert!(u64::from(split.parts_ns[part::DURATION]) < LONG_NS);
            told().of(&mut wait, sent);
            prop_assert_eq!(wait.idle, like.kind & kind::NOT_ASKED != 0 || wait.role == crate::model::wait::Role::Accept);
            if like.kind & kind::ASKED_MEANWHILE != 0 {
                split = split.without_idle_beginning();
            }
            let phases = wait.phases();
            let idle_ns = wait.idle_ns.min(phases.peer_ns.unwrap_or(0));
            let [duration_ns, first_ns, pickup_ns, queue_ns, after_ready_ns] = split.parts_ns.map(u64::from);
            prop_assert_eq!(duration_ns, wait.clocks.duration_ns() - idle_ns);
            prop_assert_eq!(Some(queue_ns), phases.queue_ns);
            prop_assert_eq!(source_of(split.source), wait.clocks.kernel_ready_source);
            if is_ready_known(&like) {
                prop_assert_eq!(Some(first_ns), phases.peer_ns.map(|ns| ns - idle_ns));
                prop_assert_eq!(Some(pickup_ns), phases.pickup_ns);
                prop_assert_eq!(after_ready_ns, pickup_ns + queue_ns);
                prop_assert_eq!(phases.unknown_ns, 0);
            } else {
                prop_assert_eq!(first_ns, phases.unknown_ns);
                prop_assert_eq!((phases.peer_ns, phases.pickup_ns), (None, None));
            }
        }

        /// Waits that are added up on two CPUs, those out of the ordinary as records, make the same profile as all of them as records.
        #[test]
        fn adding_up_changes_no_sum(records in prop::collection::vec((any_record(), 0_usize..2, 0_u32..3), 0..60)) {
            let (mut one_by_one, mut added_up) = (ProfileBuilder::default(), ProfileBuilder::default());
            let mut cells: Vec<(Common, bool, Vec<OnCpu>)> = Vec::new();
            for (mut record, cpu, halvings) in records {
                record.stands_for = 1 << halvings;
                let Correlated { mut wait, sent, like, .. } = correlated(record);
                told().of(&mut wait, sent);
                wait.spurious = record.flags & flag::SPURIOUS != 0 && wait.outcome == crate::model::wait::Outcome::Ready;
                one_by_one.add(&wait);
                let common = Common {
                    stack: wait.stack, peer: Peer::of(&wait), role: wait.role, outcome: wait.outcome, idle: wait.idle,
                };
                let known = like.as_ref().map(is_ready_known);
                let is_added = known.is_some_and(|known| {
                    let at = cells.iter().position(|(other, its, _)| *other == common && *its == known);
                    let at = at.unwrap_or_else(|| {
                        cells.push((common, known, vec![empty(), empty()]));
                        cells.len() - 1
                    });
                    add(&mut cells[at].2[cpu], &record)
                });
                if !is_added {
                    added_up.add(&wait);
                }
            }
            for (common, known, on_cpus) in &cells {
                added_up.add_all(common, &added(on_cpus, *known).totals);
            }
            let finish = |builder: ProfileBuilder| {
                builder.finish(Metadata::default(), Plan::default(), Cost::default(), Quality::default())
            };
            let (one_by_one, added_up): (Profile, Profile) = (finish(one_by_one), finish(added_up));
            for (expected, found) in [(&one_by_one.active, &added_up.active), (&one_by_one.idle, &added_up.idle)] {
                prop_assert_eq!(&expected.totals, &found.totals);
                prop_assert_eq!(&expected.cells, &found.cells);
            }
        }
    }
}
