//! The demo's service under its load, recorded as a newcomer would: what he is told must be true of it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use netpoll_probe_tests::{
    fixture::{self, GoProgram},
    live,
    probe::{self, Recording, exit::TARGET},
    process::{Follow, Process},
    record::{Outcome, Record},
};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(30);

/// `READY name pid=N addr=A`
fn ready(demo: &mut Process, name: &str) -> Result<(u32, String)> {
    let line = demo.wait_for_line(&format!("READY {name} "), TIMEOUT)?;
    let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)).context("no value");
    Ok((value("pid=")?.parse()?, value("addr=")?.to_owned()))
}

fn under<'a>(records: &'a [Record], function: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.stack.iter().any(|frame| frame.func == function)).collect()
}

#[test]
fn the_demo_is_told_right() {
    let _turn = live::turn();
    told_right(&GoProgram::new("demo").build().unwrap()).unwrap();
}

/// Built by a Go that no table has, without DWARF: its memory confirms the offsets.
#[test]
fn the_demo_of_an_unknown_go_is_told_right() {
    let _turn = live::turn();
    let stripped = GoProgram { arguments: vec!["-ldflags=-s -w".to_owned()], ..GoProgram::new("demo") };
    let folder = tempfile::tempdir().unwrap();
    let unknown = folder.path().join("shop");
    let version = fixture::with_minor(&stripped.build().unwrap(), "99", &unknown).unwrap();
    let stderr = told_right(&unknown).unwrap();
    let told = format!("the offsets of {version} are not known; the memory of process ");
    assert!(stderr.contains(&told), "{stderr}");
}

/// Idle, such a program does not show enough: it is said what to do.
#[test]
fn an_idle_program_of_an_unknown_go_is_refused() {
    let _turn = live::turn();
    probe::require_root().unwrap();
    let stripped = GoProgram { arguments: vec!["-ldflags=-s -w".to_owned()], ..GoProgram::new("demo") };
    let folder = tempfile::tempdir().unwrap();
    let unknown = folder.path().join("shop");
    fixture::with_minor(&stripped.build().unwrap(), "99", &unknown).unwrap();
    let mut database = Process::spawn(Command::new(unknown).arg("database"), Follow::Stdout).unwrap();
    let (pid, _) = ready(&mut database, "database").unwrap();
    // Its start is over, and it stays as idle as it is.
    std::thread::sleep(Duration::from_millis(500));
    database.signal(Signal::STOP).unwrap();
    let attach = |arguments: &[&str]| {
        let mut command = Command::new(probe::executable().unwrap());
        let process = Process::spawn(command.args(arguments).arg(pid.to_string()), Follow::Stderr).unwrap();
        process.finish(TIMEOUT).unwrap()
    };
    let refused = attach(&["attach", "-d", "1s", "--pid"]);
    assert_eq!(refused.status.code(), Some(TARGET), "{refused:?}");
    assert!(refused.stderr.contains("hint: give it some requests, and try again"), "{refused:?}");
    let doctor = attach(&["doctor", "--pid"]);
    assert!(doctor.stdout.contains("give it some requests, and try again"), "{doctor:?}");
}

/// Returns what was told on stderr.
fn told_right(program: &Path) -> Result<String> {
    probe::require_root()?;
    let mut demo = Process::spawn(
        Command::new(program).args(["demo", "-duration", "60s", "-rate", "150"]),
        Follow::Stdout,
    )?;
    let (_, database) = ready(&mut demo, "database")?;
    let (_, upstream) = ready(&mut demo, "upstream")?;
    let (pid, service) = ready(&mut demo, "serve")?;
    let recording = Recording::start(&probe::executable()?, pid, &[], TIMEOUT)?;
    std::thread::sleep(Duration::from_secs(4));
    let recorded = recording.stop(TIMEOUT)?;
    let records = &recorded.records;

    // The handlers wait for the database, milliseconds each.
    let queries = under(records, "shop/dbclient.(*Conn).Query");
    assert!(queries.len() > 300, "{} queries", queries.len());
    assert!(queries.iter().all(|record| record.remote.as_ref() == Some(&database)), "{:?}", queries.first());
    assert!(queries.iter().all(|record| !record.idle));
    let ended: Vec<_> = queries.iter().filter(|record| record.outcome == Outcome::Ready).collect();
    let slow = ended.iter().filter(|record| record.duration_ns() > 1_500_000).count();
    assert!(slow * 10 > ended.len() * 9, "{slow} of {} over 1.5 ms", ended.len());
    assert!(!under(records, "shop/handlers.(*Checkout).ServeHTTP").is_empty());
    assert!(!under(records, "shop/orders.(*Store).ByID").is_empty());

    // The client of the upstream reads in goroutines of its own.
    let rates = under(records, "net/http.(*persistConn).readLoop");
    assert!(rates.iter().any(|record| record.remote.as_ref() == Some(&upstream)));

    // The background worker waits on a unix socket.
    let audit = under(records, "shop/audit.(*Worker).deliver");
    assert!(audit.len() > 100 && audit.iter().all(|record| record.kind == "unix"), "{} acks", audit.len());

    // Waiting for the next request is idle, and so is the accept loop.
    let keep_alive = records.iter().filter(|record| {
        // A wait that ended in the very moment of the end of the recording has no stack to judge it by.
        record.local.as_ref() == Some(&service) && record.role == "read" && !record.stack.is_empty()
    });
    let (idle, busy): (Vec<_>, Vec<_>) = keep_alive.partition(|record| record.idle);
    assert!(
        idle.len() > 16 && busy.is_empty(),
        "{} idle, {} busy {:?}",
        idle.len(),
        busy.len(),
        busy.first()
    );
    assert!(records.iter().any(|record| record.role == "accept" && record.idle));

    // What a newcomer reads names the database.
    assert!(recorded.finished.stdout.contains(&database), "{}", recorded.finished.stdout);
    Ok(recorded.finished.stderr)
}
