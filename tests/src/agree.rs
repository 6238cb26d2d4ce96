//! Two recordings of one target at the same time, with different hooks: they must tell the same story.

use std::collections::HashMap;

use crate::{
    check::{Spread, Tally, Verdict},
    compare::span,
    record::{Outcome, Record, Source},
};

/// What is demanded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Share of the first side's waits that the second must have, and share that must agree on the outcome.
    pub same: f64,
    /// Share of the second side's waits that the first must have: of all, and of those in which the goroutine parked for certain.
    pub first_has: f64,
    /// See `first_has`.
    pub first_has_parked: f64,
    /// How far the two starts and the two ends may be apart, at the median, ns: `runtime_pollWait` calls
    /// `netpollblock` a few instructions later, and each side's probe comes before or after the other's.
    pub apart_p50_ns: i64,
    /// The same at p99, ns: 4 to 7 µs were measured.
    pub apart_p99_ns: i64,
    /// How far the two polls may be apart, at the median and at p99, ns: the exit of `epoll_pwait` on the one side, the
    /// loop over its events in `netpoll` on the other. 9 µs and 0.2 ms were measured; a thread may lose its CPU between.
    pub poll_p50_ns: i64,
    /// See `poll_p50_ns`.
    pub poll_p99_ns: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            same: 0.999,
            first_has: 0.999,
            first_has_parked: 0.999,
            apart_p50_ns: 10_000,
            apart_p99_ns: 250_000,
            poll_p50_ns: 50_000,
            poll_p99_ns: 5_000_000,
        }
    }
}

/// Compares the waits that began and ended in `from_ns..to_ns`, the time in which both recorded.
#[must_use]
pub fn compare(first: &[Record], second: &[Record], from_ns: u64, to_ns: u64, bounds: &Bounds) -> Verdict {
    let mut verdict = Verdict::default();
    let inside = |record: &&Record| {
        record.start_ns >= from_ns
            && record.end_ns <= to_ns
            && record.outcome != Outcome::Open
            && !record.started_before
            && parked(record)
    };
    let first_inside: Vec<&Record> = first.iter().filter(inside).collect();
    let second_inside: Vec<&Record> = second.iter().filter(inside).collect();
    let (of_first, of_second) = (by_goroutine(first), by_goroutine(second));

    let (mut outcome, mut facts) = (Tally::default(), Tally::default());
    let (mut starts, mut ends, mut polls) = (Spread::default(), Spread::default(), Spread::default());
    let mut have = |mine: &[&Record], theirs: &HashMap<u64, Vec<&Record>>, details: bool| {
        let (mut tally, mut certain) = (Tally::default(), Tally::default());
        for record in mine {
            let twin = twin(record, theirs);
            let name = || {
                format!(
                    "goroutine {} fd {} {:?} at {} for {} ns",
                    record.goid,
                    record.fd,
                    record.outcome,
                    record.start_ns,
                    record.duration_ns()
                )
            };
            tally.case(twin.is_some(), name);
            if !hardly_parked(record) {
                certain.case(twin.is_some(), name);
            }
            let Some(twin) = twin.filter(|_| details) else { continue };
            outcome.case(record.outcome == twin.outcome, || {
                format!("goroutine {}: {:?} and {:?}", record.goid, record.outcome, twin.outcome)
            });
            let same = (record.fd, record.mode, &record.kind, &record.role, &record.local, &record.remote)
                == (twin.fd, twin.mode, &twin.kind, &twin.role, &twin.local, &twin.remote);
            facts.case(same, || format!("{record:?}\n       {twin:?}"));
            starts.add(span(record.start_ns, twin.start_ns).abs());
            ends.add(span(record.end_ns, twin.end_ns).abs());
            if let (Some(poll_ns), Some(twin_ns)) = (record.poll_ns, twin.poll_ns) {
                polls.add(span(poll_ns, twin_ns).abs());
            }
        }
        (tally, certain)
    };
    let (first_found, _) = have(&first_inside, &of_second, true);
    let (second_found, parked_found) = have(&second_inside, &of_first, false);
    verdict.add_share("the second has the first's waits", bounds.same, &first_found);
    verdict.add_share("the first has the second's waits", bounds.first_has, &second_found);
    verdict.add_share("the first has the second's parks", bounds.first_has_parked, &parked_found);
    verdict.add_share("same outcome", bounds.same, &outcome);
    verdict.add_share("same facts", bounds.same, &facts);
    let apart = (bounds.apart_p50_ns, bounds.apart_p99_ns);
    verdict.add_spread("same start", &starts, apart);
    verdict.add_spread("same end", &ends, apart);
    verdict.add_spread("same poll", &polls, (bounds.poll_p50_ns, bounds.poll_p99_ns));
    verdict
}

