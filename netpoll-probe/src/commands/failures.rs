//! Errors of the layers below → failures with a hint and an exit code.

use rustix::io::Errno;

use super::privileges;
use crate::{
    bpf::{kernel_btf::BtfError, plan::NoPlan, session::SessionError},
    error::Failure,
    exit::Exit,
    gobin::Error as GobinError,
    goruntime::binary::Error as RuntimeError,
    snapshot::{
        allgs::AllgsError,
        confirm::{ConfirmError, looks},
    },
    target::{cgroup::Error as CgroupError, error::Error as TargetError},
};

const UNKNOWN_GO: &str =
    "build the program without -ldflags=-s, so that its DWARF tells, or with a released Go";
const AS_ROOT: &str = "run it as root: sudo netpoll-probe …";

/// What to do about a refusal: root is refused only what lies outside its container.
fn allowed() -> String {
    if rustix::process::geteuid().is_root() {
        "this root may not look at that process: run it on the host, or in a container with --pid=host --privileged"
    } else {
        AS_ROOT
    }
    .to_owned()
}

/// A field of the runtime lies where the eBPF programs do not read.
pub(super) fn beyond_reach(field: &str, at: u32) -> Failure {
    let cause = anyhow::anyhow!("{field} is at offset {at}, beyond what the eBPF programs read");
    Failure::new(
        Exit::Target,
        cause,
        "build the program with a released Go, without experiments: see go version -m",
    )
}

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
            TargetError::Permission { .. } => (Exit::Kernel, allowed()),
            _ => (Exit::Failed, "is the process still there? ps -p PID".to_owned()),
        };
        Self::new(exit, error, hint)
    }
}

impl From<CgroupError> for Failure {
    fn from(error: CgroupError) -> Self {
        let (exit, hint) = match &error {
            CgroupError::NotACgroup { .. } => {
                (Exit::Target, "list the control groups: systemd-cgls (or: cat /proc/PID/cgroup)")
            }
            CgroupError::NotAnId { .. } | CgroupError::Ambiguous { .. } => {
                (Exit::Usage, "give more of the id: docker ps --no-trunc, or crictl ps --no-trunc")
            }
            _ => (Exit::Target, "list containers and their ids: docker ps, podman ps, or crictl ps"),
        };
        Self::new(exit, error, hint)
    }
}

impl From<GobinError> for Failure {
    fn from(error: GobinError) -> Self {
        let hint = match &error {
            GobinError::UnsupportedGoVersion { .. } => {
                "it works on programs built with Go 1.18 or later: go version -m BINARY"
            }
            GobinError::Open { .. } | GobinError::Read { .. } | GobinError::Truncated { .. } => {
                "was the executable replaced while it was read? try again"
            }
            _ => "attach to a running Go program: go version -m /proc/PID/exe says whether it is one",
        };
        Self::new(Exit::Target, error, hint)
    }
}

impl From<looks::Error> for Failure {
    fn from(error: looks::Error) -> Self {
        if error.may_be_confirmed_later() {
            let hint = "give it some requests, and try again: an idle process does not show where its Go keeps things";
            return Self::new(Exit::Target, error, hint);
        }
        match error {
            looks::Error::Process(error)
            | looks::Error::Confirm(ConfirmError::Allgs(AllgsError::Target(error))) => error.into(),
            looks::Error::Runtime(error) => error.into(),
            error => Self::new(Exit::Target, error, UNKNOWN_GO),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let hint = match &error {
            RuntimeError::Binary(_) => {
                "attach to a running Go program: go version -m /proc/PID/exe says whether it is one"
            }
            RuntimeError::Layout(error) if error.is_unknown_go() => {
                "attach to it while it runs and has work: its memory may tell the offsets"
            }
            RuntimeError::Layout(_) => UNKNOWN_GO,
            RuntimeError::NoFunction { .. } => "a program that never imports net or os has no network waits",
            _ => "please report it with: go version -m /proc/PID/exe",
        };
        Self::new(Exit::Target, error, hint)
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
            NoPlan::NoSyscallExit => lacks_privilege().unwrap_or_else(|| {
                "a kernel with CONFIG_FTRACE_SYSCALLS=y: zgrep FTRACE_SYSCALLS /proc/config.gz /boot/config-$(uname -r)"
                    .to_owned()
            }),
            NoPlan::NoReadyHooks { .. } => {
                "leave --kernel-ready out: the best that works here is chosen".to_owned()
            }
            NoPlan::NoSyscallHooks(_) | NoPlan::NoRuntimeHooks(_) => "use --hooks pollwait, which works on every build".to_owned(),
        };
        Self::new(Exit::Kernel, error, hint)
    }
}

/// What to do about a refusal, when privileges that attaching needs are not there.
fn lacks_privilege() -> Option<String> {
    let missing = privileges::missing();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(", ");
    Some(if rustix::process::geteuid().is_root() {
        format!("this root lacks {missing}: in a container, run it --privileged")
    } else {
        format!("{AS_ROOT} (it lacks {missing})")
    })
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let denied = matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS));
        let is_root = rustix::process::geteuid().is_root();
        let hint = if let Some(hint) = lacks_privilege().filter(|_| denied || !is_root) {
            hint
        } else if denied {
            "the kernel refuses eBPF: cat /sys/kernel/security/lockdown".to_owned()
        } else {
            "run it again with -v, and report what it says together with uname -r".to_owned()
        };
        Self::new(Exit::Kernel, error, hint)
    }
}
