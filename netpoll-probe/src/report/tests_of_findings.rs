//! The findings of `inspect` and `doctor` against golden files in `tests/golden`, and against their schemas.

use serde_json::{Value, json};

use super::{
    Options,
    findings::{checkup_json, checkup_text, inspection_json, inspection_text},
    schema,
    tests::{assert_valid, golden, strict},
};
use crate::model::{
    checkup::{Blame, Check, Checkup, Cost, Plan, PlanClock, TargetCheckup},
    inspection::{
        Build, Executable, Finding, Global, Inspection, Instruction, Member, Offsets, Place, Revision, Site,
        Struct, Tables, Verdict,
    },
};

fn instruction(offset: u64, text: &str, emulated: &'static str) -> Finding<Instruction> {
    Finding::Found(Instruction {
        function: "internal/poll.runtime_pollWait".to_owned(),
        offset,
        address: 0x47_e760 + offset,
        file_offset: 0x7_e760 + offset,
        bytes: "55".to_owned(),
        text: text.to_owned(),
        emulated: Some(emulated),
    })
}

fn site(purpose: &'static str, needed: bool, instruction: Finding<Instruction>) -> Site {
    Site { purpose, needed, instruction }
}

/// A profile-guided build with everything that can be recorded.
fn shop() -> Inspection {
    let inlined = || Finding::Not("runtime.netpollready is inlined into runtime.netpoll".to_owned());
    Inspection {
        file: "/srv/shop\u{1b}[2J".to_owned(),
        size_bytes: 63_456_789,
        attach: Verdict { works: true, reason: None, hint: None },
        limits: vec!["--hooks runtime, a second opinion, does not work: runtime.netpollready is inlined into runtime.netpoll".to_owned()],
        executable: Finding::Found(Executable {
            machine: "amd64",
            pie: true,
            dynamic: true,
            symbols: false,
            dwarf: false,
            section_headers: true,
            linker: Some("external"),
            gnu_build_id: Some("b2e2eca3706e30fd6c2a26be70867d0762a9177e".to_owned()),
            go_build_id: Some("MsZ9UBIWh5qNkLxoLxm0/-CMI1VAIF4X46ANk6QK9/4IgmP18GMT6u8bM7qVI3/igZZ1ix0oMUpl8Tr6Yr_".to_owned()),
        }),
        build: Build {
            go_version: Some("go1.26.8-corp X:jsonv2".to_owned()),
            vendor: Some("corp".to_owned()),
            experiments: vec!["jsonv2".to_owned()],
            package: Some("example.com/shop/cmd/shop".to_owned()),
            module: Some("example.com/shop".to_owned()),
            module_version: Some("v1.4.2".to_owned()),
            mode: Some("pie".to_owned()),
            compiler: Some("gc".to_owned()),
            cgo_enabled: Some(true),
            cgo: Some(true),
            race: Some(false),
            sanitizer: None,
            trimpath: Some(true),
            pgo: Some("/build/default.pgo".to_owned()),
            processor_level: Some("v3".to_owned()),
            fips: Some("v1.0.0".to_owned()),
            ldflags: Some("-s -w -linkmode=external".to_owned()),
            tags: Some("netgo".to_owned()),
            revision: Some(Revision {
                system: Some("git".to_owned()),
                id: "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567".to_owned(),
                time: Some("2026-11-20T10:00:00Z".to_owned()),
                modified: Some(true),
            }),
        },
        tables: Finding::Found(Tables {
            pclntab: Place { address: 0x54_ce98, section: Some(".gopclntab".to_owned()) },
            moduledata: Place { address: 0x62_d638, section: None },
            functions: 112_824,
            text: 0x40_1000,
            inlining: true,
        }),
        sites: vec![
            site("start of a wait", true, instruction(10, "push rbp", "push")),
            site("end of a wait", true, instruction(135, "jne 0x47e852", "jcc")),
            site("netpollblock, for --hooks runtime", false, instruction(10, "push rbp", "push")),
            site("netpollready, for --hooks runtime", false, inlined()),
        ],
        offsets: Finding::Found(Offsets {
            source: "the table of known versions, go1.26.8".to_owned(),
            epoll_data: "the pollDesc's address without its 9 low bits, and 24 bits of fdseq".to_owned(),
            structs: vec![
                Struct {
                    name: "runtime.g",
                    size: Some(456),
                    members: vec![Member { name: "m", offset: 48 }, Member { name: "goid", offset: 152 }],
                },
                Struct { name: "runtime.m", size: None, members: vec![Member { name: "g0", offset: 0 }] },
            ],
        }),
        globals: vec![
            Global { name: "runtime.allgs", address: Finding::Found(0x63_b9c0) },
            Global {
                name: "runtime.epfd",
                address: Finding::Not("runtime.netpoll does not refer to runtime.epfd in a known way".to_owned()),
            },
        ],
    }
}

