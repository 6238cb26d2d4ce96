//! `--max-overhead`: what is left out must not change what the rest says. A recording that may cost next to nothing, against one of
//! everything at the same time by other hooks.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the numbers, for --nocapture; helpers of tests are not in test functions"
)]

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{self, Recorded, Recording, Summing},
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

/// The same in standard deviations, where they are known from the waits themselves: chance alone exceeds it once in a million sums. They never
/// are too small, for they are those of the step that follows fewest, and of every wait that may have been left to chance.
const DEVIATIONS: f64 = 5.0;

/// Sums that may be off by more than this by chance say nothing, and are not held.
const SAYS_NOTHING: f64 = 0.8;

/// So many are held at least: 17 usually, all five of the totals among them.
const SUMS_HELD: usize = 8;

/// How far apart two hooks see sums, and lengths: with what begins and ends a wait, a system call more or less.
const HOOKS: f64 = 0.05;
const HOOKS_NS: u64 = 25_000;

/// The same waits by both recordings: of everything by some hooks, and within the budget by others.
fn both(all: &str, some: &str) -> anyhow::Result<(Recorded, Recorded)> {
    probe::require_root()?;
    let options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    let mut truth = Truth::start(&options, false)?;
    let start = |choices: &[&str]| Recording::start(&options.probe, truth.id(), choices, TIMEOUT);
    let all = start(&["--hooks", all])?;
    let some = start(&["--hooks", some, "--max-overhead", "0.01%"])?;
    truth.load()?;
    let (some, all) = (some.stop(TIMEOUT)?, all.stop(TIMEOUT)?);
    truth.end()?;
    Ok((all, some))
}

/// Ends without a start: a deadline that passes at the moment of a change ends a wait whose start was not seen.
fn unmatched(quality: &Value) -> u64 {
    quality["unmatched"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
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
fn what_system_calls_do_not_follow_changes_nothing_of_what_is_said() {
    let _turn = live::turn();
    let (all, some) = both("pollwait", "syscalls").unwrap();
    changes_nothing(&all, &some, 0.99);
}

#[test]
fn what_uprobes_do_not_follow_changes_nothing_of_what_is_said() {
    let _turn = live::turn();
    let (all, some) = both("syscalls", "pollwait").unwrap();
    // They tell by the pollDesc whether waits are few. A new file may have one that another file just had.
    changes_nothing(&all, &some, 0.95);
}

/// Holds what is said of some against what is said of all; of the waits on slow fds so large a part is to be there.
fn changes_nothing(all: &Recorded, some: &Recorded, least_slow: f64) {
    let (quality, budget) = (&some.summary["quality"], &some.summary["cost"]["budget"]);
    println!("{quality}\n{budget}");
    assert_eq!(quality["lost"], serde_json::json!({}));
    assert!(unmatched(quality) <= UNMATCHED, "{quality}");
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
    assert!(slow.len() > 500 && there as f64 >= slow.len() as f64 * least_slow, "{there} of {}", slow.len());
}

/// The same waits by both recordings: of everything, and within the budget, where waits may be added up in the kernel, too.
fn both_added_up() -> anyhow::Result<(Recorded, Value)> {
    probe::require_root()?;
    let mut options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    // Three times as many waits as usual, so that chance has less of a say.
    (options.intensity, options.seconds) = (2.0, 8.0);
    let mut truth = Truth::start(&options, false)?;
    let all = Recording::start(&options.probe, truth.id(), &["--hooks", "pollwait"], TIMEOUT)?;
    let choices = ["--hooks", "syscalls", "--max-overhead", "0.01%"];
    let some = Summing::start(&options.probe, truth.id(), &choices, TIMEOUT)?;
    truth.load()?;
    let (some, all) = (some.stop(TIMEOUT)?, all.stop(TIMEOUT)?);
    truth.end()?;
    Ok((all, some))
}

/// What is added up of waits: where in the summary, and of one of them.
type Sum = (&'static str, fn(&Record) -> f64);

const SUMS: [Sum; 5] = [
    ("/count", |_| 1.0),
    ("/total_ns", |record| record.duration_ns() as f64),
    ("/phases_ns/peer", |record| record.peer_ns.unwrap_or(0) as f64),
    ("/phases_ns/pickup", |record| record.pickup_ns.unwrap_or(0) as f64),
    ("/phases_ns/queue", |record| record.queue_ns.unwrap_or(0) as f64),
];

/// The standard deviation of an estimated sum: each wait that is left to chance adds `one_in` times its value, or nothing.
fn deviation(left_to_chance: &[&Record], one_in: u64, value: fn(&Record) -> f64) -> f64 {
    let squares: f64 = left_to_chance.iter().map(|record| value(record).powi(2)).sum();
    ((one_in - 1) as f64 * squares).sqrt()
}

fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap()
}

/// Holds the sums of one group against the waits of which they were estimated, as far as they say something. Gives what is wrong, and how
/// many were held.
fn misestimated(
    name: &str,
    group: &Value,
    (all, left_to_chance): (&[&Record], &[&Record]),
    one_in: u64,
) -> (Vec<String>, usize) {
    let (mut wrong, mut held) = (Vec::new(), 0);
    for (path, value) in SUMS {
        let expected: f64 = all.iter().map(|record| value(record)).sum();
        let bound = DEVIATIONS * deviation(left_to_chance, one_in, value) + HOOKS * expected;
        if bound > SAYS_NOTHING * expected {
            continue;
        }
        held += 1;
        let found = number(group, path) as f64;
        let (off, may_be) = (found / expected - 1.0, bound / expected);
        println!("{name}{path}: {found:e} for {expected:e}, {off:+.3} off, may be {may_be:.3}");
        if off.abs() > may_be {
            wrong.push(format!("{name}{path}: {found} for {expected}, more than {bound} off"));
        }
    }
    (wrong, held)
}

/// The median of an estimate lies between those waits that are as far from the real median as the count may be off.
fn median_is_wrong(group: &Value, all: &[&Record], count_deviation: f64) -> Option<String> {
    let mut lengths: Vec<u64> = all.iter().map(|record| record.duration_ns()).collect();
    lengths.sort_unstable();
    let middle = lengths.len() as f64 / 2.0;
    let at = |place: f64| {
        let found = (0u32..).zip(&lengths).find(|(index, _)| f64::from(*index) >= place);
        found.map_or(u64::MAX, |(_, length)| *length)
    };
    let off = DEVIATIONS * count_deviation;
    let (least, most) = (at(middle - off), at(middle + off));
    let found = number(group, "/durations/p50_ns");
    println!("median {found}, {least} to {most}");
    // A bucket of the histogram is as wide as a 32nd of its values.
    let is_right = found + HOOKS_NS >= least - least / 32
        && found <= most.saturating_add(most / 32).saturating_add(HOOKS_NS);
    (!is_right).then(|| format!("median {found} instead of {least} to {most}"))
}

fn of_role<'a>(records: &[&'a Record], role: &str) -> Vec<&'a Record> {
    records.iter().copied().filter(|record| record.role == role).collect()
}

