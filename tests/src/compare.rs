//! The probe's records against the truth, wait by wait.
//!
//! A record belongs to the call of its goroutine that contains it. A goroutine makes one call at a time, so there is
//! never a choice, and a record that no call contains is a wait that did not happen.
//!
//! Long because it is one list of checks over the same pairs.

use std::collections::HashMap;

use crate::{
    check::{Spread, Tally, Verdict},
    kernel_ready::{self, ReadyHooks},
    probe::Window,
    record::{Mode, Outcome, Poller, Record, Source},
    truth::{Call, Op},
};

/// What is demanded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Share of the program's certain waits that must be found.
    pub found: f64,
    /// Share of outcomes that must be right.
    pub outcome: f64,
    /// Share of fds, kinds, roles, addresses, stacks that must be right.
    pub facts: f64,
    /// How much longer an exact wait may be in the program's log than in the record, at the median and at p99, ns.
    ///
    /// Between the two clocks on one side there are only the way out of the callback that saw EAGAIN through `waitRead`
    /// to the first probe, or from the second probe back into the callback, and one uprobe hit (0.5 to 0.8 µs when
    /// emulated, where measured): 2.5 µs in all at the median here. What is left is the machine. A thread that loses its
    /// CPU just there makes an error of milliseconds, but the window is so short that this stays far below 1 of 100:
    /// p99 was 10 to 66 µs on two CPUs with several other loads, without the probe 2.5 µs.
    pub error_p50_ns: i64,
    /// See `error_p50_ns`.
    pub error_p99_ns: i64,
    /// The same for whole calls of `Read` and `Accept`, which contain two system calls more, and so a window ten times
    /// as long: 5.4 µs at the median here, 0.15 to 2.1 ms at p99.
    pub call_p50_ns: i64,
    /// See `call_p50_ns`.
    pub call_p99_ns: i64,
    /// How long after the peer's clock (read before its system call) the kernel may have made the fd ready, at the
    /// median, ns.
    pub kernel_ready_p50_ns: i64,
    /// Share of spurious wake-ups that must be flagged; 0: there need be none. The probe flags when the goroutine ran on the same P all the
    /// time and made one system call, so a preemption between loses one.
    pub spurious: f64,
    /// Share of estimated kernel-ready clocks that must not lie before the peer acted. An estimate may be wrong: a poller that
    /// was woken for one event, which another thread collected, may find a later one on its way back to sleep.
    pub estimates: f64,
    /// Share of deadlines that fired and were moved that must have two records. Not 99.9 %: when the woken reader runs so
    /// late that the reply is there too, it never waits a second time.
    pub rearmed: f64,
    /// Records may be missing as long as the summary counts them: for overload. Otherwise a loss is a failure.
    pub losses_allowed: bool,
}

impl Bounds {
    /// What is demanded of the default build on a machine that has time.
    pub const DEFAULT: Self = Self {
        found: 0.999,
        outcome: 0.999,
        facts: 0.999,
        error_p50_ns: 10_000,
        error_p99_ns: 250_000,
        call_p50_ns: 25_000,
        call_p99_ns: 5_000_000,
        kernel_ready_p50_ns: 100_000,
        spurious: 0.9,
        estimates: 0.95,
        rearmed: 0.99,
        losses_allowed: false,
    };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// In which goroutines wait, and what calls it.
const POLL_WAIT: &str = "internal/poll.runtime_pollWait";
const WAITS: [&str; 3] = [POLL_WAIT, "internal/poll.(*pollDesc).", "internal/poll.(*FD).WaitWrite"];

/// A call and the records in it.
pub(crate) struct Matched<'a> {
    pub(crate) call: &'a Call,
    pub(crate) records: Vec<&'a Record>,
}

/// Compares a whole recording: how it tells when the kernel made an fd ready, and how much longer than a call its waits may be on either
/// side.
#[must_use]
pub fn compare(
    calls: &[Call],
    records: &[Record],
    window: Window,
    (hooks, around_ns): (ReadyHooks, u64),
    bounds: &Bounds,
) -> Verdict {
    let mut verdict = Verdict::default();
    let (matched, without_call) = assign(calls, records, around_ns);

    let mut real = Tally::default();
    real.total = records.len();
    real.right = records.len();
    for record in &without_call {
        real.total -= 1;
        real.right -= 1;
        real.case(false, || format!("no call contains {}", describe(record)));
    }
    verdict.add_share("no wait that did not happen", 1.0, &real);

    let inside: Vec<&Matched> = matched
        .iter()
        .filter(|m| m.call.before_ns >= window.recording_ns && m.call.after_ns <= window.interrupt_ns)
        .collect();
    found(&mut verdict, &inside, bounds);
    outcomes(&mut verdict, &inside, bounds);
    facts(&mut verdict, &matched, bounds);
    stacks(&mut verdict, &matched, bounds);
    clocks(&mut verdict, records);
    errors(&mut verdict, &inside, bounds);
    kernel_ready::judge(&mut verdict, &inside, hooks, bounds);
    edges(&mut verdict, &matched, window);
    verdict
}

