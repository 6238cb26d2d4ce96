//! `netpoll-probe run`

use std::ffi::OsString;

use clap::Args;

use super::record::RecordArgs;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "The recording ends when the program does, or with -d or Ctrl-C; then the program is told to end too (SIGTERM)."
)]
pub struct RunArgs {
    /// How.
    #[command(flatten)]
    pub record: RecordArgs,

    /// The Go program to start, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of the command that `run` starts itself with.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}
