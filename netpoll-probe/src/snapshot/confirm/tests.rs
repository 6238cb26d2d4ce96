//! Confirming over a memory made of words, laid out by offsets that are or are not the candidate's.

use std::{collections::BTreeMap, ops::Range};

use super::{Confirmed, Finding, Refused, Target, Verdict, confirm, evidence::Cases};
use crate::{
    goruntime::{
        candidate::candidates,
        epoll_data::EpollData,
        layout::{LayoutSource, from_table},
        offsets::Offsets,
        version::{GoVersion, Release},
    },
    snapshot::{
        confirm::ConfirmError,
        unwind::{FrameLayout, FrameTable, FrameWord},
    },
    target::{
        error::Error as TargetError,
        fds::FdTarget,
        memory::{Pieces, ReadMemory},
    },
};

const BIAS: u64 = 0x5555_0000_0000;
const ALLGS: u64 = 0xa0_0000;
const ALLP: u64 = 0xa0_1000;
const SCHED: u64 = 0xa0_2000;
const ARRAY: u64 = 0xc000_0000;
const PS: u64 = 0xb000_0000;
const MS: u64 = 0xb100_0000;
const POLL_DESCS: u64 = 0x7f00_0000_0000;

const GOPARK: u64 = 0x1000;
const POLL_WAIT: u64 = 0x2000;
const WORKER: u64 = 0x3000;
const GOEXIT: u64 = 0x4000;

/// Goroutines that wait.
const WAITERS: u64 = 12;

/// All have a frame of one word.
struct Functions;

impl FrameTable for Functions {
    fn frame(&self, pc: u64) -> Option<FrameLayout> {
        let function = pc & !0xfff;
        [GOPARK, POLL_WAIT, WORKER, GOEXIT].contains(&function).then_some(FrameLayout {
            function,
            size_bytes: 8,
            is_top: function == GOEXIT,
            writes_sp: false,
            is_trap: false,
            saves_link: false,
        })
    }
}

#[derive(Default)]
struct Words(BTreeMap<u64, u64>);

impl Words {
    /// Zeros.
    fn room(&mut self, address: u64, size_bytes: u64) {
        for at in (0..size_bytes).step_by(8) {
            self.0.insert(address + at, 0);
        }
    }

    /// `size` bytes at `address`.
    fn set(&mut self, address: u64, size: u32, value: u64) {
        let shift = 8 * (address % 8);
        let mask = if size == 8 { u64::MAX } else { ((1 << (8 * size)) - 1) << shift };
        let word = self.0.entry(address & !7).or_default();
        *word = *word & !mask | value << shift & mask;
    }

    fn slice(&mut self, address: u64, array: u64, values: &[u64]) {
        let length = values.len() as u64;
        for (at, value) in [(0, array), (8, length), (16, length)] {
            self.set(BIAS + address + at, 8, value);
        }
        for (index, value) in values.iter().enumerate() {
            self.set(array + 8 * index as u64, 8, *value);
        }
    }
}

impl ReadMemory for Words {
    fn read_many(&self, ranges: &[Range<u64>]) -> Result<Pieces, TargetError> {
        let mut pieces = Pieces::for_ranges(ranges);
        for (index, range) in ranges.iter().enumerate() {
            let words = (range.start & !7..range.end).step_by(8).map(|at| self.0.get(&at));
            let words: Option<Vec<[u8; 8]>> = words.map(|word| Some(word?.to_le_bytes())).collect();
            if let Some(words) = words {
                let skip = usize::try_from(range.start % 8).unwrap();
                let length = usize::try_from(range.end - range.start).unwrap();
                pieces.set(index, &words.concat()[skip..skip + length]);
            }
        }
        Ok(pieces)
    }
}

fn g(number: u64) -> u64 {
    ARRAY + 0x1_0000 * number
}

