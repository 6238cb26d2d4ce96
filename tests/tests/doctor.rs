//! `doctor` on this machine and on ones that are made worse: what it says is what attach does. As root, one test at a time.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::{
    fixture::GoProgram,
    live::{self, Options, Truth},
    probe::{
        self,
        exit::{GOOD, KERNEL, TARGET},
    },
    process::{Finished, Follow, Process},
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);

fn options() -> Result<Options> {
    probe::require_root()?;
    Ok(Options::new(probe::executable()?, GoProgram::new("truth").build()?))
}

fn run(command: &mut Command) -> Result<Finished> {
    let finished = Process::spawn(command, Follow::Stderr)?.finish(TIMEOUT)?;
    ensure!(!finished.stderr.contains("panicked"), "{finished:?}");
    Ok(finished)
}

/// A command that runs what follows it with fewer rights, or in a world of its own.
fn under(wrapper: &[&str], program: &PathBuf, arguments: &[&str]) -> Result<Finished> {
    match wrapper.split_first() {
        None => run(Command::new(program).args(arguments)),
        Some((first, rest)) => run(Command::new(first).args(rest).arg(program).args(arguments)),
    }
}

const NOBODY: [&str; 6] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];
const WITHOUT_BTF: [&str; 7] =
    ["unshare", "--mount", "--", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];
const WITHOUT_CAPABILITIES: [&str; 3] = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--"];
const PID_NAMESPACE: [&str; 5] = ["unshare", "--fork", "--pid", "--mount-proc", "--"];

fn json(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("no JSON: {finished:?}"))
}

/// The names of the checks with that grade.
fn graded<'a>(checks: &'a Value, grade: &str) -> Vec<&'a str> {
    let checks = checks.as_array().map(Vec::as_slice).unwrap_or_default();
    checks.iter().filter(|check| check["grade"] == grade).filter_map(|check| check["name"].as_str()).collect()
}

#[test]
fn as_root_and_as_attach_does() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let pid = truth.id().to_string();
    let finished = under(&[], &options.probe, &["doctor", "--pid", &pid, "--json"]).unwrap();
    assert_eq!(finished.status.code(), Some(GOOD), "{finished:?}");
    let found = json(&finished).unwrap();
    assert_eq!(found["works"], true);
    for checks in [&found["machine"], &found["target"]["checks"]] {
        assert_eq!(graded(checks, "problem"), [""; 0], "{found:#}");
        for check in checks.as_array().unwrap() {
            assert_eq!(check["mend"].is_null(), check["grade"] == "good", "{check:#}");
        }
    }
    assert_eq!(found["target"]["pid"], truth.id());
    // The plan is the one that attach reports.
    let clocks = found["plan"]["clocks"].as_array().unwrap();
    let recorded =
        under(&[], &options.probe, &["attach", "--pid", &pid, "-d", "500ms", "-f", "json"]).unwrap();
    let recorded = json(&recorded).unwrap();
    assert_eq!(recorded["plan"]["clocks"].as_array().unwrap().len(), clocks.len());
    for (clock, attached) in clocks.iter().zip(recorded["plan"]["clocks"].as_array().unwrap()) {
        let hooks: Vec<&str> =
            clock["hooks"].as_array().unwrap().iter().map(|hook| hook.as_str().unwrap()).collect();
        assert_eq!(attached["hook"], hooks.join(", "));
        assert!(clock["cost"]["least_ns"].as_u64().unwrap() <= clock["cost"]["most_ns"].as_u64().unwrap());
    }
}

#[test]
fn as_text_it_says_the_verdict_first() {
    let _turn = live::turn();
    let options = options().unwrap();
    let finished = under(&[], &options.probe, &["doctor"]).unwrap();
    assert_eq!(finished.status.code(), Some(GOOD), "{finished:?}");
    assert!(finished.stdout.starts_with("attach works here"), "{finished:?}");
    for words in ["eBPF programs", "cost: ", "expected "] {
        assert!(finished.stdout.contains(words), "{words}: {finished:?}");
    }
    assert!(!finished.stdout.contains('\u{1b}'), "colors, and no terminal");
}

