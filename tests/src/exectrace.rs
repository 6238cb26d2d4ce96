//! The probe's records against Go's own execution trace of the same time.
//!
//! The tracer sits in the runtime: it stamps the park itself, the moment the goroutine becomes runnable, and the moment
//! it runs. A record must contain that interval with nothing but the way from probe to tracer on both sides.

use std::{collections::HashMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    check::{Spread, Tally, Verdict},
    compare::span,
    record::{Outcome, Record},
    truth::Call,
};

/// A wait as the tracer saw it, CLOCK_MONOTONIC ns.
#[derive(Clone, Debug, Deserialize)]
pub struct TracedWait {
    /// The goroutine.
    pub goid: u64,
    /// It blocked.
    pub block_ns: u64,
    /// It became runnable.
    pub unblock_ns: u64,
    /// It ran again.
    pub run_ns: u64,
    /// One of the times was moved by the trace's reader, to fit the order of events: it is not a measurement.
    pub moved: bool,
    /// Its thread did nothing else meanwhile, and nobody else made it runnable: its own poll, or a park that Go took back.
    pub alone: bool,
}

impl TracedWait {
    /// The tracer's run-queue delay, ns.
    fn queue_ns(&self) -> u64 {
        self.run_ns.saturating_sub(self.unblock_ns)
    }
}

/// How far a time of a traced wait may lie outside of what contains it, ns: the tracer's clock has steps of 64 ns, and a
/// probe's clock is read a little before or after its instruction.
const NEAR_NS: u64 = 1_000;

/// Traced waits by goroutine, in the order of time; the moved ones apart.
struct Traced<'a> {
    measured: HashMap<u64, Vec<&'a TracedWait>>,
    moved: HashMap<u64, Vec<&'a TracedWait>>,
}

impl<'a> Traced<'a> {
    fn new(waits: &'a [TracedWait]) -> Self {
        let mut traced = Self { measured: HashMap::new(), moved: HashMap::new() };
        for wait in waits {
            let map = if wait.moved { &mut traced.moved } else { &mut traced.measured };
            map.entry(wait.goid).or_default().push(wait);
        }
        for waits in traced.measured.values_mut() {
            waits.sort_by_key(|wait| wait.block_ns);
        }
        traced
    }

    /// The first wait of a goroutine in a span, ns.
    fn first_in(&self, goid: u64, from_ns: u64, to_ns: u64) -> Option<&'a TracedWait> {
        let waits = self.measured.get(&goid)?;
        let next = waits.partition_point(|wait| wait.block_ns + NEAR_NS < from_ns);
        waits.get(next).copied().filter(|wait| wait.run_ns <= to_ns + NEAR_NS)
    }

    /// Whether a wait of the goroutine was moved and may have been in this span.
    fn blurred(&self, goid: u64, from_ns: u64, to_ns: u64) -> bool {
        /// A time is moved to one of another thread's events, which in a trace of a busy program is close.
        const FAR_NS: u64 = 200_000_000;
        self.moved.get(&goid).is_some_and(|waits| {
            waits.iter().any(|wait| wait.block_ns <= to_ns + FAR_NS && wait.run_ns + FAR_NS >= from_ns)
        })
    }

    /// Few enough waits were moved for the rest to say something.
    fn judge_moved(&self, verdict: &mut Verdict) {
        let (moved, measured) = (total(&self.moved), total(&self.measured));
        verdict.add(
            "times of the trace",
            moved * 20 <= measured,
            format!("{moved} moved, {measured} measured"),
        );
    }
}

fn total(waits: &HashMap<u64, Vec<&TracedWait>>) -> usize {
    waits.values().map(Vec::len).sum()
}

/// What is demanded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Share of waits that both must have.
    pub same: f64,
    /// How much longer a record may be than the tracer's interval, at the median and at p99, ns: the way between the
    /// probes and the tracer's stamps. 2 µs and 22 µs were measured.
    pub duration_p50_ns: i64,
    /// See `duration_p50_ns`.
    pub duration_p99_ns: i64,
    /// How far the two run-queue delays may be apart, at the median and at p99, ns. The record's begins at the exit of
    /// `epoll_pwait`; the tracer's when the runtime has gone through the events, has found a P, and marks this goroutine
    /// runnable. 9 µs and 0.7 ms were measured, with a thread that lost its CPU between now and then.
    pub queue_p50_ns: i64,
    /// See `queue_p50_ns`.
    pub queue_p99_ns: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            same: 0.999,
            duration_p50_ns: 10_000,
            duration_p99_ns: 250_000,
            queue_p50_ns: 50_000,
            queue_p99_ns: 5_000_000,
        }
    }
}