/// A process with goroutines that wait for fds 11 and following, every fourth for writing, with one that runs if `busy`, and an idle M.
fn process(real: &Offsets, busy: bool) -> Words {
    let mut words = Words::default();
    let (count, running) = if busy { (WAITERS + 1, WAITERS + 1) } else { (WAITERS, 0) };
    let all: Vec<u64> = (1..=count).map(g).collect();
    words.slice(ALLGS, ARRAY, &all);
    for number in 1..=count {
        let (own, lo) = (g(number), g(number) + 0x8000);
        let (hi, sp) = (lo + 0x1000, lo + 0x1000 - 0x40);
        words.room(own, 0x400);
        words.room(lo, 0x1000);
        let offsets = real.g;
        for (offset, size, value) in [
            (offsets.stack_lo, 8, lo),
            (offsets.stack_hi, 8, hi),
            (offsets.sched_sp, 8, sp),
            (offsets.sched_pc, 8, BIAS + GOPARK + 9),
            (offsets.sched_bp, 8, sp + 8),
            (offsets.atomic_status, 4, if number == running { 2 } else { 4 }),
            (offsets.goid, 8, number),
            (offsets.wait_reason, 1, 2),
            (offsets.tracking_seq, 1, 37 * number % 256),
            (offsets.gopc, 8, BIAS + WORKER + 0x50),
            (offsets.start_pc, 8, BIAS + WORKER),
            (offsets.m, 8, if number == running { MS } else { 0 }),
        ] {
            words.set(own + u64::from(offset), size, value);
        }
        let poll_desc = POLL_DESCS + 0x200 * number;
        for (at, value) in [
            (8, BIAS + POLL_WAIT + 9),
            (24, BIAS + WORKER + 9),
            // The first word above the frame of runtime_pollWait: its argument.
            (32, poll_desc),
            (40, BIAS + GOEXIT + 1),
        ] {
            words.set(sp + at, 8, value);
        }
        words.room(poll_desc, 0x200);
        let offsets = real.poll_desc;
        let (rg, wg) = if number % 4 == 0 { (0, own) } else { (own, 1) };
        for (offset, size, value) in [
            (offsets.fd, 8, 10 + number),
            (offsets.fdseq.unwrap(), 8, number),
            (offsets.atomic_info, 4, number << 16),
            (offsets.rg, 8, rg),
            (offsets.wg, 8, wg),
        ] {
            words.set(poll_desc + u64::from(offset), size, value);
        }
    }
    for (index, m) in [MS, MS + 0x1_0000].into_iter().enumerate() {
        words.room(m, 0x400);
        words.room(m + 0x8000, 0x400);
        words.set(m + u64::from(real.m.g0), 8, m + 0x8000);
        words.set(m + 0x8000 + u64::from(real.g.m), 8, m);
        words.set(m + u64::from(real.m.procid), 8, 500 + index as u64);
        let holds = busy && index == 0;
        words.set(m + u64::from(real.m.curg), 8, if holds { g(running) } else { 0 });
        words.set(m + u64::from(real.m.p), 8, if holds { PS } else { 0 });
    }
    words.slice(ALLP, PS + 0x8000, &[PS, PS + 0x1000]);
    for (index, p) in [PS, PS + 0x1000].into_iter().enumerate() {
        words.room(p, 0x400);
        let holds = busy && index == 0;
        words.set(p + u64::from(real.p.id), 4, index as u64);
        words.set(p + u64::from(real.p.status), 4, holds.into());
        words.set(p + u64::from(real.p.sched_tick), 4, 1000);
        words.set(p + u64::from(real.p.m), 8, if holds { MS } else { 0 });
    }
    words.room(BIAS + SCHED, 0x100);
    words.set(BIAS + SCHED + 40, 8, MS + 0x1_0000);
    words
}

fn look(memory: &Words) -> Result<Confirmed, Refused> {
    let fds: Vec<(u32, FdTarget)> =
        (11..=10 + 13).map(|fd| (fd, FdTarget::Socket { inode: fd.into() })).collect();
    let target = Target {
        memory,
        frames: &Functions,
        load_bias: BIAS,
        allgs: ALLGS,
        allp: ALLP,
        sched: SCHED,
        poll_desc: FrameWord { function: POLL_WAIT, from_cfa_bytes: 0 },
        fds: &fds,
        threads: &[500, 501],
        now_ns: 1_000_000_000_000,
    };
    let unpacks = EpollData::of_release(Release::new(27, 4));
    let candidates = candidates(&GoVersion::parse("go1.99.8").unwrap(), Some(unpacks)).unwrap();
    let [candidate] = candidates.as_slice() else { panic!("{candidates:?}") };
    match confirm(candidate, &target) {
        Ok(confirmed) => Ok(confirmed),
        Err(ConfirmError::Refused(refused)) => Err(refused),
        Err(error) => panic!("{error}"),
    }
}

fn newest() -> Offsets {
    from_table(&GoVersion::parse("go1.27.4").unwrap()).unwrap()
}

fn against(memory: &Words) -> Vec<Finding> {
    look(memory).unwrap_err().against
}

