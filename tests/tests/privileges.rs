//! The least privileges that recording works with, and what is kept of more.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use anyhow::{Context, Result};
use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{self, Recording},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// `include/uapi/linux/capability.h`
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const NEEDED: u64 = DAC_READ_SEARCH | SYS_PTRACE | PERFMON | BPF;

fn options() -> Result<Options> {
    probe::require_root()?;
    Ok(Options::new(probe::executable()?, GoProgram::new("truth").build()?).short())
}

/// A line of the process's status, as a hexadecimal number.
fn status(pid: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    u64::from_str_radix(value.with_context(|| format!("no {name}"))?.trim(), 16).context("not a number")
}

/// A user who is nobody, with five capabilities: everything works that works for root.
#[test]
fn with_the_capabilities_that_are_documented() {
    let _turn = live::turn();
    let options = options().unwrap();
    let (_program_folder, program) = probe::for_everybody(&options.probe).unwrap();
    let mut truth = Truth::start(&options, false).unwrap();
    let capabilities = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+sys_admin";
    // The mount is the administrator's part, once.
    let script =
        "mountpoint -q /sys/kernel/tracing || mount -t tracefs nodev /sys/kernel/tracing; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    command.args([
        &format!("--inh-caps={capabilities}"),
        &format!("--ambient-caps={capabilities}"),
        &format!("--bounding-set={capabilities}"),
        "--",
    ]);
    // Written by nobody, where nobody may write.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    command.arg(&program).args(["attach", "--pid", &truth.id().to_string()]);
    let recording = Recording::into(&mut command, &[], folder, TIMEOUT).unwrap();
    truth.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    let cost = &recorded.summary["cost"];
    assert!(cost["bpf_run_ns"].as_u64().is_some_and(|ns| ns > 0), "{cost}");
    let pid = truth.id();
    let (calls, _files) = truth.end().unwrap();
    let verdict = live::judge(&calls, &recorded, Some(pid), &options.bounds);
    assert!(verdict.good(), "does not hold: {:?}\n{verdict}", verdict.failed());
}

/// Root gives up what it does not need once it is attached, and cannot get it back.
#[test]
fn root_gives_up_what_it_does_not_need() {
    let _turn = live::turn();
    let options = options().unwrap();
    let mut truth = Truth::start(&options, false).unwrap();
    let recording = Recording::start(&options.probe, truth.id(), &[], TIMEOUT).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let kept = status(recording.id(), set).unwrap();
        assert_eq!(kept & !(NEEDED | SYS_ADMIN), 0, "{set} {kept:x}");
        assert_eq!(kept & NEEDED, NEEDED, "{set} {kept:x}");
    }
    assert_eq!(status(recording.id(), "CapInh").unwrap(), 0);
    assert_eq!(status(recording.id(), "NoNewPrivs").unwrap(), 1);
    // It still reads the goroutines of the process at the end, and knows what it cost.
    truth.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    let cost = &recorded.summary["cost"];
    assert!(cost["bpf_run_ns"].as_u64().is_some_and(|ns| ns > 0), "{cost}");
    let pid = truth.id();
    let (calls, _files) = truth.end().unwrap();
    let verdict = live::judge(&calls, &recorded, Some(pid), &options.bounds);
    assert!(verdict.good(), "does not hold: {:?}\n{verdict}", verdict.failed());
}
