//! Programs that the probe starts, and processes that run another program while they are recorded, as root.

use std::{path::Path, process::Command, time::Duration};

use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options},
    probe::{self, Recorded, Recording, Watched},
    process::Follow,
    record::Record,
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn options(program: &GoProgram) -> anyhow::Result<Options> {
    probe::require_root()?;
    Ok(Options::new(probe::executable()?, program.build()?).short())
}

fn truth() -> GoProgram {
    GoProgram::new("truth")
}

/// From its first instruction: nothing is open before.
#[test]
fn a_program_that_is_started() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("truth.ndjson");
    let arguments = [
        "--",
        &options.truth.display().to_string(),
        "-log",
        &log.display().to_string(),
        "-seconds",
        "1.5",
        "-intensity",
        "0.3",
        "-many",
        "20",
    ];
    let mut recording = Recording::of(Command::new(&options.probe).arg("run"), &arguments, TIMEOUT).unwrap();
    recording.wait_for_output("READY", TIMEOUT).unwrap();
    recording.tell("go").unwrap();
    recording.wait_for_output("DONE", TIMEOUT).unwrap();
    recording.tell("quit").unwrap();
    let mut recorded = recording.wait(TIMEOUT).unwrap();
    assert!(recorded.records.iter().all(|record| !record.started_before));
    // It logs its load, and not how it starts its peer.
    let own = ["main.checkWatch.func1", "main.(*run).startPeer"];
    let is_load = |record: &Record| !record.stack.iter().any(|frame| own.contains(&frame.func.as_str()));
    assert!(recorded.records.iter().any(|record| !is_load(record)), "the first waits of all");
    recorded.records.retain(is_load);
    let calls = netpoll_probe_tests::truth::read(&log).unwrap();
    let verdict = live::judge(&calls, &recorded, None, &options.bounds);
    assert!(verdict.good(), "does not hold: {:?}\n{verdict}", verdict.failed());
}

/// What `run` started it ends, whatever ends it.
#[test]
fn a_program_that_is_started_ends_with_the_recording() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("truth.ndjson").display().to_string();
    let arguments = ["-d", "300ms", "--", &options.truth.display().to_string(), "-log", &log];
    let recording = Recording::of(Command::new(&options.probe).arg("run"), &arguments, TIMEOUT).unwrap();
    let recorded = recording.wait(TIMEOUT).unwrap();
    let pid = recorded.pids().into_iter().next().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left behind");
}

/// Of each generation, how many waits it counted and how many were recorded. Odd and even ones read in different functions.
fn generations(recorded: &Recorded, stdout: &str) -> Vec<(usize, usize)> {
    let said = stdout.lines().filter_map(|line| {
        let mut words = line.strip_prefix("GENERATION ")?.split(' ').map(str::parse::<usize>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    said.map(|(generation, waits)| {
        let reader = if generation % 2 == 1 { "main.oddReader" } else { "main.evenReader" };
        let is_its = |record: &&Record| record.stack.iter().any(|frame| frame.func == reader);
        (waits, recorded.records.iter().filter(is_its).count())
    })
    .collect()
}

/// A program that starts others, and replaces itself by itself elsewhere in memory, and in the end by another.
#[test]
fn a_process_that_runs_another_program() {
    let _turn = live::turn();
    let program = GoProgram { arguments: vec!["-buildmode=pie".to_owned()], ..GoProgram::new("again") }
        .build()
        .unwrap();
    let mut command = Command::new(program);
    command.args(["-generations", "2", "-then", "/bin/sleep"]);
    let Watched { target: mut again, recording, .. } = Watched::start(&mut command, &[], TIMEOUT).unwrap();
    again.tell("go").unwrap();
    again.wait_for_line("GENERATION 2", TIMEOUT).unwrap();
    let stdout = again.output(Follow::Stdout);
    // It is left when it becomes what is no Go program.
    let recorded = recording.wait(TIMEOUT).unwrap();
    let generations = generations(&recorded, &stdout);
    assert_eq!(generations.len(), 2, "{stdout}");
    for (waits, found) in generations {
        // New probes are placed when it runs already, unless its first thread did it: a few ms later, here bounded by 50 ms.
        let told = (&recorded.finished.stderr, recorded.records.first(), recorded.records.len());
        assert!(found + 25 >= waits && found <= waits + 1, "{found} of {waits} waits\n{told:?}");
    }
    assert_eq!(recorded.summary["quality"]["lost"], serde_json::json!({}));
    assert!(recorded.finished.stderr.contains("runs its program again"), "{}", recorded.finished.stderr);
    assert!(recorded.finished.stderr.contains("runs another program now"), "{}", recorded.finished.stderr);
}
