//! `netpoll-probe doctor`

use clap::Args;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Loads the eBPF programs to see whether the kernel takes them, attaches none to the process, and leaves\n\
                  nothing behind. Without root it says what is missing.\n\
                  Exit codes: 0 attach works, 3 a permission or the kernel, 4 the process is gone, not Go, or not supported."
)]
pub struct DoctorArgs {
    /// Look at this process too: what attach would do to it
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print the JSON Schema of --json
    #[arg(long, conflicts_with_all = ["pid", "json"])]
    pub json_schema: bool,
}
