//! What watching may cost, held against what was measured.

use std::fmt::Write as _;

use super::{
    super::{Attach, number},
    Results,
    account::{Timed, Traced},
    load::Load,
    rounds::Table,
    stats::Estimate,
    subject::Subject,
    verdict::Verdict,
};

/// What people get who ask for nothing: `--hooks auto` takes this plan wherever the binary allows it.
const DEFAULT: Subject = Subject::Probe("syscalls");

/// A goal, as a line of the table.
#[derive(Debug, PartialEq)]
struct Goal {
    what: &'static str,
    bar: String,
    measured: String,
    floor: String,
    verdict: String,
}

/// The goals that something was measured for, as a table.
pub(super) fn table(results: &Results) -> String {
    let mut text = String::from("| what | goal | measured | floor | the goal is |\n|---|---|---|---|---|\n");
    for Goal { what, bar, measured, floor, verdict } in all(results) {
        let _ = writeln!(text, "| {what} | {bar} | {measured} | {floor} | {verdict} |");
    }
    text
}

fn all(results: &Results) -> Vec<Goal> {
    let table = |load| results.tables.iter().find(|table| table.load == load);
    let mut goals = Vec::new();
    if let Some(http) = table(Load::Saturated) {
        goals.extend(throughput("HTTP, as many as possible: throughput", http, DEFAULT, 0.90));
        goals.extend(throughput("the same with `--aggregate`", http, Subject::Adding, 0.90));
        goals.extend(throughput("an HTTP server beside the watched program", http, Subject::Elsewhere, 0.97));
    }
    if let Some(beside) = table(Load::Beside) {
        goals.extend(throughput("a program beside it that reads and hashes", beside, DEFAULT, 0.97));
    }
    if let Some(others) = table(Load::Others) {
        goals.extend(throughput("a program beside it that makes empty system calls", others, DEFAULT, 0.97));
    }
    if let Some(fixed) = table(Load::Fixed) {
        goals.extend(p99(fixed));
        goals.extend(cpu(fixed));
    }
    if let Some(http) = table(Load::Saturated) {
        goals.extend(bpf_time(http));
    }
    if let Some(compute) = table(Load::Compute) {
        let row = compute.row(DEFAULT);
        goals.extend(unchanged("no network: throughput", row.and_then(|row| row.throughput), lacking));
        goals.extend(unchanged("no network: CPU an operation", row.and_then(|row| row.cpu), added));
    }
    if let Some(pingpong) = table(Load::PingPong) {
        goals.extend(lost("waits lost, of those of the ping-pong", pingpong, DEFAULT));
        goals.extend(lost("the same with `--aggregate`", pingpong, Subject::Adding));
    }
    goals.extend(lost_of_counted(results));
    goals.extend(time("attach", 100.0, results, |it| it.recording_ms));
    goals.extend(time("first wait", 300.0, results, |it| it.first_wait_ms));
    goals.extend(time("detach, with the report", 300.0, results, |it| it.detach_ms));
    goals
}

/// What a subject's ratios are held against.
fn floor_of(subject: Subject) -> Subject {
    if subject.watches_target() { Subject::Least } else { Subject::Empty }
}

/// The floor of a ratio is known when it differs from 1 for sure.
fn known(floor: Option<Estimate>) -> Option<Estimate> {
    floor.filter(|floor| !floor.spans(1.0))
}

fn shown(ratio: Option<Estimate>) -> String {
    ratio.map_or_else(|| "–".to_owned(), Estimate::ratio)
}

/// Operations a second are at least `least` of those with nobody.
fn throughput(what: &'static str, table: &Table, subject: Subject, least: f64) -> Option<Goal> {
    let measured = table.row(subject)?.throughput?;
    let floor = table.row(floor_of(subject)).or_else(|| table.row(Subject::Empty));
    let floor = floor.and_then(|row| row.throughput);
    let floor_cost = known(floor).map(|floor| lacking(floor.median));
    let verdict = Verdict::of(lacking(measured.median), lacking(least), floor_cost);
    Some(Goal {
        what,
        bar: format!("≥ {least:.2}"),
        measured: measured.ratio(),
        floor: shown(floor),
        verdict: verdict.by(measured, least),
    })
}

