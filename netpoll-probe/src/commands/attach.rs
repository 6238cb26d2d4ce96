//! `netpoll-probe attach`: records a running process, then reports.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::{
    go_target::{self, GoTarget},
    outputs::Outputs,
    recording::{Filter, Recording},
    tell,
};
use crate::{
    bpf::{
        kernel_btf::KernelBtf,
        offsets,
        plan::{self, Hooks, Plan, ReadyHooks},
        session::{self, Session, SessionError},
        support, tracefs,
    },
    cli::attach::{AttachArgs, HooksArg, ReadyArg},
    error::Failure,
    exit::Exit,
    model::profile::{Cost, Metadata, Plan as PlanFacts, PlanClock},
    target::{error::Error as TargetError, process::Process},
};

/// Runs the command.
///
/// # Errors
/// With a hint and an exit code.
pub fn run(args: &AttachArgs) -> Result<(), Failure> {
    let started = SystemTime::now();
    let outputs = Outputs::open(args)?;
    let process = Process::open(args.pid)?;
    let binary = go_target::read_binary(&process)?;
    let target = GoTarget::of(process, &binary, args.hooks == HooksArg::Runtime)?;
    // The mount is this thread's own, so it comes before there are others. If it fails, the plan says what is missing.
    let _ = tracefs::ensure();
    let btf = KernelBtf::of_running_kernel()?;
    let plan = plan::make(
        hooks(args.hooks),
        ready_hooks(args.kernel_ready),
        &support::find_out(&btf),
        target.facts(),
    )?;
    if args.verbose > 0 {
        tell_plan(&plan);
    }
    if args.verbose > 1 {
        show_log();
    }
    let mut config = target.config();
    offsets::of_kernel(&btf, &mut config)?;
    config.index_sockets = u32::from(plan.indexes_sockets());
    config.trace_poll_entry = u32::from(plan.traces_poll_entry());

    let measuring = if args.stats { Some(session::measure_run_time()?) } else { None };
    let executable = session::executable_of(args.pid);
    let session = Session::attach(&config, &plan, &btf, &executable, args.pid, args.verbose > 1)
        .map_err(|error| not_attached(error, &target))?;
    drop(btf);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
        .map_err(|error| Failure::new(Exit::Failed, error, "are there file descriptors left? ulimit -n"))?;
    let filter = Filter::new(args.min_wait, args.max_wait, args.idle_function.clone());
    let recorded =
        runtime.block_on(async { Recording::begin(session, target, outputs, filter)?.run(args).await })?;

    let cost = Cost {
        cpu_ns: recorded.cpu_ns,
        bpf_run_ns: measuring.as_ref().map(|_| recorded.run_time.run_time_ns),
        bpf_run_count: measuring.as_ref().map(|_| recorded.run_time.runs),
        peak_resident_bytes: recorded.peak_resident_bytes,
        ring_records: recorded.ring_records,
    };
    let metadata = Metadata {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: vec![recorded.target],
        host: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        started,
        started_ns: recorded.started_ns,
        duration_ns: recorded.duration_ns,
    };
    let profile = recorded.builder.finish(metadata, plan_facts(&plan), cost, recorded.quality);
    let names = recorded.outputs.names();
    let finished = recorded.outputs.finish(&profile);
    if finished.is_ok() && !names.is_empty() {
        tell(&format!("wrote {}", names.join(", ")));
    }
    recorded.failure.map_or(finished, Err)
}

/// For a process that ends meanwhile the kernel has many errors, and a pidfd tells a moment after its files in `/proc` went.
fn not_attached(error: SessionError, target: &GoTarget<'_>) -> Failure {
    const LOOKS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..LOOKS {
        if target.has_exited() {
            return TargetError::Exited { pid: target.pid() }.into();
        }
        thread::sleep(PAUSE);
    }
    error.into()
}

/// Sends what the eBPF programs log to stderr.
fn show_log() {
    // Fails only when a logger is set already, and this is the only place that sets one.
    let _ = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).try_init();
}

fn tell_plan(plan: &Plan) {
    tell(&format!("plan {}: {}", plan.name, plan.why));
    for choice in &plan.choices {
        let hooks: Vec<String> = choice.hooks.iter().map(ToString::to_string).collect();
        tell(&format!("  {}: {} ({})", choice.clock.name(), hooks.join(", "), choice.why));
    }
}

/// The plan as data of the report.
fn plan_facts(plan: &Plan) -> PlanFacts {
    let clock = |choice: &plan::Choice| PlanClock {
        clock: choice.clock.name().to_owned(),
        hook: choice.hooks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        why: choice.why.clone(),
        lost: choice.lost.clone(),
    };
    PlanFacts {
        name: plan.name.to_owned(),
        why: plan.why.clone(),
        clocks: plan.choices.iter().map(clock).collect(),
    }
}

fn hooks(arg: HooksArg) -> Hooks {
    match arg {
        HooksArg::Auto => Hooks::Auto,
        HooksArg::Pollwait => Hooks::Pollwait,
        HooksArg::Runtime => Hooks::Runtime,
    }
}

fn ready_hooks(arg: ReadyArg) -> ReadyHooks {
    match arg {
        ReadyArg::Auto => ReadyHooks::Auto,
        ReadyArg::Fentry => ReadyHooks::Fentry,
        ReadyArg::Kprobe => ReadyHooks::Kprobe,
        ReadyArg::Tracepoints => ReadyHooks::Tracepoints,
    }
}
