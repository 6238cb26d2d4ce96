//! Snapshots of a memory made of bytes, in which goroutines can run between two reads.

use std::{cell::RefCell, collections::BTreeMap, ops::Range};

use super::{
    allgs::AllgsError,
    goroutine::{Counts, Goroutine, PollMode, PollWait, Snapshot, StackState},
    scan::{Source, Wanted},
    unwind::{FrameLayout, FrameTable, FrameWord, WalkEnd},
};
use crate::{
    goruntime::{
        constants::GStatus,
        epoll_data::EpollData,
        layout::{Layout, LayoutSource, from_table},
        version::{GoVersion, Release},
    },
    target::{
        error::Error as TargetError,
        memory::{Pieces, ReadMemory},
    },
};

const BIAS: u64 = 0x5555_0000_0000;
const ALLGS: u64 = 0xa0_0000;
const ARRAY: u64 = 0xc000_0000;
const POLL_DESC: u64 = 0x7f00_0000_0200;

/// Functions of the binary: gopark, runtime_pollWait, main (the outermost).
const GOPARK: u64 = 0x1000;
const POLL_WAIT: u64 = 0x2000;
const MAIN: u64 = 0x3000;

/// All have a frame of one word.
struct Functions;

impl FrameTable for Functions {
    fn frame(&self, pc: u64) -> Option<FrameLayout> {
        let function = pc & !0xfff;
        [GOPARK, POLL_WAIT, MAIN].contains(&function).then_some(FrameLayout {
            function,
            size_bytes: 8,
            saves_link: false,
            is_top: function == MAIN,
            writes_sp: false,
            is_trap: false,
        })
    }
}

type Words = BTreeMap<u64, u64>;
type Hook = Box<dyn FnMut(&mut Words, &[Range<u64>])>;

/// Words by address, and what happens to them before each read.
struct Memory {
    words: RefCell<Words>,
    before_read: RefCell<Hook>,
}

impl ReadMemory for Memory {
    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Pieces, TargetError> {
        let mut words = self.words.borrow_mut();
        (self.before_read.borrow_mut())(&mut words, ranges);
        let mut pieces = Pieces::for_ranges(ranges);
        for (index, range) in ranges.iter().enumerate() {
            let start = range.start & !7;
            let bytes: Option<Vec<u8>> = (start..range.end)
                .step_by(8)
                .map(|at| words.get(&at).map(|word| word.to_le_bytes()))
                .collect::<Option<Vec<_>>>()
                .map(|words| words.concat());
            if let Some(bytes) = bytes {
                let skip = usize::try_from(range.start - start).unwrap();
                let length = usize::try_from(range.end - range.start).unwrap();
                pieces.set(index, &bytes[skip..skip + length]);
            }
        }
        Ok(pieces)
    }
}

fn layout() -> Layout {
    Layout {
        offsets: from_table(&GoVersion::parse("go1.26.8").unwrap()).unwrap(),
        epoll_data: EpollData::of_release(Release::new(26, 8)),
        source: LayoutSource::Table(Release::new(26, 8)),
        release: Release::new(26, 8),
    }
}

/// The g of goroutine `number`.
fn g(number: u64) -> u64 {
    ARRAY + 0x10_0000 * number
}

/// Sets `size` bytes at `address`.
fn set(words: &mut Words, address: u64, size: u32, value: u64) {
    let shift = 8 * (address % 8);
    let mask = if size == 8 { u64::MAX } else { ((1 << (8 * size)) - 1) << shift };
    let word = words.entry(address & !7).or_default();
    *word = *word & !mask | value << shift & mask;
}

