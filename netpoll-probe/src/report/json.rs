//! The summary for programs. `schema/summary.json` says what is in it.

mod cost;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::UNIX_EPOCH,
};

use enum_map::{EnumArray, EnumMap};
use serde::Serialize;

use self::cost::CostJson;
use super::{Options, name, schema::SUMMARY_NAME, unit::wall_time};
use crate::model::{
    builder::OpenWait,
    group::{Dimension, Group, GroupKey},
    histogram::Histogram,
    peer::Peer,
    profile::{Metadata, Plan, PlanClock, Profile, StackKey, Target, Waits},
    quality::Quality,
    stack::Frame,
    sums::{Longest, PhaseSums, Sums, Totals},
    wait::{KernelReadySource, Mode, Phase, Poller, Role},
};

/// Writes the summary.
pub(super) fn render(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Summary::of(profile, options))?;
    writeln!(out)
}

/// The fields of all structs here are never renamed, only added to.
#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    tool_version: &'a str,
    targets: Vec<TargetJson<'a>>,
    host: Option<&'a str>,
    started: String,
    started_unix_ns: u64,
    started_monotonic_ns: u64,
    duration_ns: u64,
    idle_included: bool,
    totals: TotalsJson<'a>,
    idle: TotalsJson<'a>,
    groups: Groups<'a>,
    open: Vec<OpenJson<'a>>,
    quality: &'a Quality,
    plan: PlanJson<'a>,
    cost: CostJson,
}

#[derive(Serialize)]
struct TargetJson<'a> {
    pid: u32,
    namespace_pid: Option<u32>,
    comm: &'a str,
    executable: &'a str,
    go_version: &'a str,
    module: Option<&'a str>,
}

#[derive(Serialize)]
struct TotalsJson<'a> {
    #[serde(flatten)]
    sums: SumsJson<'a>,
    throughout: u64,
    phase_lengths: BTreeMap<Phase, HistogramJson>,
    after_ready: HistogramJson,
    kernel_ready_sources: BTreeMap<KernelReadySource, u64>,
    pollers: BTreeMap<Poller, u64>,
}

/// What every group has.
#[derive(Serialize)]
struct SumsJson<'a> {
    count: u64,
    total_ns: u64,
    phases_ns: PhasesJson,
    timeouts: u64,
    spurious: u64,
    open: u64,
    started_before: u64,
    longest: Option<LongestJson<'a>>,
    durations: HistogramJson,
}

#[derive(Serialize)]
struct PhasesJson {
    peer: u64,
    pickup: u64,
    queue: u64,
    unknown: u64,
}

#[derive(Serialize)]
struct LongestJson<'a> {
    duration_ns: u64,
    start_ns: u64,
    pid: u32,
    goid: u64,
    fd: i32,
    peer: String,
    stack: &'a [Frame],
}

#[derive(Serialize)]
struct HistogramJson {
    count: u64,
    sum_ns: u64,
    min_ns: Option<u64>,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
    p999_ns: Option<u64>,
    max_ns: Option<u64>,
    /// Smallest value, largest value, count.
    buckets: Vec<(u64, u64, u64)>,
}

#[derive(Serialize)]
struct Groups<'a> {
    peers: Vec<GroupJson<'a>>,
    stacks: Vec<GroupJson<'a>>,
    functions: Vec<GroupJson<'a>>,
    goroutines: Vec<GroupJson<'a>>,
    fds: Vec<GroupJson<'a>>,
    roles: Vec<GroupJson<'a>>,
    outcomes: Vec<GroupJson<'a>>,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    /// As in the text report.
    name: String,
    #[serde(flatten)]
    key: KeyJson<'a>,
    #[serde(flatten)]
    sums: SumsJson<'a>,
}

/// What the name is made of, where that is more than a word.
#[derive(Default, Serialize)]
struct KeyJson<'a> {
    /// It is the sum of what is not told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<&'a [Frame]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack_truncated: Option<bool>,
}

