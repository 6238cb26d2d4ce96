//! Records in, waits out.

use netpoll_probe_common::{
    record::{
        FirstWaitRecord, Header, SpuriousRecord, StackRecord, UnixNameRecord, WaitRecord, flag, kind,
        outcome, poller, source,
    },
    slot::{FileFacts, TCP_SYN_SENT},
};
use proptest::prelude::*;
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::*;
use crate::model::wait::{Address, Direction, KernelReadySource, Kind, Role};

const MS: u64 = 1_000_000;

fn file() -> FileFacts {
    FileFacts {
        sk: 0xffff_8881_0000_0000,
        inode: 77,
        remote_address: [10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        local_address: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        remote_port: 5432,
        local_port: 40000,
        mode: 0o140_777,
        family: 2,
        socket_type: 1,
        protocol: 6,
        tag: 3,
        fd: 9,
        known: 1,
    }
}

fn record(goid: u64, start_ns: u64, end_ns: u64) -> WaitRecord {
    WaitRecord {
        header: Header { kind: kind::WAIT, bytes: 0, tgid: 4242 },
        pd: 0x1000,
        goid,
        start_ns,
        kernel_ready_ns: end_ns - 3,
        kernel_ready_after_ns: 0,
        poll_ns: end_ns - 2,
        last_poll_ns: end_ns - 2,
        end_ns,
        sent_ns: 0,
        stack_hash: 5,
        labels_hash: 0,
        fd: 9,
        tid: 4,
        socket_state: 1,
        flags: 0,
        mode: b'r',
        outcome: outcome::READY,
        kernel_ready_source: source::CALLBACK,
        poller: poller::SYSMON,
        reserved: 0,
        stands_for: 1,
    }
}

/// The first wait on a file.
fn on(file: FileFacts, wait: WaitRecord) -> Event {
    Event::FirstWait(Box::new(FirstWaitRecord { wait, file }))
}

fn waits(records: impl IntoIterator<Item = WaitRecord>) -> Vec<Wait> {
    let mut correlator = Correlator::new(1);
    for record in records {
        correlator.push(on(file(), record));
    }
    correlator.take_all().map(|correlated| correlated.wait).collect()
}

fn one(record: WaitRecord) -> Wait {
    waits([record]).remove(0)
}

#[test]
fn a_plain_wait_has_every_clock_and_its_phases_add_up() {
    let wait = one(record(7, 100, 200));
    assert_eq!((wait.goid, wait.fd, wait.tid), (7, 9, 4));
    assert_eq!(wait.clocks.kernel_ready_ns, Some(197));
    assert_eq!(wait.clocks.kernel_ready_source, KernelReadySource::Callback);
    assert_eq!(wait.poller, Poller::Sysmon);
    let phases = wait.phases();
    assert_eq!((phases.peer_ns, phases.pickup_ns, phases.queue_ns), (Some(97), Some(1), Some(2)));
    assert_eq!(wait.endpoint.kind, Kind::Tcp);
    assert_eq!(wait.endpoint.remote, Some(Address::Ip("10.0.0.5:5432".parse().unwrap())));
    assert_eq!(wait.endpoint.direction, Direction::Outbound);
}

#[test]
fn a_stamp_of_a_wait_that_timed_out_does_not_count() {
    let wait = one(WaitRecord { outcome: outcome::TIMEOUT, ..record(7, 100, 200) });
    assert_eq!(wait.clocks.kernel_ready_ns, None);
    assert_eq!(wait.clocks.poll_ns, None);
    assert_eq!(wait.phases().peer_ns, Some(100));
}

#[test]
fn ready_at_the_start_is_all_queue() {
    let ready = WaitRecord { flags: flag::READY_AT_START, poll_ns: 0, ..record(7, 100, 200) };
    let wait = one(ready);
    assert_eq!(wait.clocks.kernel_ready_source, KernelReadySource::BeforePark);
    assert_eq!((wait.clocks.kernel_ready_ns, wait.clocks.poll_ns), (Some(100), Some(100)));
    assert_eq!(wait.phases().queue_ns, Some(100));
}

#[test]
fn no_poll_seen_is_before_the_park_only_when_it_ended_at_once() {
    let unseen =
        |end_ns| WaitRecord { poll_ns: 0, kernel_ready_ns: 0, last_poll_ns: 0, ..record(7, 100, end_ns) };
    let at_once = one(unseen(100 + 5_000));
    assert_eq!(at_once.clocks.kernel_ready_source, KernelReadySource::BeforePark);
    assert_eq!(at_once.phases().unknown_ns, 5_000);
    let long = one(unseen(100 + 50 * MS));
    assert_eq!(long.clocks.kernel_ready_source, KernelReadySource::None);
    assert_eq!(long.phases().unknown_ns, 50 * MS);
}

#[test]
fn an_event_collected_before_the_start_ended_it() {
    let before = WaitRecord { poll_ns: 0, kernel_ready_ns: 0, last_poll_ns: 90, ..record(7, 100, 200) };
    let wait = one(before);
    assert_eq!((wait.clocks.kernel_ready_ns, wait.clocks.poll_ns), (Some(100), Some(100)));
}

#[test]
fn a_connect_that_was_done_when_it_parked_was_ready_before() {
    let connect = |state| WaitRecord {
        mode: b'w',
        kernel_ready_ns: 0,
        flags: flag::FIRST_EVENT,
        socket_state: state,
        ..record(7, 100, 200)
    };
    let done = one(connect(1));
    assert_eq!(done.clocks.kernel_ready_source, KernelReadySource::BeforePark);
    let waiting = one(connect(TCP_SYN_SENT));
    assert_eq!(waiting.clocks.kernel_ready_ns, None);
    assert_eq!(waiting.role, Role::Connect);
}

#[test]
fn a_bound_stands_in_for_an_unknown_clock() {
    let bounded = WaitRecord { kernel_ready_ns: 0, kernel_ready_after_ns: 150, ..record(7, 100, 200) };
    let wait = one(bounded);
    assert_eq!(wait.clocks.kernel_ready_after_ns, Some(150));
    assert_eq!((wait.phases().unknown_ns, wait.phases().queue_ns), (98, Some(2)));
}

#[test]
fn a_spurious_mark_finds_the_last_wait_of_its_goroutine() {
    let mut correlator = Correlator::new(1);
    correlator.push(Event::Wait(record(7, 100, 200)));
    correlator.push(Event::Wait(record(7, 300, 400)));
    correlator.push(Event::Wait(record(8, 300, 400)));
    let header = Header { kind: kind::SPURIOUS, bytes: 0, tgid: 4242 };
    let mark = |goid| {
        Event::Spurious(SpuriousRecord { header, pd: 0x1000, goid, again_ns: 410, mode: u64::from(b'r') })
    };
    correlator.push(mark(7));
    correlator.push(mark(99));
    let marked: Vec<_> = correlator.take_all().map(|c| (c.wait.goid, c.wait.spurious)).collect();
    assert_eq!(marked, [(7, false), (7, true), (8, false)]);
    assert_eq!(correlator.quality(&[]).unmatched.get("spurious_mark"), Some(&1));
}

/// The goroutines of the waits that need not be held back any longer.
fn ready(correlator: &mut Correlator) -> Vec<u64> {
    let mut goids = Vec::new();
    correlator.take_ready(|correlated| goids.push(correlated.wait.goid));
    goids
}

#[test]
fn waits_are_held_back_for_their_mark_and_no_longer() {
    let mut correlator = Correlator::new(1);
    correlator.push(Event::Wait(record(7, MS, 2 * MS)));
    assert!(ready(&mut correlator).is_empty());
    correlator.push(Event::Wait(record(8, MS, 2 * MS + HOLD_NS + 1)));
    assert_eq!(ready(&mut correlator), [7]);
    assert_eq!(correlator.take_all().map(|c| c.wait.goid).collect::<Vec<_>>(), [8]);
}

#[test]
fn no_wait_is_held_back_where_system_calls_show_them() {
    let mut correlator = Correlator::by_syscalls(1);
    for goid in 0..AT_ONCE as u64 {
        assert!(!correlator.is_full());
        correlator.push(Event::Wait(record(goid, 0, 2 * MS)));
    }
    assert!(correlator.is_full());
    let goids = ready(&mut correlator);
    assert_eq!(goids, (0..AT_ONCE as u64).collect::<Vec<_>>());
    assert!(!correlator.is_full());
    assert_eq!(correlator.take_all().count(), 0);
}

#[test]
fn no_more_waits_are_held_back_than_there_is_room_for() {
    let mut correlator = Correlator::new(1);
    for _ in 0..HELD + 10 {
        correlator.push(Event::Wait(record(7, MS, 2 * MS)));
    }
    assert_eq!(ready(&mut correlator).len(), 10);
    assert_eq!(correlator.take_all().count(), HELD);
}

#[test]
fn a_unix_socket_that_is_used_keeps_its_name_whatever_comes() {
    let mut correlator = Correlator::new(1);
    let mut wait_on = |inode, is_new| {
        if is_new {
            let mut name = UnixNameRecord::new_zeroed();
            (name.inode, name.remote_length) = (inode, 7);
            name.remote[..7].copy_from_slice(b"/db.soc");
            correlator.push(Event::UnixName(Box::new(name)));
        }
        let file = FileFacts { inode, family: 1, protocol: 0, ..file() };
        correlator.push(on(file, record(7, 100, 200)));
        // A new listener: all endpoints are made again.
        let listener = FileFacts { local_port: u16::try_from(inode).unwrap(), ..self::file() };
        correlator.open_file(&listener, endpoint::TCP_LISTEN);
        correlator.take_all().next().unwrap().wait.endpoint.remote.clone()
    };
    let named = wait_on(1, true);
    assert_eq!(named, Some(Address::Path("/db.soc".into())));
    for inode in 2..20_000 {
        assert_eq!(wait_on(inode, true), named);
        assert_eq!(wait_on(1, false), named);
    }
    assert_eq!(wait_on(2, false), None);
}

#[test]
fn a_connection_that_came_to_a_listener_is_inbound() {
    let mut correlator = Correlator::new(1);
    correlator.open_file(&FileFacts { local_port: 8080, inode: 1, ..file() }, endpoint::TCP_LISTEN);
    let served = FileFacts { local_port: 8080, remote_port: 51_000, ..file() };
    correlator.push(on(served, record(7, 100, 200)));
    let wait = correlator.take_all().next().unwrap().wait;
    assert_eq!(wait.endpoint.direction, Direction::Inbound);
}

#[test]
fn a_wait_is_on_the_file_that_was_told_last_of_its_poll_desc() {
    let mut correlator = Correlator::new(1);
    let mut remote = |event| {
        correlator.push(event);
        correlator.take_all().next().unwrap().wait.endpoint.remote.clone()
    };
    let other = FileFacts { inode: 5, remote_port: 6379, ..file() };
    let at = |port| Some(Address::Ip(format!("10.0.0.5:{port}").parse().unwrap()));
    let later = || Event::Wait(record(7, 300, 400));
    assert_eq!(remote(later()), None);
    assert_eq!((remote(on(file(), record(7, 100, 200))), remote(later())), (at(5432), at(5432)));
    assert_eq!((remote(on(other, record(7, 500, 600))), remote(later())), (at(6379), at(6379)));
    assert_eq!(remote(Event::Wait(WaitRecord { pd: 0x2000, ..record(7, 700, 800) })), None);
    assert_eq!(correlator.quality(&[]).endpoint_unknown, 2);
}

#[test]
fn stacks_are_named_by_their_hash() {
    let mut correlator = Correlator::new(1);
    let mut stack = StackRecord::new_zeroed();
    (stack.hash, stack.frames) = (5, 2);
    stack.pcs[..2].copy_from_slice(&[0x10, 0x20]);
    correlator.push(Event::Stack(Box::new(stack)));
    correlator.push(Event::Wait(record(7, 100, 200)));
    correlator.push(Event::Wait(WaitRecord { stack_hash: 6, ..record(8, 100, 200) }));
    let stacks: Vec<_> = correlator.take_all().map(|c| c.pcs).collect();
    assert_eq!(stacks[0].as_deref(), Some(&[0x10, 0x20][..]));
    assert_eq!(stacks[1], None);
}

#[test]
fn ends_after_the_end_of_the_recording_are_listed_as_open_instead() {
    let mut correlator = Correlator::new(1);
    correlator.end_at(150);
    correlator.push(Event::Wait(record(7, 100, 200)));
    assert_eq!(correlator.take_all().count(), 0);
    let mut slot = PollDescSlot::new_zeroed();
    (slot.read.start_ns, slot.read.goid, slot.write.start_ns) = (100, 7, 160);
    let open = correlator.open(&slot, 150);
    assert_eq!(open.len(), 1);
    let wait = &open[0].1;
    assert_eq!((wait.goid, wait.outcome, wait.clocks.end_ns), (7, Outcome::Open, 150));
}

proptest! {
    /// Whatever the programs send, clocks are in order and phases add up.
    #[test]
    fn phases_always_add_up(bytes in prop::collection::vec(any::<u8>(), size_of::<WaitRecord>()), mode in prop::bool::ANY, code in 1u8..=5) {
        let mut record = WaitRecord::read_from_bytes(&bytes).unwrap();
        record.mode = if mode { b'r' } else { b'w' };
        record.outcome = code;
        let Some(wait) = waits([record]).pop() else { return Ok(()) };
        let clocks = wait.clocks;
        let mut in_order = vec![clocks.start_ns];
        in_order.extend(clocks.kernel_ready_ns);
        in_order.extend(clocks.poll_ns);
        in_order.push(clocks.end_ns);
        prop_assert!(in_order.is_sorted());
        let phases = wait.phases();
        let sum = phases.peer_ns.unwrap_or(0) + phases.pickup_ns.unwrap_or(0) + phases.queue_ns.unwrap_or(0) + phases.unknown_ns;
        prop_assert_eq!(sum, clocks.duration_ns());
    }

    /// A recorded stream gives the same waits again.
    #[test]
    fn replay_is_equal(starts in prop::collection::vec(1u64..1_000_000_000, 1..50)) {
        let stream: Vec<u8> = starts
            .iter()
            .flat_map(|start| {
                let mut record = record(*start % 5, *start, *start + 1000);
                record.header.bytes = u16::try_from(size_of::<WaitRecord>()).unwrap();
                record.as_bytes().to_vec()
            })
            .collect();
        let replay = || {
            let mut correlator = Correlator::new(1);
            for bytes in crate::event::split(&stream) {
                correlator.push(crate::event::decode(bytes).unwrap());
            }
            correlator.take_all().map(|c| format!("{c:?}")).collect::<Vec<_>>()
        };
        prop_assert_eq!(replay().len(), starts.len());
        prop_assert_eq!(replay(), replay());
    }
}