/// No Go program.
fn stranger() -> Inspection {
    let reason = "not a Go binary: x86-64 static executable, no Go build information, no pclntab".to_owned();
    Inspection {
        file: "/bin/busybox".to_owned(),
        size_bytes: 1_131_168,
        attach: Verdict {
            works: false,
            reason: Some(reason.clone()),
            hint: Some("name the executable itself, not a script or a wrapper that starts it".to_owned()),
        },
        limits: Vec::new(),
        executable: Finding::Found(Executable {
            machine: "amd64",
            pie: false,
            dynamic: false,
            symbols: false,
            dwarf: false,
            section_headers: false,
            linker: None,
            gnu_build_id: None,
            go_build_id: None,
        }),
        build: Build::default(),
        tables: Finding::Not(reason.clone()),
        sites: vec![site("start of a wait", true, Finding::Not(reason.clone()))],
        offsets: Finding::Not(reason.clone()),
        globals: vec![Global { name: "runtime.allgs", address: Finding::Not(reason) }],
    }
}

fn plan() -> Plan {
    let clock = |clock: &str, hook: &str, lost: Option<&str>, machine_wide| PlanClock {
        clock: clock.to_owned(),
        hooks: vec![hook.to_owned()],
        why: "once a wait, and never inlined".to_owned(),
        lost: lost.map(str::to_owned),
        cost: Cost { least_ns: 1_700, most_ns: 2_500, per: "wait", machine_wide },
    };
    Plan {
        name: "pollwait".to_owned(),
        why: "runtime_pollWait cannot be inlined, so the counts hold in every build".to_owned(),
        clocks: vec![
            clock("start", "uprobe internal/poll.runtime_pollWait+10 (push rbp)", None, false),
            clock("kernel_ready", "tracepoint sk_data_ready", Some("the exact moment for pipes"), true),
            clock("poll", "tracepoint syscalls:sys_exit_epoll_pwait", None, true),
            clock("end", "uprobe internal/poll.runtime_pollWait+135 (jne 0x47e852)", None, false),
        ],
    }
}

/// A machine and a process on which attach works, with a warning.
fn willing() -> Checkup {
    Checkup {
        works: true,
        blame: None,
        machine: vec![
            Check::good("kernel", "Linux 6.18.4 on x86_64"),
            Check::warning(
                "kernel-ready clock",
                "estimated by 5 tracepoints: no kprobes, and no fentry (not supported)",
                "a kernel with CONFIG_KPROBE_EVENTS=y: zgrep KPROBE_EVENTS /proc/config.gz",
            ),
        ],
        target: Some(TargetCheckup {
            pid: 4242,
            checks: vec![Check::good("process", "sh\u{1b}op, /srv/shop"), Check::good("memory", "readable")],
        }),
        plan: Some(plan()),
    }
}

