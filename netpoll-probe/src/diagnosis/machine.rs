//! The machine: facts → checks, each with the command that mends it.

use crate::{
    bpf::{
        machine::MachineFacts,
        trial::{ProgramKind, Refusal, Trial},
    },
    model::checkup::Check,
};

/// The oldest kernel that the tests run on.
const TESTED_SINCE: (u32, u32) = (6, 1);

/// `include/uapi/linux/capability.h`
const SYS_PTRACE: u32 = 19;
/// `include/uapi/linux/capability.h`
const PERFMON: u32 = 38;
/// What attaching needs, by number (`include/uapi/linux/capability.h`), and what for.
const NEEDED: [(&str, u32, &str); 3] = [
    ("CAP_BPF", 39, "load eBPF programs"),
    ("CAP_PERFMON", PERFMON, "place probes"),
    ("CAP_SYS_PTRACE", SYS_PTRACE, "look at other users' processes"),
];
/// Stands in for the first two of [`NEEDED`] (capabilities(7)); from Linux 6.16, and where that was backported, uprobes
/// take it and nothing less (CVE-2025-38466; `perf_uprobe_event_init`, `kernel/events/core.c`).
const SYS_ADMIN: u32 = 21;

/// How a program that lacks capabilities gets them; the last is for other users' processes. Tried on Linux 6.18.
const SETCAP: &str = "sudo setcap cap_sys_admin,cap_sys_ptrace,cap_dac_read_search=ep $(command -v netpoll-probe), \
                      or run it by sudo";
/// What was said already.
const AS_FOR_CAPABILITIES: &str = "as for capabilities";
/// How a container gets them.
const CONTAINER: &str = "in a container: docker run --privileged --pid=host …, or run it on the host";

/// All checks of a machine, in the order in which attach would meet them.
#[must_use]
pub fn checks(facts: &MachineFacts) -> Vec<Check> {
    vec![
        kernel(facts),
        rights(facts),
        pid_namespace(facts),
        btf(facts),
        members(facts),
        lockdown(facts),
        syscall_exit(facts),
        uprobes(facts),
        kernel_ready(facts),
        programs(facts),
        perf_event_paranoid(facts),
        unprivileged(facts),
        jit(facts),
        uprobe_multi(facts),
    ]
}

fn kernel(facts: &MachineFacts) -> Check {
    let name = "kernel";
    let found = format!("Linux {} on {}", facts.release, facts.machine);
    let mut numbers = facts.release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= TESTED_SINCE {
        Check::good(name, found)
    } else {
        let (major, minor) = TESTED_SINCE;
        Check::warning(
            name,
            format!("{found}, older than the oldest tested"),
            format!("Linux {major}.{minor} or later"),
        )
    }
}

/// Whether a capability is in effect.
fn has(effective: u64, capability: u32) -> bool {
    effective >> capability & 1 == 1
}

/// Whether a uprobe was refused for want of a permission.
fn uprobes_denied(facts: &MachineFacts) -> bool {
    let denied = |trial: &Trial| {
        trial.kind == ProgramKind::Kprobe && trial.refusal.as_ref().is_some_and(|refusal| refusal.denied)
    };
    facts.programs.as_ref().is_ok_and(|trials| trials.iter().any(denied))
}

fn rights(facts: &MachineFacts) -> Check {
    let name = "capabilities";
    let mend = if facts.root { CONTAINER } else { SETCAP };
    let user = if facts.root { "root" } else { "not root" };
    let Some(effective) = facts.capabilities else {
        return Check::warning(
            name,
            format!("{user}; /proc/self/status does not tell them"),
            "is /proc mounted? mount -t proc proc /proc",
        );
    };
    let stands_in = |capability: u32| capability != SYS_PTRACE && has(effective, SYS_ADMIN);
    let (present, missing): (Vec<_>, Vec<_>) = NEEDED
        .into_iter()
        .partition(|(_, capability, _)| has(effective, *capability) || stands_in(*capability));
    let names = |list: &[(&'static str, u32, &'static str)]| {
        list.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
    };
    if missing.is_empty() && !has(effective, SYS_ADMIN) && uprobes_denied(facts) {
        let found = format!(
            "{user}, without CAP_SYS_ADMIN, which this kernel wants for uprobes (as Linux does from 6.16)"
        );
        return Check::problem(name, found, mend);
    }
    if missing.is_empty() {
        return Check::good(name, format!("{user}, with {}", names(&present)));
    }
    let lacks: Vec<String> = missing.iter().map(|(name, _, what)| format!("{name} to {what}")).collect();
    let has = if present.is_empty() { String::new() } else { format!("; present: {}", names(&present)) };
    Check::problem(name, format!("{user}, without {}{has}", lacks.join(", ")), mend)
}