/// Whether the goroutine parked: not when its event had been collected before. Only uprobes see that it asked.
fn parked(record: &Record) -> bool {
    record.poll_ns != Some(record.start_ns)
}

/// Whether the goroutine may not have parked though uprobes saw it ask: the fd was ready before, and the event came in the middle of
/// `netpollblock`, which returned at once, or took the park back (`netpollblockcommit`). 2 to 5 µs between the uprobes were measured then.
fn hardly_parked(record: &Record) -> bool {
    const HARDLY_PARKED_NS: u64 = 100_000;
    record.kernel_ready_source == Source::BeforePark && record.duration_ns() < HARDLY_PARKED_NS
}

fn by_goroutine(records: &[Record]) -> HashMap<u64, Vec<&Record>> {
    let mut map: HashMap<u64, Vec<&Record>> = HashMap::new();
    for record in records {
        map.entry(record.goid).or_default().push(record);
    }
    for records in map.values_mut() {
        records.sort_by_key(|record| record.start_ns);
    }
    map
}

/// The record of the same goroutine that shares the most time with this one.
fn twin<'a>(record: &Record, others: &HashMap<u64, Vec<&'a Record>>) -> Option<&'a Record> {
    let candidates = others.get(&record.goid)?;
    let common = |other: &&Record| span(record.start_ns.max(other.start_ns), record.end_ns.min(other.end_ns));
    let next = candidates.partition_point(|other| other.end_ns < record.start_ns);
    // A wait that did not park takes about a microsecond, and then the two may just miss each other.
    const NEAR_NS: i64 = 20_000;
    candidates
        .get(next.saturating_sub(1)..)?
        .iter()
        .take(4)
        .copied()
        .max_by_key(common)
        .filter(|other| common(other) >= -NEAR_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(goid: u64, start_ns: u64, end_ns: u64) -> Record {
        serde_json::from_value(serde_json::json!({
            "pid": 1, "goid": goid, "tid": 2, "fd": 5, "mode": "read", "outcome": "ready", "spurious": false,
            "started_before": false, "start_ns": start_ns, "kernel_ready_ns": null, "kernel_ready_source": "none",
            "poll_ns": end_ns - 100, "end_ns": end_ns, "peer_ns": null, "pickup_ns": null, "queue_ns": 100, "unknown_ns": 0,
            "poller": "blocking", "idle": false, "idle_ns": 0, "kind": "tcp", "role": "read", "local": null, "remote": null,
            "stack": [], "labels": {}, "stands_for": 1,
        }))
        .unwrap()
    }

    fn recording() -> Vec<Record> {
        (0..100).map(|i| record(i % 5, i * 1_000_000, i * 1_000_000 + 500_000)).collect()
    }

    fn failed(change: impl FnOnce(&mut Vec<Record>)) -> Vec<&'static str> {
        let first = recording();
        let mut second = recording();
        change(&mut second);
        compare(&first, &second, 0, u64::MAX, &Bounds::default()).failed()
    }

    #[test]
    fn equal_recordings_agree() {
        assert!(failed(|_| {}).is_empty());
        assert!(failed(|second| second.iter_mut().for_each(|r| r.start_ns += 5_000)).is_empty());
    }

    #[test]
    fn differences_are_seen() {
        assert_eq!(failed(|second| drop(second.remove(50))), ["the second has the first's waits"]);
        assert_eq!(
            failed(|second| second.push(record(1, 600_000_000, 600_500_000))),
            ["the first has the second's waits", "the first has the second's parks"]
        );
        let hardly_parked = |ns: u64| {
            let mut record = record(1, 600_000_000, 600_000_000 + ns);
            record.kernel_ready_source = Source::BeforePark;
            failed(move |second| second.push(record))
        };
        assert_eq!(hardly_parked(4_000), ["the first has the second's waits"]);
        assert_eq!(hardly_parked(400_000).len(), 2);
        assert_eq!(failed(|second| second[3].outcome = Outcome::Timeout), ["same outcome"]);
        assert_eq!(failed(|second| second[3].fd = 6), ["same facts"]);
        assert_eq!(failed(|second| second.iter_mut().for_each(|r| r.start_ns += 300_000)), ["same start"]);
        assert!(!compare(&[], &[], 0, u64::MAX, &Bounds::default()).good());
    }
}