/// Where attach is refused doctor says so, with the same exit code and what to do.
#[test]
fn each_refusal_is_foretold() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let pid = truth.id().to_string();
    let (_files, program) = probe::for_everybody(&options.probe).unwrap();
    for (wrapper, problem, mend) in [
        (&NOBODY[..], "capabilities", "sudo setcap "),
        (&WITHOUT_CAPABILITIES, "capabilities", "--privileged"),
        (&WITHOUT_BTF, "kernel BTF", "CONFIG_DEBUG_INFO_BTF=y"),
    ] {
        let attached = under(wrapper, &program, &["attach", "--pid", &pid, "-d", "100ms"]).unwrap();
        assert_eq!(attached.status.code(), Some(KERNEL), "{attached:?}");
        for arguments in [&["doctor", "--json"][..], &["doctor", "--json", "--pid", &pid]] {
            let finished = under(wrapper, &program, arguments).unwrap();
            assert_eq!(finished.status.code(), Some(KERNEL), "{finished:?}");
            let found = json(&finished).unwrap();
            assert_eq!((&found["works"], &found["blame"]), (&false.into(), &"machine".into()));
            let checks = found["machine"].as_array().unwrap();
            let check = checks.iter().find(|check| check["name"] == problem).unwrap();
            assert_eq!(check["grade"], "problem", "{found:#}");
            assert!(check["mend"].as_str().unwrap().contains(mend), "{check:#}");
        }
        let text = under(wrapper, &program, &["doctor"]).unwrap();
        assert!(text.stdout.starts_with("attach does not work here"), "{text:?}");
        assert!(text.stdout.contains("mend: "), "{text:?}");
    }
}

/// The capabilities that it names are those that attach needs here, no more and no fewer.
#[test]
fn the_capabilities_that_it_names_are_enough() {
    let _turn = live::turn();
    let options = options().unwrap();
    let truth = Truth::start(&options, false).unwrap();
    let pid = truth.id().to_string();
    let (_files, program) = probe::for_everybody(&options.probe).unwrap();
    let sets = [
        "+sys_admin,+sys_ptrace,+dac_read_search",
        "+bpf,+perfmon,+sys_ptrace,+dac_read_search",
        "+sys_admin,+dac_read_search",
        "+sys_ptrace,+dac_read_search",
    ];
    for (index, set) in sets.into_iter().enumerate() {
        let script = "mount -t tracefs nodev /sys/kernel/tracing 2>/dev/null; exec \"$@\"";
        let inheritable = format!("--inh-caps=-all,{set}");
        let ambient = format!("--ambient-caps=-all,{set}");
        let wrapper = [
            &["unshare", "--mount", "--", "sh", "-c", script, "sh", "setpriv", "--reuid=65534"][..],
            &["--regid=65534", "--clear-groups", &inheritable, &ambient, "--"],
        ]
        .concat();
        let attached = under(&wrapper, &program, &["attach", "--pid", &pid, "-d", "100ms"]).unwrap();
        let finished = under(&wrapper, &program, &["doctor", "--pid", &pid]).unwrap();
        assert_eq!(finished.status.code(), attached.status.code(), "{set}: {attached:?} {}", finished.stdout);
        if index == 0 {
            assert_eq!(finished.status.code(), Some(GOOD), "{set}: {finished:?}");
        }
    }
}

/// There attach works, on the processes that are seen from there.
#[test]
fn in_a_pid_namespace() {
    let _turn = live::turn();
    let options = options().unwrap();
    let finished = under(&PID_NAMESPACE, &options.probe, &["doctor", "--json"]).unwrap();
    assert_eq!(finished.status.code(), Some(GOOD), "{finished:?}");
    let machine = &json(&finished).unwrap()["machine"];
    assert!(graded(machine, "warning").contains(&"PID namespace"), "{machine}");
}

#[test]
fn a_process_that_cannot_be_attached_to() {
    let _turn = live::turn();
    let options = options().unwrap();
    let sleep = Process::spawn(Command::new("sleep").arg("60"), Follow::Stdout).unwrap();
    let not_go = sleep.id().to_string();
    // PID_MAX_LIMIT of 64-bit kernels is 4 Mi (include/linux/threads.h): no process ever has this number.
    for (pid, words) in [(not_go.as_str(), "not a Go binary"), ("4194304", "no process has pid 4194304")] {
        let attached = under(&[], &options.probe, &["attach", "--pid", pid, "-d", "100ms"]).unwrap();
        let finished = under(&[], &options.probe, &["doctor", "--pid", pid, "--json"]).unwrap();
        assert_eq!(attached.status.code(), Some(TARGET), "{attached:?}");
        assert_eq!(finished.status.code(), Some(TARGET), "{finished:?}");
        let found = json(&finished).unwrap();
        assert_eq!((&found["blame"], &found["plan"]), (&"target".into(), &Value::Null));
        let problem = found["target"]["checks"].as_array().unwrap().last().unwrap();
        assert_eq!(problem["grade"], "problem");
        assert!(problem["found"].as_str().unwrap().contains(words), "{problem:#}");
        assert!(attached.stderr.contains(words), "attach says otherwise: {attached:?}");
    }
}

#[test]
fn it_leaves_nothing_behind() {
    let _turn = live::turn();
    let options = options().unwrap();
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    under(&[], &options.probe, &["doctor"]).unwrap();
    assert_eq!(mounts(), before);
    let schema = under(&[], &options.probe, &["doctor", "--json-schema"]).unwrap();
    assert_eq!(json(&schema).unwrap()["$id"], "netpoll-probe/checkup/1");
}
