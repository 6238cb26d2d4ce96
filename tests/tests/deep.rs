//! Stacks of any depth, as root.

use std::{process::Command, time::Duration};

use anyhow::Result;
use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    probe::{Recorded, Watched},
    record::{Frame, Record},
};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Frames of the program's own: within what is copied of a stack at once, and beyond it.
const DEPTHS: [usize; 7] = [1, 2, 11, 13, 30, 70, 115];

/// More than are kept.
const TOO_DEEP: usize = 200;

fn record(hooks: &str) -> Result<Recorded> {
    let mut command = Command::new(GoProgram::new("deep").build()?);
    let Watched { mut target, recording, .. } = Watched::start(&mut command, &["--hooks", hooks], TIMEOUT)?;
    for depth in DEPTHS.into_iter().chain([TOO_DEEP]) {
        target.tell(&depth.to_string())?;
        target.wait_for_line("DONE", TIMEOUT)?;
    }
    recording.stop(TIMEOUT)
}

fn check(recorded: &Recorded) {
    let own = |record: &Record| record.stack.iter().filter(|frame| frame.func == "main.down").count();
    let func = |frame: Option<&Frame>| frame.map(|frame| frame.func.clone()).unwrap_or_default();
    let quality = &recorded.summary["quality"];
    let waits: Vec<_> = recorded.records.iter().filter(|record| own(record) > 0).collect();
    assert_eq!(waits.len(), DEPTHS.len() + 1, "{quality}");
    for (wait, depth) in waits.iter().zip(DEPTHS) {
        assert_eq!((own(wait), func(wait.stack.last())), (depth, "runtime.main".to_owned()));
    }
    for cut in waits.iter().skip(DEPTHS.len()) {
        assert!((100..TOO_DEEP).contains(&own(cut)), "{} frames", own(cut));
        // From the leaf on.
        let is_read = |frame: &Frame| frame.func == "internal/poll.(*FD).Read";
        assert!(cut.stack.iter().take(4).any(is_read), "{:?}", cut.stack.first());
    }
    assert_eq!((&quality["stack_truncated"], &quality["stack_unknown"]), (&json!(1), &json!(0)));
    assert_eq!(quality["lost"], json!({}));
}

#[test]
fn stacks_are_whole_where_system_calls_show_the_waits() {
    let _turn = live::turn();
    check(&record("syscalls").unwrap());
}

#[test]
fn stacks_are_whole_where_uprobes_do() {
    let _turn = live::turn();
    check(&record("pollwait").unwrap());
}
