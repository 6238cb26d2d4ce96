//! What every command that records has in common.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::value;

/// How to record and what to do with it.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Stop after this long: 30s, 500ms, 2m, or seconds [default: until Ctrl-C]
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    pub duration: Option<Duration>,

    /// Also write this file; its extension says the format: .txt .json .ndjson .svg .folded (repeatable)
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,

    /// What to print on stdout
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = FormatArg::Txt)]
    pub format: FormatArg,

    /// Leave out waits shorter than this: 5ms, 100us
    #[arg(short, long, value_name = "TIME", value_parser = value::duration)]
    pub min_wait: Option<Duration>,

    /// Leave out waits longer than this
    #[arg(short = 'M', long, value_name = "TIME", value_parser = value::duration)]
    pub max_wait: Option<Duration>,

    /// The first frame of flame graphs and folded stacks
    #[arg(long, value_name = "GROUP", value_enum)]
    pub group_by: Option<GroupArg>,

    /// Count idle waits too: accept loops, keep-alive reads between requests
    #[arg(long)]
    pub idle: bool,

    /// Waits with this function on their stack are idle: mypkg.(*Worker).next (repeatable)
    #[arg(long, value_name = "FUNCTION")]
    pub idle_function: Vec<String>,

    /// Which hooks to use
    #[arg(long, value_enum, default_value_t = HooksArg::Auto)]
    pub hooks: HooksArg,

    /// How to tell when the kernel made an fd ready
    #[arg(long, value_enum, default_value_t = ReadyArg::Auto)]
    pub kernel_ready: ReadyArg,

    /// When it costs more than this, of one core: 1%, add waits up in the kernel, then follow fewer [default: whatever it takes]
    #[arg(long, value_name = "SHARE", value_parser = value::share_of_core)]
    pub max_overhead: Option<u64>,

    /// Add waits up in the kernel from the beginning, without a record of each: goroutines and fds are not told apart
    #[arg(long)]
    pub aggregate: bool,

    /// Measure the eBPF programs' run time all along, and not for 20 ms in every second
    #[arg(long)]
    pub stats: bool,

    /// Tell on stderr what is done; twice: also what the eBPF programs see
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `--format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// The report for people
    #[value(alias = "text")]
    Txt,
    /// The summary, for programs
    Json,
    /// A line for each wait
    Ndjson,
    /// A flame graph
    Svg,
    /// Folded stacks, for flame graph tools
    Folded,
}

/// `--hooks`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HooksArg {
    /// The cheapest that loses nothing here
    Auto,
    /// Two uprobes in runtime_pollWait, which cannot be inlined
    Pollwait,
    /// System calls, and one uprobe where waits are broken off: no trap in a wait that succeeds
    Syscalls,
    /// netpollblock and netpollready, where they are not inlined: a second opinion
    Runtime,
}

/// `--kernel-ready`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadyArg {
    /// The best that works here
    Auto,
    /// ep_poll_callback by fentry: exact
    Fentry,
    /// ep_poll_callback by kprobe: exact
    Kprobe,
    /// Tracepoints of sockets and the scheduler: estimates for pipes and writes
    Tracepoints,
}

/// `--group-by`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupArg {
    /// By peer
    Peer,
    /// By stack
    Stack,
    /// By the first function that is not Go's own
    Function,
    /// By goroutine
    Goroutine,
    /// By fd
    Fd,
    /// By what was waited for: accept, connect, read, write
    Role,
    /// By how the wait ended
    Outcome,
    /// By phase
    Phase,
}