/// CPU of the watched process at a fixed rate.
fn cpu(table: &Table) -> Option<Goal> {
    const MOST: f64 = 1.05;
    let measured = table.row(DEFAULT)?.cpu?;
    let floor = table.row(Subject::Least).and_then(|row| row.cpu);
    let floor_cost = known(floor).map(|floor| added(floor.median));
    let verdict = Verdict::of(added(measured.median), added(MOST), floor_cost);
    Some(Goal {
        what: "HTTP at 12,500 requests/s: CPU of the server",
        bar: format!("≤ {MOST:.2}"),
        measured: measured.ratio(),
        floor: shown(floor),
        verdict: verdict.by(measured, MOST),
    })
}

/// The p99 of latency: as without, as far as two measurements with nobody are alike.
fn p99(table: &Table) -> Option<Goal> {
    let measured = table.row(DEFAULT)?.p99?;
    let noise = table.noise(|worked| worked.counted.p99_ns)?;
    let floor = table.row(Subject::Least).and_then(|row| row.p99);
    let floor_cost = known(floor).map(|floor| added(floor.median));
    let verdict = Verdict::of(added(measured.median), added(noise.most), floor_cost);
    Some(Goal {
        what: "HTTP at 12,500 requests/s: p99",
        bar: format!("within noise, {:.3}–{:.3}", noise.least, noise.most),
        measured: measured.ratio(),
        floor: shown(floor),
        verdict: verdict.by(measured, noise.most),
    })
}

/// It is not seen to be worse: `cost` of a ratio is what is worse than 1.
fn unchanged(what: &'static str, measured: Option<Estimate>, cost: fn(f64) -> f64) -> Option<Goal> {
    let measured = measured?;
    let least = cost(measured.least).min(cost(measured.most));
    Some(Goal {
        what,
        bar: "not seen to be worse".to_owned(),
        measured: measured.ratio(),
        floor: "–".to_owned(),
        verdict: Verdict::of(least, 0.0, None).to_string(),
    })
}

/// Of operations a second.
fn lacking(ratio: f64) -> f64 {
    1.0 - ratio
}

/// Of times.
fn added(ratio: f64) -> f64 {
    ratio - 1.0
}

/// Time in eBPF programs for each wait.
fn bpf_time(table: &Table) -> Option<Goal> {
    const MOST_NS: f64 = 1_000.0;
    let row = table.row(DEFAULT)?;
    let ns = table.ns_per_wait(row)?;
    let timed = row.timed(Timed::ns_per_wait)?;
    let floor = table.least_ns_per_wait();
    Some(Goal {
        what: "HTTP, as many as possible: time in eBPF programs a wait",
        bar: format!("≤ {:.1} µs", MOST_NS / 1e3),
        measured: format!("{:.2} µs; {:.2} µs with the kernel's clock", ns.median / 1e3, timed.median / 1e3),
        floor: floor.map_or_else(|| "–".to_owned(), |ns| format!("{:.2} µs", ns.median / 1e3)),
        verdict: Verdict::of(ns.median, MOST_NS, floor.map(|ns| ns.median)).by(ns, MOST_NS),
    })
}

/// At this rate no wait is lost.
const RATE: f64 = 70_000.0;

/// What comes of no loss at a rate.
fn lost_at(lost: f64, rate: f64) -> String {
    match Verdict::of(lost, 0.0, None) {
        Verdict::Reached if rate < RATE => "reached at the rate that this machine makes of it".to_owned(),
        verdict => verdict.to_string(),
    }
}

fn lost_bar() -> String {
    format!("0 at {RATE:.0}/s")
}

/// Of the waits of a load.
fn lost(what: &'static str, table: &Table, subject: Subject) -> Option<Goal> {
    let row = table.row(subject)?;
    let rate = row.timed(|timed| Some(timed.waits_per_second()))?.median;
    let lost = number(row.timed.iter().map(|timed| timed.lost).sum());
    let seen = row.traced.map(|Traced { seen, made }| format!("; {seen} seen of {made} that the tracer has"));
    Some(Goal {
        what,
        bar: lost_bar(),
        measured: format!("{lost:.0} at {rate:.0}/s{}", seen.unwrap_or_default()),
        floor: "–".to_owned(),
        verdict: lost_at(lost, rate),
    })
}

