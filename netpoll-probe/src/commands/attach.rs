//! `netpoll-probe attach`: records running processes, then reports.

use super::{
    record::{self, Start},
    selection::Selection,
};
use crate::{cli::attach::AttachArgs, error::Failure};

/// Runs the command.
///
/// # Errors
/// With a hint and an exit code.
pub fn run(args: &AttachArgs) -> Result<(), Failure> {
    record::run(&args.record, || Selection::of(&args.targets).map(Start::Selected))
}
