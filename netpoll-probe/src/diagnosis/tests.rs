//! Rules held against facts, and every file inspected without a panic.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    binary, machine,
    target::{self, FdFacts, ProcessFacts},
};
use crate::{
    bpf::{
        machine::MachineFacts,
        support::KernelFacts,
        trial::{ProgramKind, Refusal, Trial},
    },
    gobin::{ReadAt, tests::fixture::Fixture},
    model::{
        checkup::{Check, Grade},
        inspection::{Finding, Inspection},
    },
};

fn inspect(file: Vec<u8>) -> Inspection {
    let reader: Arc<dyn ReadAt> = Arc::new(file);
    binary::inspect("file", &reader).unwrap()
}

#[test]
fn what_is_known_of_a_file_that_is_no_program() {
    for (file, reason) in [
        (vec![], "not an ELF file: it starts with []"),
        (b"#!/bin/sh\necho this is a script\n".to_vec(), "not an ELF file: it starts with [23, 21, 2f, 62]"),
    ] {
        let size_bytes = file.len() as u64;
        let inspection = inspect(file);
        assert_eq!(inspection.size_bytes, size_bytes);
        assert!(!inspection.attach.works);
        assert!(inspection.attach.reason.unwrap().contains(reason));
        assert!(inspection.attach.hint.is_some());
        assert!(matches!(inspection.executable, Finding::Not(_)));
        assert!(inspection.sites.iter().all(|site| site.instruction.found().is_none()));
        assert_eq!(inspection.sites.len(), 5);
    }
}

