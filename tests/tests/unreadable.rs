//! What the target's memory does not give at the moment is asked of the kernel, as root.

use std::{process::Command, time::Duration};

use anyhow::Result;
use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    probe::{Recorded, Watched},
    record::Outcome,
};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

const WAITS: usize = 40;

/// A recording of the program's waits; `None`: one of its other threads came to the page while it was hidden, which ends it.
fn attempt() -> Result<Option<Recorded>> {
    let mut command = Command::new(GoProgram::new("unreadable").build()?);
    let Watched { mut target, recording, .. } =
        Watched::start(&mut command, &["--hooks", "syscalls"], TIMEOUT)?;
    target.tell(&WAITS.to_string())?;
    if target.wait_for_line("DONE", TIMEOUT).is_err() {
        return Ok(None);
    }
    recording.stop(TIMEOUT).map(Some)
}

/// A page that is moved, or becomes part of a huge one, is gone for a moment; the file's epoll item says the same as the pollDesc in it.
#[test]
fn waits_that_begin_while_their_poll_desc_cannot_be_read_are_seen() {
    let _turn = live::turn();
    let recorded = (0..5).find_map(|_| attempt().unwrap()).expect("the program does not come through");

    let waits: Vec<_> = recorded
        .records
        .iter()
        .filter(|record| record.kind == "tcp" && record.outcome == Outcome::Ready)
        .collect();
    assert_eq!(waits.len(), WAITS, "{}", recorded.summary["quality"]);
    for wait in waits {
        // The byte comes 5 ms after the program decided to read.
        assert!((500_000..1_000_000_000).contains(&wait.duration_ns()), "{wait:?}");
        assert!(wait.remote.is_some() && wait.kernel_ready_ns.is_some(), "{wait:?}");
    }
    assert_eq!(recorded.summary["quality"]["lost"], json!({}));
}
