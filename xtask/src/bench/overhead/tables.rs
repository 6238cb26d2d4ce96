//! The tables of a load.

use std::fmt::Write as _;

use super::{
    super::mebibytes,
    account::Timed,
    load::Worked,
    rounds::{Row, Table},
    stats::Estimate,
};

/// Of one load: what it costs the watched, and what the probe says of itself.
pub(super) fn of_load(table: &Table) -> String {
    let mut text = paid(table);
    if !table.load.is_beside() {
        let _ = write!(text, "\n{}", told(table));
    }
    text
}

/// A column of what the watched pay.
struct Column {
    head: &'static str,
    /// Of one measurement.
    value: fn(&Worked) -> f64,
    /// For people.
    show: fn(f64) -> String,
    /// With to without.
    ratio: fn(&Row) -> Option<Estimate>,
}

/// All of them; latencies only where a load has them.
fn columns(has_latencies: bool) -> Vec<Column> {
    let throughput = Column {
        head: "operations/s",
        value: Worked::per_second,
        show: |value| format!("{value:.0}"),
        ratio: |row| row.throughput,
    };
    let cpu = Column {
        head: "CPU an operation",
        value: |worked| worked.cpu_ns_per_operation,
        show: microseconds,
        ratio: |row| row.cpu,
    };
    let p50 = Column { head: "p50", value: |it| it.counted.p50_ns, show: microseconds, ratio: |row| row.p50 };
    let p99 = Column { head: "p99", value: |it| it.counted.p99_ns, show: microseconds, ratio: |row| row.p99 };
    let p999 =
        Column { head: "p99.9", value: |it| it.counted.p999_ns, show: microseconds, ratio: |row| row.p999 };
    if has_latencies { vec![throughput, cpu, p50, p99, p999] } else { vec![throughput, cpu] }
}

/// What the watched pay.
fn paid(table: &Table) -> String {
    let columns = columns(table.nobody.iter().any(|worked| worked.counted.p50_ns > 0.0));
    let mut text = head("who watches", columns.iter().map(|column| column.head));
    let nobody = columns.iter().map(|Column { value, show, .. }| {
        Estimate::of(table.nobody.iter().map(value).collect()).map(|it| show(it.median))
    });
    line(&mut text, "nobody", nobody);
    for row in &table.rows {
        let ratios = columns.iter().map(|column| (column.ratio)(row).map(Estimate::ratio));
        line(&mut text, &row.subject.name(), ratios);
    }
    text
}

/// What the probe says of itself.
fn told(table: &Table) -> String {
    let mut text = head(
        "of itself",
        [
            "waits/s",
            "waits seen, of those made",
            "lost",
            "eBPF runs a wait",
            "uprobe hits a wait",
            "eBPF time a wait",
            "with the kernel's clock",
            "own CPU",
            "memory",
            "at most",
        ],
    );
    for row in table.rows.iter().filter(|row| row.subject.watches_target() && !row.timed.is_empty()) {
        let show = |value: fn(&Timed) -> Option<f64>, show: fn(f64) -> String| {
            row.timed(value).map(|estimate| show(estimate.median))
        };
        let ns = row.timed(Timed::ns_per_wait);
        let net = table.ns_per_wait(row);
        line(
            &mut text,
            &row.subject.name(),
            [
                show(|timed| Some(timed.waits_per_second()), |rate| format!("{rate:.0}")),
                row.traced.map(|traced| format!("{} of {}", traced.seen, traced.made)),
                Some(lost(row)),
                show(|timed| timed.per_wait(timed.runs.count), |count| format!("{count:.2}")),
                show(|timed| timed.per_wait(timed.runs.uprobes?), |count| format!("{count:.2}")),
                net.map(|ns| format!("{:.0} ns", ns.median)),
                ns.map(|ns| format!("{:.0} ns", ns.median)),
                show(|timed| Some(timed.cpu_share), |share| format!("{:.1} %", share * 100.0)),
                show(|timed| Some(mebibytes(timed.resident_bytes / 1024)), |it| format!("{it:.0} MiB")),
                show(|timed| Some(mebibytes(timed.peak_resident_bytes / 1024)), |it| format!("{it:.0} MiB")),
            ],
        );
    }
    text
}

