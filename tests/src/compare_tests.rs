//! The comparer must see what is wrong: each test breaks one thing in a perfect recording.

use super::*;

const WINDOW: Window = Window {
    attach_ns: 1_000_000_000,
    recording_ns: 1_100_000_000,
    interrupt_ns: 9_000_000_000,
    end_ns: 9_100_000_000,
};

const HOOKS: ReadyHooks = ReadyHooks { callback: false, data_ready: true };

fn call(changes: &serde_json::Value) -> Call {
    let mut value = serde_json::json!({
        "scenario": "tcpRead", "goid": 7, "op": "read", "kind": "tcp", "fd": 5,
        "before_ns": 2_000_000_000_u64, "after_ns": 2_003_000_000_u64, "not_before_ns": 2_002_900_000_u64,
        "peer_ns": 2_002_950_000_u64, "outcome": "ready", "local": "127.0.0.1:1000", "remote": "127.0.0.1:2000",
        "expect_wait": true, "exact": false, "spurious": false, "rearmed": 0,
        "frames": ["internal/poll.runtime_pollWait", "internal/poll.(*FD).Read", "main.tcpRead"],
    });
    merge(&mut value, changes);
    serde_json::from_value(value).unwrap()
}

fn record(changes: &serde_json::Value) -> Record {
    let mut value = serde_json::json!({
        "pid": 1, "goid": 7, "tid": 2, "fd": 5, "mode": "read", "outcome": "ready", "spurious": false,
        "started_before": false, "start_ns": 2_000_004_000_u64, "kernel_ready_ns": 2_002_960_000_u64,
        "kernel_ready_source": "data_ready", "poll_ns": 2_002_980_000_u64, "end_ns": 2_002_998_000_u64,
        "peer_ns": 2_956_000, "pickup_ns": 20_000, "queue_ns": 18_000, "unknown_ns": 0, "poller": "blocking",
        "idle": false, "idle_ns": 0, "kind": "tcp", "role": "read", "local": "127.0.0.1:1000", "remote": "127.0.0.1:2000",
        "stack": [
            {"func": "internal/poll.runtime_pollWait", "file": "", "line": 0},
            {"func": "internal/poll.(*FD).Read", "file": "", "line": 0},
            {"func": "main.tcpRead", "file": "/x/scenarios.go", "line": 12},
        ],
        "labels": {}, "stands_for": 1,
    });
    merge(&mut value, changes);
    serde_json::from_value(value).unwrap()
}

fn merge(value: &mut serde_json::Value, changes: &serde_json::Value) {
    for (key, change) in changes.as_object().unwrap() {
        assert!(value.get(key).is_some(), "no field {key}");
        value[key] = change.clone();
    }
}

/// A recording in which every check has something to see.
fn perfect() -> (Vec<Call>, Vec<Record>) {
    let mut calls = vec![call(&serde_json::json!({}))];
    let mut records = vec![record(&serde_json::json!({}))];
    // An exact wait that was spurious, and one that was not.
    for (at, spurious) in [(3_000_000_000_u64, true), (3_100_000_000, false)] {
        calls.push(call(&serde_json::json!({
            "before_ns": at, "after_ns": at + 2_000_000, "not_before_ns": 0, "peer_ns": 0, "exact": true, "spurious": spurious,
        })));
        records.push(record(&serde_json::json!({
            "start_ns": at + 2_000, "end_ns": at + 1_998_000, "kernel_ready_ns": at + 1_950_000, "poll_ns": at + 1_970_000,
            "peer_ns": 1_948_000, "pickup_ns": 20_000, "queue_ns": 28_000, "spurious": spurious,
        })));
    }
    // A deadline that fired and was moved: two records, one call.
    calls.push(call(&serde_json::json!({
        "before_ns": 4_000_000_000_u64, "after_ns": 4_005_000_000_u64, "not_before_ns": 4_002_000_000_u64, "peer_ns": 0,
        "outcome": "timeout", "rearmed": 1,
    })));
    for (start, end, outcome) in
        [(4_000_001_000_u64, 4_002_000_000_u64, "rearmed"), (4_002_001_000, 4_004_999_000, "timeout")]
    {
        records.push(record(&serde_json::json!({
            "start_ns": start, "end_ns": end, "outcome": outcome, "kernel_ready_ns": null, "kernel_ready_source": "none",
            "poll_ns": null, "poller": "unknown", "peer_ns": end - start, "pickup_ns": null, "queue_ns": null,
        })));
    }
    // Open at both ends.
    calls.push(call(&serde_json::json!({
        "goid": 8, "before_ns": 500_000_000_u64, "after_ns": 10_000_000_000_u64, "outcome": "closed", "expect_wait": false,
        "not_before_ns": 0, "peer_ns": 0,
    })));
    records.push(record(&serde_json::json!({
        "goid": 8, "start_ns": 1_050_000_000_u64, "end_ns": 9_050_000_000_u64, "outcome": "open", "started_before": true,
        "kernel_ready_ns": null, "kernel_ready_source": "none", "poll_ns": null, "poller": "unknown",
        "peer_ns": 8_000_000_000_u64, "pickup_ns": null, "queue_ns": null,
    })));
    (calls, records)
}

