//! The answer in words: who made the program wait, and whether its own runtime did.
//!
//! Rules, with the number behind each, so that a reader of the sentence can hold it against the tables. The file is
//! long because every sentence is in it.

use super::{
    super::{
        Options, name,
        unit::{Count, Share, Time, clean},
    },
    page::solid,
};
use crate::model::{
    group::{Dimension, Group, GroupKey},
    peer::Peer,
    profile::Profile,
    sums::Totals,
    wait::{Outcome, Phase, Poller},
};

/// Pickup and queue are the problem from this share of the time waited on, in percent.
const RUNTIME_DOMINATES: f64 = 50.0;
/// They are worth a sentence from this share on.
const RUNTIME_MATTERS: f64 = 10.0;
/// A tail of them is worth a sentence from this length on: sysmon polls after 10 ms (`runtime/proc.go`, `sysmon`),
/// so half of that is no accident.
const TAIL_MATTERS_NS: u64 = 5_000_000;
/// With fewer waits than this there is no tail to speak of.
const TAIL_COUNT: u64 = 100;
/// The time with unseen clocks is what a reader should hear first, from this share on.
const UNKNOWN_DOMINATES: f64 = 50.0;
/// It is worth a sentence from this share on.
const UNKNOWN_MATTERS: f64 = 5.0;
/// One peer is the answer from this share on.
const PEER_DOMINATES: f64 = 50.0;
/// One function is where that happens from this share on.
const FUNCTION_DOMINATES: f64 = 50.0;
/// Waits that lasted throughout the recording are set apart from this share of the time on: they may be stuck or
/// wait for work, and would hide who was slow.
const THROUGHOUT_MATTERS: f64 = 10.0;
/// Wakes for nothing are worth a sentence from this share of the waits on.
const SPURIOUS_MATTERS: f64 = 2.0;

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) headline: String,
    pub(super) remarks: Vec<String>,
}

/// What everything is said about.
struct Case<'profile> {
    profile: &'profile Profile,
    options: &'profile Options,
    totals: &'profile Totals,
    program: String,
    /// By time waited for them, biggest first.
    peers: Vec<Group>,
    /// What shares are of, ns.
    total_ns: u64,
    /// Time of the waits that lasted throughout the recording, when they are set apart; 0: they are not.
    apart_ns: u64,
}

/// The answer for the waits that the report is about.
pub(super) fn of(profile: &Profile, options: &Options, totals: &Totals) -> Verdict {
    let passing = profile.passing_peers(options.include_idle);
    let passing_ns: u64 = passing.iter().map(|group| group.sums.total_ns()).sum();
    let all_ns = totals.sums.total_ns();
    let apart_ns = all_ns.saturating_sub(passing_ns);
    let set_apart = Share(apart_ns, all_ns).percent() >= THROUGHOUT_MATTERS;
    let case = Case {
        profile,
        options,
        totals,
        program: name::targets(profile),
        peers: if set_apart { passing } else { profile.group_by(Dimension::Peer, options.include_idle) },
        total_ns: if set_apart { passing_ns } else { all_ns },
        apart_ns: if set_apart { apart_ns } else { 0 },
    };
    if totals.sums.count() == 0 {
        return case.nothing();
    }
    if case.total_ns == 0 {
        return Verdict { headline: case.only_throughout(), remarks: case.lost().into_iter().collect() };
    }
    let unknown = case.share_of(totals.sums.phases.unknown_ns);
    let runtime = case.share_of(case.runtime_ns());
    let mut remarks = Vec::new();
    let headline = if unknown.percent() >= UNKNOWN_DOMINATES {
        remarks.push(case.most_of_it());
        remarks.push("Hooks, below, says what could not be seen here.".to_owned());
        format!(
            "Why {} waited is mostly not known: for {} of the time waited a clock was not seen.",
            case.program,
            in_words(unknown)
        )
    } else if runtime.percent() >= RUNTIME_DOMINATES {
        remarks.push(case.runtime_hint());
        remarks.push(case.most_of_it());
        case.runtime_dominates(runtime)
    } else {
        remarks.extend(case.callers());
        remarks.push(case.runtime(runtime, unknown));
        case.peers()
    };
    remarks.extend(case.timeouts());
    remarks.extend(case.throughout());
    remarks.extend(case.spurious());
    remarks.extend(case.unknown(unknown));
    remarks.extend(case.lost());
    remarks.retain(|remark| !remark.is_empty());
    Verdict { headline, remarks }
}

