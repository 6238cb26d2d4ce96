//! A program with 10,000 connections and 100,000 goroutines, as root.

use std::{collections::BTreeMap, process::Command, time::Duration};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    probe::{Recorded, Watched},
    record::{Mode, Outcome, Record},
};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Slots of this and higher fds are found by a hash, those of lower ones in an array.
const FIRST_BY_HASH: i32 = 16_384;

/// Directions of sockets that the program waits on, and those of them that it waits on in the load only: connections that come late, and
/// every other writer of a pair.
const DIRECTIONS: usize = 11_000;
const LATE: usize = 200 + 250;

/// Goroutines that there are at least.
const GOROUTINES: usize = 100_000;

/// Waits that end for nothing, of some 70,000: a datagram's room may be told twice, by the queue that it leaves and by the buffer that it is
/// freed from. The second time may come when the writer is on its way to park; then it does not.
const SPURIOUS: usize = 500;

/// How long attaching may take: half a second was measured, next to other loads.
const ATTACH_NS: u64 = 10_000_000_000;

/// The most memory that the recording may take: twice what was measured. 24 MiB it takes of any program.
const RESIDENT_BYTES: u64 = 112 << 20;

/// One direction of a socket, as the program knows it.
#[derive(Debug)]
struct Direction {
    goid: u64,
    /// How often its goroutine was told to come again, the last time included, which is still open.
    waits: usize,
    /// How often of these it was so again, with nothing read or written between: it was woken for nothing, or had not parked.
    spurious: usize,
}

type Directions = BTreeMap<(i32, Mode), Direction>;

/// What the program said.
fn directions(stdout: &str) -> Directions {
    let direction = |line: &str| {
        let words: Vec<&str> = line.strip_prefix("WAITS ")?.split(' ').collect();
        let [fd, mode, goid, waits, spurious] = words[..] else { return None };
        let mode = if mode == "read" { Mode::Read } else { Mode::Write };
        let (waits, spurious) = (waits.parse().ok()?, spurious.parse().ok()?);
        Some(((fd.parse().ok()?, mode), Direction { goid: goid.parse().ok()?, waits, spurious }))
    };
    stdout.lines().filter_map(direction).collect()
}

/// In what the waits that were recorded in one direction are not those that there were.
fn wrong(direction: &Direction, waits: &[&Record]) -> Option<&'static str> {
    let Some((last, ended)) = waits.split_last() else { return Some("no wait") };
    if waits.len() > direction.waits || waits.len() + direction.spurious < direction.waits {
        return Some("not each wait once");
    }
    if waits.iter().any(|record| record.goid != direction.goid) {
        return Some("another goroutine's");
    }
    // When a unix socket has room again is not seen by every hook; and where both directions become ready one right after the other, what
    // was seen of the second is not taken for certain.
    let is_ready_known = |record: &Record| record.kernel_ready_ns.is_some() || record.kind != "tcp";
    let is_plain = |record: &&Record| record.outcome == Outcome::Ready && is_ready_known(record);
    if last.outcome != Outcome::Open || !ended.iter().all(is_plain) {
        return Some("outcomes");
    }
    if waits.iter().skip(1).any(|record| record.started_before) {
        return Some("only the first one may have begun before");
    }
    let is_one_after_the_other = waits.is_sorted_by(|one, next| one.end_ns <= next.start_ns);
    (!is_one_after_the_other).then_some("two at once")
}

/// For messages.
fn told(record: &Record) -> String {
    format!(
        "goroutine {} from {} to {}, ready {:?}, collected {:?}, {:?}, open before: {}",
        record.goid,
        record.start_ns,
        record.end_ns,
        record.kernel_ready_ns,
        record.poll_ns,
        record.outcome,
        record.started_before
    )
}

