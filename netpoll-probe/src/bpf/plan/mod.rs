//! Which hook gives which clock: the words. [`rules`] decides over facts, pure.

use std::fmt;

use super::cost::ExpectedCost;

mod rules;

pub use rules::make;

/// What `--hooks` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// The cheapest plan that loses nothing here.
    Auto,
    /// Two uprobes in `runtime_pollWait`.
    Pollwait,
    /// The exits of system calls, and a uprobe where waits are broken off.
    Syscalls,
    /// `netpollblock` and `netpollready`: the second opinion.
    Runtime,
}

/// What `--kernel-ready` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyHooks {
    /// The best that works here.
    Auto,
    /// `ep_poll_callback` by fentry.
    Fentry,
    /// `ep_poll_callback` by kprobe.
    Kprobe,
    /// The tracepoints that stand in for it.
    Tracepoints,
}

/// A place for a uprobe in the target's executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The function and offset, for people: `internal/poll.runtime_pollWait+10`.
    pub name: String,
    /// Offset in the file.
    pub file_offset: u64,
    /// The instruction, for people.
    pub instruction: String,
}

/// What is known of the target, as far as hooks are concerned. A refused site is a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    /// In `runtime_pollWait`, after the stack check.
    pub wait_start: Site,
    /// In `runtime_pollWait`, after `netpollblock` returned.
    pub wait_end: Site,
    /// In `runtime_pollWait`, where only waits pass that were not made ready.
    pub broken_off: Result<Site, String>,
    /// In `netpollblock`, after the stack check.
    pub netpollblock: Result<Site, String>,
    /// At the start of `netpollready`.
    pub netpollready: Result<Site, String>,
    /// Before and after each call of the C library's resolver.
    pub resolver: Vec<(Site, Site)>,
}

impl TargetFacts {
    /// Of no program in particular: where the functions are, each binary says for itself.
    #[must_use]
    pub fn of_any_program() -> Self {
        let site = |name: &str| Site {
            name: name.to_owned(),
            file_offset: 0,
            instruction: "the instruction that each binary has there".to_owned(),
        };
        Self {
            wait_start: site("internal/poll.runtime_pollWait, after its stack check"),
            wait_end: site("internal/poll.runtime_pollWait, after netpollblock returned"),
            broken_off: Ok(site("internal/poll.runtime_pollWait, where a wait was broken off")),
            netpollblock: Err("each binary says for itself whether it is inlined".to_owned()),
            netpollready: Err("each binary says for itself whether it is inlined".to_owned()),
            resolver: Vec::new(),
        }
    }
}

/// A clock of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The goroutine is about to park.
    Start,
    /// The kernel made the fd ready.
    KernelReady,
    /// The poller collected the event.
    Poll,
    /// The goroutine runs again.
    End,
}

/// A program of ours and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A uprobe.
    Uprobe {
        /// The program.
        program: &'static str,
        /// Where.
        site: Site,
    },
    /// A BTF tracepoint.
    Tracepoint {
        /// The program.
        program: &'static str,
        /// The tracepoint.
        tracepoint: &'static str,
    },
    /// A kernel function by fentry.
    Fentry {
        /// The program.
        program: &'static str,
        /// The function.
        function: &'static str,
    },
    /// A kernel function by kprobe.
    Kprobe {
        /// The program.
        program: &'static str,
        /// The function.
        function: &'static str,
    },
}

/// The choice for one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The clock.
    pub clock: Clock,
    /// The hooks, attached in this order.
    pub hooks: Vec<Hook>,
    /// Why these.
    pub why: String,
    /// What is not known with them.
    pub lost: Option<String>,
    /// What they are expected to cost.
    pub cost: ExpectedCost,
}

/// The whole plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `syscalls`, `pollwait` or `runtime`.
    pub name: &'static str,
    /// Why this plan.
    pub why: String,
    /// One choice for each clock, in the order of time.
    pub choices: Vec<Choice>,
    /// Hooks that belong to no clock: the calls of the C library's resolver, which wait past the netpoller.
    pub besides: Vec<Hook>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// The poll clock has no hook.
    #[error("this kernel's BTF has no tracepoint sys_exit")]
    NoSyscallExit,
    /// `--kernel-ready` asks for what this kernel does not have.
    #[error("--kernel-ready {asked} is not possible on this kernel: {why}")]
    NoReadyHooks {
        /// The value of the option.
        asked: &'static str,
        /// Why not.
        why: String,
    },
    /// `--hooks syscalls` needs a place for a uprobe that this binary does not have.
    #[error("--hooks syscalls is not possible here: {0}")]
    NoSyscallHooks(String),
    /// `--hooks runtime` needs functions that are not out of line in this binary.
    #[error("--hooks runtime is not possible here: {0}")]
    NoRuntimeHooks(String),
}

impl Plan {
    /// All hooks, in the order of time, each once: one may give several clocks.
    pub fn hooks(&self) -> impl DoubleEndedIterator<Item = &Hook> {
        let mut hooks: Vec<&Hook> = Vec::new();
        for hook in self.choices.iter().flat_map(|choice| &choice.hooks).chain(&self.besides) {
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        hooks.into_iter()
    }

    /// Whether tracepoints stand in for `ep_poll_callback`: then sockets must be found by their `struct sock`.
    #[must_use]
    pub fn has_stand_ins(&self) -> bool {
        let is_stand_in =
            |hook: &Hook| matches!(hook, Hook::Tracepoint { .. }) && *hook != rules::syscall_exit();
        self.hooks().any(is_stand_in)
    }

    /// Whether system calls show the waits.
    #[must_use]
    pub fn follows_syscalls(&self) -> bool {
        self.hooks().any(|hook| matches!(hook, Hook::Uprobe { program: "broken_off", .. }))
    }
}

impl Clock {
    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::KernelReady => "kernel_ready",
            Self::Poll => "poll",
            Self::End => "end",
        }
    }
}

impl Hook {
    /// The program's name.
    pub(super) const fn program(&self) -> &'static str {
        match self {
            Self::Uprobe { program, .. }
            | Self::Tracepoint { program, .. }
            | Self::Fentry { program, .. }
            | Self::Kprobe { program, .. } => program,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uprobe { site, .. } => write!(f, "uprobe {} ({})", site.name, site.instruction),
            Self::Tracepoint { tracepoint, .. } => write!(f, "tracepoint {tracepoint}"),
            Self::Fentry { function, .. } => write!(f, "fentry {function}"),
            Self::Kprobe { function, .. } => write!(f, "kprobe {function}"),
        }
    }
}
