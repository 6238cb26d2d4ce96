//! What waits past the netpoller is named, as root.

use std::{process::Command, time::Duration};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    probe::{self, Recording, Watched},
    record::{Mode, Record},
};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn blocking_sockets_and_event_loops_are_named() {
    let _turn = live::turn();
    let mut command = Command::new(GoProgram::new("bypass").build().unwrap());
    let Watched { target: bypass, ready, recording } =
        Watched::start(&mut command, &["-d", "500ms"], TIMEOUT).unwrap();
    let words: Vec<&str> = ready.split(' ').collect();
    let [_, _, peer, fd, epfd] = words[..] else { panic!("{ready}") };
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

/// Lookups by the C library block threads: they are counted, and timed.
#[test]
fn calls_of_the_c_resolver_are_named() {
    /// In namespaces of its own, with its own DNS server, which thinks for 100 ms.
    const OWN_RESOLVER: &str = "ip link set lo up && mount --bind \"$1\" /etc/resolv.conf && exec \"$2\"";
    let _turn = live::turn();
    let program = GoProgram { cgo: true, ..GoProgram::new("resolver") }.build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--", "sh", "-c", OWN_RESOLVER, "sh"]).arg(&resolv_conf).arg(program);
    command.env("GODEBUG", "netdns=cgo");
    let Watched { target: mut resolver, recording, .. } = Watched::start(&mut command, &[], TIMEOUT).unwrap();
    resolver.tell("8").unwrap();
    let done = resolver.wait_for_line("DONE", TIMEOUT).unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();

    let truth: Vec<u64> = done.split(' ').skip(1).map(|ns| ns.parse().unwrap()).collect();
    let bypasses = recorded.summary["quality"]["bypasses"].as_array().unwrap();
    let calls = bypasses.iter().find(|bypass| bypass["kind"] == "c_resolver").unwrap();
    assert_eq!(calls["count"], json!(8), "{calls}");
    // The program's own times begin before the calls and end after them.
    for (field, truth_ns) in [("blocked_ns", truth[0]), ("longest_ns", truth[1])] {
        let told_ns = calls[field].as_u64().unwrap();
        assert!(told_ns <= truth_ns && told_ns * 10 > truth_ns * 9, "{field}: {told_ns}, truth {truth_ns}");
    }
    let told = recorded.finished.stdout.replace("\n          ", " ");
    assert!(told.contains("8 calls of the C library's resolver ("), "{told}");
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

/// An fd that was in the netpoller, and whose number is taken by a socket that is not: its goroutine waits for nothing there.
#[test]
fn fds_that_leave_the_netpoller_are_not_waited_on() {
    const TIMES: usize = 50;
    let _turn = live::turn();
    let mut command = Command::new(GoProgram::new("reused").build().unwrap());
    let Watched { target: mut reused, ready, recording } =
        Watched::start(&mut command, &["--hooks", "syscalls"], TIMEOUT).unwrap();
    let goid: u64 = ready.split(' ').nth(2).unwrap().parse().unwrap();
    reused.tell(&TIMES.to_string()).unwrap();
    reused.wait_for_line("DONE", TIMEOUT).unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();

    let of_it: Vec<_> = recorded.records.iter().filter(|record| record.goid == goid).collect();
    assert!(of_it.is_empty(), "{} waits, the first: {:?}", of_it.len(), of_it[0]);
    let reads = |record: &&Record| record.mode == Mode::Read && record.role == "read" && record.goid == 1;
    assert_eq!(recorded.records.iter().filter(reads).count(), TIMES);
    assert_eq!(recorded.summary["quality"]["lost"], json!({}));
}