/// Of the waits of a program that counts them itself.
fn lost_of_counted(results: &Results) -> Option<Goal> {
    let made = &results.waiting;
    let rate = Estimate::of(made.iter().map(|it| it.waits_per_second).collect())?.median;
    let seen = Estimate::of(made.iter().map(|it| it.recorded_per_second).collect())?.median;
    let lost = made.iter().map(|it| it.lost).sum();
    Some(Goal {
        what: "waits lost, of those of a program that counts them, on 100 connections",
        bar: lost_bar(),
        measured: format!("{lost:.0} at {rate:.0}/s; {seen:.0}/s seen"),
        floor: "–".to_owned(),
        verdict: lost_at(lost, rate),
    })
}

/// A time in which something is done.
fn time(what: &'static str, most_ms: f64, results: &Results, value: fn(&Attach) -> f64) -> Option<Goal> {
    let measured = Estimate::of(results.attaching.iter().map(value).collect())?;
    let Estimate { median, least, most, .. } = measured;
    Some(Goal {
        what,
        bar: format!("≤ {:.1} s", most_ms / 1e3),
        measured: format!("{:.3} s ({:.3}–{:.3})", median / 1e3, least / 1e3, most / 1e3),
        floor: "–".to_owned(),
        verdict: Verdict::of(median, most_ms, None).by(measured, most_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            account::Least,
            hooks::Runs,
            rounds::{Row, Table},
        },
        *,
    };

    fn estimate(median: f64) -> Option<Estimate> {
        Some(Estimate { median, least: median - 0.01, most: median + 0.01, values: 24 })
    }

    fn row(subject: Subject, throughput: f64, runs: Option<Runs>) -> Row {
        Row {
            subject,
            throughput: estimate(throughput),
            p50: None,
            p99: None,
            p999: None,
            cpu: None,
            timed: runs.into_iter().map(|runs| Timed { waits: 1_000, runs, ..Timed::default() }).collect(),
            traced: None,
            samples: Vec::new(),
        }
    }

    fn runs(count: u64, ns: u64) -> Option<Runs> {
        Some(Runs { count, ns, uprobes: None, missed: 0 })
    }

    fn results(rows: Vec<Row>) -> Results {
        let clock_ns_per_run = vec![100.0];
        let least = vec![Least { waits: 1_000, runs: runs(13_000, 2_000_000).unwrap() }];
        let http = Table { load: Load::Saturated, nobody: Vec::new(), rows, clock_ns_per_run, least };
        Results { tables: vec![http], attaching: Vec::new(), waiting: Vec::new() }
    }

    #[test]
    fn lines_say_goal_measurement_floor_and_verdict() {
        let rows = vec![
            row(DEFAULT, 0.80, runs(13_000, 2_600_000)),
            row(Subject::Elsewhere, 0.965, runs(10_000, 1_000_000)),
            row(Subject::Empty, 0.92, None),
            row(Subject::Least, 0.85, None),
        ];
        let lines = table(&results(rows));
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| HTTP, as many as possible: throughput | ≥ 0.90 | 0.800 (0.790–0.810) | 0.850 (0.840–0.860) | missed |",
                "| an HTTP server beside the watched program | ≥ 0.97 | 0.965 (0.955–0.975) | 0.920 (0.910–0.930) | \
                 within 1.3 × of the floor (0.44), not for sure |",
                "| HTTP, as many as possible: time in eBPF programs a wait | ≤ 1.0 µs | 1.30 µs; 2.60 µs with the \
                 kernel's clock | 0.70 µs | missed |",
            ]
        );
    }

    #[test]
    fn no_loss_counts_at_the_rate_that_was_made() {
        assert_eq!(lost_at(0.0, 80_000.0), "reached");
        assert_eq!(lost_at(0.0, 50_000.0), "reached at the rate that this machine makes of it");
        assert_eq!(lost_at(1.0, 50_000.0), "missed");
    }

    #[test]
    fn what_is_not_seen_to_be_worse_reaches_that() {
        let verdict = |median, cost| unchanged("it", estimate(median), cost).unwrap().verdict;
        assert_eq!([1.005, 1.02, 0.5].map(|p99| verdict(p99, added)), ["reached", "missed", "reached"]);
        assert_eq!([0.995, 0.98, 1.5].map(|rate| verdict(rate, lacking)), ["reached", "missed", "reached"]);
    }
}
