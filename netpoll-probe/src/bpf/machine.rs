//! What a machine allows, beyond what [`super::support`] finds out for every attach: facts for people who ask why not.

use std::{fs, path::Path};

use netpoll_probe_common::config::Config;
use rustix::thread::capabilities;

use super::{
    kernel_btf::{KernelBtf, Kind},
    offsets,
    plan::{self, Hook, Hooks, ReadyHooks, TargetFacts},
    support::{self, KernelFacts},
    tracefs,
    trial::{self, Refusal, Trial},
};

/// `TRACEFS_MAGIC`, `include/uapi/linux/magic.h`
const TRACEFS_MAGIC: i64 = 0x7472_6163;

/// What was found out. `None` and `Err`: could not be found out, or why not.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    /// `uname -r`
    pub release: String,
    /// `uname -m`
    pub machine: String,
    /// The effective user is root.
    pub root: bool,
    /// The effective ones, a bit each, by number.
    pub capabilities: Option<u64>,
    /// Whether the kernel's BTF can be read.
    pub btf: Result<(), String>,
    /// Whether it has every member of the kernel's structs that is read.
    pub members: Result<(), String>,
    /// What every attach finds out; `None` without BTF.
    pub kernel: Option<KernelFacts>,
    /// `/sys/kernel/security/lockdown`, such as `[none] integrity confidentiality`.
    pub lockdown: Option<String>,
    /// `/proc/sys/kernel/perf_event_paranoid`
    pub perf_event_paranoid: Option<i32>,
    /// `/proc/sys/kernel/unprivileged_bpf_disabled`
    pub unprivileged_bpf_disabled: Option<u32>,
    /// `/proc/sys/net/core/bpf_jit_enable`
    pub jit: Option<u32>,
    /// Where tracepoints have their ids.
    pub tracefs: Tracefs,
    /// The uprobe event source exists.
    pub uprobe: bool,
    /// The kernel has links that place many uprobes at once.
    pub uprobe_multi: Option<bool>,
    /// This process sees all processes of the machine, by the pids that the kernel uses.
    pub initial_pid_namespace: Option<bool>,
    /// How the programs fared; why none was tried.
    pub programs: Result<Vec<Trial>, Refusal>,
}

/// What became of tracefs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// It is mounted there.
    Mounted(String),
    /// It was not, and this process mounted it for itself.
    MountedForThis,
    /// It is mounted, and this process may not look into it.
    Hidden,
    /// It is not mounted, and why this process could not mount it.
    Missing(String),
}

/// Finds out all of it. Call it before there are other threads: it may mount tracefs for this one.
#[must_use]
pub fn find_out(btf: Result<&KernelBtf, String>) -> MachineFacts {
    let uname = rustix::system::uname();
    let tracefs = find_tracefs();
    let mut config = Config::default();
    let members = match &btf {
        Ok(btf) => offsets::of_kernel(btf, &mut config).map_err(|error| error.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    let kernel = btf.as_ref().ok().map(|btf| support::find_out(btf));
    let programs = match (&btf, &kernel) {
        (Ok(btf), Some(kernel)) => trial::load(btf, &config, &all_hooks(kernel)),
        _ => Err(Refusal {
            reason: "they cannot be loaded without the kernel's BTF".to_owned(),
            denied: false,
        }),
    };
    MachineFacts {
        release: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        root: rustix::process::geteuid().is_root(),
        capabilities: capabilities(None).ok().map(|sets| sets.effective.bits()),
        members,
        lockdown: text_of("/sys/kernel/security/lockdown"),
        perf_event_paranoid: number_of("/proc/sys/kernel/perf_event_paranoid"),
        unprivileged_bpf_disabled: number_of("/proc/sys/kernel/unprivileged_bpf_disabled"),
        jit: number_of("/proc/sys/net/core/bpf_jit_enable"),
        tracefs,
        uprobe: Path::new("/sys/bus/event_source/devices/uprobe/type").exists(),
        uprobe_multi: btf.as_ref().ok().map(|btf| btf.has(Kind::Function, "bpf_uprobe_multi_link_attach")),
        initial_pid_namespace: support::own_pid_namespace()
            .map(|inode| inode == support::INITIAL_PID_NAMESPACE),
        kernel,
        btf: btf.map(|_| ()),
        programs,
    }
}

/// The hooks of every plan that could be made on this kernel, each once.
fn all_hooks(kernel: &KernelFacts) -> Vec<Hook> {
    let target = TargetFacts::of_any_program();
    let mut hooks: Vec<Hook> = Vec::new();
    for ready in [ReadyHooks::Fentry, ReadyHooks::Kprobe, ReadyHooks::Tracepoints] {
        let Ok(plan) = plan::make(Hooks::Auto, ready, kernel, &target) else { continue };
        for hook in plan.hooks() {
            if !hooks.contains(hook) {
                hooks.push(hook.clone());
            }
        }
    }
    hooks
}

fn find_tracefs() -> Tracefs {
    if let Some(path) = tracefs::find() {
        return Tracefs::Mounted(path.display().to_string());
    }
    let mounted =
        rustix::fs::statfs("/sys/kernel/tracing").is_ok_and(|filesystem| filesystem.f_type == TRACEFS_MAGIC);
    if mounted {
        return Tracefs::Hidden;
    }
    match tracefs::ensure() {
        Ok(()) => Tracefs::MountedForThis,
        Err(error) => Tracefs::Missing(error.to_string()),
    }
}

fn text_of(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number_of<T: std::str::FromStr>(path: &str) -> Option<T> {
    text_of(path)?.parse().ok()
}
