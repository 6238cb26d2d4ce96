use std::collections::VecDeque;

use netpoll_probe_common::record::{ExecRecord, FirstWaitRecord, Header, StackRecord};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

use super::*;

fn wait(end_ns: u64) -> WaitRecord {
    WaitRecord { end_ns, ..WaitRecord::new_zeroed() }
}

fn exec(at_ns: u64) -> Event {
    let header = Header { kind: 0, bytes: 0, tgid: 7 };
    Event::Exec(ExecRecord { header, at_ns, by_first_thread: 1 })
}

fn stack(hash: u64) -> Event {
    Event::Stack(Box::new(StackRecord { hash, ..StackRecord::new_zeroed() }))
}

/// A ring; what is still being written stands there as `None`.
struct OfTest {
    events: VecDeque<Option<Event>>,
    gives_up: bool,
}

impl OfTest {
    fn of(events: impl IntoIterator<Item = Event>) -> Self {
        Self::writing(events.into_iter().map(Some))
    }

    fn writing(events: impl IntoIterator<Item = Option<Event>>) -> Self {
        Self { events: events.into_iter().collect(), gives_up: false }
    }
}

impl Ring for OfTest {
    fn next(&mut self) -> Option<(usize, Result<Event, DecodeError>)> {
        let event = self.events.front_mut()?.take()?;
        self.events.pop_front();
        Some((8, Ok(event)))
    }

    fn is_read_up(&self) -> bool {
        self.gives_up || self.events.is_empty()
    }
}

/// One round; what it gave.
fn round(order: &mut Order, until_ns: u64, waits: &[u64], ring: &mut OfTest) -> Vec<Event> {
    order.waits_mut().extend(waits.iter().map(|end_ns| wait(*end_ns)));
    let mut given = Vec::new();
    let count = order.round(until_ns, ring, |event| given.extend(event));
    assert_eq!(count, given.len());
    given
}

#[test]
fn another_program_comes_between_the_waits_of_both() {
    let mut ring = OfTest::of([stack(1), exec(50), stack(2)]);
    let given = round(&mut Order::default(), 100, &[30, 70, 40, 60], &mut ring);
    let [a, b, c, d] = [30, 40, 60, 70].map(|end_ns| Event::Wait(wait(end_ns)));
    assert_eq!(given, [stack(1), a, b, exec(50), stack(2), c, d]);
}

#[test]
fn what_is_newer_is_held_and_stays_in_order() {
    let mut order = Order::default();
    let mut ring = OfTest::of([stack(1), exec(120), stack(2)]);
    let given = round(&mut order, 100, &[90, 110, 95, 130], &mut ring);
    assert_eq!(given, [stack(1), Event::Wait(wait(90)), Event::Wait(wait(95))]);
    let given = round(&mut order, 200, &[105], &mut ring);
    let [a, b, c] = [105, 110, 130].map(|end_ns| Event::Wait(wait(end_ns)));
    assert_eq!(given, [a, b, exec(120), stack(2), c]);
}

#[test]
fn what_may_follow_from_a_record_that_cannot_be_read_yet_is_held() {
    let mut order = Order::default();
    let mut ring = OfTest::writing([Some(exec(50)), None, Some(exec(80))]);
    let given = round(&mut order, 100, &[40, 60, 90], &mut ring);
    assert_eq!(given, [Event::Wait(wait(40)), exec(50)]);
    ring.events[0] = Some(stack(1));
    let given = round(&mut order, 110, &[105], &mut ring);
    let [a, b, c] = [60, 90, 105].map(|end_ns| Event::Wait(wait(end_ns)));
    assert_eq!(given, [stack(1), a, exec(80), b, c]);
}

#[test]
fn the_last_time_nothing_is_held() {
    let mut order = Order::default();
    let mut ring = OfTest::writing([None, Some(exec(80))]);
    assert_eq!(round(&mut order, u64::MAX, &[90, 60], &mut ring), []);
    ring.gives_up = true;
    let given = round(&mut order, u64::MAX, &[], &mut ring);
    assert_eq!(given, [60, 90].map(|end_ns| Event::Wait(wait(end_ns))));
}

/// What a CPU does: it ends waits, and some of them are the first on their file, which go through the ring.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: usize,
    is_first: bool,
    /// Whether a round begins after it.
    is_read: bool,
    /// Another CPU begins to write a stack before it, and is done so many steps later.
    stack_takes: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..3usize,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.1, 0..9usize),
    );
    let step =
        step.prop_map(|(cpu, is_first, is_read, stack_takes)| Step { cpu, is_first, is_read, stack_takes });
    prop::collection::vec(step, 0..200)
}

/// Stacks are written that are done at this step.
fn finish(ring: &mut OfTest, done: &mut VecDeque<usize>, at: usize) {
    let writing = ring.events.iter_mut().filter(|event| event.is_none()).zip(done.iter_mut());
    for (event, done) in writing {
        if *done <= at {
            (*event, *done) = (Some(stack(1)), usize::MAX);
        }
    }
    done.retain(|at| *at != usize::MAX);
}

proptest! {
    /// Each step follows from the one before, and hands its record over just before the next begins; a round may lie between its clock and
    /// that, or read one CPU's buffer before it and another's after.
    #[test]
    fn nothing_comes_before_what_it_follows_from(steps in steps()) {
        let (mut order, mut given, mut ring) = (Order::default(), Vec::new(), OfTest::of([]));
        // When those that are being written are done, in their order.
        let mut done: VecDeque<usize> = VecDeque::new();
        let mut buffers: [Vec<u64>; 3] = Default::default();
        for (at, step) in steps.iter().enumerate() {
            let now_ns = at as u64 * 10 + 5;
            if let Some(takes) = step.stack_takes {
                ring.events.push_back(None);
                done.push_back(at + takes);
            }
            finish(&mut ring, &mut done, at);
            // A round that began before this step's clock, has seen the buffers of the CPUs below this step's, and sees the others and the
            // ring after it.
            let early: Vec<u64> = if step.is_read {
                buffers.iter_mut().take(step.cpu + 1).flat_map(std::mem::take).collect()
            } else {
                Vec::new()
            };
            if step.is_first {
                let mut record = FirstWaitRecord::new_zeroed();
                record.wait.end_ns = now_ns;
                ring.events.push_back(Some(Event::FirstWait(Box::new(record))));
            } else if let Some(buffer) = buffers.get_mut(step.cpu) {
                buffer.push(now_ns);
            }
            if step.is_read {
                let late = buffers.iter_mut().skip(step.cpu + 1).flat_map(std::mem::take);
                let waits: Vec<u64> = early.into_iter().chain(late).collect();
                given.extend(round(&mut order, now_ns - 3, &waits, &mut ring));
            }
        }
        let rest: Vec<u64> = buffers.iter_mut().flat_map(std::mem::take).collect();
        finish(&mut ring, &mut done, usize::MAX);
        given.extend(round(&mut order, u64::MAX, &rest, &mut ring));
        let stacks = steps.iter().filter(|step| step.stack_takes.is_some()).count();
        prop_assert_eq!(given.len(), steps.len() + stacks);
        prop_assert!(given.iter().filter_map(Event::at_ns).is_sorted());
    }
}