#[test]
fn one_missing_fact_does_not_hide_the_others() {
    // Its tables are those of a Go program, but it has no poller.
    let inspection = inspect(Fixture::GO_1_26.build());
    assert!(!inspection.attach.works);
    let reason = inspection.attach.reason.unwrap();
    assert_eq!(reason, "the binary has no function runtime.netpoll");
    assert_eq!(inspection.executable.found().unwrap().machine, "amd64");
    assert_eq!(inspection.build.go_version.as_deref(), Some("go1.26.8"));
    assert_eq!(inspection.build.cgo_enabled, Some(false));
    assert_eq!(inspection.tables.found().unwrap().functions, 3);

    // Without build information the tables are there still.
    let inspection = inspect(Fixture { go_version: None, ..Fixture::GO_1_26 }.build());
    assert!(inspection.attach.reason.unwrap().contains("does not say its Go version"));
    assert_eq!(inspection.tables.found().unwrap().functions, 3);

    let old = inspect(Fixture { go_version: Some("go1.17.9"), ..Fixture::GO_1_18 }.build());
    assert_eq!(old.build.go_version.as_deref(), Some("go1.17.9"));
    assert!(old.attach.reason.unwrap().contains("go1.17.9"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_file_is_inspected(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        old in any::<bool>(),
    ) {
        let mut file = if old { Fixture::GO_1_18 } else { Fixture::GO_1_26 }.build();
        // The tables are in the first pages; zeros follow.
        for (index, byte) in bytes {
            file[index.index(0x2600)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let inspection = inspect(file);
        prop_assert_eq!(inspection.attach.works, inspection.attach.reason.is_none());
        prop_assert!(!inspection.attach.works || target::facts_for_plan(&inspection).is_some());
    }

    #[test]
    fn any_bytes_are_inspected(file in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(!inspect(file).attach.works);
    }
}

/// A machine on which everything works.
fn good_machine() -> MachineFacts {
    MachineFacts {
        release: "6.12.9-1-generic".to_owned(),
        machine: "x86_64".to_owned(),
        root: true,
        capabilities: Some((1 << 41) - 1),
        btf: Ok(()),
        members: Ok(()),
        kernel: Some(KernelFacts {
            fentry: Some(true),
            has_callback: true,
            kprobe: true,
            syscall_exit: true,
            ..KernelFacts::default()
        }),
        lockdown: Some("[none] integrity confidentiality".to_owned()),
        perf_event_paranoid: Some(2),
        unprivileged_bpf_disabled: Some(2),
        jit: Some(1),
        uprobe: true,
        uprobe_multi: Some(true),
        initial_pid_namespace: Some(true),
        programs: Ok(vec![trial(ProgramKind::Kprobe, None), trial(ProgramKind::Iterator, None)]),
    }
}

fn trial(kind: ProgramKind, refusal: Option<Refusal>) -> Trial {
    Trial { hook: "uprobe x".to_owned(), kind, refusal }
}

fn denied() -> Refusal {
    Refusal { reason: "`perf_event_open` failed: Permission denied (os error 13)".to_owned(), denied: true }
}

#[track_caller]
fn not_good(facts: &MachineFacts) -> Vec<Check> {
    let mut checks = machine::checks(facts);
    assert!(checks.iter().all(|check| (check.grade == Grade::Good) == check.mend.is_none()));
    checks.retain(|check| check.grade != Grade::Good);
    checks
}

#[test]
fn a_good_machine_has_nothing_to_mend() {
    assert_eq!(not_good(&good_machine()), []);
}

#[test]
fn each_fault_is_one_problem_with_its_cure() {
    let good = good_machine;
    let kernel = |change: fn(&mut KernelFacts)| {
        let mut facts = good();
        facts.kernel.iter_mut().for_each(change);
        facts
    };
    for (facts, name, grade, mend) in [
        (
            MachineFacts { lockdown: Some("none integrity [confidentiality]".to_owned()), ..good() },
            "lockdown",
            Grade::Problem,
            "lockdown=integrity",
        ),
        (
            MachineFacts { initial_pid_namespace: Some(false), ..good() },
            "PID namespace",
            Grade::Warning,
            "--pid=host",
        ),
        (MachineFacts { jit: Some(0), ..good() }, "eBPF JIT", Grade::Warning, "net.core.bpf_jit_enable=1"),
        (MachineFacts { release: "5.15.0".to_owned(), ..good() }, "kernel", Grade::Warning, "6.1"),
        (MachineFacts { uprobe: false, ..good() }, "uprobes", Grade::Problem, "CONFIG_UPROBE_EVENTS"),
        (kernel(|k| k.syscall_exit = false), "system calls", Grade::Problem, "CONFIG_FTRACE_SYSCALLS"),
        (
            kernel(|k| (k.fentry, k.kprobe) = (Some(false), false)),
            "kernel-ready clock",
            Grade::Warning,
            "KPROBE_EVENTS",
        ),
        (
            MachineFacts { members: Err("this kernel's BTF has no epitem.ep".to_owned()), ..good() },
            "kernel structs",
            Grade::Problem,
            "Linux 6.1",
        ),
    ] {
        let found = not_good(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name, found[0].grade), (name, grade));
        assert!(found[0].mend.as_ref().unwrap().contains(mend), "{found:?}");
    }
}

#[test]
fn capabilities_are_told_by_their_names() {
    let facts =
        |capabilities: u64| MachineFacts { root: false, capabilities: Some(capabilities), ..good_machine() };
    let none = not_good(&facts(0));
    assert_eq!(
        none[0].found,
        "not root, without CAP_BPF to load eBPF programs, CAP_PERFMON to place probes, CAP_SYS_PTRACE to look at other users' processes"
    );
    assert!(none[0].mend.as_ref().unwrap().starts_with("sudo setcap "));
    // CAP_SYS_ADMIN stands in for all but CAP_SYS_PTRACE.
    let admin = not_good(&facts(1 << 21));
    assert!(admin[0].found.contains("without CAP_SYS_PTRACE") && !admin[0].found.contains("without CAP_BPF"));
    assert_eq!(not_good(&facts(1 << 21 | 1 << 19)), []);
    // The capabilities that the manual names are enough, unless this kernel wants more.
    let named = 1 << 39 | 1 << 38 | 1 << 19;
    assert_eq!(not_good(&facts(named)), []);
    let stricter =
        MachineFacts { programs: Ok(vec![trial(ProgramKind::Kprobe, Some(denied()))]), ..facts(named) };
    let found = not_good(&stricter);
    assert!(
        found[0].found.contains("without CAP_SYS_ADMIN, which this kernel wants for uprobes"),
        "{found:?}"
    );
    assert_eq!(found[1].mend.as_deref(), Some("as for capabilities"));
}

#[test]
fn without_btf_nothing_is_guessed() {
    let reason = "cannot read /sys/kernel/btf/vmlinux: No such file or directory".to_owned();
    let facts = MachineFacts {
        btf: Err(reason.clone()),
        members: Err(reason.clone()),
        kernel: None,
        uprobe_multi: None,
        programs: Err(Refusal { reason: "no BTF".to_owned(), denied: false }),
        ..good_machine()
    };
    let found = not_good(&facts);
    assert_eq!(found[0].name, "kernel BTF");
    assert!(found[0].mend.as_ref().unwrap().contains("CONFIG_DEBUG_INFO_BTF"));
    assert!(found[1..].iter().all(|check| check.mend.as_deref() == Some("as for kernel BTF")), "{found:?}");
}

#[test]
fn a_process_tells_what_would_not_be_seen() {
    let mut inspection = inspect(Fixture::GO_1_26.build());
    let process = ProcessFacts {
        comm: "shop".to_owned(),
        executable: "/usr/bin/shop".to_owned(),
        namespace_pids: vec![4242, 1],
        memory_refusal: None,
        bias_refusal: None,
        fds: Ok(FdFacts { sockets: 5, blocking_sockets: 2, epoll_instances: 3 }),
    };
    let of = |inspection: &Inspection| target::checks(&process, inspection);
    let problem = of(&inspection);
    assert_eq!(problem.last().unwrap().grade, Grade::Problem);
    inspection.attach.works = true;
    inspection.attach.reason = None;
    let names: Vec<_> = of(&inspection).iter().map(|check| (check.name, check.grade)).collect();
    assert_eq!(
        names,
        [
            ("process", Grade::Good),
            ("PID namespace", Grade::Good),
            ("executable", Grade::Good),
            ("load address", Grade::Good),
            ("memory", Grade::Good),
            ("netpoller", Grade::Good),
            ("blocking sockets", Grade::Warning),
            ("epoll instances", Grade::Warning),
        ]
    );
}
