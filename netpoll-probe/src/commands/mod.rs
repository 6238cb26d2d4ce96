//! The commands: they wire the layers together, own Ctrl-C, the outputs and the exit codes.

pub mod attach;
pub mod doctor;
mod failures;
mod go_target;
pub mod inspect;
mod open_waits;
mod outputs;
mod own;
mod recording;
mod terminal;

use std::io::{self, Write as _};

/// One line on stderr. That nobody reads it is no failure.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
