//! `netpoll-probe inspect`

use std::path::PathBuf;

use clap::Args;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads the file and nothing else: no root, no running process, binaries of another processor too.\n\
                  Exit codes: 0 attach works on it, 3 it may not be read, 4 attach does not work on it."
)]
pub struct InspectArgs {
    /// The executable, or /proc/PID/exe
    #[arg(value_name = "BINARY", required_unless_present = "json_schema")]
    pub binary: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print the JSON Schema of --json
    #[arg(long, conflicts_with_all = ["binary", "json"])]
    pub json_schema: bool,
}
