//! `cargo xtask test`: all tests, with what they need.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{debian, probe, vm, workspace};

/// Debian packages of servers that `tests/third_party.rs` records.
const THIRD_PARTY_SERVERS: &[&str] = &["caddy", "nats-server"];

/// Debian packages with which Go programs with C code are built, for `tests/matrix.rs`.
pub(crate) const C_COMPILER: &[&str] = &["gcc", "libc6-dev"];

/// Install what the tests need, and run them all.
///
/// Three parts, in this order: `unit` is everything that needs neither root nor Go; `live` runs the release build of the
/// probe on real Go programs on this machine, one test at a time, since two loads would measure each other; `vm` runs
/// the comparison with a program that knows its own waits on the kernels of `cargo xtask vm`, whose Debian packages are
/// installed where they are missing. The last line is "N passed, N failed"; a skipped test counts as failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Only this part (repeatable)
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Needs neither root nor Go
    Unit,
    /// On real Go programs, as root
    Live,
    /// The same on other kernels, in virtual machines
    Vm,
}

impl Test {
    /// Runs them.
    pub(crate) fn run(&self) -> Result<()> {
        let parts =
            if self.only.is_empty() { &[Part::Unit, Part::Live, Part::Vm] } else { self.only.as_slice() };
        if parts.contains(&Part::Live) {
            probe::require_root("the part `live`")?;
        }
        let mut total = vm::Count::default();
        for &part in parts {
            let count = match part {
                Part::Unit => cargo_test(&["--workspace", "--exclude", "netpoll-probe-tests"], None)?,
                Part::Live => {
                    debian::install(THIRD_PARTY_SERVERS)?;
                    debian::install(C_COMPILER)?;
                    let probe = probe::build_release()?;
                    cargo_test(&["--package", "netpoll-probe-tests"], Some(&probe))?
                }
                Part::Vm => vm::run(&[vm::Kernel::V6_1, vm::Kernel::V6_12])?,
            };
            println!("{part:?}: {} passed, {} failed", count.passed, count.failed);
            total.passed += count.passed;
            total.failed += count.failed;
        }
        println!("{} passed, {} failed", total.passed, total.failed);
        ensure!(total.failed == 0, "{} tests failed", total.failed);
        Ok(())
    }
}

/// Runs `cargo test`, shows what it prints, and counts. With a probe: the tests that run it, one at a time.
fn cargo_test(arguments: &[&str], probe: Option<&Path>) -> Result<vm::Count> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["test", "--locked", "--no-fail-fast"]).args(arguments).current_dir(workspace::root());
    if let Some(probe) = probe {
        cargo.args(["--", "--test-threads=1", "--include-ignored"]).env("NETPOLL_PROBE_BIN", probe);
    }
    let mut child =
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let mut count = vm::Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what cargo test prints")?;
            println!("{line}");
            if let Some((passed, failed)) = result_line(&line) {
                count.passed += passed;
                count.failed += failed;
            }
        }
    }
    if !child.wait()?.success() && count.failed == 0 {
        // It did not compile, or a test ended its process.
        count.failed = 1;
    }
    Ok(count)
}

/// Passed and failed of a line "test result: ok. 3 passed; 0 failed; 1 ignored; …"; an ignored test has not passed.
fn result_line(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |name: &str| {
        counts.split("; ").find_map(|count| count.strip_suffix(name)?.trim().parse::<usize>().ok())
    };
    Some((number("passed")?, number("failed")? + number("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn reads_results() {
        let line =
            "test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 15 filtered out; finished in 0.00s";
        assert_eq!(result_line(line), Some((17, 0)));
        let line = "test result: FAILED. 14 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.09s";
        assert_eq!(result_line(line), Some((14, 3)));
        assert_eq!(result_line("test layers::rules::tests::finds_uretprobes ... ok"), None);
    }
}