/// Gives each record to the call of its goroutine that contains it, or would if it began `around_ns` earlier and ended as much later: of
/// two such calls, the one that it has more of.
fn assign<'a>(
    calls: &'a [Call],
    records: &'a [Record],
    around_ns: u64,
) -> (Vec<Matched<'a>>, Vec<&'a Record>) {
    let mut matched: Vec<Matched> = calls.iter().map(|call| Matched { call, records: Vec::new() }).collect();
    matched.sort_by_key(|m| (m.call.goid, m.call.before_ns));
    let mut without_call = Vec::new();
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.start_ns);
    for record in sorted {
        let after =
            matched.partition_point(|m| (m.call.goid, m.call.before_ns) <= (record.goid, record.start_ns));
        let contains = |m: &Matched| {
            m.call.goid == record.goid
                && m.call.before_ns <= record.start_ns + around_ns
                && record.end_ns <= m.call.after_ns + around_ns
        };
        let common_ns =
            |m: &Matched| span(record.start_ns.max(m.call.before_ns), record.end_ns.min(m.call.after_ns));
        let candidates = [after.checked_sub(1), Some(after)].into_iter().flatten();
        let found = candidates
            .filter(|index| matched.get(*index).is_some_and(contains))
            .max_by_key(|index| matched.get(*index).map(common_ns));
        match found.and_then(|index| matched.get_mut(index)) {
            Some(m) => m.records.push(record),
            None => without_call.push(record),
        }
    }
    (matched, without_call)
}

fn found(verdict: &mut Verdict, inside: &[&Matched], bounds: &Bounds) {
    let mut all = Tally::default();
    let mut of_scenario: HashMap<&str, (usize, usize)> = HashMap::new();
    let mut one_each = Tally::default();
    for Matched { call, records } in inside {
        let ended = records.iter().filter(|record| record.outcome != Outcome::Rearmed).count();
        if call.expect_wait {
            all.case(ended > 0, || format!("not found: {}", call.name()));
            let (found, expected) = of_scenario.entry(&call.scenario).or_default();
            *found += usize::from(ended > 0);
            *expected += 1;
        }
        if call.exact && ended > 0 {
            one_each.case(ended == 1, || format!("{ended} records of one wait: {}", call.name()));
        }
    }
    verdict.add_share("waits found", bounds.found, &all);
    verdict.add_share("one record for one wait", bounds.found, &one_each);
    let mut poor: Vec<String> = of_scenario
        .iter()
        .filter(|(_, (found, expected))| *found == 0 || (found + 1) * 20 < expected * 19)
        .map(|(scenario, (found, expected))| format!("{scenario} {found} of {expected}"))
        .collect();
    poor.sort();
    verdict.add(
        "no kind of wait is missed",
        poor.is_empty() && !of_scenario.is_empty(),
        format!("{} scenarios, 95 % of each but for one; below: {poor:?}", of_scenario.len()),
    );
}

fn outcomes(verdict: &mut Verdict, inside: &[&Matched], bounds: &Bounds) {
    let mut outcome = Tally::default();
    let mut rearmed = Tally::default();
    let mut spurious = Tally::default();
    let mut not_spurious = Tally::default();
    for Matched { call, records } in inside {
        let Some((last, earlier)) = records.split_last() else { continue };
        // A write tries again after each wait, and may meet the deadline or the close there, without a wait. Then its last
        // wait ended because the fd was collected. (Exact waits have no such doubt.)
        let between =
            call.op == Op::Write && !call.exact && last.outcome == Outcome::Ready && last.poll_ns.is_some();
        outcome.case(last.outcome == call.outcome || between, || {
            format!("{:?} instead of {:?}: {}", last.outcome, call.outcome, call.name())
        });
        for record in earlier {
            outcome.case(matches!(record.outcome, Outcome::Ready | Outcome::Rearmed), || {
                format!("{:?} in the middle of {}", record.outcome, call.name())
            });
        }
        let count = records.iter().filter(|record| record.outcome == Outcome::Rearmed).count();
        if let Some(known) = call.rearmed().filter(|known| *known > 0 || count > 0) {
            rearmed.case(count == known, || format!("{count} rearmed instead of {known}: {}", call.name()));
        }
        if call.exact && records.len() == 1 {
            let tally = if call.spurious { &mut spurious } else { &mut not_spurious };
            tally.case(last.spurious == call.spurious, || {
                format!("spurious {}: {}", last.spurious, call.name())
            });
        }
    }
    verdict.add_share("outcome", bounds.outcome, &outcome);
    verdict.add_share_but_one("deadlines that fired and were moved", bounds.rearmed, &rearmed);
    if bounds.spurious > 0.0 {
        verdict.add_share_but_one("spurious wake-ups flagged", bounds.spurious, &spurious);
    }
    verdict.add_share("useful wake-ups not flagged", bounds.outcome, &not_spurious);
}

