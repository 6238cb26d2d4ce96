//! `--max-overhead`: what is left out must not change what the rest says. A recording that may cost next to nothing, against one of
//! everything at the same time by other hooks.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{self, Recorded, Recording},
    record::{Mode, Record},
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An fd that no wait began on for this long is slow for sure: the probe says so after 10 ms and up to two ticks of the kernel.
const SLOW_NS: u64 = 40_000_000;

/// How far apart two hooks see the same start.
const SAME_NS: u64 = 2_000_000;

/// Ends without a start that there may be: the probe comes while goroutines are about to park.
const UNMATCHED: u64 = 3;

/// How far an estimate may be off: one wait in 64 of some 20,000 is 6 % off by chance.
const ESTIMATE: f64 = 0.3;

/// The same waits by both recordings: of everything, and within the budget.
fn both() -> anyhow::Result<(Recorded, Recorded)> {
    probe::require_root()?;
    let options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    let mut truth = Truth::start(&options, false)?;
    let start = |choices: &[&str]| Recording::start(&options.probe, truth.id(), choices, TIMEOUT);
    let all = start(&["--hooks", "pollwait"])?;
    let some = start(&["--hooks", "syscalls", "--max-overhead", "0.01%"])?;
    truth.load()?;
    let (some, all) = (some.stop(TIMEOUT)?, all.stop(TIMEOUT)?);
    truth.end()?;
    Ok((all, some))
}

fn count_and_seconds(records: &[Record]) -> [f64; 2] {
    let count = records.iter().map(|record| f64::from(record.stands_for)).sum();
    let weighted = |record: &Record| {
        Duration::from_nanos(record.duration_ns()).as_secs_f64() * f64::from(record.stands_for)
    };
    [count, records.iter().map(weighted).sum()]
}

/// The waits that began when none had begun on that fd for a while.
fn on_slow_fds(records: &[Record]) -> Vec<&Record> {
    let mut sorted: Vec<&Record> = records.iter().filter(|record| !record.started_before).collect();
    sorted.sort_by_key(|record| record.start_ns);
    let mut last: HashMap<(i32, Mode), u64> = HashMap::new();
    sorted.retain(|record| {
        let before_ns = last.insert((record.fd, record.mode), record.start_ns);
        before_ns.is_some_and(|before_ns| before_ns + SLOW_NS < record.start_ns)
    });
    sorted
}

#[test]
fn what_is_not_followed_changes_nothing_of_what_is_said() {
    let _turn = live::turn();
    let (all, some) = both().unwrap();

    let (quality, budget) = (&some.summary["quality"], &some.summary["cost"]["budget"]);
    println!("{quality}\n{budget}");
    assert_eq!(quality["lost"], serde_json::json!({}));
    // A deadline that passes at that moment ends a wait whose start was not seen.
    let unmatched: u64 = quality["unmatched"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert!(unmatched <= UNMATCHED, "{quality}");
    assert!(budget["changes"].as_array().is_some_and(|changes| !changes.is_empty()), "{budget}");
    let one_in: HashSet<u32> = some.records.iter().map(|record| record.stands_for).collect();
    assert!(one_in.contains(&1) && one_in.iter().any(|one_in| *one_in > 1), "{one_in:?}");

    // Waits that stand for others give the same sums.
    let (expected, found) = (count_and_seconds(&all.records), count_and_seconds(&some.records));
    let [found_count, _] = found;
    println!(
        "{} records for {}; count and seconds {found:?}, of all {expected:?}",
        some.records.len(),
        all.records.len()
    );
    for (expected, found) in expected.into_iter().zip(found) {
        assert!((found / expected - 1.0).abs() < ESTIMATE, "{found} instead of {expected}");
    }
    let not_followed = quality["not_followed"].as_u64().unwrap();
    assert_eq!(not_followed as f64 + some.records.len() as f64, found_count);
    assert!(some.records.len() < all.records.len() * 3 / 4);

    // Where waits are few, and the long ones are, none is left out.
    let mut starts: HashMap<(u64, i32), Vec<u64>> = HashMap::new();
    for record in &some.records {
        starts.entry((record.goid, record.fd)).or_default().push(record.start_ns);
    }
    let slow = on_slow_fds(&all.records);
    let is_there = |record: &&&Record| {
        let same = |start_ns: &u64| start_ns.abs_diff(record.start_ns) < SAME_NS;
        starts.get(&(record.goid, record.fd)).is_some_and(|starts| starts.iter().any(same))
    };
    let there = slow.iter().filter(is_there).count();
    println!("{there} of {} waits on slow fds", slow.len());
    assert!(slow.len() > 500 && there as f64 >= slow.len() as f64 * 0.99, "{there} of {}", slow.len());
}
