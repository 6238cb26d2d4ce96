//! The project's own commands: `cargo xtask --help`.
//!
//! One file per command. None of them depends on the `netpoll-probe` crate, so that all of them run while the
//! committed eBPF object is stale and that crate refuses to build; what needs it is started by cargo.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: printing is what it does"
)]

mod bench;
mod debian;
mod demo;
mod ebpf;
mod go_layout;
mod golang;
mod layers;
mod machine;
mod matrix;
mod probe;
mod process;
mod release;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, checks and measures netpoll-probe.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    Overhead(bench::overhead::Overhead),
    Demo(demo::Demo),
    #[command(subcommand)]
    Ebpf(ebpf::Ebpf),
    /// Write the table of Go's struct offsets, netpoll-probe/src/goruntime/layout_table.rs.
    ///
    /// Builds a small program with every minor version of Go from 1.18 on and reads the offsets from its DWARF. Downloads
    /// some 35 toolchains of 70 MB, one at a time.
    GoLayout,
    Layers(layers::Layers),
    Release(release::Release),
    Matrix(matrix::Matrix),
    Test(test::Test),
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Bench(command) => command.run(),
        Command::Overhead(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Ebpf(command) => command.run(),
        Command::GoLayout => go_layout::run(),
        Command::Layers(command) => command.run(),
        Command::Release(command) => command.run(),
        Command::Matrix(command) => command.run(),
        Command::Test(command) => command.run(),
        Command::Vm(command) => command.run(),
    }
}