fn pid_namespace(facts: &MachineFacts) -> Check {
    let name = "PID namespace";
    match facts.initial_pid_namespace {
        Some(true) => Check::good(name, "the machine's own"),
        Some(false) => Check::warning(
            name,
            "one of a container: only its own processes can be attached to",
            "for the others: docker run --pid=host --privileged …, in Kubernetes hostPID: true, or run it on the host",
        ),
        None => Check::warning(name, "not known", "is /proc mounted? mount -t proc proc /proc"),
    }
}

fn btf(facts: &MachineFacts) -> Check {
    let name = "kernel BTF";
    match &facts.btf {
        Ok(()) => Check::good(name, "/sys/kernel/btf/vmlinux"),
        Err(reason) => Check::problem(
            name,
            reason.as_str(),
            "a kernel with CONFIG_DEBUG_INFO_BTF=y: zgrep DEBUG_INFO_BTF /proc/config.gz /boot/config-$(uname -r)",
        ),
    }
}

fn members(facts: &MachineFacts) -> Check {
    let name = "kernel structs";
    match (&facts.btf, &facts.members) {
        (Err(_), _) => Check::problem(name, "not known without BTF", "as for kernel BTF"),
        (Ok(()), Ok(())) => Check::good(name, "all members that are read are in the BTF"),
        (Ok(()), Err(reason)) => Check::problem(
            name,
            reason.as_str(),
            format!("Linux {}.{} or later", TESTED_SINCE.0, TESTED_SINCE.1),
        ),
    }
}

fn lockdown(facts: &MachineFacts) -> Check {
    let name = "lockdown";
    match facts.lockdown.as_deref() {
        None => Check::good(name, "none: the kernel has it not, or securityfs is not mounted"),
        // Documentation: kernel_lockdown(7); reading the kernel's memory by eBPF is refused in confidentiality mode only.
        Some(mode) if mode.contains("[confidentiality]") => Check::problem(
            name,
            format!("{mode}: eBPF programs may not read the kernel's memory"),
            "boot with lockdown=integrity on the kernel's command line, or without it",
        ),
        Some(mode) => Check::good(name, mode),
    }
}

fn syscall_exit(facts: &MachineFacts) -> Check {
    let name = "system calls";
    match &facts.kernel {
        Some(kernel) if kernel.syscall_exit => Check::good(name, "their exits can be traced"),
        None => Check::problem(name, "not known without BTF", "as for kernel BTF"),
        Some(_) => Check::problem(
            name,
            "this kernel's BTF has no tracepoint sys_exit",
            "a kernel with CONFIG_FTRACE_SYSCALLS=y: zgrep FTRACE_SYSCALLS /proc/config.gz /boot/config-$(uname -r)",
        ),
    }
}

fn uprobes(facts: &MachineFacts) -> Check {
    let name = "uprobes";
    if facts.uprobe {
        Check::good(name, "the kernel has them")
    } else {
        Check::problem(
            name,
            "the kernel has none: /sys/bus/event_source/devices/uprobe is not there",
            "a kernel with CONFIG_UPROBE_EVENTS=y: zgrep UPROBE_EVENTS /proc/config.gz /boot/config-$(uname -r)",
        )
    }
}

/// Whether this process may load programs for probes, as far as its capabilities tell.
fn may_load(facts: &MachineFacts) -> bool {
    facts.capabilities.is_none_or(|effective| {
        has(effective, SYS_ADMIN)
            || NEEDED.iter().take(2).all(|(_, capability, _)| has(effective, *capability))
    })
}

/// Which hooks there are for the clock that has several.
fn kernel_ready(facts: &MachineFacts) -> Check {
    let name = "kernel-ready clock";
    let Some(kernel) = &facts.kernel else {
        return Check::problem(name, "not known without BTF", "as for kernel BTF");
    };
    let refusal = kernel.fentry_refusal.as_deref().unwrap_or("not supported");
    match (kernel.fentry, kernel.kprobe, kernel.has_callback) {
        (Some(true), _, true) => Check::good(name, "exact, by fentry on ep_poll_callback"),
        (_, true, true) => {
            Check::good(name, format!("exact, by kprobe on ep_poll_callback (fentry: {refusal})"))
        }
        (_, _, false) => Check::warning(
            name,
            "estimated by tracepoints: the BTF has no ep_poll_callback",
            "a kernel whose compiler kept ep_poll_callback: grep ep_poll_callback /proc/kallsyms",
        ),
        // Unprivileged, fentry cannot even be tried.
        (..) if !may_load(facts) => Check::warning(
            name,
            format!(
                "estimated by {} tracepoints, as far as can be told: fentry cannot be tried",
                kernel.tracepoints.len()
            ),
            AS_FOR_CAPABILITIES,
        ),
        (..) => Check::warning(
            name,
            format!(
                "estimated by {} tracepoints: no kprobes, and no fentry ({refusal})",
                kernel.tracepoints.len()
            ),
            "a kernel with CONFIG_FUNCTION_TRACER=y or CONFIG_KPROBE_EVENTS=y: \
             zgrep -E 'FUNCTION_TRACER|KPROBE_EVENTS' /proc/config.gz /boot/config-$(uname -r)",
        ),
    }
}

