//! The command `netpoll-probe`: parses, runs, and prints what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use netpoll_probe::{
    cli::{Cli, Command},
    commands,
    exit::Exit,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Attach(args) => commands::attach::run(args).map(|()| Exit::Good),
        Command::Run(args) => commands::run::run(args).map(|()| Exit::Good),
        Command::RunStopped(args) => commands::launch::run_stopped(args).map(|()| Exit::Good),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            #[expect(clippy::print_stderr, reason = "the one place that tells the user what went wrong")]
            {
                eprintln!("{failure}");
            }
            failure.exit.into()
        }
    }
}