fn record() -> anyhow::Result<(Recorded, Directions)> {
    let mut command = Command::new(GoProgram::new("crowd").build()?);
    let Watched { target: mut crowd, recording, .. } =
        Watched::start(&mut command, &["--hooks", "syscalls"], TIMEOUT)?;
    crowd.tell("go")?;
    let done = crowd.wait_for_line("DONE ", TIMEOUT)?;
    let recorded = recording.stop(TIMEOUT)?;
    let finished = crowd.finish(TIMEOUT)?;
    anyhow::ensure!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
    let goroutines = done.strip_prefix("DONE ").and_then(|count| count.parse::<usize>().ok());
    anyhow::ensure!(goroutines.is_some_and(|count| count >= GOROUTINES), "{done}");
    Ok((recorded, directions(&finished.stdout)))
}

/// Each wait on each fd is found once, whether its slot stands in the array or is found by a hash, and whether user space put it there, for
/// a wait that was open before, or the programs made it: those of user space stay in the hash.
#[test]
fn ten_thousand_connections_and_a_hundred_thousand_goroutines() {
    let _turn = live::turn();
    let (recorded, directions) = record().unwrap();
    let quality = &recorded.summary["quality"];
    let attach_ns = recorded.window.recording_ns - recorded.window.attach_ns;
    let resident_bytes = recorded.summary["cost"]["peak_resident_bytes"].as_u64().unwrap();
    println!("{quality}\nattached in {} ms, {} MiB resident", attach_ns / 1_000_000, resident_bytes >> 20);
    assert_eq!(directions.len(), DIRECTIONS);
    assert!(directions.values().all(|direction| direction.waits >= 5));
    let spurious: usize = directions.values().map(|direction| direction.spurious).sum();
    println!("{spurious} waits for nothing");
    assert!(spurious <= SPURIOUS, "{spurious} waits for nothing");
    assert_eq!(quality["lost"], json!({}));
    assert_eq!(quality["unmatched"], json!({}));

    let mut found: BTreeMap<(i32, Mode), Vec<&Record>> = BTreeMap::new();
    // Not those of connecting, and of the pipes from and to its other process.
    let is_its = |record: &&Record| record.role != "connect" && ["tcp", "unixgram"].contains(&&*record.kind);
    for record in recorded.records.iter().filter(is_its) {
        found.entry((record.fd, record.mode)).or_default().push(record);
    }
    for waits in found.values_mut() {
        waits.sort_by_key(|record| record.start_ns);
    }
    assert_eq!(found.keys().find(|key| !directions.contains_key(key)), None);
    let mut complaints = Vec::new();
    for (key, direction) in &directions {
        let waits = found.get(key).map(Vec::as_slice).unwrap_or_default();
        if let Some(what) = wrong(direction, waits) {
            let waits: Vec<String> = waits.iter().map(|record| told(record)).collect();
            complaints.push(format!("{what}: {key:?}, {direction:?}\n{}", waits.join("\n")));
        }
    }
    let count = complaints.len();
    complaints.truncate(5);
    assert_eq!(count, 0, "directions, such as\n{}", complaints.join("\n\n"));

    // Fds of both ways to find a slot, and both of making one.
    let first_waits = found.iter().filter_map(|((fd, _), waits)| Some((*fd, waits.first()?.started_before)));
    let kinds: Vec<(bool, bool)> = first_waits.map(|(fd, before)| (fd >= FIRST_BY_HASH, before)).collect();
    let count = |kind: (bool, bool)| kinds.iter().filter(|other| **other == kind).count();
    let counts = [false, true].map(|by_hash| [true, false].map(|before| count((by_hash, before))));
    println!("in the array [open before, new], by hash likewise: {counts:?}");
    assert!(counts.as_flattened().iter().all(|count| *count >= 100), "{counts:?}");
    let [[_, new_in_array], [_, new_by_hash]] = counts;
    assert_eq!(new_in_array + new_by_hash, LATE);

    assert!(attach_ns < ATTACH_NS, "attached in {} ms", attach_ns / 1_000_000);
    assert!(resident_bytes < RESIDENT_BYTES, "{} MiB resident", resident_bytes >> 20);
}