/// Memory with goroutines 1 to `count`, all in IO wait for reading fd 10 + number, called by main.
fn io_waits(count: u64) -> Words {
    let Layout { offsets, .. } = layout();
    let mut words = Words::new();
    for (word, value) in [(0, ARRAY), (8, count), (16, count + 3)] {
        words.insert(BIAS + ALLGS + word, value);
    }
    for number in 1..=count {
        words.insert(ARRAY + 8 * (number - 1), g(number));
        words.extend((0..u64::from(offsets.g.size)).step_by(8).map(|at| (g(number) + at, 0)));
        let stack = g(number) + 0x8000;
        let poll_desc = POLL_DESC + 0x200 * number;
        for (offset, size, value) in [
            (offsets.g.goid, 8, 100 + number),
            (offsets.g.atomic_status, 4, 4),
            (offsets.g.wait_reason, 1, 2),
            (offsets.g.stack_lo, 8, stack - 0x1000),
            (offsets.g.stack_hi, 8, stack + 0x40),
            (offsets.g.sched_sp, 8, stack),
            (offsets.g.sched_pc, 8, BIAS + GOPARK + 5),
        ] {
            set(&mut words, g(number) + u64::from(offset), size, value);
        }
        // gopark's word and return address; those of runtime_pollWait; its first argument's home.
        for (word, value) in (0..).zip([7, BIAS + POLL_WAIT + 9, 8, BIAS + MAIN + 1, poll_desc, 0, 0, 0]) {
            words.insert(stack + 8 * word, value);
        }
        words.extend((0..u64::from(offsets.poll_desc.size)).step_by(8).map(|at| (poll_desc + at, 0)));
        for (offset, value) in [
            (offsets.poll_desc.fd, 10 + number),
            (offsets.poll_desc.fdseq.unwrap(), 3),
            (offsets.poll_desc.rg, g(number)),
            (offsets.poll_desc.rd, 5_000),
        ] {
            words.insert(poll_desc + u64::from(offset), value);
        }
    }
    words
}

/// A snapshot of `words`; `before_read` may change them before each read, and gets what is read.
fn take(
    words: Words,
    wanted: Wanted,
    before_read: impl FnMut(&mut Words, &[Range<u64>]) + 'static,
) -> Result<Snapshot, AllgsError> {
    let memory = Memory { words: RefCell::new(words), before_read: RefCell::new(Box::new(before_read)) };
    let layout = layout();
    let source = Source {
        memory: &memory,
        frames: &Functions,
        layout: &layout,
        load_bias: BIAS,
        allgs: ALLGS,
        poll_desc: FrameWord { function: POLL_WAIT, from_cfa_bytes: 0 },
    };
    source.snapshot(wanted)
}

fn still(_: &mut Words, _: &[Range<u64>]) {}