fn facts(verdict: &mut Verdict, matched: &[Matched], bounds: &Bounds) {
    let [mut fd, mut mode, mut kind, mut role, mut local, mut remote, mut idle]: [Tally; 7] =
        Default::default();
    for Matched { call, records } in matched {
        for record in records {
            let name = |what: &str, got: &dyn std::fmt::Debug| format!("{what} {got:?}: {}", call.name());
            fd.case(record.fd == call.fd, || name("fd", &record.fd));
            mode.case(record.mode == call.op.mode(), || name("mode", &record.mode));
            kind.case(record.kind == call.kind, || name("kind", &record.kind));
            role.case(record.role == call.op.role(), || name("role", &record.role));
            idle.case(record.idle == (call.op == Op::Accept), || name("idle", &record.idle));
            let same = |got: &Option<String>, want: &str| got.as_deref().unwrap_or("") == want;
            if let Some(want) = &call.local {
                local.case(same(&record.local, want), || {
                    format!("{} instead of {want:?}", name("local", &record.local))
                });
            }
            if let Some(want) = &call.remote {
                remote.case(same(&record.remote, want), || {
                    format!("{} instead of {want:?}", name("remote", &record.remote))
                });
            }
        }
    }
    verdict.add_share("fd", bounds.facts, &fd);
    verdict.add_share("mode", bounds.facts, &mode);
    verdict.add_share("kind", bounds.facts, &kind);
    verdict.add_share("role", bounds.facts, &role);
    verdict.add_share("idle", bounds.facts, &idle);
    verdict.add_share("local address", bounds.facts, &local);
    verdict.add_share("remote address", bounds.facts, &remote);
}

/// Each function that the call must go through is there, leaf first.
fn stacks(verdict: &mut Verdict, matched: &[Matched], bounds: &Bounds) {
    let mut stack = Tally::default();
    let mut places = Tally::default();
    for Matched { call, records } in matched {
        for record in records {
            let mut frames = record.stack.iter();
            // By system calls, the stack is that of the function that was told EAGAIN and will wait.
            let by_syscalls = !frames.clone().any(|frame| frame.func == POLL_WAIT);
            let waits = |want: &&String| by_syscalls && WAITS.iter().any(|waits| want.starts_with(waits));
            let missing = call
                .frames
                .iter()
                .filter(|want| !waits(want))
                .find(|want| !frames.any(|frame| frame.func.starts_with(want.as_str())));
            stack.case(missing.is_none(), || {
                let got: Vec<&str> = record.stack.iter().map(|frame| frame.func.as_str()).collect();
                format!("no {missing:?} in {got:?}: {}", call.name())
            });
            // The compiler's own functions (wrappers of methods) have no file.
            let own = record.stack.iter().find(|frame| frame.func == format!("main.{}", call.scenario));
            places.case(own.is_none_or(|frame| frame.file.ends_with(".go") && frame.line > 0), || {
                format!("no file and line in {own:?}")
            });
        }
    }
    verdict.add_share("stack", bounds.facts, &stack);
    verdict.add_share("file and line", bounds.facts, &places);
}

/// What must hold of every record by itself.
fn clocks(verdict: &mut Verdict, records: &[Record]) {
    let mut sum = Tally::default();
    let mut order = Tally::default();
    let mut source = Tally::default();
    for record in records {
        let parts = [record.peer_ns, record.pickup_ns, record.queue_ns];
        let total = parts.iter().flatten().sum::<u64>() + record.unknown_ns;
        sum.case(total == record.duration_ns(), || format!("{total} ns in phases: {}", describe(record)));
        let times = [Some(record.start_ns), record.kernel_ready_ns, record.poll_ns, Some(record.end_ns)]
            .into_iter()
            .flatten();
        order.case(times.is_sorted(), || format!("clocks out of order: {}", describe(record)));
        let ready_known = record.kernel_ready_ns.is_some();
        let consistent = ready_known == (record.kernel_ready_source != Source::None)
            && (!ready_known || matches!(record.outcome, Outcome::Ready | Outcome::Error | Outcome::Open))
            && (record.poller == Poller::Unknown || record.poll_ns.is_some());
        source.case(consistent && source_fits(record), || {
            format!("does not go together: {}", describe(record))
        });
    }
    verdict.add_share("phases add up", 1.0, &sum);
    verdict.add_share("clocks in order", 1.0, &order);
    verdict.add_share("sources fit", 0.999, &source);
}