#[test]
fn confirms_what_is_so() {
    let confirmed = look(&process(&newest(), true)).unwrap();
    assert_eq!(confirmed.layout.offsets, newest());
    assert_eq!(confirmed.layout.source, LayoutSource::Confirmed(Release::new(27, 4)));
    assert_eq!(confirmed.layout.release, Release::new(99, 8));
    // Also what is not required but there.
    for field in ["m.curg", "m.procid", "p.id", "p.m", "g.startpc", "g.gopc", "g.trackingSeq", "g.size"] {
        let seen = confirmed
            .findings
            .iter()
            .any(|finding| finding.field == field && matches!(finding.verdict, Verdict::Confirmed { .. }));
        assert!(seen, "{field}: {:#?}", confirmed.findings);
    }
}

#[test]
fn refuses_each_field_that_is_elsewhere() {
    type Move = fn(&mut Offsets);
    let moves: [(&str, Move); 16] = [
        ("g.goid", |o| o.g.goid = 400),
        ("g.atomicstatus", |o| o.g.atomic_status = 400),
        ("g.waitreason", |o| o.g.wait_reason = 400),
        ("g.stack.lo", |o| o.g.stack_lo = 400),
        ("g.stack.hi", |o| o.g.stack_hi = 400),
        ("g.sched.sp", |o| o.g.sched_sp = 400),
        ("g.sched.pc", |o| o.g.sched_pc = 400),
        ("g.m", |o| o.g.m = 400),
        ("m.g0", |o| o.m.g0 = 0x300),
        ("m.p", |o| o.m.p = 0x300),
        ("p.schedtick", |o| o.p.sched_tick = 0x200),
        ("pollDesc.fd", |o| o.poll_desc.fd = 200),
        ("pollDesc.fdseq", |o| o.poll_desc.fdseq = Some(200)),
        ("pollDesc.atomicInfo", |o| o.poll_desc.atomic_info = 200),
        ("pollDesc.rg", |o| o.poll_desc.rg = 200),
        ("pollDesc.wg", |o| o.poll_desc.wg = 200),
    ];
    for (field, change) in moves {
        let mut real = newest();
        change(&mut real);
        let against = against(&process(&real, true));
        assert!(against.iter().any(|finding| finding.field == field), "{field}: {against:#?}");
    }
}

#[test]
fn names_the_offset_of_another_release() {
    let real = from_table(&GoVersion::parse("go1.24.13").unwrap()).unwrap();
    let refused = look(&process(&real, true)).unwrap_err();
    assert!(!refused.may_be_confirmed_later());
    let text = refused.to_string();
    assert!(
        text.starts_with("the offsets of go1.99.8 are not known, and those of go1.27.4 are not"),
        "{text}"
    );
    assert!(text.contains("g.goid at 152 is wrong: allgs[0] is goroutine 1, but it is 4 (1 of 1)"), "{text}");
}

#[test]
fn does_not_believe_what_it_does_not_see() {
    let refused = look(&process(&newest(), false)).unwrap_err();
    assert!(refused.may_be_confirmed_later());
    let fields: Vec<&str> = refused.against.iter().map(|finding| finding.field).collect();
    // The idle M alone tells of g.m and m.g0.
    assert_eq!(fields, ["m.p"]);
}

#[test]
fn refuses_fds_that_are_not_open() {
    let mut memory = process(&newest(), true);
    for number in 1..=WAITERS {
        let fd = POLL_DESCS + 0x200 * number + u64::from(newest().poll_desc.fd);
        memory.set(fd, 8, 3);
    }
    let against = against(&memory);
    assert_eq!(against.iter().map(|finding| finding.field).collect::<Vec<_>>(), ["pollDesc.fd"]);
}

#[test]
fn a_few_of_many_may_run_meanwhile() {
    let verdict = |wrong: usize, right: usize| {
        let mut cases = Cases::required("g.goid", 8, "it holds");
        (0..wrong).for_each(|_| cases.see(false, true, || "it does not".to_owned()));
        (0..right).for_each(|_| cases.see(true, true, String::new));
        cases.finding().verdict
    };
    assert_eq!(verdict(0, 0), Verdict::Unconfirmed);
    assert_eq!(verdict(1, 9), Verdict::Confirmed { cases: 9 });
    assert_eq!(verdict(1, 8), Verdict::Contradicted { wrong: 1, of: 9, found: "it does not".to_owned() });
}
