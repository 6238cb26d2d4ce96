//! `netpoll-probe attach`

use clap::Args;

use super::{record::RecordArgs, targets::TargetArgs};

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(
    after_help = "The target is not stopped, not changed, and needs no symbols. Ctrl-C ends the recording and prints the report."
)]
pub struct AttachArgs {
    /// Which processes.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// How.
    #[command(flatten)]
    pub record: RecordArgs,
}
