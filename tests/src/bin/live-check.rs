//! `live-check PROBE TRUTH`: the live comparison as one program, for machines that have nothing else.
//!
//! Prints a line for each check. Exit code 0: everything holds; 1: something does not, or could not be run.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is its result")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use netpoll_probe_tests::{
    agree,
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
    #[arg(long, default_value = "pollwait")]
    hooks: String,
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
    /// How many times slower this machine is: multiplies every bound on time and every time limit. An emulator with two
    /// CPUs is 20
    #[arg(long, default_value_t = 1)]
    slower: u32,
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
    options.patience = arguments.slower;
    options.bounds = options.bounds.slower(arguments.slower);
    if arguments.hooks == "both" {
        live::agree_run(&options, &agree::Bounds::default().slower(arguments.slower))
    } else {
        options.hooks.clone_from(&arguments.hooks);
        live::truth_run(&options)
    }
}