/// Reads a trace with the Go tool `exectrace`.
pub fn read(tool: &Path, trace: &Path) -> Result<Vec<TracedWait>> {
    let output =
        Command::new(tool).arg(trace).output().with_context(|| format!("cannot run {}", tool.display()))?;
    ensure!(output.status.success(), "exectrace failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("traced wait {line}")))
        .collect()
}

/// Compares what lies in `from_ns..to_ns`, the time in which both recorded.
#[must_use]
pub fn compare(
    waits: &[TracedWait],
    records: &[Record],
    from_ns: u64,
    to_ns: u64,
    bounds: &Bounds,
) -> Verdict {
    /// A goroutine that finds the fd ready in the middle of parking is not traced as a wait, or is as a very short one.
    const HARDLY_PARKED_NS: u64 = 100_000;
    /// Go takes a park back when the event comes in the middle of it (`park_m`, where `netpollblockcommit` fails): the goroutine keeps its M,
    /// and the P turns to nothing else, so that nothing but the tracer tells it from one that did not park. 0.4 to 1.3 µs were measured.
    const TAKEN_BACK_NS: u64 = 2_000;

    let tracer = Traced::new(waits);
    let (mut has_trace, mut duration, mut queue) = (Tally::default(), Spread::default(), Spread::default());
    for record in records {
        let ended = record.outcome != Outcome::Open && !record.started_before;
        if !ended || record.start_ns < from_ns || record.end_ns > to_ns {
            continue;
        }
        let traced = tracer.first_in(record.goid, record.start_ns, record.end_ns);
        if let Some(traced) = traced {
            duration.add(span(record.start_ns, traced.block_ns) + span(traced.run_ns, record.end_ns));
            if let (Some(queue_ns), Outcome::Ready) =
                (record.queue_ns.filter(|_| record.parked()), record.outcome)
            {
                queue.add(span(traced.queue_ns(), queue_ns).abs());
            }
        }
        let certain = record.parked()
            && record.duration_ns() >= HARDLY_PARKED_NS
            && !tracer.blurred(record.goid, record.start_ns, record.end_ns);
        if traced.is_some() || certain {
            has_trace.case(traced.is_some(), || {
                format!(
                    "not traced: goroutine {} fd {} at {} for {} ns",
                    record.goid,
                    record.fd,
                    record.start_ns,
                    record.duration_ns()
                )
            });
        }
    }
    let mut verdict = Verdict::default();
    tracer.judge_moved(&mut verdict);
    verdict.add_share("records are traced", bounds.same, &has_trace);
    let inside: Vec<&TracedWait> =
        waits.iter().filter(|wait| !wait.moved && wait.block_ns >= from_ns && wait.run_ns <= to_ns).collect();
    let (mut is_recorded, mut taken_back) = (Tally::default(), 0);
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| (record.goid, record.start_ns));
    for wait in &inside {
        let after = sorted
            .partition_point(|record| (record.goid, record.start_ns) <= (wait.goid, wait.block_ns + NEAR_NS));
        let recorded = after
            .checked_sub(1)
            .and_then(|index| sorted.get(index))
            .is_some_and(|record| record.goid == wait.goid && record.end_ns + NEAR_NS >= wait.run_ns);
        if !recorded && wait.alone && wait.run_ns - wait.block_ns < TAKEN_BACK_NS {
            taken_back += 1;
            continue;
        }
        is_recorded.case(recorded, || {
            format!(
                "not recorded: goroutine {} at {} for {} ns",
                wait.goid,
                wait.block_ns,
                wait.run_ns - wait.block_ns
            )
        });
    }
    verdict.add_share("traced waits are recorded", bounds.same, &is_recorded);
    verdict.add(
        "parks that Go took back",
        taken_back * 500 <= inside.len(),
        format!("{taken_back} are not recorded, of {} waits, at most 1 of 500", inside.len()),
    );
    verdict.add_spread("same duration", &duration, (bounds.duration_p50_ns, bounds.duration_p99_ns));
    verdict.add_spread("same run-queue delay", &queue, (bounds.queue_p50_ns, bounds.queue_p99_ns));
    verdict
}

