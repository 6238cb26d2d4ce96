//! `--aggregate`: what is added up in the kernel is what the records of the same waits add up to.

use std::process::Command;

use netpoll_probe_tests::{
    added,
    fixture::GoProgram,
    live::{self, Options},
    probe,
};

fn adds_up_the_same(hooks: &str) -> anyhow::Result<()> {
    let _turn = live::turn();
    probe::require_root()?;
    let mut options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    hooks.clone_into(&mut options.hooks);
    let verdict = added::run(&options)?;
    anyhow::ensure!(verdict.good(), "{verdict}");
    Ok(())
}

#[test]
fn by_system_calls() {
    adds_up_the_same("syscalls").unwrap();
}

#[test]
fn by_uprobes() {
    adds_up_the_same("pollwait").unwrap();
}

#[test]
fn refuses_what_only_records_tell() {
    let probe = probe::executable().unwrap();
    for further in [["-f", "ndjson"], ["--min-wait", "1ms"], ["--group-by", "goroutine"]] {
        let output = Command::new(&probe)
            .args(["attach", "--aggregate", "--pid", "1"])
            .args(further)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(probe::exit::USAGE), "{further:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("--aggregate leaves no record"), "{further:?}: {stderr}");
    }
}
