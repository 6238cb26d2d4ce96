//! The probe on real Go programs, as root. One run at a time (`live::turn`).

use netpoll_probe_tests::{
    agree, exectrace,
    fixture::GoProgram,
    live::{self, Options},
    probe,
};

/// The probe and the truth program, built; the turn to run.
fn options(program: &GoProgram) -> anyhow::Result<Options> {
    probe::require_root()?;
    Ok(Options::new(probe::executable()?, program.build()?))
}

fn truth() -> GoProgram {
    GoProgram::new("truth")
}

#[expect(clippy::print_stdout, reason = "the numbers, for --nocapture")]
fn holds(verdict: &netpoll_probe_tests::check::Verdict) {
    println!("{verdict}");
    assert!(verdict.good(), "does not hold: {:?}\n{verdict}", verdict.failed());
}

/// First of all, without any probe: what the truth program logs is what Go's own tracer sees.
#[test]
fn the_truth_is_true() {
    let _turn = live::turn();
    let tool = GoProgram::new("exectrace").build().unwrap();
    holds(&live::truth_of_the_truth(truth().build().unwrap(), &tool).unwrap());
}

/// Every kind of wait, wait by wait, against the program's own log. `matrix.rs` does so for other versions of Go and ways to build.
#[test]
fn records_against_the_truth() {
    let _turn = live::turn();
    holds(&live::truth_run(&options(&truth()).unwrap()).unwrap());
}

/// The same where nobody has time to poll: the clocks must hold when readiness and running lie far apart.
#[test]
fn records_against_the_truth_of_a_starved_program() {
    let _turn = live::turn();
    let mut options = options(&truth()).unwrap();
    options.hogs = 2;
    options.intensity = 0.3;
    options.many = 50;
    // Whoever loses its P or its CPU between the two clocks gets it back several time slices of 10 ms later.
    options.bounds.error_p99_ns = 1_000_000;
    // Whoever is woken for nothing runs so late that there is something.
    options.bounds.spurious = 0.0;
    options.bounds.call_p99_ns = 100_000_000;
    holds(&live::truth_run(&options).unwrap());
}

/// The same by uprobes, for binaries where system calls would not do.
#[test]
fn records_of_uprobes_against_the_truth() {
    let _turn = live::turn();
    let mut options = options(&truth()).unwrap();
    options.hooks = "pollwait".to_owned();
    holds(&live::truth_run(&options).unwrap());
}

/// The other set of hooks, against the truth too.
#[test]
fn records_of_the_runtime_hooks_against_the_truth() {
    let _turn = live::turn();
    let mut options = options(&truth()).unwrap();
    options.hooks = "runtime".to_owned();
    holds(&live::truth_run(&options).unwrap());
}

/// Go's own tracer and the probe, on the same waits.
#[test]
fn records_against_the_execution_trace() {
    let _turn = live::turn();
    let tool = GoProgram::new("exectrace").build().unwrap();
    let options = options(&truth()).unwrap();
    holds(&live::exectrace_run(&options, &tool, &exectrace::Bounds::default()).unwrap());
}

/// Two sets of hooks at the same time.
#[test]
fn system_calls_and_uprobes_agree() {
    let _turn = live::turn();
    let hooks = ["syscalls", "pollwait"];
    // A connect that is done at once is collected while the goroutine is on its way: uprobes see it ask, and it does not park. One wait in 800
    // of the load is such.
    let bounds = agree::Bounds { same: 0.998, first_has: 0.997, ..agree::Bounds::default() };
    holds(&live::agree_run(&options(&truth()).unwrap(), hooks, &bounds).unwrap());
}

/// The same, with the second opinion.
#[test]
fn both_sets_of_uprobes_agree() {
    let _turn = live::turn();
    let hooks = ["pollwait", "runtime"];
    holds(&live::agree_run(&options(&truth()).unwrap(), hooks, &agree::Bounds::default()).unwrap());
}