/// Waits that stand for others are added up in the kernel, and the sums are what they would be of all.
#[test]
fn what_is_added_up_stands_for_what_is_not_followed() {
    let _turn = live::turn();
    let (all, some) = both_added_up().unwrap();

    let (quality, budget) = (&some["quality"], &some["cost"]["budget"]);
    println!("{quality}\n{budget}");
    assert_eq!(quality["lost"], serde_json::json!({}));
    assert!(unmatched(quality) <= UNMATCHED, "{quality}");
    let changes = budget["changes"].as_array().unwrap();
    let one_in = |change: &Value| change["busy_one_in"].as_u64().unwrap();
    assert!(changes.iter().any(|change| change["adds_up"] == true && one_in(change) > 1), "{budget}");
    let one_in = changes.iter().map(one_in).max().unwrap();
    let (seen, in_kernel) = (number(quality, "/seen"), number(quality, "/added_in_kernel"));
    assert!(in_kernel > seen / 10, "{quality}");
    assert!(seen < all.records.len() as u64 * 3 / 4, "{quality}");
    assert_eq!(seen + number(quality, "/not_followed"), number(&some, "/totals/count"));

    let always: HashSet<*const Record> =
        on_slow_fds(&all.records).into_iter().map(std::ptr::from_ref).collect();
    let is_left_to_chance =
        |record: &&Record| !record.started_before && !always.contains(&std::ptr::from_ref(*record));
    let everything: Vec<&Record> = all.records.iter().collect();
    let left_to_chance: Vec<&Record> = all.records.iter().filter(is_left_to_chance).collect();
    let (mut wrong, mut held) = misestimated("all", &some["totals"], (&everything, &left_to_chance), one_in);
    let count_deviation = deviation(&left_to_chance, one_in, |_| 1.0);
    wrong.extend(median_is_wrong(&some["totals"], &everything, count_deviation));
    for group in some["groups"]["roles"].as_array().unwrap() {
        let role = group["name"].as_str().unwrap();
        let its = (of_role(&everything, role), of_role(&left_to_chance, role));
        let (its_wrong, its_held) = misestimated(role, group, (&its.0, &its.1), one_in);
        wrong.extend(its_wrong);
        held += its_held;
    }
    assert!(held >= SUMS_HELD, "chance decides all but {held} sums");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
