//! A whole recording: outputs opened first, then attached, recorded, and reported.

use std::time::SystemTime;

use anyhow::Context as _;

use super::{
    attacher::Attacher, filter::Filter, outputs::Outputs, recording::Recording, selection::Selection, tell,
};
use crate::{
    bpf::{session, tracefs},
    cli::record::RecordArgs,
    error::Failure,
    exit::Exit,
    model::profile::{Cost, Metadata},
};

/// Records the processes that `select` finds, and reports.
///
/// # Errors
/// With a hint and an exit code.
pub(super) fn run(
    args: &RecordArgs,
    select: impl FnOnce() -> Result<Selection, Failure>,
) -> Result<(), Failure> {
    let started = SystemTime::now();
    let outputs = Outputs::open(args)?;
    let selection = select()?;
    // The mount is this thread's own, so it comes before there are others. If it fails, the plan says what is missing.
    let _ = tracefs::ensure();
    let measuring = if args.stats { Some(session::measure_run_time()?) } else { None };
    let attacher = Attacher::new(args, selection.only_pid());
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
        Recording::begin(attacher, selection, outputs, filter)?.run(args.duration).await
    })?;

    let cost = Cost {
        cpu_ns: recorded.cpu_ns,
        bpf_run_ns: measuring.as_ref().map(|_| recorded.run_time.run_time_ns),
        bpf_run_count: measuring.as_ref().map(|_| recorded.run_time.runs),
        peak_resident_bytes: recorded.peak_resident_bytes,
        ring_records: recorded.ring_records,
    };
    let metadata = Metadata {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: recorded.targets,
        host: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        started,
        started_ns: recorded.started_ns,
        duration_ns: recorded.duration_ns,
    };
    let profile = recorded.builder.finish(metadata, recorded.plan, cost, recorded.quality);
    let names = recorded.outputs.names();
    let finished = recorded.outputs.finish(&profile);
    if finished.is_ok() && !names.is_empty() {
        tell(&format!("wrote {}", names.join(", ")));
    }
    recorded.failure.map_or(finished, Err)
}

/// Sends what the eBPF programs log to stderr.
fn show_log() {
    // Fails only when a logger is set already, and this is the only place that sets one.
    let _ = env_logger::Builder::new().filter_level(log::LevelFilter::Debug).try_init();
}