fn failed(change: impl FnOnce(&mut Vec<Call>, &mut Vec<Record>)) -> Vec<&'static str> {
    let (mut calls, mut records) = perfect();
    change(&mut calls, &mut records);
    compare(&calls, &records, WINDOW, (HOOKS, 0), &Bounds::default()).failed()
}

#[test]
fn a_perfect_recording_is_good() {
    let (calls, records) = perfect();
    let verdict = compare(&calls, &records, WINDOW, (HOOKS, 0), &Bounds::default());
    assert!(verdict.good(), "{verdict}");
}

#[test]
fn nothing_recorded_is_not_good() {
    assert!(failed(|_, records| records.clear()).contains(&"waits found"));
    assert!(!compare(&[], &[], WINDOW, (HOOKS, 0), &Bounds::default()).good());
}

#[test]
fn a_missing_wait() {
    let names = failed(|calls, records| {
        calls[0].scenario = "seldom".into();
        records.remove(0);
    });
    assert!(names.contains(&"waits found") && names.contains(&"no kind of wait is missed"), "{names:?}");
}

#[test]
fn a_wait_that_did_not_happen() {
    assert_eq!(
        failed(|_, records| records.push(record(&serde_json::json!({"goid": 99})))),
        ["no wait that did not happen"]
    );
    // It reaches out of its call.
    assert!(failed(|_, records| records[0].end_ns += 10_000_000).contains(&"no wait that did not happen"));
}

#[test]
fn two_records_of_one_wait() {
    assert_eq!(
        failed(|_, records| {
            records[1].end_ns -= 1_000_000;
            records[1].peer_ns = Some(948_000);
            records[1].kernel_ready_ns = Some(records[1].start_ns + 948_000);
            records[1].poll_ns = Some(records[1].start_ns + 968_000);
            let mut twice = records[1].clone();
            twice.start_ns += 996_000 + 1_000;
            twice.end_ns = twice.start_ns + 996_000;
            twice.kernel_ready_ns = Some(twice.start_ns + 948_000);
            twice.poll_ns = Some(twice.start_ns + 968_000);
            records.push(twice);
        }),
        ["one record for one wait", "spurious wake-ups flagged"]
    );
}

#[test]
fn a_wrong_outcome() {
    assert_eq!(failed(|_, records| records[4].outcome = Outcome::Closed), ["outcome"]);
    assert!(
        failed(|_, records| records[3].outcome = Outcome::Timeout)
            .contains(&"deadlines that fired and were moved")
    );
    assert!(failed(|_, records| records[3].outcome = Outcome::Timeout).contains(&"outcome"));
}

#[test]
fn a_wrong_fact() {
    assert_eq!(failed(|_, records| records[0].fd = 6), ["fd"]);
    assert_eq!(failed(|_, records| records[0].kind = "udp".into()), ["kind"]);
    assert_eq!(failed(|_, records| records[0].role = "accept".into()), ["role"]);
    assert_eq!(failed(|_, records| records[0].idle = true), ["idle"]);
    assert_eq!(failed(|_, records| records[0].local = None), ["local address"]);
    assert_eq!(failed(|_, records| records[0].remote = Some("127.0.0.1:2001".into())), ["remote address"]);
    assert!(failed(|_, records| records[0].mode = Mode::Write).contains(&"mode"));
}

#[test]
fn a_wrong_stack() {
    assert_eq!(failed(|_, records| drop(records[0].stack.remove(1))), ["stack"]);
    assert_eq!(failed(|_, records| records[0].stack.reverse()), ["stack"]);
    assert_eq!(failed(|_, records| records[0].stack[2].line = 0), ["file and line"]);
}

#[test]
fn phases_and_clocks() {
    assert_eq!(failed(|_, records| records[0].queue_ns = Some(18_001)), ["phases add up"]);
    assert!(failed(|_, records| records[0].poll_ns = Some(2_002_950_000)).contains(&"clocks in order"));
    assert_eq!(failed(|_, records| records[4].kernel_ready_source = Source::Callback), ["sources fit"]);
    assert_eq!(failed(|_, records| records[0].kernel_ready_source = Source::None), ["sources fit"]);
    assert!(
        failed(|_, records| records[0].kernel_ready_ns = Some(2_002_940_000))
            .contains(&"kernel-ready not before the peer acted")
    );
}

#[test]
fn a_wrong_duration() {
    let late = |records: &mut Vec<Record>| {
        for record in &mut records[1..3] {
            record.start_ns += 500_000;
            record.peer_ns = record.peer_ns.map(|ns| ns - 500_000);
        }
    };
    assert_eq!(failed(|_, records| late(records)), ["duration of exact waits"]);
}

#[test]
fn edges_of_the_recording() {
    assert_eq!(failed(|_, records| records[5].started_before = false), ["waits open at the beginning"]);
    assert_eq!(failed(|_, records| records[0].started_before = true), ["waits open at the beginning"]);
    assert_eq!(failed(|_, records| records[5].outcome = Outcome::Closed), ["waits open at the end"]);
    assert_eq!(
        failed(|_, records| drop(records.remove(5))),
        ["waits open at the beginning", "waits open at the end"]
    );
}

#[test]
fn spurious_flags() {
    assert_eq!(failed(|_, records| records[1].spurious = false), ["spurious wake-ups flagged"]);
    assert_eq!(failed(|_, records| records[2].spurious = true), ["useful wake-ups not flagged"]);
}
