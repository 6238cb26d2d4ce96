//! `--aggregate`: what is added up in the kernel is what the records of the same waits add up to.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{self, Recorded, Recording},
    process::{Follow, Process},
};
use rustix::process::Signal;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Groups of fewer waits are not compared: the two recordings do not begin and end at the same moment.
const FEW: f64 = 100.0;

/// How far counts may be apart, and sums of times: two recordings by the same hooks take their clocks one after the other.
const COUNT: f64 = 0.01;
const TIME: f64 = 0.03;

/// Of waits that end soon after they begin, two programs one after the other see different lengths.
const OWN_NS: f64 = 3_000.0;

/// A recording that keeps no records.
fn aggregating(probe: &Path, pid: u32, hooks: &str, summary: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(probe);
    command.args(["attach", "--aggregate", "--idle", "--hooks", hooks, "--pid", &pid.to_string(), "-o"]);
    let mut process = Process::spawn(command.arg(summary), Follow::Stderr)?;
    process.wait_for_line("recording", TIMEOUT)?;
    Ok(process)
}

/// The same waits by both recordings: the records' summary, and that of what was added up.
fn both(hooks: &str) -> anyhow::Result<(Recorded, Value)> {
    probe::require_root()?;
    let options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    let mut truth = Truth::start(&options, false)?;
    let folder = tempfile::tempdir()?;
    let summary = folder.path().join("added.json");
    let one_by_one = Recording::start(&options.probe, truth.id(), &["--hooks", hooks], TIMEOUT)?;
    let added = aggregating(&options.probe, truth.id(), hooks, &summary)?;
    truth.load()?;
    added.signal(Signal::INT)?;
    let finished = added.finish(TIMEOUT)?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    let one_by_one = one_by_one.stop(TIMEOUT)?;
    truth.end()?;
    let summary = std::fs::read(&summary).context("cannot read the summary")?;
    Ok((one_by_one, serde_json::from_slice(&summary)?))
}

fn number(of: &Value, path: &str) -> anyhow::Result<f64> {
    of.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {of}"))
}

/// Counts and times of one group of waits, by both. One recording was longer by `longer_ns`, and so are waits in it that were open when it
/// began or ended.
fn compare(what: &str, expected: &Value, found: &Value, longer_ns: f64) -> anyhow::Result<()> {
    let open = number(expected, "/open")?;
    let cut = open + number(expected, "/started_before")?;
    let own_ns = OWN_NS * number(expected, "/count")? + cut * longer_ns;
    for (path, share, slack) in [
        ("/count", COUNT, 5.0),
        ("/total_ns", TIME, own_ns),
        ("/phases_ns/peer", TIME, own_ns),
        ("/phases_ns/queue", 2.0 * TIME, own_ns),
        ("/spurious", COUNT, 5.0),
        ("/longest/duration_ns", TIME, 1e7),
        ("/durations/p50_ns", 2.0 * TIME, OWN_NS),
    ] {
        // How long an open wait has lasted is a matter of when the recording began and ended.
        if path.starts_with("/longest") && open > 0.0 {
            continue;
        }
        let (expected, found) = (number(expected, path)?, number(found, path)?);
        let is_close = (found - expected).abs() <= expected * share + slack;
        ensure!(is_close, "{what}{path}: {found} for {expected}");
    }
    Ok(())
}

/// Says how many groups were compared.
fn adds_up_the_same(hooks: &str) -> anyhow::Result<u32> {
    let _turn = live::turn();
    let (one_by_one, added) = both(hooks)?;
    let (records, quality) = (&one_by_one.summary, &added["quality"]);
    ensure!(quality["lost"] == serde_json::json!({}), "{quality}");
    let (seen, in_kernel) = (number(quality, "/seen")?, number(quality, "/added_in_kernel")?);
    ensure!(in_kernel > seen / 2.0, "{in_kernel} of {seen} in the kernel");
    let came = number(&added, "/cost/ring_records")?;
    ensure!(came < seen, "{came} records for {seen} waits");

    let longer_ns = (number(records, "/duration_ns")? - number(&added, "/duration_ns")?).abs();
    compare("totals", &records["totals"], &added["totals"], longer_ns)?;
    let mut compared = 0;
    for kind in ["peers", "stacks", "roles", "outcomes"] {
        let groups = |of: &Value| of["groups"][kind].as_array().cloned().unwrap_or_default();
        let found = groups(&added);
        for expected in groups(records) {
            if number(&expected, "/count")? < FEW {
                continue;
            }
            let name = format!("{kind} {}", expected["name"]);
            let same =
                |found: &&Value| found["name"] == expected["name"] && found["stack"] == expected["stack"];
            let found = found.iter().find(same).with_context(|| format!("no {name}"))?;
            compare(&name, &expected, found, longer_ns)?;
            compared += 1;
        }
    }
    Ok(compared)
}

#[test]
fn by_system_calls() {
    assert!(adds_up_the_same("syscalls").unwrap() > 8);
}

#[test]
fn by_uprobes() {
    assert!(adds_up_the_same("pollwait").unwrap() > 8);
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
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--aggregate leaves no record"),
            "{further:?}"
        );
    }
}
