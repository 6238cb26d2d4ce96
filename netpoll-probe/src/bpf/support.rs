//! What this kernel allows. Facts only; the rules are in [`super::plan`].

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use aya::{programs::ProgramType, sys::is_program_supported};

use super::{
    kernel_btf::{KernelBtf, Kind},
    tracefs,
};

/// The tracepoints that stand in for `ep_poll_callback`, in the order in which they are attached.
pub const READY_TRACEPOINTS: [&str; 5] =
    ["sk_data_ready", "inet_sock_set_state", "tcp_receive_reset", "tcp_probe", "sched_waking"];

/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`: the inode of the initial PID namespace.
pub const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// The inode of this tool's PID namespace; the initial one's where the kernel has none.
#[must_use]
pub fn own_pid_namespace() -> u32 {
    let inode =
        fs::metadata("/proc/self/ns/pid").ok().and_then(|namespace| u32::try_from(namespace.ino()).ok());
    inode.unwrap_or(INITIAL_PID_NAMESPACE)
}

/// What the running kernel allows. `None`: could not be found out, which is not the same as no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// `uname -r`
    pub release: String,
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
    /// tracefs shows `epoll_pwait`'s tracepoints.
    pub syscall_tracepoints: bool,
    /// `/sys/kernel/security/lockdown`, such as `[none] integrity confidentiality`.
    pub lockdown: Option<String>,
}

/// Finds out, by trying where trying is the only way.
#[must_use]
pub fn find_out(btf: &KernelBtf) -> KernelFacts {
    let (fentry, fentry_refusal) = match is_program_supported(ProgramType::Tracing) {
        Ok(supported) => (Some(supported), None),
        Err(error) => (Some(false), Some(chain(&error))),
    };
    KernelFacts {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        fentry,
        fentry_refusal,
        has_callback: btf.has(Kind::Function, "ep_poll_callback"),
        kprobe: Path::new("/sys/bus/event_source/devices/kprobe/type").exists(),
        tracepoints: READY_TRACEPOINTS
            .into_iter()
            .filter(|name| btf.has(Kind::Typedef, &format!("btf_trace_{name}")))
            .collect(),
        syscall_tracepoints: tracefs::find()
            .is_some_and(|path| path.join("events/syscalls/sys_exit_epoll_pwait/id").exists()),
        lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok().map(|text| text.trim().to_owned()),
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
