//! A wait whose deadline passes, and whose event comes before its goroutine has run again, as root.

use std::{process::Command, time::Duration};

use netpoll_probe_tests::{fixture::GoProgram, live, probe::Watched, record::Outcome};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

const WAITS: usize = 10;

/// The deadline takes the goroutine out of the pollDesc, where the poller does not find it then; and no deadline ends its wait.
#[test]
fn a_wait_whose_event_overtakes_its_deadline_is_seen() {
    let _turn = live::turn();
    let mut command = Command::new(GoProgram::new("overtaken").build().unwrap());
    let Watched { mut target, recording, .. } =
        Watched::start(&mut command, &["--hooks", "syscalls"], TIMEOUT).unwrap();
    target.tell(&WAITS.to_string()).unwrap();
    let done = target.wait_for_line("DONE ", TIMEOUT).unwrap();
    let timeouts: usize = done.trim_start_matches("DONE ").parse().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();

    let (ready, others): (Vec<_>, Vec<_>) = recorded
        .records
        .iter()
        .filter(|record| record.kind == "tcp")
        .partition(|record| record.outcome == Outcome::Ready);
    // Where the machine had no CPU for the runtime's own thread in time, the deadline came first after all.
    assert!(timeouts < WAITS, "nothing was overtaken");
    assert_eq!(ready.len(), WAITS - timeouts, "{}", recorded.summary["quality"]);
    assert!(others.len() <= timeouts, "{others:?}");
    for wait in &ready {
        // The goroutine runs again 100 ms after its deadline.
        assert!((100_000_000..1_000_000_000).contains(&wait.duration_ns()), "{wait:?}");
        assert!(wait.poll_ns.is_some(), "{wait:?}");
    }
    assert_eq!(recorded.summary["quality"]["lost"], json!({}));
}
