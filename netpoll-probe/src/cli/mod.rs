//! The command line, as types. No work is done here.
#![forbid(unsafe_code)]

pub mod attach;
pub mod doctor;
pub mod inspect;
pub mod record;
pub mod run;
pub mod targets;
pub mod value;

use clap::{Parser, Subcommand};

/// `--version`: also the eBPF object's hash, which says what runs in the kernel.
const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), "\neBPF object sha256 ", env!("NETPOLL_PROBE_EBPF_SHA256"));

/// Which goroutine of a running Go program waited on which fd and peer, how long, and why.
#[derive(Debug, Parser)]
#[command(name = "netpoll-probe", version = env!("CARGO_PKG_VERSION"), long_version = LONG_VERSION, max_term_width = 100)]
#[command(after_help = "Examples:
  netpoll-probe attach -p 4242 -d 10s                  what did it wait for, just now?
  netpoll-probe attach --container 3f2a -d 10s         the same of all Go processes of a container
  netpoll-probe attach -p 4242 -o waits.svg            record until Ctrl-C, then a flame graph
  netpoll-probe attach -p 4242 -d 1m -o waits.ndjson   every wait, a line each
  netpoll-probe run -- ./server -port 8080             from its first instruction
  netpoll-probe doctor -p 4242                         would it work, how, at what cost?
  netpoll-probe inspect ./server                       would it work on this executable?

Exit codes: 0 good, 1 failed while running, 2 usage, 3 permission or kernel, 4 target.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record the network waits of a running process, then say what it waited for
    #[command(alias = "record")]
    Attach(attach::AttachArgs),
    /// Start a program, record it from its first instruction, then say what it waited for
    Run(run::RunArgs),
    /// What `run` starts: stops itself until it is attached to, then becomes the program
    #[command(hide = true, name = "run-stopped")]
    RunStopped(run::ExecArgs),
    /// Say whether attach works on this machine, and how to mend what stands in its way
    Doctor(doctor::DoctorArgs),
    /// Say whether attach works on an executable, and what is known of it
    Inspect(inspect::InspectArgs),
}