#[derive(Serialize)]
struct OpenJson<'a> {
    duration_ns: u64,
    started_before: bool,
    idle: bool,
    pid: u32,
    goid: u64,
    fd: i32,
    mode: Mode,
    role: Role,
    peer: String,
    stack: &'a [Frame],
}

#[derive(Serialize)]
struct PlanJson<'a> {
    name: &'a str,
    why: &'a str,
    clocks: Vec<PlanClockJson<'a>>,
}

#[derive(Serialize)]
struct PlanClockJson<'a> {
    clock: &'a str,
    hook: &'a str,
    why: &'a str,
    lost: Option<&'a str>,
}

impl<'a> Summary<'a> {
    fn of(profile: &'a Profile, options: &Options) -> Self {
        let Metadata { tool_version, targets, host, started, started_ns, duration_ns } = &profile.metadata;
        let since_epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let open = |waits: &'a Waits, idle: bool| {
            waits.open.iter().map(move |open| OpenJson::of(profile, open, idle))
        };
        let idle = options.include_idle.then_some(&profile.idle);
        Self {
            schema: SUMMARY_NAME,
            tool_version,
            targets: targets.iter().map(TargetJson::from).collect(),
            host: host.as_deref(),
            started: wall_time(*started, true),
            started_unix_ns: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            started_monotonic_ns: *started_ns,
            duration_ns: *duration_ns,
            idle_included: options.include_idle,
            totals: TotalsJson::of(profile, &profile.totals(options.include_idle)),
            idle: TotalsJson::of(profile, &profile.idle.totals),
            groups: Groups::of(profile, options),
            open: open(&profile.active, false)
                .chain(idle.into_iter().flat_map(|idle| open(idle, true)))
                .collect(),
            quality: &profile.quality,
            plan: PlanJson::from(&profile.plan),
            cost: CostJson::from(&profile.cost),
        }
    }
}

impl<'a> From<&'a Target> for TargetJson<'a> {
    fn from(target: &'a Target) -> Self {
        let Target { pid, namespace_pid, comm, executable, go_version, module } = target;
        Self {
            pid: *pid,
            namespace_pid: *namespace_pid,
            comm,
            executable,
            go_version,
            module: module.as_deref(),
        }
    }
}

impl<'a> TotalsJson<'a> {
    fn of(profile: &'a Profile, totals: &Totals) -> Self {
        let lengths = totals.phases.iter().filter(|(_, lengths)| lengths.count() > 0);
        let lengths = lengths.map(|(phase, lengths)| (phase, HistogramJson::from(lengths)));
        Self {
            sums: SumsJson::of(profile, &totals.sums),
            throughout: totals.throughout,
            phase_lengths: lengths.collect(),
            after_ready: HistogramJson::from(&totals.after_ready),
            kernel_ready_sources: seen(totals.kernel_ready_sources),
            pollers: seen(totals.pollers),
        }
    }
}

