//! Errors of the layers below → failures with a hint and an exit code.

use crate::{
    bpf::{kernel_btf::BtfError, plan::NoPlan, session::SessionError},
    error::Failure,
    exit::Exit,
    target::error::Error as TargetError,
};

pub(super) const AS_ROOT: &str = "run it as root: sudo netpoll-probe …";

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let (exit, hint) = match &error {
            TargetError::NoSuchProcess { .. } => {
                (Exit::Target, "list processes and their pids: ps -e -o pid,comm,args".to_owned())
            }
            TargetError::Thread { pid, .. } => {
                (Exit::Target, format!("attach to its process: netpoll-probe attach -p {pid}"))
            }
            TargetError::Exited { .. } => {
                (Exit::Target, "start it again, and attach to its new pid".to_owned())
            }
            TargetError::NoExecutable { .. } => (Exit::Target, "attach to a running Go program".to_owned()),
            TargetError::Permission { .. } => (Exit::Kernel, AS_ROOT.to_owned()),
            _ => (Exit::Failed, "is the process still there? ps -p PID".to_owned()),
        };
        Self::new(exit, error, hint)
    }
}

impl From<BtfError> for Failure {
    fn from(error: BtfError) -> Self {
        let hint = match &error {
            BtfError::Read(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => AS_ROOT,
            _ => "it needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y): ls -l /sys/kernel/btf/vmlinux",
        };
        Self::new(Exit::Kernel, error, hint)
    }
}

impl From<NoPlan> for Failure {
    fn from(error: NoPlan) -> Self {
        let hint = match &error {
            NoPlan::NoSyscallTracepoints => {
                "mount tracefs: mount -t tracefs nodev /sys/kernel/tracing (needs CONFIG_FTRACE_SYSCALLS=y)"
            }
            NoPlan::NoReadyHooks { .. } => "leave --kernel-ready out: the best that works here is chosen",
            NoPlan::NoRuntimeHooks(_) => "use --hooks pollwait, which works on every build",
        };
        Self::new(Exit::Kernel, error, hint)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        let denied = text.contains("os error 1)") || text.contains("os error 13)");
        let hint = if !rustix::process::geteuid().is_root() {
            AS_ROOT
        } else if denied {
            "the kernel refuses eBPF: see /sys/kernel/security/lockdown, and in a container run it --privileged"
        } else {
            "run it again with -v, and report what it says together with uname -r"
        };
        Self::new(Exit::Kernel, error, hint)
    }
}
