//! What waits past the netpoller is named, as root.

use std::{process::Command, time::Duration};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    probe::{self, Recording},
    process::{Follow, Process},
};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn blocking_sockets_and_event_loops_are_named() {
    let _turn = live::turn();
    probe::require_root().unwrap();
    let program = GoProgram::new("bypass").build().unwrap();
    let mut bypass = Process::spawn(&mut Command::new(program), Follow::Stdout).unwrap();
    let ready = bypass.wait_for_line("READY", TIMEOUT).unwrap();
    let words: Vec<&str> = ready.split(' ').collect();
    let [_, _, peer, fd, epfd] = words[..] else { panic!("{ready}") };
    let recording =
        Recording::start(&probe::executable().unwrap(), bypass.id(), &["-d", "500ms"], TIMEOUT).unwrap();
    let recorded = recording.wait(TIMEOUT).unwrap();

    let bypasses = recorded.summary["quality"]["bypasses"].as_array().unwrap();
    let of_kind = |kind: &str| bypasses.iter().find(|bypass| bypass["kind"] == kind).unwrap();
    // The connection and its duplicate.
    let sockets = of_kind("blocking_socket");
    assert_eq!((&sockets["count"], &sockets["pid"]), (&json!(2), &json!(bypass.id())));
    let fd: i32 = fd.parse().unwrap();
    assert!(sockets["fds"].as_array().unwrap().contains(&json!({"fd": fd, "peer": peer})), "{sockets}");
    let epfd: i32 = epfd.parse().unwrap();
    let epolls = of_kind("own_epoll");
    assert_eq!((&epolls["count"], &epolls["fds"]), (&json!(1), &json!([{"fd": epfd, "peer": null}])));

    let told = recorded.finished.stdout.replace("\n          ", " ");
    assert!(told.contains("2 blocking sockets") && told.contains("1 epoll instance "), "{told}");
}

/// The truth program has nothing of the kind.
#[test]
fn an_ordinary_program_has_none() {
    let _turn = live::turn();
    let options =
        live::Options::new(probe::executable().unwrap(), GoProgram::new("truth").build().unwrap()).short();
    let truth = live::Truth::start(&options, false).unwrap();
    let recording = Recording::start(&options.probe, truth.id(), &["-d", "500ms"], TIMEOUT).unwrap();
    let recorded = recording.wait(TIMEOUT).unwrap();
    assert_eq!(recorded.summary["quality"]["bypasses"], json!([]));
    assert!(!recorded.finished.stdout.contains("Bypasses"), "{}", recorded.finished.stdout);
}