/// A user without rights.
fn unwilling() -> Checkup {
    Checkup {
        works: false,
        blame: Some(Blame::Machine),
        machine: vec![
            Check::problem(
                "capabilities",
                "not root, without CAP_BPF to load eBPF programs",
                "sudo netpoll-probe",
            ),
            Check::problem("tracefs", "not mounted", "sudo mount -t tracefs nodev /sys/kernel/tracing"),
        ],
        target: None,
        plan: None,
    }
}

fn text_of_inspection(inspection: &Inspection, options: &Options) -> String {
    let mut out = Vec::new();
    inspection_text(inspection, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn text_of_checkup(checkup: &Checkup, options: &Options) -> String {
    let mut out = Vec::new();
    checkup_text(checkup, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json_of_inspection(inspection: &Inspection) -> Value {
    let mut out = Vec::new();
    inspection_json(inspection, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn json_of_checkup(checkup: &Checkup) -> Value {
    let mut out = Vec::new();
    checkup_json(checkup, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn inspections_as_text() {
    golden("inspect-shop.txt", &text_of_inspection(&shop(), &Options::default()));
    golden("inspect-stranger.txt", &text_of_inspection(&stranger(), &Options::default()));
    let options = Options { color: true, width: 80, ..Options::default() };
    golden("inspect-shop-color-80.txt", &text_of_inspection(&shop(), &options));
}

#[test]
fn checkups_as_text() {
    golden("doctor-willing.txt", &text_of_checkup(&willing(), &Options::default()));
    golden("doctor-unwilling.txt", &text_of_checkup(&unwilling(), &Options::default()));
    let options = Options { color: true, width: 80, ..Options::default() };
    golden("doctor-willing-color-80.txt", &text_of_checkup(&willing(), &options));
}

#[test]
fn findings_as_json() {
    for (name, found) in [
        ("inspect-shop.json", json_of_inspection(&shop())),
        ("inspect-stranger.json", json_of_inspection(&stranger())),
        ("doctor-willing.json", json_of_checkup(&willing())),
        ("doctor-unwilling.json", json_of_checkup(&unwilling())),
    ] {
        golden(name, &(serde_json::to_string_pretty(&found).unwrap() + "\n"));
    }
}

#[test]
fn findings_are_as_their_schemas_say() {
    let validator = strict(schema::INSPECTION);
    for inspection in [shop(), stranger()] {
        assert_valid(&validator, &json_of_inspection(&inspection));
    }
    for place in ["", "/attach", "/build", "/executable/found", "/sites/0", "/sites/0/instruction/found"] {
        let mut more = json_of_inspection(&shop());
        more.pointer_mut(place).unwrap()["added"] = json!(1);
        assert!(!validator.is_valid(&more), "an undescribed field is found at {place}");
    }
    let validator = strict(schema::CHECKUP);
    for checkup in [willing(), unwilling()] {
        assert_valid(&validator, &json_of_checkup(&checkup));
    }
    for place in ["", "/machine/0", "/target", "/plan/clocks/0", "/plan/clocks/0/cost"] {
        let mut more = json_of_checkup(&willing());
        more.pointer_mut(place).unwrap()["added"] = json!(1);
        assert!(!validator.is_valid(&more), "an undescribed field is found at {place}");
    }
    assert_eq!(json_of_inspection(&shop())["schema"], schema::INSPECTION_NAME);
    assert_eq!(json_of_checkup(&willing())["schema"], schema::CHECKUP_NAME);
}

#[test]
fn findings_fit_their_width_and_steer_no_terminal() {
    for width in [76, 100, 200] {
        let options = Options { width, ..Options::default() };
        for text in [text_of_inspection(&shop(), &options), text_of_checkup(&willing(), &options)] {
            // A build id has no place to break at, and a command is there to be copied.
            let breaks = |line: &&str| !line.contains("build id") && !line.contains("mend: ");
            let longest = text.lines().filter(breaks).map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}: {longest:?}\n{text}");
            assert!(!text.contains('\u{1b}'));
        }
    }
}
