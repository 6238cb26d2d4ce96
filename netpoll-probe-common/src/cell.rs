//! Waits that are added up in the kernel, so that none of them needs a record.
//!
//! User space opens the cells. It learns from a record what a stack is called and whom an fd leads to, and says to which cell the waits
//! belong that are like this one ([`CellKey`]); the programs add those to it. What is not like any before still comes as a record, and so
//! does what is out of the ordinary: a wait that did not end as ready, whose clocks are not all known or not in order, that took
//! [`LONG_NS`] or more, or any part of which was longer or shorter than in all waits of its cell before. So the longest wait is always
//! there with all that is known of it, and nothing has to be remembered of the others but how many they were.

use crate::{
    histogram::bucket_of,
    record::{flag, outcome, source},
    slot::TCP_SYN_SENT,
};

/// A wait of a second or more always comes as a record: such are few, and those that people look for.
pub const LONG_NS: u64 = 1 << 30;

/// Buckets of all shorter ones.
pub const BUCKETS: usize = bucket_of(LONG_NS - 1) as usize + 1;

/// The parts of a wait that are counted, each in a histogram: [`part`].
pub const PARTS: usize = 5;

/// The parts of a wait.
pub mod part {
    /// All of it, but for an idle beginning.
    pub const DURATION: usize = 0;
    /// Until the kernel made the fd ready, but for an idle beginning; where that is not known ([`super::kind::READY_UNKNOWN`]), until the
    /// poller collected the event.
    pub const FIRST: usize = 1;
    /// From then until the poller collected the event; 0 where that is not known.
    pub const PICKUP: usize = 2;
    /// From then until the goroutine ran.
    pub const QUEUE: usize = 3;
    /// The last two together.
    pub const AFTER_READY: usize = 4;
}

/// Bits of [`CellKey::kind`].
pub mod kind {
    /// It waits to write.
    pub const WRITE: u32 = 1;
    /// When the kernel made the fd ready is not known.
    pub const READY_UNKNOWN: u32 = 2;
    /// Nothing was sent since the last wait to read, nor in this one.
    pub const NOT_ASKED: u32 = 4;
    /// Nothing was sent since the last wait to read, but in this one something was.
    pub const ASKED_MEANWHILE: u32 = 8;
}

/// What the waits of an entry of the map `CELLS` have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct CellKey {
    /// Their stack.
    pub stack_hash: u64,
    /// The file's inode: an fd's number is used again.
    pub inode: u64,
    /// The process, in the initial PID namespace.
    pub tgid: u32,
    /// The fd.
    pub fd: i32,
    /// [`kind`]
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where they are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct CellEntry {
    /// The index in the maps `CELL_SUMS` and `CELL_HISTOGRAMS`.
    pub cell: u32,
    /// 1: the goroutine reads answers, so what came before it asked is idle ([`kind::ASKED_MEANWHILE`]).
    pub reads_answers: u32,
}

/// The waits of one cell on one CPU, added up. A wait that stands for several counts as often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct CellSums {
    /// How many waits were followed.
    pub followed: u64,
    /// For how many they stand.
    pub count: u64,
    /// Of [`part::FIRST`], [`part::PICKUP`] and [`part::QUEUE`], which add up to the others, ns.
    pub sums_ns: [u64; 3],
    /// No part was longer, of those that came as records neither.
    pub most_ns: [u32; PARTS],
    /// No part was shorter; with all bits turned over, so that zero is none yet.
    pub inverse_least_ns: [u32; PARTS],
    /// How `kernel_ready_ns` is known, and who collected the event: how many by [`source`] and [`crate::record::poller`].
    pub known_by: [[u32; POLLERS]; SOURCES],
    /// Waits with an idle beginning.
    pub idle_beginnings: u64,
    /// The idle beginnings together, ns.
    pub idle_beginnings_ns: u64,
    /// Waits that were woken for nothing.
    pub spurious: u64,
}

/// Codes of [`source`] and [`crate::record::poller`] that there are.
pub const SOURCES: usize = 8;
/// Likewise.
pub const POLLERS: usize = 4;

