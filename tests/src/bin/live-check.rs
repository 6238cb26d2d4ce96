//! `live-check PROBE TRUTH`: the live comparison as one program, for machines that have nothing else.
//!
//! Prints a line for each check. Exit code 0: everything holds; 1: something does not, or could not be run.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is its result")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use netpoll_probe_tests::{
    added, agree, compare,
    live::{self, Options},
    probe,
};

/// Holds the probe's records against a program that knows its own waits
#[derive(Debug, Parser)]
struct Arguments {
    /// The netpoll-probe executable
    probe: PathBuf,
    /// The truth program, built from fixtures/go/truth
    truth: PathBuf,
    /// Which hooks to record with; "both" records with pollwait and runtime at once and compares the two
    #[arg(long, default_value = "auto")]
    hooks: String,
    /// Record twice, wait by wait and added up in the kernel, and compare the two
    #[arg(long)]
    aggregate: bool,
    /// How to know when the kernel made an fd ready: auto, fentry, kprobe, tracepoints
    #[arg(long, default_value = "auto")]
    kernel_ready: String,
    /// Length of the load
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Calls per second relative to the truth program's default
    #[arg(long, default_value_t = 1.0)]
    intensity: f64,
    /// Goroutines that wait long and seldom
    #[arg(long, default_value_t = 200)]
    many: u32,
    /// How much longer everything takes than on a usual machine: the program's own delays, and every time limit
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// Bound of the error of durations at the median, µs
    #[arg(long, default_value_t = compare::Bounds::default().error_p50_ns / 1000)]
    error_p50_us: i64,
    /// Bound of the error of durations at p99, µs; ten times that for whole calls
    #[arg(long, default_value_t = compare::Bounds::default().error_p99_ns / 1000)]
    error_p99_us: i64,
    /// Bound of the kernel-ready clock after the peer's, at the median, µs
    #[arg(long, default_value_t = compare::Bounds::default().kernel_ready_p50_ns / 1000)]
    kernel_ready_p50_us: i64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(verdict) => {
            print!("{verdict}");
            if verdict.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("live-check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<netpoll_probe_tests::check::Verdict> {
    probe::require_root()?;
    let mut options = Options::new(arguments.probe.clone(), arguments.truth.clone());
    options.kernel_ready.clone_from(&arguments.kernel_ready);
    options.seconds = arguments.seconds;
    options.intensity = arguments.intensity;
    options.many = arguments.many;
    options.patience = arguments.patience;
    let (p50_ns, p99_ns) = (arguments.error_p50_us * 1000, arguments.error_p99_us * 1000);
    let bounds = &mut options.bounds;
    bounds.kernel_ready_p50_ns = arguments.kernel_ready_p50_us * 1000;
    (bounds.error_p50_ns, bounds.error_p99_ns) = (p50_ns, p99_ns);
    (bounds.call_p50_ns, bounds.call_p99_ns) =
        (bounds.call_p50_ns.max(p50_ns), bounds.call_p99_ns.max(10 * p99_ns));
    if arguments.patience > 1 {
        // Where everything is slow, more happens between what must happen at once, and there are few cases.
        (bounds.spurious, bounds.estimates, bounds.rearmed) = (0.5, 0.7, 0.8);
        if arguments.hooks == "syscalls" {
            // Only who parked can be woken for nothing, and in so light a load that may be nobody.
            bounds.spurious = 0.0;
        }
    }
    if arguments.hooks == "both" {
        let usual = agree::Bounds::default();
        let bounds = agree::Bounds {
            apart_p50_ns: p50_ns,
            apart_p99_ns: p99_ns,
            poll_p50_ns: usual.poll_p50_ns.max(p50_ns),
            poll_p99_ns: usual.poll_p99_ns.max(p99_ns),
            ..usual
        };
        live::agree_run(&options, ["pollwait", "runtime"], &bounds)
    } else {
        options.hooks.clone_from(&arguments.hooks);
        if arguments.aggregate { added::run(&options) } else { live::truth_run(&options) }
    }
}
