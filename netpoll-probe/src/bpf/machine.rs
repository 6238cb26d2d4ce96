//! What a machine allows, beyond what [`super::support`] finds out for every attach: facts for people who ask why not.

use std::{fs, path::Path};

use netpoll_probe_common::config::Config;
use rustix::thread::capabilities;

use super::{
    kernel_btf::{KernelBtf, Kind},
    offsets,
    plan::{self, Hook, Hooks, ReadyHooks, TargetFacts},
    support::{self, KernelFacts},
    trial::{self, Refusal, Trial},
};

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
    /// The uprobe event source exists.
    pub uprobe: bool,
    /// The kernel has links that place many uprobes at once.
    pub uprobe_multi: Option<bool>,
    /// This process sees all processes of the machine, by the pids that the kernel uses.
    pub initial_pid_namespace: Option<bool>,
    /// How the programs fared; why none was tried.
    pub programs: Result<Vec<Trial>, Refusal>,
}

/// Finds out all of it.
#[must_use]
pub fn find_out(btf: Result<&KernelBtf, String>) -> MachineFacts {
    let uname = rustix::system::uname();
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
    let plans = [Hooks::Syscalls, Hooks::Pollwait].into_iter().flat_map(|hooks| {
        [ReadyHooks::Fentry, ReadyHooks::Kprobe, ReadyHooks::Tracepoints].map(|ready| (hooks, ready))
    });
    for (which, ready) in plans {
        let Ok(plan) = plan::make(which, ready, kernel, &target) else { continue };
        for hook in plan.hooks() {
            if !hooks.contains(hook) {
                hooks.push(hook.clone());
            }
        }
    }
    hooks
}

fn text_of(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number_of<T: std::str::FromStr>(path: &str) -> Option<T> {
    text_of(path)?.parse().ok()
}
