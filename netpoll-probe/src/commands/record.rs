//! A whole recording: outputs opened first, then attached, recorded, and reported.

use std::{collections::HashSet, time::SystemTime};

use anyhow::Context as _;

use super::{
    attached::Attached,
    attacher::Attacher,
    budget::{Adds, Budget},
    filter::Filter,
    launch::Launched,
    meter::Meter,
    outputs::Outputs,
    overhead::Overhead,
    recording::Recording,
    selection::Selection,
    tell,
};
use crate::{
    bpf::plan::Choice,
    cli::record::{GroupArg, RecordArgs},
    error::Failure,
    exit::Exit,
    model::profile::{Cost, Metadata, Plan as PlanFacts, PlanClock},
};

/// What is recorded.
#[derive(Debug)]
pub(super) enum Start {
    /// Processes that run.
    Selected(Selection),
    /// A process that has not become its program yet.
    Launched(Launched),
}

/// Records what `start` finds or launches, and reports. It is called when the outputs are known to be good.
///
/// # Errors
/// With a hint and an exit code.
pub(super) fn run(args: &RecordArgs, start: impl FnOnce() -> Result<Start, Failure>) -> Result<(), Failure> {
    let time = SystemTime::now();
    let outputs = Outputs::open(args)?;
    let start = start()?;
    let meter = Meter::new(args.stats, args.max_overhead.is_some())?;
    let may_add_up = may_add_up(args, &outputs);
    if args.aggregate && !may_add_up {
        return Err(not_added_up());
    }
    let budget = args
        .max_overhead
        .map(|most_ppm| Budget::new(most_ppm, Adds { at_first: args.aggregate, may: may_add_up }));
    let only_pid = match &start {
        Start::Selected(selection) => selection.only_pid(),
        Start::Launched(launched) => Some(launched.pid()),
    };
    let attacher = Attacher::new(args, only_pid, may_add_up && (args.aggregate || budget.is_some()));
    if attacher.logs() {
        show_log();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
        .map_err(|error| Failure::new(Exit::Failed, error, "are there file descriptors left? ulimit -n"))?;
    let filter = Filter::new(args.min_wait, args.max_wait, args.idle_function.clone());
    let recorded = runtime.block_on(async {
        let overhead = Overhead { meter, budget, aggregate: args.aggregate };
        Recording::begin(attacher, start, outputs, filter, overhead)?.run(args.duration).await
    })?;

    let cost = Cost {
        cpu_ns: recorded.cpu_ns,
        bpf_run_ns: recorded.bpf_cost.map(|cost| cost.run_time.run_time_ns),
        bpf_run_count: recorded.bpf_cost.map(|cost| cost.run_time.runs),
        bpf_measured_ns: recorded.bpf_cost.map_or(0, |cost| cost.measured_ns),
        peak_resident_bytes: recorded.peak_resident_bytes,
        ring_records: recorded.ring_records,
        budget: recorded.budget,
    };
    let metadata = Metadata {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: recorded.targets,
        host: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        started: time,
        started_ns: recorded.started_ns,
        duration_ns: recorded.duration_ns,
    };
    let profile = recorded.builder.finish(metadata, recorded.plan, cost, recorded.quality);
    let names = recorded.outputs.names();
    let finished = recorded.outputs.finish(&profile);
    if finished.is_ok() && !names.is_empty() {
        tell(&format!("wrote {}", names.join(", ")));
    }
    // Who sees the prompt again may rely on it that no probe is left.
    drop(recorded.closing);
    recorded.failure.map_or(finished, Err)
}

/// Whether waits may be added up in the kernel: when nothing was asked that only each of them can tell.
fn may_add_up(args: &RecordArgs, outputs: &Outputs) -> bool {
    let by_one = matches!(args.group_by, Some(GroupArg::Goroutine | GroupArg::Fd));
    !by_one && args.min_wait.is_none() && args.max_wait.is_none() && !outputs.have_each_wait()
}

fn not_added_up() -> Failure {
    let cause =
        anyhow::anyhow!("--aggregate leaves no record of each wait, which something else here asks for");
    let hint = "leave it out, or NDJSON, --min-wait, --max-wait, and --group-by goroutine or fd";
    Failure::new(Exit::Usage, cause, hint)
}

/// The plans as data of the report: of several executables, each clock with all its hooks.
pub(super) fn plans(attached: &[Attached]) -> PlanFacts {
    let Some(first) = attached.first() else { return PlanFacts::default() };
    let clock = |choice: &Choice| {
        let mut hooks: Vec<String> = attached
            .iter()
            .flat_map(|attached| &attached.plan.choices)
            .filter(|other| other.clock == choice.clock)
            .flat_map(|choice| choice.hooks.iter().map(ToString::to_string))
            .collect();
        let mut seen = HashSet::new();
        hooks.retain(|hook| seen.insert(hook.clone()));
        PlanClock {
            clock: choice.clock.name().to_owned(),
            hook: hooks.join(", "),
            why: choice.why.clone(),
            lost: choice.lost.clone(),
        }
    };
    PlanFacts {
        name: first.plan.name.to_owned(),
        why: first.plan.why.clone(),
        clocks: first.plan.choices.iter().map(clock).collect(),
    }
}

/// Sends what the eBPF programs log to stderr.
fn show_log() {
    // Fails only when a logger is set already, and this is the only place that sets one.
    let _ = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).try_init();
}