/// How many waits of one cell on one CPU fell into each bucket, by part.
pub type CellHistograms = [[u32; BUCKETS]; PARTS];

/// The most waits that a cell takes on one CPU: the next could overflow a bucket, and comes as a record.
pub const CELL_COUNT_MAX: u64 = u32::MAX as u64 - 0xffff;

/// A wait that has ended, as far as it matters here. The names are those of [`crate::record::WaitRecord`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "they are explained there")]
pub struct Ended {
    pub start_ns: u64,
    pub kernel_ready_ns: u64,
    pub poll_ns: u64,
    pub last_poll_ns: u64,
    pub end_ns: u64,
    pub sent_ns: u64,
    pub socket_state: u32,
    pub flags: u16,
    pub mode: u8,
    pub outcome: u8,
    pub kernel_ready_source: u8,
}

/// An ordinary wait, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// [`kind`]
    pub kind: u32,
    /// [`part`]
    pub parts_ns: [u32; PARTS],
    /// How `kernel_ready_ns` is known: [`source`].
    pub source: u8,
    /// What had gone by before something was sent, ns: idle, if an answer is read.
    pub before_asked_ns: u32,
}

impl Split {
    /// Takes a wait apart; `None`: it is out of the ordinary. By the rules of user space (`correlate/clocks.rs`), where a test holds
    /// the two together.
    #[inline(always)]
    #[must_use]
    pub const fn of(ended: &Ended) -> Option<Self> {
        let &Ended { start_ns, end_ns, flags, mode, .. } = ended;
        let is_write = mode == b'w';
        if ended.outcome != outcome::READY
            || flags & (flag::STARTED_BEFORE | flag::AFTER_REARM) != 0
            || is_write && (flags & flag::FIRST_EVENT != 0 || ended.socket_state == TCP_SYN_SENT)
            || end_ns < start_ns
            || end_ns - start_ns >= LONG_NS
        {
            return None;
        }
        let (mut ready_ns, mut poll_ns, mut source) =
            (ended.kernel_ready_ns, ended.poll_ns, ended.kernel_ready_source);
        let collected_before =
            poll_ns == 0 && ready_ns == 0 && ended.last_poll_ns != 0 && ended.last_poll_ns <= start_ns;
        if flags & flag::READY_AT_START != 0 || collected_before {
            (ready_ns, poll_ns, source) = (start_ns, start_ns, source::BEFORE_PARK);
        }
        let is_unknown = ready_ns == 0;
        let first_end_ns = if is_unknown { poll_ns } else { ready_ns };
        if first_end_ns < start_ns || poll_ns < first_end_ns || end_ns < poll_ns {
            return None;
        }
        let mut kind = if is_write { kind::WRITE } else { 0 };
        if is_unknown {
            kind |= kind::READY_UNKNOWN;
            source = source::NONE;
        }
        let mut before_asked_ns = 0;
        if flags & flag::SENT_BEFORE == 0 {
            if ended.sent_ns == 0 {
                kind |= kind::NOT_ASKED;
            } else {
                kind |= kind::ASKED_MEANWHILE;
                let asked_ns = if ended.sent_ns < first_end_ns { ended.sent_ns } else { first_end_ns };
                if !is_unknown && asked_ns > start_ns {
                    before_asked_ns = (asked_ns - start_ns) as u32;
                }
            }
        }
        // All less than LONG_NS.
        let (duration_ns, first_ns) = ((end_ns - start_ns) as u32, (first_end_ns - start_ns) as u32);
        let (pickup_ns, queue_ns) = ((poll_ns - first_end_ns) as u32, (end_ns - poll_ns) as u32);
        Some(Self {
            kind,
            parts_ns: [duration_ns, first_ns, pickup_ns, queue_ns, pickup_ns + queue_ns],
            source,
            before_asked_ns,
        })
    }

    /// Without what had gone by before something was sent.
    #[inline(always)]
    #[must_use]
    pub const fn without_idle_beginning(mut self) -> Self {
        self.parts_ns[part::DURATION] -= self.before_asked_ns;
        self.parts_ns[part::FIRST] -= self.before_asked_ns;
        self
    }
}
