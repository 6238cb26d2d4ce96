//! Which processes are recorded, and wherever they live: several, by name, in control groups and containers, in namespaces of
//! their own. Each is held against the log of the truth program, as root.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{self, Recorded, Recording},
    process::{Follow, Process},
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn options(program: &GoProgram) -> Result<Options> {
    probe::require_root()?;
    Ok(Options::new(probe::executable()?, program.build()?).short())
}

fn truth() -> GoProgram {
    GoProgram::new("truth")
}

fn attach(options: &Options, targets: &[&str]) -> Result<Recording> {
    Recording::of(Command::new(&options.probe).arg("attach").args(targets), &[], TIMEOUT)
}

/// The log of a truth program agrees with what was recorded of it.
#[expect(clippy::print_stdout, reason = "the numbers, for --nocapture")]
fn holds(truth: Truth, pid: u32, recorded: &Recorded, options: &Options) {
    let (calls, _files) = truth.end().unwrap();
    let verdict = live::judge(&calls, recorded, Some(pid), &options.bounds);
    println!("{verdict}");
    assert!(verdict.good(), "does not hold: {:?}\n{verdict}", verdict.failed());
}

/// The first process below `pid` whose executable has this name.
fn below(pid: u32, name: &str) -> Result<u32> {
    let until = Instant::now() + TIMEOUT;
    while Instant::now() < until {
        let mut found = vec![pid];
        while let Some(pid) = found.pop() {
            let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if executable.file_name().is_some_and(|file| file == name) {
                return Ok(pid);
            }
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("no process {name} below {pid}")
}

#[test]
fn several_processes_of_one_executable() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let mut first = Truth::start(&options, false).unwrap();
    let mut second = Truth::start(&options, false).unwrap();
    let ids = [first.id(), second.id()];
    let recording =
        attach(&options, &["-p", &ids[0].to_string(), "-p", &ids[1].to_string(), "-p", &ids[0].to_string()])
            .unwrap();
    first.load().unwrap();
    second.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    assert_eq!(recorded.pids(), ids.iter().map(|id| u64::from(*id)).collect());
    assert!(
        recorded.finished.stdout.starts_with("2 processes of truth · pids "),
        "{}",
        recorded.finished.stdout
    );
    holds(first, ids[0], &recorded, &options);
    holds(second, ids[1], &recorded, &options);
}

/// Two executables with different layouts, one of them position independent, in one recording.
#[test]
fn processes_of_different_executables() {
    let _turn = live::turn();
    let new = options(&GoProgram { arguments: vec!["-buildmode=pie".to_owned()], ..truth() }).unwrap();
    let old = options(&GoProgram { toolchain: Some("go1.18.10".to_owned()), ..truth() }).unwrap();
    let mut first = Truth::start(&new, false).unwrap();
    let mut second = Truth::start(&old, false).unwrap();
    let ids = [first.id(), second.id()];
    let recording = attach(&new, &["-p", &ids[0].to_string(), "-p", &ids[1].to_string()]).unwrap();
    first.load().unwrap();
    second.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    assert_eq!(recorded.pids().len(), 2);
    holds(first, ids[0], &recorded, &new);
    holds(second, ids[1], &recorded, &old);
}

/// One of several ends; the others are recorded on.
#[test]
fn one_of_several_ends() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let first = Truth::start(&options, false).unwrap();
    let mut second = Truth::start(&options, false).unwrap();
    let ids = [first.id(), second.id()];
    let recording = attach(&options, &["-p", &ids[0].to_string(), "-p", &ids[1].to_string()]).unwrap();
    drop(first);
    second.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    assert_eq!(recorded.pids().len(), 2, "it was recorded, if not to the end");
    holds(second, ids[1], &recorded, &options);
}

#[test]
fn processes_of_a_name() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    // A name that nothing else here has, in the kernel's 15 characters.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("np-by-its-name-");
    fs::copy(&options.truth, &program).unwrap();
    let mut named = Truth::start_by(&mut Command::new(&program), &options, false).unwrap();
    let pid = named.id();
    let recording = attach(&options, &["--comm", "np-by-its-name-"]).unwrap();
    named.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    // The truth program's peer is a process of the same program.
    assert!(recorded.pids().contains(&u64::from(pid)));
    holds(named, pid, &recorded, &options);
}

/// A control group of this test, removed with its processes.
struct Group(PathBuf);