/// Without those that nothing was counted for.
fn seen<Key: EnumArray<u64> + Ord>(counts: EnumMap<Key, u64>) -> BTreeMap<Key, u64> {
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

impl<'a> SumsJson<'a> {
    fn of(profile: &'a Profile, sums: &Sums) -> Self {
        Self {
            count: sums.count(),
            total_ns: sums.total_ns(),
            phases_ns: PhasesJson::from(&sums.phases),
            timeouts: sums.timeouts,
            spurious: sums.spurious,
            open: sums.open,
            started_before: sums.started_before,
            longest: sums.longest.as_ref().map(|longest| LongestJson::of(profile, longest)),
            durations: HistogramJson::from(&sums.duration),
        }
    }
}

impl From<&PhaseSums> for PhasesJson {
    fn from(&PhaseSums { peer_ns, pickup_ns, queue_ns, unknown_ns }: &PhaseSums) -> Self {
        Self { peer: peer_ns, pickup: pickup_ns, queue: queue_ns, unknown: unknown_ns }
    }
}

impl<'a> LongestJson<'a> {
    fn of(profile: &'a Profile, longest: &Longest) -> Self {
        let &Longest { duration_ns, start_ns, pid, goid, fd, peer, stack } = longest;
        let peer = profile.peer(peer).to_string();
        Self { duration_ns, start_ns, pid, goid, fd, peer, stack: frames(profile, stack) }
    }
}

/// A stack that is not known has no frames.
fn frames(profile: &Profile, stack: StackKey) -> &[Frame] {
    profile.stack(stack).map_or(&[], |stack| &stack.frames)
}

impl From<&Histogram> for HistogramJson {
    fn from(histogram: &Histogram) -> Self {
        let buckets = histogram.buckets().map(|bucket| (bucket.lower_ns, bucket.upper_ns, bucket.count));
        Self {
            count: histogram.count(),
            sum_ns: histogram.sum_ns(),
            min_ns: histogram.min_ns(),
            p50_ns: histogram.quantile_ns(500),
            p90_ns: histogram.quantile_ns(900),
            p99_ns: histogram.quantile_ns(990),
            p999_ns: histogram.quantile_ns(999),
            max_ns: histogram.max_ns(),
            buckets: buckets.collect(),
        }
    }
}

impl<'a> Groups<'a> {
    fn of(profile: &'a Profile, options: &Options) -> Self {
        let by = |dimension| {
            let groups = profile.group_by(dimension, options.include_idle);
            groups.iter().map(|group| GroupJson::of(profile, group)).collect()
        };
        Self {
            peers: by(Dimension::Peer),
            stacks: by(Dimension::Stack),
            functions: by(Dimension::Function),
            goroutines: by(Dimension::Goroutine),
            fds: by(Dimension::Fd),
            roles: by(Dimension::Role),
            outcomes: by(Dimension::Outcome),
        }
    }
}

impl<'a> GroupJson<'a> {
    fn of(profile: &'a Profile, group: &Group) -> Self {
        let key = match &group.key {
            GroupKey::Stack(key) => {
                let stack = profile.stack(*key);
                KeyJson {
                    stack: stack.map(|stack| stack.frames.as_slice()),
                    stack_truncated: stack.map(|stack| stack.truncated),
                    ..KeyJson::default()
                }
            }
            GroupKey::Function(function) => {
                KeyJson { function: Some(Arc::clone(function)), ..KeyJson::default() }
            }
            GroupKey::Goroutine(key) => {
                KeyJson { pid: Some(key.pid), goid: Some(key.goid), ..KeyJson::default() }
            }
            GroupKey::Fd { pid, fd, peer } => {
                KeyJson { pid: Some(*pid), fd: Some(*fd), peer: Some(peer.to_string()), ..KeyJson::default() }
            }
            GroupKey::Other | GroupKey::Peer(Peer::Other) => {
                KeyJson { other: Some(true), ..KeyJson::default() }
            }
            GroupKey::Peer(_)
            | GroupKey::Role(_)
            | GroupKey::Outcome(_)
            | GroupKey::Phase(_)
            | GroupKey::NoStack => KeyJson::default(),
        };
        Self { name: name::group(profile, &group.key), key, sums: SumsJson::of(profile, &group.sums) }
    }
}

impl<'a> OpenJson<'a> {
    fn of(profile: &'a Profile, open: &OpenWait, idle: bool) -> Self {
        let &OpenWait { duration_ns, started_before, pid, goid, fd, mode, role, peer, stack } = open;
        let peer = profile.peer(peer).to_string();
        Self {
            duration_ns,
            started_before,
            idle,
            pid,
            goid,
            fd,
            mode,
            role,
            peer,
            stack: frames(profile, stack),
        }
    }
}

impl<'a> From<&'a Plan> for PlanJson<'a> {
    fn from(Plan { name, why, clocks }: &'a Plan) -> Self {
        let clocks = clocks.iter().map(|PlanClock { clock, hook, why, lost }| PlanClockJson {
            clock,
            hook,
            why,
            lost: lost.as_deref(),
        });
        Self { name, why, clocks: clocks.collect() }
    }
}