impl Case<'_> {
    fn share_of(&self, ns: u64) -> Share {
        Share(ns, self.total_ns)
    }

    /// From ready to running.
    fn runtime_ns(&self) -> u64 {
        let phases = &self.totals.sums.phases;
        phases.pickup_ns.saturating_add(phases.queue_ns)
    }

    fn nothing(&self) -> Verdict {
        let program = &self.program;
        let time = solid(Time(self.profile.metadata.duration_ns));
        let idle = self.profile.idle.totals.sums.count();
        let lost = self.profile.quality.lost_total();
        if lost > 0 && idle == 0 {
            let headline = format!(
                "Not a single wait of {program} came through in these {time}, but {} records were lost: nothing can be said.",
                Count(lost)
            );
            return Verdict {
                headline,
                remarks: vec!["Quality, below, says where they were lost.".to_owned()],
            };
        }
        let (headline, hint) = if idle > 0 && !self.options.include_idle {
            (
                format!(
                    "{program} waited for work only: the {} idle waits of these {time} were of accept loops and of keep-alive connections between requests.",
                    Count(idle)
                ),
                "No goroutine waited for an answer from a peer. --idle shows the idle waits.".to_owned(),
            )
        } else {
            (
                format!("Nothing to see: no goroutine of {program} waited in the network poller during these {time}."),
                "If it was slow all the same, it was busy, or it waited for something else: a channel, a lock, a timer, a file on disk.".to_owned(),
            )
        };
        Verdict { headline, remarks: [Some(hint), self.lost()].into_iter().flatten().collect() }
    }

    /// Who made it wait.
    fn peers(&self) -> String {
        let program = &self.program;
        let time = solid(Time(self.total_ns));
        let Some(first) = self.peers.first() else { return String::new() };
        let share = self.share_of(first.sums.total_ns());
        let called = peer_name(first);
        if share.percent() >= PEER_DOMINATES {
            let share = in_words(share);
            let numbers = self.numbers(first);
            let place = self.place(first);
            return match first.key {
                GroupKey::Peer(Peer::Unknown { .. }) => format!(
                    "Whom {program} waited for is not known for {share} of the time waited ({numbers}){place}: the sockets could not be read."
                ),
                GroupKey::Peer(Peer::Other) => format!(
                    "{program} waited for more peers than this report tells apart: {share} of the time waited went to those beyond ({numbers}){place}."
                ),
                _ => format!("{called} made {program} wait: {share} of the time waited ({numbers}){place}."),
            };
        }
        let others = self.peers.get(1).map_or_else(String::new, |second| {
            format!(", then {} with {}", peer_name(second), in_words(self.share_of(second.sums.total_ns())))
        });
        format!(
            "{program} waited for {} peers, none of them for most of the {time} waited: {called} comes first with {} (p99 {}){others}.",
            Count(self.peers.len() as u64),
            in_words(share),
            solid(Time(first.sums.duration.quantile_ns(990).unwrap_or(0))),
        )
    }

    /// Whom the waits were for, when the peer was not the cause.
    fn most_of_it(&self) -> String {
        let Some(first) = self.peers.first() else { return String::new() };
        let share = self.share_of(first.sums.total_ns());
        let part = match share.percent() {
            99.95.. => "All",
            PEER_DOMINATES.. => "Most",
            _ => "The biggest part",
        };
        format!(
            "{part} of it on waits for {} ({}){}.",
            peer_name(first),
            self.numbers(first),
            self.place(first)
        )
    }

    fn numbers(&self, group: &Group) -> String {
        format!(
            "{} of {}, {}, p99 {}",
            solid(Time(group.sums.total_ns())),
            solid(Time(self.total_ns)),
            waits(group.sums.count()),
            solid(Time(group.sums.duration.quantile_ns(990).unwrap_or(0))),
        )
    }

    /// The function in which most of the waiting for a peer happened, if there is one.
    fn place(&self, peer: &Group) -> String {
        let functions = self.profile.functions_of_peer(&peer.key, self.options.include_idle);
        match functions.first() {
            Some((GroupKey::Function(function), ns))
                if Share(*ns, peer.sums.total_ns()).percent() >= FUNCTION_DOMINATES =>
            {
                format!(", mostly in {}", name::short(function))
            }
            _ => String::new(),
        }
    }

    /// What the program's own runtime had to do with it, when it was not the problem.
    fn runtime(&self, runtime: Share, unknown: Share) -> String {
        let after_ready = &self.totals.after_ready;
        let p99_ns = after_ready.quantile_ns(990).unwrap_or(0);
        if after_ready.count() == 0 {
            return match self.totals.sums.phases.unknown_ns {
                0 => "Its own scheduler is not to blame: not one of the waits ended because something came.",
                _ => "Whether its own scheduler had a part in it is not known: no wait has all its clocks.",
            }
            .to_owned();
        }
        let known = if unknown.percent() >= UNKNOWN_MATTERS { ", as far as it is known" } else { "" };
        if runtime.percent() >= RUNTIME_MATTERS {
            return format!(
                "Its own runtime added to it{known}: {} of the time waited went by after the data had come (pickup {}, queue {}). {}",
                in_words(runtime),
                solid(self.share_of(self.totals.sums.phases.pickup_ns)),
                solid(self.share_of(self.totals.sums.phases.queue_ns)),
                self.runtime_hint()
            );
        }
        if p99_ns >= TAIL_MATTERS_NS && after_ready.count() >= TAIL_COUNT {
            return format!(
                "Its own scheduler is not to blame on the whole{known} ({} of the time), yet one wait in a hundred lay ready for {} or longer before its goroutine ran.",
                in_words(runtime),
                solid(Time(p99_ns))
            );
        }
        format!(
            "Its own scheduler is not to blame{known}: from ready to running took {} of the time (p99 {} a wait).",
            in_words(runtime),
            solid(Time(p99_ns))
        )
    }

    fn runtime_dominates(&self, runtime: Share) -> String {
        let phases = &self.totals.sums.phases;
        let part = if phases.pickup_ns >= phases.queue_ns { "poller" } else { "scheduler" };
        format!(
            "{} made itself wait: its own {part} was the problem. For {} of the time waited ({} of {}) the data had come and the goroutine did not run.",
            self.program,
            in_words(runtime),
            solid(Time(self.runtime_ns())),
            solid(Time(self.total_ns)),
        )
    }

    /// What pickup or queue, whichever is longer, means and what to look at.
    fn runtime_hint(&self) -> String {
        let totals = self.totals;
        let phase = if totals.sums.phases.pickup_ns >= totals.sums.phases.queue_ns {
            Phase::Pickup
        } else {
            Phase::Queue
        };
        let share = solid(self.share_of(totals.sums.phases.get_ns(phase)));
        let p99 = totals.phases[phase].quantile_ns(990).unwrap_or(0);
        let p99 = solid(Time(p99));
        if phase == Phase::Queue {
            return format!(
                "Queue took {share} (p99 {p99}): goroutines were runnable and no P ran them. The program wants more CPU than it gets: see GOMAXPROCS, the cgroup's CPU quota (cpu.max, throttling), and goroutines that compute for long."
            );
        }
        let polled: u64 = totals.pollers.values().sum();
        let by_sysmon = totals.pollers[Poller::Sysmon];
        let sysmon = if by_sysmon > 0 {
            format!(" sysmon had to collect {} of the events.", solid(Share(by_sysmon, polled)))
        } else {
            String::new()
        };
        format!(
            "Pickup took {share} (p99 {p99}): data lay ready and nobody polled. While all Ps are busy, Go looks at the poller rarely, at worst every 10\u{a0}ms from sysmon (golang/go#51651): see what keeps the Ps busy.{sysmon}"
        )
    }

    /// The dominant peer is whoever called, not a backend.
    fn callers(&self) -> Option<String> {
        let first = self.peers.first()?;
        let GroupKey::Peer(Peer::ClientsOf { .. }) = first.key else { return None };
        (self.share_of(first.sums.total_ns()).percent() >= PEER_DOMINATES).then(|| {
            format!(
                "So {} waited for its own callers to send or to take data, not for a backend.",
                self.program
            )
        })
    }

    fn timeouts(&self) -> Option<String> {
        let sums = &self.totals.sums;
        if sums.timeouts == 0 {
            return None;
        }
        let most = self.peers.iter().max_by_key(|group| group.sums.timeouts)?;
        let who = match most.sums.timeouts {
            all if all == sums.timeouts => format!("all on {}", peer_name(most)),
            some => format!("{} of them on {}", Count(some), peer_name(most)),
        };
        let outcomes = self.profile.group_by(Dimension::Outcome, self.options.include_idle);
        let ended = outcomes.iter().find(|group| group.key == GroupKey::Outcome(Outcome::Timeout))?;
        let after = solid(Time(ended.sums.duration.quantile_ns(500)?));
        Some(match sums.timeouts {
            1 => format!("1 wait ran into its deadline, after {after}, on {}.", peer_name(most)),
            count => format!(
                "{} waits ({}) ran into their deadline, after {after} (median), {who}.",
                Count(count),
                in_words(Share(count, sums.count()))
            ),
        })
    }

    /// Every wait lasted throughout.
    fn only_throughout(&self) -> String {
        format!(
            "Nothing came for {} within these {}: {} lasted throughout, stuck or waiting for work (a subscription, an idle connection). See \"Still waiting\".",
            self.program,
            solid(Time(self.profile.metadata.duration_ns)),
            waits(self.totals.throughout)
        )
    }

    fn throughout(&self) -> Option<String> {
        let count = self.totals.throughout;
        let apart = match self.apart_ns {
            0 => String::new(),
            ns => format!(" The {} of that are not counted in the sentences above.", solid(Time(ns))),
        };
        (count > 0).then(|| {
            format!(
                "{} lasted throughout the recording, stuck or waiting for work: see \"Still waiting\".{apart}",
                waits(count)
            )
        })
    }

    fn spurious(&self) -> Option<String> {
        let sums = &self.totals.sums;
        let share = Share(sums.spurious, sums.count());
        (share.percent() >= SPURIOUS_MATTERS).then(|| {
            let were = if sums.spurious == 1 { "was" } else { "were" };
            format!(
                "{} ({}) {were} woken for nothing: the next I/O had to wait again.",
                waits(sums.spurious),
                in_words(share)
            )
        })
    }

    fn unknown(&self, unknown: Share) -> Option<String> {
        let percent = unknown.percent();
        (UNKNOWN_MATTERS..UNKNOWN_DOMINATES).contains(&percent).then(|| {
            format!(
                "For {} of the time waited a clock was not seen, so its phase is not known.",
                in_words(unknown)
            )
        })
    }

    fn lost(&self) -> Option<String> {
        let quality = &self.profile.quality;
        let lost = quality.lost_total();
        (lost > 0).then(|| {
            format!(
                "Beware: {} records ({}) were lost (see Quality), so counts and sums are too low.",
                Count(lost),
                solid(Share(lost, quality.seen.saturating_add(lost)))
            )
        })
    }
}