/// Whether the source of the kernel-ready clock can be that for this kind of wait.
fn source_fits(record: &Record) -> bool {
    let socket = record.kind != "pipe";
    let tcp = record.kind == "tcp";
    match record.kernel_ready_source {
        Source::None | Source::Callback | Source::BeforePark | Source::PollerWakeup => true,
        Source::DataReady => socket && record.mode == Mode::Read,
        Source::StateChange | Source::Reset => tcp,
        Source::WriteEstimate => socket && record.mode == Mode::Write,
    }
}

fn errors(verdict: &mut Verdict, inside: &[&Matched], bounds: &Bounds) {
    let mut exact = Spread::default();
    let mut whole = Spread::default();
    for Matched { call, records } in inside {
        let [record] = records.as_slice() else { continue };
        if !call.expect_wait {
            continue;
        }
        let (lead, tail) = (span(call.before_ns, record.start_ns), span(record.end_ns, call.after_ns));
        if call.exact {
            exact.add(lead.abs() + tail.abs());
        } else if call.op != Op::Write && call.op != Op::Connect {
            // A write copies before and after its wait, a connect makes a socket: those are no errors.
            whole.add(lead + tail);
        }
    }
    verdict.add_spread("duration of exact waits", &exact, (bounds.error_p50_ns, bounds.error_p99_ns));
    verdict.add_spread("duration of calls with one wait", &whole, (bounds.call_p50_ns, bounds.call_p99_ns));
}

/// Waits that were open at the beginning and at the end of the recording.
fn edges(verdict: &mut Verdict, matched: &[Matched], window: Window) {
    /// How long before the edge a goroutine must have been in its call to be parked for certain.
    const PARKED_NS: u64 = 20_000_000;
    let mut began = Tally::default();
    let mut open = Tally::default();
    for Matched { call, records } in matched {
        if call.before_ns + PARKED_NS < window.attach_ns && call.after_ns > window.recording_ns {
            let good = |record: &&&Record| {
                record.started_before && (window.attach_ns..=window.recording_ns).contains(&record.start_ns)
            };
            began.case(records.first().filter(|record| good(record)).is_some(), || {
                format!(
                    "no record that started before: {} {:?}",
                    call.name(),
                    records.first().map(|r| describe(r))
                )
            });
        } else {
            for record in records {
                began.case(!record.started_before, || format!("started before: {}", describe(record)));
            }
        }
        if call.before_ns + PARKED_NS < window.interrupt_ns && call.after_ns > window.end_ns {
            let good = |record: &&&Record| {
                record.outcome == Outcome::Open
                    && (window.interrupt_ns..=window.end_ns).contains(&record.end_ns)
            };
            open.case(records.last().filter(|record| good(record)).is_some(), || {
                format!("no open record: {} {:?}", call.name(), records.last().map(|r| describe(r)))
            });
        } else if call.after_ns < window.interrupt_ns {
            for record in records {
                open.case(record.outcome != Outcome::Open, || format!("open: {}", describe(record)));
            }
        }
    }
    verdict.add_share("waits open at the beginning", 1.0, &began);
    verdict.add_share("waits open at the end", 1.0, &open);
}

/// What the summary says about losses.
pub fn losses(verdict: &mut Verdict, summary: &serde_json::Value, bounds: &Bounds) {
    let quality = summary.get("quality");
    let lost = quality.and_then(|quality| quality.get("lost"));
    let none = lost.is_some_and(|lost| lost.as_object().is_some_and(serde_json::Map::is_empty));
    verdict.add(
        "losses",
        if bounds.losses_allowed { lost.is_some() } else { none },
        format!("{}", quality.unwrap_or(&serde_json::Value::Null)),
    );
}

/// For messages.
fn describe(record: &Record) -> String {
    format!(
        "goroutine {} fd {} {} {} {:?} start {} ready {:?} ({:?}) poll {:?} end {} ({} µs){} under {:?}",
        record.goid,
        record.fd,
        record.kind,
        record.role,
        record.outcome,
        record.start_ns,
        record.kernel_ready_ns.map(|ns| span(record.start_ns, ns)),
        record.kernel_ready_source,
        record.poll_ns.map(|ns| span(record.start_ns, ns)),
        record.end_ns,
        record.duration_ns() / 1000,
        if record.started_before { " started before" } else { "" },
        record.stack.iter().map(|frame| frame.func.as_str()).find(|func| func.starts_with("main.")),
    )
}

/// From one clock to another, ns; negative when they are the other way round.
pub(crate) fn span(from_ns: u64, to_ns: u64) -> i64 {
    i64::try_from(i128::from(to_ns) - i128::from(from_ns)).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