impl Group {
    /// Below the unified hierarchy, mounted here if nobody has.
    fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounted
            .filter(|fields| fields.get(2) == Some(&"cgroup2"))
            .find_map(|fields| fields.get(1).copied());
        let path = Path::new(mount.context("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")?)
            .join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn add(&self, pid: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .context("cannot move a process into the group")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let until = Instant::now() + TIMEOUT;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A group's Go processes, those of them that come later, and not its shells.
#[test]
fn a_control_group_and_who_joins_it() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let group = Group::new(&format!("netpoll-probe-test-{}", std::process::id())).unwrap();
    let mut first = Truth::start(&options, false).unwrap();
    let shell = Process::spawn(Command::new("sleep").arg("60"), Follow::Stdout).unwrap();
    group.add(first.id()).unwrap();
    group.add(shell.id()).unwrap();
    let recording = attach(&options, &["--cgroup", &group.0.display().to_string()]).unwrap();
    first.load().unwrap();
    let mut second = Truth::start(&options, false).unwrap();
    group.add(second.id()).unwrap();
    // Looked for five times a second.
    std::thread::sleep(Duration::from_secs(1));
    second.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    let ids = [first.id(), second.id()];
    assert_eq!(recorded.pids(), ids.iter().map(|id| u64::from(*id)).collect(), "and not the shell");
    holds(first, ids[0], &recorded, &options);
    let (calls, _files) = second.end().unwrap();
    let began =
        recorded.records.iter().filter(|record| record.pid == ids[1]).map(|record| record.start_ns).min();
    let later: Vec<_> = calls.into_iter().filter(|call| Some(call.after_ns) > began).collect();
    let mut bounds = options.bounds;
    // The bounds of the window are those of the first process.
    bounds.found = 0.995;
    let verdict = live::judge(&later, &recorded, Some(ids[1]), &bounds);
    let failed: Vec<_> = verdict
        .failed()
        .into_iter()
        .filter(|name| !name.starts_with("waits open at the beginning"))
        .collect();
    assert!(failed.is_empty(), "does not hold: {failed:?}\n{verdict}");
}

/// By the beginning of a container's id, and by the pid inside.
#[test]
fn a_container() {
    const ID: &str = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let group = Group::new(&format!("docker-{ID}.scope")).unwrap();
    let mut inside = in_namespaces(&options, &["--pid", "--fork", "--mount-proc"]).unwrap();
    let pid = below(inside.id(), "truth").unwrap();
    group.add(pid).unwrap();
    let recording = attach(&options, &["--container", &ID[..12], "-p", "1"]).unwrap();
    inside.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    assert_eq!(recorded.summary["targets"][0]["pid"], pid);
    assert_eq!(recorded.summary["targets"][0]["namespace_pid"], 1);
    assert!(recorded.finished.stdout.contains("(1 in its container)"), "{}", recorded.finished.stdout);
    holds(inside, pid, &recorded, &options);
}

fn in_namespaces(options: &Options, namespaces: &[&str]) -> Result<Truth> {
    let mut command = Command::new("unshare");
    command.args(namespaces).arg("--").arg(&options.truth);
    Truth::start_by(&mut command, options, false)
}

/// Its own PID, network, mount, IPC, UTS and user namespaces, its executable in a file system that only it sees, and deleted
/// there: seen from outside.
#[test]
fn a_process_in_namespaces_of_its_own() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "ip link set lo up && mount -t tmpfs none {0} && cp {1} {0}/truth && exec {0}/truth \"$@\"",
        folder.path().display(),
        options.truth.display()
    );
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--net",
        "--mount",
        "--ipc",
        "--uts",
        "--user",
        "--map-root-user",
    ]);
    command.args(["--", "sh", "-c", &script, "sh"]);
    let mut inside = Truth::start_by(&mut command, &options, false).unwrap();
    let pid = below(inside.id(), "truth").unwrap();
    assert!(!folder.path().join("truth").exists(), "it is in a mount that is not seen here");
    let recording = attach(&options, &["-p", &pid.to_string()]).unwrap();
    inside.load().unwrap();
    let recorded = recording.stop(TIMEOUT).unwrap();
    holds(inside, pid, &recorded, &options);
}

/// The probe itself in a PID namespace, where the ids that eBPF knows are not those that it sees.
#[test]
fn the_probe_in_a_namespace() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let mut inside = in_namespaces(&options, &["--pid", "--fork", "--mount-proc"]).unwrap();
    let outside = below(inside.id(), "truth").unwrap();
    let mut command = Command::new("nsenter");
    command.args(["--target", &outside.to_string(), "--pid", "--mount", "--"]).arg(&options.probe);
    command.args(["attach", "--pid", "1", "-d", "5s"]);
    let recording = Recording::of(&mut command, &[], TIMEOUT).unwrap();
    inside.load().unwrap();
    let recorded = recording.wait(TIMEOUT).unwrap();
    assert_eq!(recorded.pids(), [1].into());
    holds(inside, 1, &recorded, &options);
}

/// What cannot be found is said, with the exit code for targets.
#[test]
fn nothing_to_attach_to() {
    let _turn = live::turn();
    let options = options(&truth()).unwrap();
    let refusals: [(&[&str], &str); 5] = [
        (&["attach", "--comm", "no-such-name"], "no process is named"),
        (&["attach", "--cgroup", "/no/such/group"], "no control group"),
        (&["attach", "--container", "0123456789ab"], "no process runs in a container"),
        (&["run", "--", "no-such-program"], "there is no program"),
        (&["run", "--", "/bin/sh", "-c", "true"], "not a Go binary"),
    ];
    for (arguments, cause) in refusals {
        let mut command = Command::new(&options.probe);
        let finished =
            Process::spawn(command.args(arguments), Follow::Stderr).unwrap().finish(TIMEOUT).unwrap();
        assert_eq!(finished.status.code(), Some(4), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(cause) && finished.stderr.contains("hint: "), "{}", finished.stderr);
    }
    let ensure_left = || -> Result<()> {
        let left = fs::read_dir("/proc")?.flatten().filter(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            name.trim() == "netpoll-probe" && state.contains(") T ")
        });
        ensure!(left.count() == 0, "a stopped child is left");
        Ok(())
    };
    ensure_left().unwrap();
}
