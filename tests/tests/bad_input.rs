//! What the tool does when it cannot do what it was asked: one line that says why, one that says what to do, the
//! documented exit code, and nothing left behind. As root, one test at a time.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use netpoll_probe_tests::{
    fixture::{self, GoProgram},
    live::{self, Options, Truth},
    probe::{
        self, Recording,
        exit::{KERNEL, TARGET, USAGE},
    },
    process::{Finished, Follow, Process},
    record,
};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(30);

fn options() -> Result<Options> {
    probe::require_root()?;
    let mut options = Options::new(probe::executable()?, GoProgram::new("truth").build()?);
    options.seconds = 1.0;
    Ok(options)
}

fn attach(arguments: &[&str]) -> Result<Finished> {
    probe::require_root()?;
    run(Command::new(probe::executable()?).arg("attach").args(arguments))
}

fn run(command: &mut Command) -> Result<Finished> {
    Process::spawn(command, Follow::Stderr)?.finish(TIMEOUT)
}

/// Holds the shape of a refusal: nothing on stdout, a cause with each of `words`, a hint, and the exit code.
fn refused(finished: &Finished, exit_code: i32, words: &[&str]) {
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(finished.status.code(), Some(exit_code), "{finished:?}");
    assert_eq!(finished.stdout, "", "stdout is for reports");
    assert_eq!(lines.len(), 2, "not a cause and a hint: {finished:?}");
    let (cause, hint) = (lines[0], lines[1].trim_start());
    assert!(cause.starts_with("netpoll-probe: "), "{cause}");
    for word in words {
        assert!(cause.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in {cause:?}");
    }
    let parts: Vec<&str> = cause.split(": ").collect();
    let distinct: std::collections::HashSet<&&str> = parts.iter().collect();
    assert_eq!(distinct.len(), parts.len(), "it repeats itself: {cause}");
    assert!(hint.starts_with("hint: ") && hint.split_whitespace().count() > 3, "no hint: {hint:?}");
    no_panic(finished);
}

fn no_panic(finished: &Finished) {
    for word in ["panicked", "backtrace", "verifier"] {
        assert!(!finished.stderr.contains(word), "{}", finished.stderr);
    }
}

/// A program that is not Go's.
fn sleep() -> Result<Process> {
    Process::spawn(Command::new("sleep").arg("60"), Follow::Stdout)
}

#[test]
fn no_such_process() {
    // PID_MAX_LIMIT of 64-bit kernels is 4 Mi (include/linux/threads.h): no process ever has this number.
    refused(&attach(&["--pid", "4194304", "-d", "1s"]).unwrap(), TARGET, &["4194304"]);
}

#[test]
fn not_a_go_program() {
    let _turn = live::turn();
    let sleep = sleep().unwrap();
    let pid = sleep.id().to_string();
    refused(&attach(&["--pid", &pid, "-d", "1s"]).unwrap(), TARGET, &["Go"]);
}

#[test]
fn a_command_line_that_is_wrong() {
    for arguments in [
        &["-d", "1s"][..],
        &["--pid", "0"],
        &["--pid", "many"],
        &["--pid", "1", "--hooks", "none"],
        &["--pid", "1", "-d", "soon"],
        &["--pid", "1", "-o", "report.docx"],
    ] {
        let finished = attach(arguments).unwrap();
        assert_eq!(finished.status.code(), Some(USAGE), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stdout, "");
        no_panic(&finished);
    }
}

/// Too old. What is too new may be confirmed by its memory (`demo.rs`).
#[test]
fn a_go_version_that_is_not_supported() {
    let _turn = live::turn();
    let mut stripped = GoProgram::new("truth");
    stripped.arguments = vec!["-ldflags=-s -w".to_owned()];
    let options = Options { truth: stripped.build().unwrap(), ..options().unwrap() };
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("truth");
    let version = fixture::with_minor(&options.truth, "17", &program).unwrap();
    let truth = Truth::start(&Options { truth: program, ..options }, false).unwrap();
    let pid = truth.id().to_string();
    refused(&attach(&["--pid", &pid, "-d", "1s"]).unwrap(), TARGET, &[version.trim_start_matches("go")]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let _turn = live::turn();
    let truth = Truth::start(&options().unwrap(), false).unwrap();
    let pid = truth.id().to_string();
    let begun = Instant::now();
    let finished = attach(&["--pid", &pid, "-d", "20s", "-o", "/proc/nowhere/report.json"]).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "it recorded first");
    let code = finished.status.code().unwrap();
    assert!(code == 1 || code == USAGE, "{finished:?}");
    refused(&finished, code, &["/proc/nowhere/report.json"]);
}

/// What an earlier recording left stays when there is no new one, and there are no new files either.
#[test]
fn a_failed_attach_leaves_the_outputs_alone() {
    let files = tempfile::tempdir().unwrap();
    let (old, new) = (files.path().join("old.ndjson"), files.path().join("new.json"));
    fs::write(&old, "the last recording").unwrap();
    let named = ["-o", old.to_str().unwrap(), "-o", new.to_str().unwrap()];
    let finished = attach(&[&["--pid", "4194304", "-d", "1s"], &named[..]].concat()).unwrap();
    refused(&finished, TARGET, &["4194304"]);
    assert_eq!(fs::read_to_string(&old).unwrap(), "the last recording");
    assert!(!new.exists());
}

#[test]
fn not_root() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let (_files, program) = probe::for_everybody(&options.probe).unwrap();
    let finished = run(Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
        .arg(program)
        .args(["attach", "--pid", &truth.id().to_string(), "-d", "1s"]))
    .unwrap();
    refused(&finished, KERNEL, &[]);
    assert!(finished.stderr.contains("root") || finished.stderr.contains("sudo"), "{}", finished.stderr);
}

