//! The answer in words: who made the program wait, and whether its own runtime did.
//!
//! Rules, with the number behind each, so that a reader of the sentence can hold it against the tables.

use super::{
    super::{
        Options, name,
        unit::{Count, Share, Time, clean},
    },
    page::solid,
};
use crate::model::{
    peer::Peer,
    profile::{Dimension, Group, GroupKey, Profile},
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
    peers: Vec<Group>,
}

/// The answer for the waits that the report is about.
pub(super) fn of(profile: &Profile, options: &Options, totals: &Totals) -> Verdict {
    let case = Case {
        profile,
        options,
        totals,
        program: name::targets(profile),
        peers: profile.group_by(Dimension::Peer, options.include_idle),
    };
    if totals.sums.count() == 0 {
        return case.nothing();
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
        Share(ns, self.totals.sums.total_ns())
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
            let waits = if idle == 1 { "wait".to_owned() } else { format!("{} waits", Count(idle)) };
            (
                format!(
                    "{program} waited for work only: the {waits} of these {time} were idle ones (accept loops, keep-alive connections between requests)."
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
        let time = solid(Time(self.totals.sums.total_ns()));
        let Some(first) = self.peers.first() else { return String::new() };
        let share = self.share_of(first.sums.total_ns());
        let called = peer_name(first);
        if share.percent() >= PEER_DOMINATES {
            let GroupKey::Peer(Peer::Unknown { .. } | Peer::Other) = first.key else {
                let numbers = self.numbers(first);
                let place = self.place(first);
                return format!(
                    "{called} made {program} wait: {} of the time waited ({numbers}){place}.",
                    in_words(share)
                );
            };
            return format!(
                "{program} waited, but not known is for whom: {called} {} of the time waited.",
                in_words(share)
            );
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
        let count = group.sums.count();
        format!(
            "{} of {}, {} wait{}, p99 {}",
            solid(Time(group.sums.total_ns())),
            solid(Time(self.totals.sums.total_ns())),
            Count(count),
            if count == 1 { "" } else { "s" },
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
            return "Whether its own scheduler had a part in it is not known: no wait has all its clocks."
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
                "Its own scheduler did not on the whole{known} ({} of the time), yet one wait in a hundred lay ready for {} or longer before its goroutine ran.",
                in_words(runtime),
                solid(Time(p99_ns))
            );
        }
        format!(
            "Its own scheduler did not{known}: from ready to running took {} of it (p99 {} a wait).",
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
            solid(Time(self.totals.sums.total_ns())),
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
        let p99 = totals.phases.get(&phase).and_then(|lengths| lengths.quantile_ns(990)).unwrap_or(0);
        let p99 = solid(Time(p99));
        if phase == Phase::Queue {
            return format!(
                "Queue took {share} (p99 {p99}): goroutines were runnable and no P ran them. The program wants more CPU than it gets: see GOMAXPROCS, the cgroup's CPU quota (cpu.max, throttling), and goroutines that compute for long."
            );
        }
        let polled: u64 = totals.pollers.values().sum();
        let by_sysmon = totals.pollers.get(&Poller::Sysmon).copied().unwrap_or(0);
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

    fn throughout(&self) -> Option<String> {
        let count = self.totals.throughout;
        let waits = if count == 1 { "wait" } else { "waits" };
        (count > 0).then(|| {
            format!("{} {waits} lasted longer than the whole recording: see \"Still waiting\".", Count(count))
        })
    }

    fn spurious(&self) -> Option<String> {
        let sums = &self.totals.sums;
        let share = Share(sums.spurious, sums.count());
        (share.percent() >= SPURIOUS_MATTERS).then(|| {
            format!(
                "{} waits ({}) were woken for nothing: the next I/O had to wait again.",
                Count(sums.spurious),
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
