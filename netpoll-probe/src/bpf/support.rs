//! What this kernel allows. Facts only; the rules are in [`super::plan`].

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{
    fentry,
    kernel_btf::{KernelBtf, Kind},
};

/// The tracepoints that stand in for `ep_poll_callback`, in the order in which they are attached.
pub const READY_TRACEPOINTS: [&str; 5] =
    ["sk_data_ready", "inet_sock_set_state", "tcp_receive_reset", "tcp_probe", "sched_waking"];

/// What a kernel says that has no such hooks on this machine: `ENOTSUPP`, `include/linux/errno.h`.
const ENOTSUPP: i32 = 524;

/// The inode of the initial PID namespace: `PID_NS_INIT_INO`, `include/uapi/linux/nsfs.h` (before 6.18 `PROC_PID_INIT_INO`,
/// `include/linux/proc_ns.h`).
pub const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// The inode of this tool's PID namespace; `None`: not known, or the kernel has none.
#[must_use]
pub fn own_pid_namespace() -> Option<u32> {
    u32::try_from(fs::metadata("/proc/self/ns/pid").ok()?.ino()).ok()
}

/// Whether the pids that this tool sees are those that eBPF sees.
#[must_use]
pub fn in_initial_pid_namespace() -> bool {
    own_pid_namespace().is_none_or(|inode| inode == INITIAL_PID_NAMESPACE)
}

/// What the running kernel allows. `None`: could not be found out, which is not the same as no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// Function hooks (fentry) load and attach.
    pub fentry: Option<bool>,
    /// Why fentry does not, in the kernel's words.
    pub fentry_refusal: Option<String>,
    /// `ep_poll_callback` is in the BTF, so fentry could name it.
    pub has_callback: bool,
    /// The kprobe event source exists.
    pub kprobe: bool,
    /// Those of [`READY_TRACEPOINTS`] that exist.
    pub tracepoints: Vec<&'static str>,
    /// The exits of system calls can be traced.
    pub syscall_exit: bool,
}

/// Finds out, by trying where trying is the only way.
#[must_use]
pub fn find_out(btf: &KernelBtf) -> KernelFacts {
    let (fentry, fentry_refusal) = match fentry::attempt(btf) {
        None => (None, None),
        Some(Ok(())) => (Some(true), None),
        Some(Err(error)) if error.raw_os_error() == Some(ENOTSUPP) => (Some(false), None),
        Some(Err(error)) => (Some(false), Some(error.to_string())),
    };
    KernelFacts {
        fentry,
        fentry_refusal,
        has_callback: btf.has(Kind::Function, "ep_poll_callback"),
        kprobe: Path::new("/sys/bus/event_source/devices/kprobe/type").exists(),
        tracepoints: READY_TRACEPOINTS
            .into_iter()
            .filter(|name| btf.has(Kind::Typedef, &format!("btf_trace_{name}")))
            .collect(),
        syscall_exit: btf.has(Kind::Typedef, "btf_trace_sys_exit"),
    }
}