/// A number of waits within a sentence.
fn waits(count: u64) -> String {
    if count == 1 { "1 wait".to_owned() } else { format!("{} waits", Count(count)) }
}

/// A share within a sentence.
fn in_words(share: Share) -> String {
    let text = share.to_string();
    let text = match (text.strip_prefix('<'), text.strip_prefix('>')) {
        (Some(limit), _) => format!("less than {limit}"),
        (_, Some(limit)) => format!("more than {limit}"),
        _ => text,
    };
    solid(text)
}

fn peer_name(group: &Group) -> String {
    match &group.key {
        GroupKey::Peer(peer) => clean(&peer.to_string()).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::{
        builder::ProfileBuilder,
        profile::{Cost, Metadata, Plan, Target},
        quality::Quality,
        testing::{tcp, wait},
        wait::{Clocks, Direction, KernelReadySource, Wait},
    };

    const MS: u64 = 1_000_000;

    /// A wait on 10.0.0.`peer`, with its three phases in milliseconds.
    fn ready(peer: u8, phases: [u64; 3]) -> Wait {
        let [peer_ms, pickup_ms, queue_ms] = phases;
        let end_ns = (peer_ms + pickup_ms + queue_ms) * MS;
        Wait {
            endpoint: tcp("10.0.0.1:40000", Some(&format!("10.0.0.{peer}:80")), Direction::Outbound),
            clocks: Clocks {
                kernel_ready_ns: Some(peer_ms * MS),
                kernel_ready_source: KernelReadySource::Callback,
                poll_ns: Some((peer_ms + pickup_ms) * MS),
                ..wait(0, end_ns).clocks
            },
            ..wait(0, end_ns)
        }
    }

    fn throughout(wait: Wait) -> Wait {
        let clocks = Clocks { kernel_ready_ns: None, poll_ns: None, ..wait.clocks };
        Wait { outcome: Outcome::Open, started_before: true, clocks, ..wait }
    }

    fn verdict(waits: &[(u64, Wait)]) -> String {
        let mut builder = ProfileBuilder::default();
        for (times, wait) in waits {
            for _ in 0..*times {
                builder.add(wait);
            }
        }
        let target = Target { comm: "app".to_owned(), ..Target::default() };
        let metadata = Metadata { targets: vec![target], duration_ns: 10_000 * MS, ..Metadata::default() };
        let profile = builder.finish(metadata, Plan::default(), Cost::default(), Quality::default());
        let Verdict { headline, remarks } = of(&profile, &Options::default(), &profile.totals(false));
        [vec![headline], remarks].concat().join("\n").replace('\u{a0}', " ")
    }

    #[track_caller]
    fn assert_says(waits: &[(u64, Wait)], pieces: &[&str]) {
        let verdict = verdict(waits);
        for piece in pieces {
            assert!(verdict.contains(piece), "{piece:?} is not in:\n{verdict}");
        }
    }

    #[test]
    fn one_peer() {
        let waits = [(9, ready(5, [100, 0, 0])), (1, ready(6, [100, 0, 0]))];
        assert_says(
            &waits,
            &[
                "10.0.0.5:80 made app wait: 90 % of the time waited (900 ms of 1.00 s, 9 waits, p99 100 ms).",
                "not to blame: from ready to running took 0 % of the time",
            ],
        );
    }

    #[test]
    fn many_peers() {
        let waits: Vec<_> = (1..=20).map(|peer| (1, ready(peer, [100 + u64::from(peer), 0, 0]))).collect();
        assert_says(
            &waits,
            &["app waited for 20 peers", "10.0.0.20:80 comes first with 5.4 %", "then 10.0.0.19:80"],
        );
    }

    #[test]
    fn its_own_runtime() {
        assert_says(
            &[(9, ready(5, [10, 60, 30]))],
            &[
                "its own poller was the problem. For 90 %",
                "golang/go#51651",
                "All of it on waits for 10.0.0.5:80",
            ],
        );
        assert_says(
            &[(9, ready(5, [10, 0, 90]))],
            &["its own scheduler was the problem. For 90 %", "GOMAXPROCS"],
        );
        assert_says(
            &[(9, ready(5, [80, 5, 15]))],
            &["10.0.0.5:80 made app wait", "Its own runtime added to it: 20 %", "GOMAXPROCS"],
        );
        let tail = [(980, ready(5, [100, 0, 0])), (20, ready(5, [100, 9, 0]))];
        assert_says(
            &tail,
            &["not to blame on the whole (0.2 % of the time), yet one wait in a hundred lay ready for 9"],
        );
    }

    #[test]
    fn unknowns() {
        let unseen = wait(0, 100 * MS);
        assert_says(&[(9, unseen.clone())], &["Why app waited is mostly not known: for 100 %"]);
        assert_says(
            &[(1, unseen.clone()), (4, ready(5, [100, 0, 0]))],
            &[
                "10.0.0.5:80 made app wait: 80 %",
                "as far as it is known",
                "For 20 % of the time waited a clock was not seen",
            ],
        );
        let nobody = Wait { endpoint: Rc::clone(&unseen.endpoint), ..ready(5, [100, 0, 0]) };
        assert_says(&[(9, nobody)], &["Whom app waited for is not known for 100 %"]);
    }

    #[test]
    fn what_lasted_throughout_hides_nobody() {
        let subscription = throughout(ready(7, [10_000, 0, 0]));
        let waits = [(5, subscription.clone()), (9, ready(5, [100, 0, 0]))];
        assert_says(
            &waits,
            &[
                "10.0.0.5:80 made app wait: 100 %",
                "5 waits lasted throughout",
                "The 50.0 s of that are not counted",
            ],
        );
        assert_says(
            &[(1, subscription)],
            &["Nothing came for app within these 10.0 s: 1 wait lasted throughout"],
        );
    }

    #[test]
    fn deadlines_and_wakes_for_nothing() {
        let late = |peer| Wait {
            outcome: Outcome::Timeout,
            clocks: wait(0, 250 * MS).clocks,
            ..ready(peer, [0, 0, 0])
        };
        assert_says(
            &[(1, late(5))],
            &[
                "1 wait ran into its deadline, after 250 ms, on 10.0.0.5:80.",
                "not one of the waits ended because something came",
            ],
        );
        assert_says(
            &[(2, late(5)), (8, ready(6, [9, 0, 0]))],
            &["2 waits (20 %) ran into their deadline, after 250 ms (median), all on 10.0.0.5:80"],
        );
        assert_says(&[(2, late(5)), (1, late(6))], &["2 of them on 10.0.0.5:80"]);
        let woken = Wait { spurious: true, ..ready(5, [9, 0, 0]) };
        assert_says(&[(1, woken), (9, ready(5, [9, 0, 0]))], &["1 wait (10 %) was woken for nothing"]);
    }

    #[test]
    fn callers_are_no_backend() {
        let caller = Wait {
            endpoint: tcp("10.0.0.1:8080", Some("10.9.9.9:40000"), Direction::Inbound),
            ..ready(5, [9, 0, 0])
        };
        assert_says(&[(3, caller)], &["clients of 10.0.0.1:8080 made app wait", "not for a backend"]);
    }
}