fn pcs(goroutine: &Goroutine) -> Vec<u64> {
    match &goroutine.stack {
        StackState::Walked(stack) => stack.frames.iter().map(|frame| frame.pc - BIAS).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn finds_what_each_goroutine_waits_for() {
    // More than one chunk.
    let snapshot = take(io_waits(150), Wanted::IoWaits, still).unwrap();
    assert_eq!(snapshot.counts, Counts { gs: 150, ..Counts::default() });
    assert_eq!(snapshot.goroutines.len(), 150);
    for (number, goroutine) in (1..).zip(&snapshot.goroutines) {
        assert_eq!((goroutine.g, goroutine.goid), (g(number), 100 + number));
        assert_eq!((goroutine.status, goroutine.wait_reason), (GStatus::Waiting, Some(2)));
        assert_eq!(pcs(goroutine), [GOPARK + 5, POLL_WAIT + 9, MAIN + 1]);
        let expected = PollWait {
            poll_desc: POLL_DESC + 0x200 * number,
            mode: PollMode::Read,
            fd: i32::try_from(10 + number).unwrap(),
            fdseq: Some(3),
            deadline_ns: Some(5_000),
            frame: 1,
        };
        assert_eq!(goroutine.poll, Some(expected));
    }
}

#[test]
fn tells_reading_from_writing() {
    let mut words = io_waits(1);
    let offsets = layout().offsets.poll_desc;
    let poll_desc = POLL_DESC + 0x200;
    words.insert(poll_desc + u64::from(offsets.rg), 0);
    words.insert(poll_desc + u64::from(offsets.wg), g(1));
    words.insert(poll_desc + u64::from(offsets.wd), u64::MAX);
    let poll = take(words, Wanted::All, still).unwrap().goroutines[0].poll.unwrap();
    assert_eq!((poll.mode, poll.deadline_ns), (PollMode::Write, None));
}

#[test]
fn sorts_goroutines_by_status() {
    let offsets = layout().offsets.g;
    let mut words = io_waits(6);
    // Running, dead, in a system call, waiting for a channel, runnable while its stack is scanned.
    for (number, status) in [(2, 2), (3, 6), (4, 3), (6, 0x1001)] {
        set(&mut words, g(number) + u64::from(offsets.atomic_status), 4, status);
    }
    set(&mut words, g(5) + u64::from(offsets.wait_reason), 1, 14);
    set(&mut words, g(5) + u64::from(offsets.wait_since), 8, 77);
    set(&mut words, g(4) + u64::from(offsets.syscall_pc), 8, BIAS + MAIN + 4);
    set(&mut words, g(4) + u64::from(offsets.syscall_sp), 8, g(4) + 0x8000);
    set(&mut words, g(4) + u64::from(offsets.m), 8, 0x6000);
    words.insert(0x6000 + u64::from(layout().offsets.m.syscall_tick & !7), 0);

    let waits = take(words.clone(), Wanted::IoWaits, still).unwrap();
    assert_eq!(waits.goroutines.iter().map(|goroutine| goroutine.goid).collect::<Vec<_>>(), [101]);
    let mut all = take(words.clone(), Wanted::All, still).unwrap();
    assert_eq!(all.counts, Counts { gs: 6, dead: 1, ..Counts::default() });
    all.goroutines.sort_by_key(|goroutine| goroutine.goid);
    let statuses: Vec<(u64, GStatus, Option<u8>)> = all
        .goroutines
        .iter()
        .map(|goroutine| (goroutine.goid, goroutine.status, goroutine.wait_reason))
        .collect();
    assert_eq!(
        statuses,
        [
            (101, GStatus::Waiting, Some(2)),
            (102, GStatus::Running, None),
            (104, GStatus::Syscall, None),
            (105, GStatus::Waiting, Some(14)),
            (106, GStatus::Runnable, None),
        ]
    );
    assert_eq!(all.goroutines[1].stack, StackState::Running);
    assert_eq!(pcs(&all.goroutines[2]), [MAIN + 4]);
    assert_eq!(all.goroutines[3].waiting_before_ns, Some(77));
}

#[test]
fn reads_a_goroutine_again_that_ran() {
    let tracking_seq = g(1) + u64::from(layout().offsets.g.tracking_seq);
    // It runs at the first read of its stack only.
    let mut stack_reads = 0;
    let snapshot = take(io_waits(2), Wanted::IoWaits, move |words, ranges| {
        if ranges.iter().any(|range| range.start == g(1) + 0x8000) {
            stack_reads += 1;
            if stack_reads == 1 {
                set(words, tracking_seq, 1, 9);
            }
        }
    })
    .unwrap();
    assert_eq!(snapshot.counts, Counts { gs: 2, ..Counts::default() });
    let mut found: Vec<(u64, u8)> =
        snapshot.goroutines.iter().map(|goroutine| (goroutine.goid, goroutine.tracking_seq)).collect();
    found.sort_unstable();
    assert_eq!(found, [(101, 9), (102, 0)]);
}

#[test]
fn calls_a_goroutine_moving_that_always_runs() {
    let tracking_seq = g(1) + u64::from(layout().offsets.g.tracking_seq);
    let mut runs = 0;
    let snapshot = take(io_waits(2), Wanted::IoWaits, move |words, _| {
        runs += 1;
        set(words, tracking_seq, 1, runs % 256);
    })
    .unwrap();
    assert_eq!(snapshot.counts, Counts { gs: 2, moving: 1, ..Counts::default() });
    let moving = snapshot.goroutines.iter().find(|goroutine| goroutine.goid == 101).unwrap();
    assert_eq!((&moving.stack, moving.poll), (&StackState::Moving, None));
}

#[test]
fn sees_system_calls_that_the_g_does_not_tell() {
    let Layout { offsets, .. } = layout();
    let mut words = io_waits(1);
    let m = 0x6000;
    let tick = m + u64::from(offsets.m.syscall_tick);
    for (offset, size, value) in [
        (offsets.g.atomic_status, 4, 3),
        (offsets.g.syscall_pc, 8, BIAS + GOPARK + 4),
        (offsets.g.syscall_sp, 8, g(1) + 0x8000),
        (offsets.g.m, 8, m),
    ] {
        set(&mut words, g(1) + u64::from(offset), size, value);
    }
    words.insert(tick & !7, 0);
    let quiet = take(words.clone(), Wanted::All, still).unwrap();
    assert_eq!((quiet.counts.moving, pcs(&quiet.goroutines[0]).len()), (0, 3));
    let mut calls = 0;
    let busy = take(words.clone(), Wanted::All, move |words, _| {
        calls += 1;
        set(words, tick, 4, calls);
    });
    assert_eq!(busy.unwrap().counts.moving, 1);
    // An M that cannot be read is no proof of quiet.
    words.remove(&(tick & !7));
    assert_eq!(take(words, Wanted::All, still).unwrap().counts.moving, 1);
}

#[test]
fn confirms_the_poll_desc() {
    let offsets = layout().offsets;
    let unconfirmed = |change: &dyn Fn(&mut Words)| {
        let mut words = io_waits(1);
        change(&mut words);
        let snapshot = take(words, Wanted::IoWaits, still).unwrap();
        assert_eq!((snapshot.goroutines.len(), snapshot.goroutines[0].poll), (1, None));
        snapshot.counts.unconfirmed
    };
    // Being woken (pdReady), another g, no pollDesc at all, an fd that is none.
    let rg = POLL_DESC + 0x200 + u64::from(offsets.poll_desc.rg);
    assert_eq!(unconfirmed(&|words| set(words, rg, 8, 1)), 1);
    assert_eq!(unconfirmed(&|words| set(words, rg, 8, g(2))), 1);
    assert_eq!(unconfirmed(&|words| set(words, g(1) + 0x8000 + 32, 8, 0x1_0000)), 1);
    assert_eq!(
        unconfirmed(&|words| set(words, POLL_DESC + 0x200 + u64::from(offsets.poll_desc.fd), 8, 1 << 40)),
        1
    );
    // A stack pointer that is in no stack: nothing can be said.
    let mut words = io_waits(1);
    set(&mut words, g(1) + u64::from(offsets.g.sched_sp), 8, 0x10);
    assert_eq!(take(words, Wanted::IoWaits, still).unwrap().counts.moving, 1);
}

#[test]
fn says_when_a_stack_is_incomplete() {
    let mut words = io_waits(1);
    // Main's return address leads nowhere known.
    set(&mut words, g(1) + 0x8000 + 24, 8, BIAS + 0x9000);
    let snapshot = take(words, Wanted::IoWaits, still).unwrap();
    assert_eq!(snapshot.counts.incomplete_stacks, 1);
    assert!(
        matches!(&snapshot.goroutines[0].stack, StackState::Walked(stack) if stack.end == WalkEnd::Broken)
    );
    assert!(snapshot.goroutines[0].poll.is_some());
}

#[test]
fn counts_what_it_cannot_read() {
    let mut words = io_waits(3);
    words.remove(&g(2));
    let snapshot = take(words, Wanted::IoWaits, still).unwrap();
    assert_eq!(snapshot.counts, Counts { gs: 3, unreadable: 1, ..Counts::default() });
    assert_eq!(snapshot.goroutines.len(), 2);
}

#[test]
fn reads_neighbours_one_by_one_when_the_gap_is_not_mapped() {
    let mut words = io_waits(2);
    // The second g right behind the first, with a hole between them.
    let near = g(1) + 0x800;
    let moved: Vec<(u64, u64)> =
        words.range(g(2)..g(2) + 0x800).map(|(at, word)| (at - g(2) + near, *word)).collect();
    words.extend(moved);
    words.insert(ARRAY + 8, near);
    words.insert(POLL_DESC + 0x400 + u64::from(layout().offsets.poll_desc.rg), near);
    let snapshot = take(words, Wanted::IoWaits, still).unwrap();
    assert_eq!(snapshot.counts, Counts { gs: 2, ..Counts::default() });
    assert_eq!(snapshot.goroutines.iter().filter(|goroutine| goroutine.poll.is_some()).count(), 2);
}

#[test]
fn survives_an_array_that_moves_once() {
    let mut words = io_waits(2);
    let moved: Vec<(u64, u64)> = (0..2).map(|index| (ARRAY + 0x8000 + 8 * index, g(index + 1))).collect();
    words.extend(moved);
    let mut reads = 0;
    let snapshot = take(words, Wanted::IoWaits, move |words, _| {
        reads += 1;
        if reads == 2 {
            words.insert(BIAS + ALLGS, ARRAY + 0x8000);
        }
    });
    assert_eq!(snapshot.unwrap().goroutines.len(), 2);
    let mut reads = 0;
    let always = take(io_waits(2), Wanted::IoWaits, move |words, _| {
        reads += 8;
        words.insert(BIAS + ALLGS, ARRAY + reads);
    });
    assert!(matches!(always, Err(AllgsError::Moved)));
}

#[test]
fn refuses_what_is_no_slice() {
    for header in [[0, 1, 1], [ARRAY, 0, 0], [ARRAY, 4, 3], [ARRAY + 1, 2, 2], [ARRAY, u64::MAX, u64::MAX]] {
        let mut words = io_waits(2);
        words.extend((0..).map(|word| BIAS + ALLGS + 8 * word).zip(header));
        assert!(matches!(take(words, Wanted::All, still), Err(AllgsError::NoSlice { .. })), "{header:x?}");
    }
    assert!(matches!(take(Words::new(), Wanted::All, still), Err(AllgsError::NotMapped { .. })));
}