/// Holds the truth program's own log against the trace, without any probe: its certain waits are traced, and every
/// traced wait lies in a call that it logged.
#[must_use]
pub fn compare_truth(waits: &[TracedWait], calls: &[Call]) -> Verdict {
    let mut sorted: Vec<(&Call, usize)> = calls.iter().map(|call| (call, 0)).collect();
    sorted.sort_by_key(|(call, _)| (call.goid, call.before_ns));
    let tracer = Traced::new(waits);
    let mut logged = Tally::default();
    for wait in waits.iter().filter(|wait| !wait.moved) {
        let after = sorted
            .partition_point(|(call, _)| (call.goid, call.before_ns) <= (wait.goid, wait.block_ns + NEAR_NS));
        let call = after.checked_sub(1).and_then(|index| sorted.get_mut(index));
        let call = call.filter(|(call, _)| call.goid == wait.goid && wait.run_ns <= call.after_ns + NEAR_NS);
        logged.case(call.is_some(), || format!("not logged: {wait:?}"));
        if let Some((_, count)) = call {
            *count += 1;
        }
    }
    let from_ns = waits.iter().map(|wait| wait.block_ns).min().unwrap_or(0);
    let to_ns = waits.iter().map(|wait| wait.run_ns).max().unwrap_or(0);
    let (mut traced, mut once) = (Tally::default(), Tally::default());
    for (call, count) in &sorted {
        if call.before_ns < from_ns || call.after_ns > to_ns {
            continue;
        }
        if call.expect_wait && (*count > 0 || !tracer.blurred(call.goid, call.before_ns, call.after_ns)) {
            traced.case(*count > 0, || format!("not traced: {}", call.name()));
        }
        if let Some(rearmed) = call.rearmed().filter(|rearmed| call.exact || *rearmed > 0) {
            once.case(*count <= 1 + rearmed, || format!("traced {count} times: {}", call.name()));
        }
    }
    let mut verdict = Verdict::default();
    tracer.judge_moved(&mut verdict);
    verdict.add_share("traced waits are logged", 1.0, &logged);
    verdict.add_share("certain waits are traced", 0.9995, &traced);
    verdict.add_share("exact waits are traced once", 0.9995, &once);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(i: u64) -> (TracedWait, Record) {
        let start_ns = i * 1_000_000;
        let wait = TracedWait {
            goid: i % 3,
            block_ns: start_ns + 1_000,
            unblock_ns: start_ns + 490_000,
            run_ns: start_ns + 498_000,
            moved: false,
            alone: false,
        };
        let record = serde_json::json!({
            "pid": 1, "goid": i % 3, "tid": 2, "fd": 5, "mode": "read", "outcome": "ready", "spurious": false,
            "started_before": false, "start_ns": start_ns, "kernel_ready_ns": null, "kernel_ready_source": "none",
            "poll_ns": start_ns + 489_000, "end_ns": start_ns + 500_000, "peer_ns": null, "pickup_ns": null, "queue_ns": 11_000,
            "unknown_ns": 0, "poller": "blocking", "idle": false, "idle_ns": 0, "kind": "tcp", "role": "read", "local": null,
            "remote": null, "stack": [], "labels": {}, "stands_for": 1,
        });
        (wait, serde_json::from_value(record).unwrap())
    }

    fn failed(change: impl FnOnce(&mut Vec<TracedWait>, &mut Vec<Record>)) -> Vec<&'static str> {
        let (mut waits, mut records): (Vec<_>, Vec<_>) = (1..100).map(pair).unzip();
        change(&mut waits, &mut records);
        compare(&waits, &records, 0, u64::MAX, &Bounds::default()).failed()
    }

    #[test]
    fn equal_ones_agree() {
        assert!(failed(|_, _| {}).is_empty());
    }

    #[test]
    fn differences_are_seen() {
        assert_eq!(failed(|_, records| drop(records.remove(7))), ["traced waits are recorded"]);
        let missed = |ns: u64, alone: bool| {
            failed(|waits, records| {
                records.remove(7);
                (waits[7].run_ns, waits[7].alone) = (waits[7].block_ns + ns, alone);
            })
        };
        assert_eq!(missed(900, true), ["parks that Go took back"]);
        assert_eq!(missed(900, false), ["traced waits are recorded"]);
        assert_eq!(missed(90_000, true), ["traced waits are recorded"]);
        assert_eq!(
            failed(|waits, _| {
                waits.remove(7);
            }),
            ["records are traced"]
        );
        assert_eq!(
            failed(|_, records| records.iter_mut().for_each(|r| r.end_ns += 40_000)),
            ["same duration"]
        );
        assert_eq!(
            failed(|_, records| records.iter_mut().for_each(|r| r.queue_ns = Some(90_000))),
            ["same run-queue delay"]
        );
    }
}
