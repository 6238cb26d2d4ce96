//! When a stamp counts.
//!
//! The programs stamp the first readiness after the start of a wait and drop it again when the item is collected for
//! the other direction. What is left to judge needs the outcome:
//!
//! | seen | rule |
//! |---|---|
//! | the wait did not end as ready | no stamp counts: it belongs to something else |
//! | `rg`/`wg` was ready at the start | collected before the park: kernel-ready and poll are the start |
//! | an earlier event, none in the wait | likewise: it was collected between the last I/O and the start |
//! | neither, and it ended at once | ready before the park; when it was collected is not known |
//! | first event of the fd, and the connect was done at the start | ready when the fd was registered: before the park |
//! | a stamp outside `[start, poll]` | clamped, and counted |

use netpoll_probe_common::{
    record::{WaitRecord, flag, source},
    slot::{FileFacts, TCP_SYN_SENT, WaitSlot},
};

use super::endpoint::{AF_INET, AF_INET6};
use crate::model::wait::{Clocks, KernelReadySource, Mode, Outcome};

/// `sysmon` polls when nobody did for 10 ms (`runtime/proc.go`, `sysmon`), so a wait that is longer than this and ended
/// as ready was collected within: if no poll was seen, one was missed.
const AT_ONCE_NS: u64 = 10_000_000;

/// A record's clocks, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// In order: start ≤ kernel-ready ≤ poll ≤ end.
    pub clocks: Clocks,
    /// How many stamps had to be moved for that.
    pub clamped: u32,
}

/// Applies the rules to one record, of a wait on `file`.
#[must_use]
pub fn judge(record: &WaitRecord, file: &FileFacts, mode: Mode, outcome: Outcome) -> Judged {
    let (start_ns, end_ns) = (record.start_ns, record.end_ns.max(record.start_ns));
    let mut clamped = u32::from(record.end_ns < record.start_ns);
    let mut clocks = Clocks {
        start_ns,
        kernel_ready_ns: None,
        kernel_ready_source: KernelReadySource::None,
        kernel_ready_after_ns: None,
        poll_ns: None,
        end_ns,
    };
    let poll_ns = some(record.poll_ns);
    let collected = outcome == Outcome::Ready || (outcome == Outcome::Error && poll_ns.is_some());
    if !collected {
        return Judged { clocks, clamped };
    }
    let mut clamp = |at_ns: u64, low_ns: u64, high_ns: u64| {
        clamped += u32::from(at_ns < low_ns || at_ns > high_ns);
        at_ns.max(low_ns).min(high_ns)
    };
    clocks.poll_ns = poll_ns.map(|at_ns| clamp(at_ns, start_ns, end_ns));
    let before_park = |clocks: &mut Clocks| {
        clocks.kernel_ready_ns = Some(start_ns);
        clocks.kernel_ready_source = KernelReadySource::BeforePark;
    };
    let connected_at_start = matches!(file.family, AF_INET | AF_INET6) && record.socket_state != TCP_SYN_SENT;
    if record.flags & flag::READY_AT_START != 0 {
        before_park(&mut clocks);
        clocks.poll_ns = Some(start_ns);
    } else if let Some(ready_ns) = some(record.kernel_ready_ns) {
        clocks.kernel_ready_ns = Some(clamp(ready_ns, start_ns, clocks.poll_ns.unwrap_or(end_ns)));
        clocks.kernel_ready_source = source_of(record.kernel_ready_source);
    } else if poll_ns.is_none() && record.flags & (flag::STARTED_BEFORE | flag::AFTER_REARM) == 0 {
        if some(record.last_poll_ns).is_some_and(|at_ns| at_ns <= start_ns) {
            before_park(&mut clocks);
            clocks.poll_ns = Some(start_ns);
        } else if clocks.duration_ns() < AT_ONCE_NS {
            before_park(&mut clocks);
        }
    } else if record.flags & flag::FIRST_EVENT != 0 && mode == Mode::Write && connected_at_start {
        before_park(&mut clocks);
    } else {
        clocks.kernel_ready_after_ns = some(record.kernel_ready_after_ns)
            .map(|at_ns| at_ns.max(start_ns))
            .filter(|at_ns| clocks.poll_ns.is_none_or(|poll_ns| *at_ns <= poll_ns));
    }
    Judged { clocks, clamped }
}

/// The clocks of a wait that is still open.
#[must_use]
pub fn of_open(slot: &WaitSlot, end_ns: u64) -> Clocks {
    let poll_ns = some(slot.poll_ns).filter(|at_ns| (slot.start_ns..=end_ns).contains(at_ns));
    let latest_ns = poll_ns.unwrap_or(end_ns);
    let kernel_ready_ns =
        some(slot.kernel_ready_ns).filter(|at_ns| (slot.start_ns..=latest_ns).contains(at_ns));
    Clocks {
        start_ns: slot.start_ns,
        kernel_ready_ns,
        kernel_ready_source: if kernel_ready_ns.is_some() {
            source_of(slot.kernel_ready_source)
        } else {
            KernelReadySource::None
        },
        kernel_ready_after_ns: None,
        poll_ns,
        end_ns,
    }
}

fn some(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

pub(super) fn source_of(code: u8) -> KernelReadySource {
    match code {
        source::CALLBACK => KernelReadySource::Callback,
        source::DATA_READY => KernelReadySource::DataReady,
        source::STATE_CHANGE => KernelReadySource::StateChange,
        source::RESET => KernelReadySource::Reset,
        source::WRITE_ESTIMATE => KernelReadySource::WriteEstimate,
        source::POLLER_WAKEUP => KernelReadySource::PollerWakeup,
        source::BEFORE_PARK => KernelReadySource::BeforePark,
        _ => KernelReadySource::None,
    }
}
