//! A recording that gets no CPU for a while, as root.

use std::{process::Command, time::Duration};

use netpoll_probe_common::{limit::RING_OF_MANY_BYTES, record::WaitRecord, wait_buffer::records_of_each};
use netpoll_probe_tests::{fixture::GoProgram, live, probe::Watched};
use rustix::process::Signal;
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the byte goes to and fro: each time both goroutines wait.
const TIMES: usize = 10_000;

/// More than the buffer of one CPU holds, and less than the ring takes of them.
const _: () = {
    let waits = 2 * TIMES;
    assert!(waits > 4 * records_of_each(1) as usize);
    assert!(((waits * (size_of::<WaitRecord>() + 8)) as u64) < RING_OF_MANY_BYTES);
};

/// What does not fit into a CPU's buffer goes through the ring, and nothing is lost.
#[test]
fn waits_meanwhile_are_kept() {
    let _turn = live::turn();
    let program = GoProgram::new("pingpong").build().unwrap();
    let mut on_one_cpu = Command::new("taskset");
    on_one_cpu.args(["--cpu-list", "0"]).arg(program);
    let Watched { mut target, recording, .. } =
        Watched::start(&mut on_one_cpu, &["--hooks", "syscalls"], TIMEOUT).unwrap();
    // So that it has the files and the stack by then.
    let mut waits = 0;
    for (times, stopped) in [(10, false), (TIMES, true), (10, false)] {
        if stopped {
            recording.signal(Signal::STOP).unwrap();
        }
        target.tell(&times.to_string()).unwrap();
        let line = target.wait_for_line("WAITS", TIMEOUT).unwrap();
        waits += line.trim_start_matches("WAITS ").parse::<usize>().unwrap();
        recording.signal(Signal::CONT).unwrap();
    }
    let recorded = recording.stop(TIMEOUT).unwrap();

    assert_eq!(recorded.summary["quality"]["lost"], json!({}));
    assert!(waits > TIMES, "the target waited {waits} times only");
    let seen: Vec<_> = recorded.records.iter().filter(|record| record.kind == "tcp").collect();
    // One that finds its byte on its way to park was told to come again, and did not wait.
    assert!(seen.len() <= waits && seen.len() * 1000 >= waits * 995, "{} of {waits}", seen.len());
    assert!(seen.iter().all(|record| !record.stack.is_empty() && record.remote.is_some()));
}