#[test]
fn root_without_the_capabilities() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let without = "-bpf,-perfmon,-sys_admin";
    let finished = run(Command::new("setpriv")
        .args([&format!("--bounding-set={without}"), "--"])
        .arg(&options.probe)
        .args(["attach", "--pid", &truth.id().to_string(), "-d", "1s"]))
    .unwrap();
    refused(&finished, KERNEL, &[]);
    assert!(finished.stderr.to_lowercase().contains("cap_"), "which capability: {}", finished.stderr);
}

/// A kernel built without BTF, which is where the offsets of its structs come from.
#[test]
fn a_kernel_without_btf() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    let finished = run(Command::new("unshare")
        .args(["--mount", "--", "sh", "-c", script, "sh"])
        .arg(&options.probe)
        .args(["attach", "--pid", &truth.id().to_string(), "-d", "1s"]))
    .unwrap();
    refused(&finished, KERNEL, &["BTF"]);
}

/// It ends by itself, and reports what it recorded.
#[test]
fn a_target_that_ends_while_recorded() {
    let _turn = live::turn();
    let options = options().unwrap();
    let mut truth = Truth::start(&options, false).unwrap();
    let recording = Recording::start(&options.probe, truth.id(), &[], TIMEOUT).unwrap();
    truth.load().unwrap();
    drop(truth); // killed
    let recorded = recording.wait(TIMEOUT).unwrap();
    assert!(recorded.records.len() > 500, "{} records", recorded.records.len());
    assert!(!recorded.finished.stdout.is_empty(), "no report");
    no_panic(&recorded.finished);
}

/// Whenever the target ends, the tool reports or refuses, and does not hang.
#[test]
fn a_target_that_ends_while_attaching() {
    let _turn = live::turn();
    let options = options().unwrap();
    for delay_ms in [0, 10, 30, 60, 100, 150, 250] {
        let truth = Truth::start(&options, false).unwrap();
        let process = Process::spawn(
            Command::new(&options.probe).args(["attach", "--pid", &truth.id().to_string(), "-d", "20s"]),
            Follow::Stderr,
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        drop(truth);
        let finished = process.finish(Duration::from_secs(15)).unwrap();
        match finished.status.code() {
            Some(0) => assert!(!finished.stdout.is_empty(), "{finished:?}"),
            _ => refused(&finished, TARGET, &[]),
        }
        no_panic(&finished);
    }
}

/// An update has removed or replaced the file, the process runs on.
#[test]
fn an_executable_that_was_deleted_or_replaced() {
    let _turn = live::turn();
    let options = options().unwrap();
    for replaced in [false, true] {
        let files = tempfile::tempdir().unwrap();
        let program = files.path().join("truth");
        fs::copy(&options.truth, &program).unwrap();
        let options = Options { truth: program.clone(), ..options.clone() };
        let mut truth = Truth::start(&options, false).unwrap();
        fs::remove_file(&program).unwrap();
        if replaced {
            fs::copy("/bin/sleep", &program).unwrap();
        }
        let recording = Recording::start(&options.probe, truth.id(), &[], TIMEOUT).unwrap();
        truth.load().unwrap();
        let recorded = recording.stop(TIMEOUT).unwrap();
        let named = |record: &&record::Record| record.stack.iter().any(|frame| frame.func == "main.tcpRead");
        assert!(recorded.records.iter().filter(named).count() > 50, "{} records", recorded.records.len());
        truth.end().unwrap();
    }
}

/// After the end of the tool, whatever its end, the target's code is as it was, and the target runs on.
#[test]
fn nothing_is_left_in_the_target() {
    let _turn = live::turn();
    let options = options().unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut truth = Truth::start(&options, false).unwrap();
        let mut process = Process::spawn(
            Command::new(&options.probe).args(["attach", "--pid", &truth.id().to_string()]),
            Follow::Stderr,
        )
        .unwrap();
        process.wait_for_line("recording", TIMEOUT).unwrap();
        assert!(changed_code_bytes(truth.id(), &options.truth).unwrap() > 0, "no probe in its code");
        process.signal(signal).unwrap();
        process.finish(TIMEOUT).unwrap();
        // The kernel takes the breakpoints out when the last link is gone, which after SIGKILL is a moment later.
        let until = Instant::now() + Duration::from_secs(5);
        let mut left = usize::MAX;
        while left > 0 && Instant::now() < until {
            left = changed_code_bytes(truth.id(), &options.truth).unwrap();
        }
        assert_eq!(left, 0, "bytes of the target's code changed after {signal:?}");
        truth.load().unwrap();
        truth.end().unwrap();
    }
}

/// How many bytes of the process's code differ from its file.
fn changed_code_bytes(pid: u32, program: &Path) -> Result<usize> {
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let file = fs::File::open(program)?;
    let mut changed = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, "r-xp", offset, _, _, path] = fields.as_slice() else { continue };
        if Path::new(path) != fs::canonicalize(program)? {
            continue;
        }
        let (from, to) = range.split_once('-').context("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut now = vec![0; usize::try_from(to - from)?];
        let mut original = now.clone();
        memory.read_exact_at(&mut now, from)?;
        // The last page may reach beyond the end of the file, where both are zero.
        let _ = file.read_at(&mut original, u64::from_str_radix(offset, 16)?)?;
        changed += now.iter().zip(&original).filter(|(now, original)| now != original).count();
    }
    Ok(changed)
}
