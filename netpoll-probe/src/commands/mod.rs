//! The commands: they wire the layers together, own Ctrl-C, the outputs and the exit codes.

mod adder;
pub mod attach;
mod attached;
mod attacher;
mod budget;
mod cells;
pub mod doctor;
mod failures;
pub mod filter;
mod go_process;
mod go_program;
pub mod inspect;
mod joining;
pub mod launch;
mod member;
mod meter;
mod open_waits;
mod outputs;
mod overhead;
mod own;
mod privileges;
mod record;
mod recording;
mod records;
pub mod run;
mod selection;
pub mod tally;
mod terminal;

use std::io::{self, Write as _};

/// One line on stderr. That nobody reads it is no failure.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
