//! The commands: they wire the layers together, own Ctrl-C, the outputs and the exit codes.

pub mod attach;
mod failures;
mod go_target;
mod outputs;
mod recording;
