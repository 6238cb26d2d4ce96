//! The kernel-ready clock against the truth: the peer tells when it acted, on the same clock.

use std::collections::HashMap;

use crate::{
    check::{Spread, Tally, Verdict},
    compare::{Bounds, Matched, span},
    record::{Outcome, Record, Source},
    truth::{Call, Op},
};

/// Which of the hooks that show readiness were used, as the summary's plan tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadyHooks {
    /// `ep_poll_callback`: every kind of wait, exactly.
    pub callback: bool,
    /// The tracepoint `sk_data_ready` (from 6.3 on): reads and accepts.
    pub data_ready: bool,
}

impl ReadyHooks {
    /// Reads them off a summary.
    #[must_use]
    pub fn of_summary(summary: &serde_json::Value) -> Self {
        let clocks = summary.pointer("/plan/clocks").and_then(serde_json::Value::as_array);
        let hook = clocks
            .into_iter()
            .flatten()
            .find(|clock| clock.get("clock").is_some_and(|name| name == "kernel_ready"))
            .and_then(|clock| clock.get("hook")?.as_str())
            .unwrap_or_default();
        Self { callback: hook.contains("ep_poll_callback"), data_ready: hook.contains("sk_data_ready") }
    }

    /// Whether such a wait's kernel-ready clock must be known. `tcp_probe` estimates TCP writes, `inet_sock_set_state` and
    /// `tcp_receive_reset` show the ends of TCP connections and connects; nothing but the callback shows pipes, unix
    /// peers that close, and unix writes.
    fn must_show(self, call: &Call) -> bool {
        const STATE_CHANGES: [&str; 4] = ["peerFIN", "peerHalfClose", "peerReset", "tcpConnectBacklog"];
        let callback_only = call.kind == "pipe"
            || call.scenario == "unixPeerClose"
            || (call.kind == "unix" && call.op == Op::Write);
        self.callback
            || (self.data_ready && !callback_only)
            || (call.kind == "tcp" && call.op == Op::Write)
            || (STATE_CHANGES.contains(&call.scenario.as_str())
                && call.op != Op::Accept
                && call.not_before_ns > 0)
    }

    /// Whether the moment in which a reply arrives is seen, not estimated.
    fn sees_replies(self) -> bool {
        self.callback || self.data_ready
    }
}

/// Scenarios in which something else makes the fd ready first, so that the peer's clock bounds nothing.
const READY_TWICE: [&str; 2] = ["spuriousRead", "staleRead"];

/// Judges the waits that lie inside of the recording.
pub(crate) fn judge(verdict: &mut Verdict, inside: &[&Matched], hooks: ReadyHooks, bounds: &Bounds) {
    let [mut known, mut collected, mut not_early, mut estimate_not_early, mut ends]: [Tally; 5] =
        Default::default();
    let mut late = Spread::default();
    let mut by_source: HashMap<String, usize> = HashMap::new();
    for Matched { call, records } in inside {
        let Some(record) = records.last() else { continue };
        if record.outcome == Outcome::Ready {
            *by_source.entry(format!("{:?}", record.kernel_ready_source)).or_default() += 1;
        }
        if call.expect_wait && call.not_before_ns > 0 && !call.spurious && record.outcome == call.outcome {
            ends.case(record.end_ns >= call.not_before_ns, || format!("ended too early: {}", call.name()));
        }
        let answered = record.outcome == Outcome::Ready && !READY_TWICE.contains(&call.scenario.as_str());
        if !call.expect_wait || !answered {
            continue;
        }
        collected.case(record.poll_ns.is_some(), || format!("poll unknown: {}", call.name()));
        if hooks.must_show(call) {
            known.case(record.kernel_ready_ns.is_some(), || format!("kernel-ready unknown: {}", call.name()));
        }
        if let (Some(ready_ns), true) = (record.kernel_ready_ns, call.peer_ns > 0) {
            let late_ns = span(call.peer_ns, ready_ns);
            let tally = if estimated(record) { &mut estimate_not_early } else { &mut not_early };
            tally.case(late_ns >= 0, || {
                format!(
                    "{:?} {} ns before the peer acted: {}",
                    record.kernel_ready_source,
                    -late_ns,
                    call.name()
                )
            });
            late.add(late_ns);
        }
    }
    let mut sources: Vec<(String, usize)> = by_source.into_iter().collect();
    sources.sort();
    verdict.add_share("ends not before its cause", 0.999, &ends);
    verdict.add_share("kernel-ready known", 0.99, &known);
    verdict.add_share("poll known", 0.99, &collected);
    if hooks.sees_replies() {
        verdict.add_share("kernel-ready not before the peer acted", 0.999, &not_early);
    }
    if estimate_not_early.total > 0 {
        let (least, name) = (bounds.estimates, "estimated kernel-ready not before the peer acted");
        verdict.add_share_of_few(name, least, &estimate_not_early);
    }
    verdict.add(
        "kernel-ready close to the peer's act",
        !late.is_empty() && late.quantile_ns(500) <= bounds.kernel_ready_p50_ns,
        format!("{late} (p50 ≤ {} µs); {hooks:?}, sources {sources:?}", bounds.kernel_ready_p50_ns / 1000),
    );
}

fn estimated(record: &Record) -> bool {
    matches!(record.kernel_ready_source, Source::PollerWakeup | Source::WriteEstimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_read_off_the_plan() {
        let summary =
            |hook: &str| serde_json::json!({"plan": {"clocks": [{"clock": "kernel_ready", "hook": hook}]}});
        assert_eq!(
            ReadyHooks::of_summary(&summary("fentry ep_poll_callback")),
            ReadyHooks { callback: true, data_ready: false }
        );
        assert_eq!(
            ReadyHooks::of_summary(&summary("tracepoint sk_data_ready, tracepoint sched_waking")),
            ReadyHooks { callback: false, data_ready: true }
        );
        assert_eq!(ReadyHooks::of_summary(&serde_json::json!({})), ReadyHooks::default());
    }
}
