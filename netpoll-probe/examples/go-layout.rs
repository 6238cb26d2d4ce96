//! Prints the offsets of the runtime's structs out of the DWARF of Go binaries, a line each: the Go version, a tab, and the
//! offsets as a Rust expression. `cargo xtask go-layout` makes its table from it.

use std::{env, path::Path, process::ExitCode};

use anyhow::Context as _;
use netpoll_probe::{gobin::GoBinary, goruntime::dwarf};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints what it found")]
fn main() -> ExitCode {
    for path in env::args().skip(1) {
        match line(&path) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("cannot read {path}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn line(path: &str) -> anyhow::Result<String> {
    let binary = GoBinary::open(Path::new(path))?;
    let version = binary.go_version().context("it has no Go version")?;
    let offsets = dwarf::offsets(&binary)?.context("it has no DWARF")?;
    Ok(format!("{version}\t{offsets:?}"))
}