/// What was lost. Events for which no program ran, as one ran there already, are not known to the probe.
fn lost(row: &Row) -> String {
    let lost: u64 = row.timed.iter().map(|timed| timed.lost).sum();
    match row.timed.iter().map(|timed| timed.runs.missed).sum::<u64>() {
        0 => lost.to_string(),
        missed => format!("{lost}, and {missed} runs"),
    }
}

/// The first two lines of a table.
fn head<'a>(first: &str, others: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("| {first} |");
    let mut rule = "|---|".to_owned();
    for other in others {
        let _ = write!(text, " {other} |");
        rule.push_str("---|");
    }
    format!("{text}\n{rule}\n")
}

/// A further line; what is not known is a dash.
fn line(text: &mut String, first: &str, others: impl IntoIterator<Item = Option<String>>) {
    let _ = write!(text, "| {first} |");
    for other in others {
        let _ = write!(text, " {} |", other.as_deref().unwrap_or("–"));
    }
    text.push('\n');
}

fn microseconds(ns: f64) -> String {
    if ns < 1e4 { format!("{:.2} µs", ns / 1e3) } else { format!("{:.0} µs", ns / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{account::Traced, hooks::Runs, load::Load, subject::Subject},
        *,
    };

    fn row(subject: Subject, ratio: f64, ns: u64) -> Row {
        let estimate = Some(Estimate { median: ratio, least: ratio, most: ratio, values: 24 });
        let runs = Runs { count: 1_300, ns, uprobes: Some(2), missed: 0 };
        Row {
            subject,
            throughput: estimate,
            p50: None,
            p99: None,
            p999: None,
            cpu: estimate,
            timed: vec![Timed {
                seconds: 0.5,
                waits: 100,
                lost: 0,
                runs,
                cpu_share: 0.02,
                resident_bytes: 20 << 20,
                peak_resident_bytes: 25 << 20,
            }],
            traced: Some(Traced { made: 99, seen: 100 }),
            samples: Vec::new(),
        }
    }

    #[test]
    fn a_load_has_what_is_paid_and_what_is_told() {
        let nobody = r#"{"operations":1000,"seconds":0.5,"p50_ns":0,"p99_ns":0,"p999_ns":0}"#;
        let nobody =
            Worked { counted: serde_json::from_str(nobody).unwrap(), cpu_ns_per_operation: 12_345.0 };
        let table = Table {
            load: Load::Saturated,
            nobody: vec![nobody],
            rows: vec![row(Subject::Probe("syscalls"), 0.9, 260_000), row(Subject::Elsewhere, 1.0, 130_000)],
            clock_ns_per_run: vec![80.0, 100.0, 110.0],
            least: Vec::new(),
        };
        assert_eq!(
            of_load(&table),
            "\
| who watches | operations/s | CPU an operation |
|---|---|---|
| nobody | 2000 | 12 µs |
| netpoll-probe --hooks syscalls | 0.900 (0.900–0.900) | 0.900 (0.900–0.900) |
| netpoll-probe on another process | 1.000 (1.000–1.000) | 1.000 (1.000–1.000) |

| of itself | waits/s | waits seen, of those made | lost | eBPF runs a wait | uprobe hits a wait | eBPF time a wait | with the kernel's clock | own CPU | memory | at most |
|---|---|---|---|---|---|---|---|---|---|---|
| netpoll-probe --hooks syscalls | 200 | 100 of 99 | 0 | 13.00 | 0.02 | 1300 ns | 2600 ns | 2.0 % | 20 MiB | 25 MiB |
"
        );
    }
}