fn programs(facts: &MachineFacts) -> Check {
    let name = "eBPF programs";
    let trials = match &facts.programs {
        Ok(trials) => trials,
        Err(refusal) => return refused(name, &refusal.reason, refusal, facts),
    };
    let loaded = trials.iter().filter(|trial| trial.refusal.is_none()).count();
    let kinds: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| {
            let mut of_kind = trials.iter().filter(|trial| trial.kind == *kind).peekable();
            of_kind.peek().is_some() && of_kind.all(|trial| trial.refusal.is_none())
        })
        .map(ProgramKind::name)
        .collect();
    let found = format!("{loaded} of {} load: {}", trials.len(), kinds.join(", "));
    match trials.iter().find_map(|trial| Some((trial, trial.refusal.as_ref()?))) {
        None => Check::good(name, found),
        Some((trial, refusal)) => {
            let found = format!("{found}; {}", reason_of(trial, refusal));
            refused(name, &found, refusal, facts)
        }
    }
}

const KINDS: [ProgramKind; 4] =
    [ProgramKind::Kprobe, ProgramKind::BtfTracepoint, ProgramKind::Fentry, ProgramKind::Iterator];

fn reason_of(trial: &Trial, refusal: &Refusal) -> String {
    if refusal.reason.contains(&trial.hook) {
        refusal.reason.clone()
    } else {
        format!("{}: {}", trial.hook, refusal.reason)
    }
}

fn refused(name: &'static str, found: &str, refusal: &Refusal, facts: &MachineFacts) -> Check {
    let mend = match refusal.denied {
        true => AS_FOR_CAPABILITIES,
        false if facts.btf.is_err() => "as for kernel BTF",
        false => "please report it, with: netpoll-probe doctor --json",
    };
    Check::problem(name, found, mend)
}

fn perf_event_paranoid(facts: &MachineFacts) -> Check {
    let name = "perf_event_paranoid";
    let with_capability =
        facts.capabilities.is_none_or(|effective| has(effective, PERFMON) || has(effective, SYS_ADMIN));
    match facts.perf_event_paranoid {
        Some(value) if with_capability => {
            Check::good(name, format!("{value}, which does not bind who has CAP_PERFMON"))
        }
        // Above -1 tracepoints and probes take CAP_PERFMON (Documentation/admin-guide/sysctl/kernel.rst).
        Some(value) if value > -1 => Check::warning(
            name,
            format!("{value}: no probes without CAP_PERFMON"),
            // No value of it is enough: eBPF programs for probes take the capability whatever it says.
            AS_FOR_CAPABILITIES,
        ),
        Some(value) => Check::good(name, value.to_string()),
        None => Check::warning(
            name,
            "not there: the kernel has no perf events",
            "a kernel with CONFIG_PERF_EVENTS=y: zgrep PERF_EVENTS /proc/config.gz /boot/config-$(uname -r)",
        ),
    }
}

fn unprivileged(facts: &MachineFacts) -> Check {
    let found = match facts.unprivileged_bpf_disabled {
        Some(0) => "allowed, and not enough: attach needs CAP_BPF",
        Some(_) => "off, as it should be: attach needs CAP_BPF",
        None => "not known; attach needs CAP_BPF",
    };
    Check::good("unprivileged eBPF", found)
}

fn jit(facts: &MachineFacts) -> Check {
    let name = "eBPF JIT";
    match facts.jit {
        Some(0) => Check::warning(
            name,
            "off: programs are interpreted, several times dearer, and fentry does not work",
            "sudo sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => Check::good(name, "on"),
        // Only root may read it.
        None => Check::good(name, "not readable by this user, or always on"),
    }
}

fn uprobe_multi(facts: &MachineFacts) -> Check {
    let found = match facts.uprobe_multi {
        Some(true) => "the kernel has it; not needed for two uprobes",
        Some(false) => "the kernel has it not; not needed for two uprobes",
        None => "not known; not needed for two uprobes",
    };
    Check::good("uprobe_multi", found)
}
