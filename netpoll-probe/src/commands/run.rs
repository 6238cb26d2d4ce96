//! `netpoll-probe run`: records a program from its first instruction, then reports.

use super::{
    launch::Launched,
    record::{self, Start},
};
use crate::{cli::run::RunArgs, error::Failure};

/// Runs the command.
///
/// # Errors
/// With a hint and an exit code.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    record::run(&args.record, || Launched::stopped(&args.command).map(Start::Launched))
}
