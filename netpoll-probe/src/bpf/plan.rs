//! Which hook gives which clock: rules over facts, pure.

use std::fmt;

use super::{cost::ExpectedCost, support::KernelFacts};

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

/// Decides. `auto` is `syscalls` where the binary allows it: it sees the same waits, and costs less than half
/// (`docs/overhead.md`). Where it does not, `pollwait`: its functions cannot be inlined, so its counts hold in every build.
///
/// # Errors
/// When a clock that a wait cannot do without has no hook.
pub fn make(
    hooks: Hooks,
    ready_hooks: ReadyHooks,
    kernel: &KernelFacts,
    target: &TargetFacts,
) -> Result<Plan, NoPlan> {
    let ready = kernel_ready(ready_hooks, kernel)?;
    if hooks == Hooks::Runtime {
        return by_runtime(ready, target);
    }
    if !kernel.syscall_exit {
        return Err(NoPlan::NoSyscallExit);
    }
    let asked = "asked for".to_owned();
    match (hooks, &target.broken_off) {
        (Hooks::Syscalls, Ok(site)) => Ok(by_syscalls(asked, ready, site, target)),
        (Hooks::Syscalls, Err(reason)) => Err(NoPlan::NoSyscallHooks(reason.clone())),
        (Hooks::Auto, Ok(site)) => {
            let why = "it sees the waits that uprobes see, without a trap in each".to_owned();
            Ok(by_syscalls(why, ready, site, target))
        }
        (Hooks::Auto, Err(reason)) => {
            let why =
                format!("runtime_pollWait cannot be inlined; system calls alone would not do ({reason})");
            Ok(by_poll_wait(why, ready, target))
        }
        _ => Ok(by_poll_wait(asked, ready, target)),
    }
}

/// The exit of every system call of the machine.
fn syscall_exit() -> Hook {
    Hook::Tracepoint { program: "syscall_exit", tracepoint: "sys_exit" }
}

fn by_syscalls(why: String, ready: Choice, broken_off: &Site, target: &TargetFacts) -> Plan {
    let start = Choice {
        clock: Clock::Start,
        hooks: vec![syscall_exit()],
        why: "a goroutine parks when the kernel has said EAGAIN".into(),
        lost: None,
        cost: ExpectedCost::SYSCALL_EXIT,
    };
    let poll = Choice {
        clock: Clock::Poll,
        hooks: Vec::new(),
        why: "the same; the event array of epoll_pwait says which pollDescs were collected".into(),
        lost: None,
        cost: ExpectedCost::POLL_EXIT,
    };
    let end = Choice {
        clock: Clock::End,
        hooks: vec![Hook::Uprobe { program: "broken_off", site: broken_off.clone() }],
        why: "the same: it asks the kernel again. A wait that is broken off passes the uprobe instead".into(),
        lost: None,
        cost: ExpectedCost::BROKEN_OFF,
    };
    Plan { name: "syscalls", why, choices: vec![start, ready, poll, end], besides: resolver(target) }
}

fn by_poll_wait(why: String, ready: Choice, target: &TargetFacts) -> Plan {
    let start = Choice {
        clock: Clock::Start,
        hooks: vec![Hook::Uprobe { program: "wait_start", site: target.wait_start.clone() }],
        why: "runtime_pollWait after its stack check: once a wait, and never inlined".into(),
        lost: None,
        cost: ExpectedCost::WAIT_START,
    };
    let poll = Choice {
        clock: Clock::Poll,
        hooks: vec![syscall_exit()],
        why: "the event array of epoll_pwait says which pollDescs were collected, in every build".into(),
        lost: None,
        cost: ExpectedCost::POLL_EXIT,
    };
    Plan {
        name: "pollwait",
        why,
        choices: vec![start, ready, poll, end_in_poll_wait(target)],
        besides: resolver(target),
    }
}

fn by_runtime(ready: Choice, target: &TargetFacts) -> Result<Plan, NoPlan> {
    let site = |site: &Result<Site, String>| site.clone().map_err(NoPlan::NoRuntimeHooks);
    let start = Choice {
        clock: Clock::Start,
        hooks: vec![Hook::Uprobe { program: "wait_start", site: site(&target.netpollblock)? }],
        why: "netpollblock is out of line in this binary".into(),
        lost: None,
        cost: ExpectedCost::WAIT_START,
    };
    let poll = Choice {
        clock: Clock::Poll,
        hooks: vec![Hook::Uprobe { program: "netpollready", site: site(&target.netpollready)? }],
        why: "netpollready is out of line in this binary".into(),
        lost: Some("who polled".into()),
        cost: ExpectedCost::NETPOLLREADY,
    };
    Ok(Plan {
        name: "runtime",
        why: "asked for: a second opinion by the runtime's own functions".into(),
        choices: vec![start, ready, poll, end_in_poll_wait(target)],
        besides: resolver(target),
    })
}

fn end_in_poll_wait(target: &TargetFacts) -> Choice {
    Choice {
        clock: Clock::End,
        hooks: vec![Hook::Uprobe { program: "wait_end", site: target.wait_end.clone() }],
        why:
            "the jump on netpollblock's result: once a wait, emulated, and the result is still in a register"
                .into(),
        lost: None,
        cost: ExpectedCost::WAIT_END,
    }
}

fn resolver(target: &TargetFacts) -> Vec<Hook> {
    let hooks = |(start, end): &(Site, Site)| {
        [("resolve_start", start), ("resolve_end", end)]
            .map(|(program, site)| Hook::Uprobe { program, site: site.clone() })
    };
    target.resolver.iter().flat_map(hooks).collect()
}

fn kernel_ready(asked: ReadyHooks, kernel: &KernelFacts) -> Result<Choice, NoPlan> {
    let fentry = kernel.fentry == Some(true) && kernel.has_callback;
    let kprobe = kernel.kprobe && kernel.has_callback;
    let refusal = kernel.fentry_refusal.clone().unwrap_or_else(|| "not supported".into());
    match asked {
        ReadyHooks::Auto if fentry => Ok(callback_by_fentry("exact for every kind of fd")),
        ReadyHooks::Auto if kprobe => {
            let why = format!("exact for every kind of fd; fentry is refused here ({refusal})");
            Ok(callback_by_kprobe(&why))
        }
        ReadyHooks::Auto => {
            let why = format!("they stand in for {CALLBACK}: no fentry here ({refusal}), and no kprobes");
            Ok(stand_ins(kernel, &why))
        }
        ReadyHooks::Fentry if fentry => Ok(callback_by_fentry("asked for")),
        ReadyHooks::Fentry => Err(NoPlan::NoReadyHooks { asked: "fentry", why: refusal }),
        ReadyHooks::Kprobe if kprobe => Ok(callback_by_kprobe("asked for")),
        ReadyHooks::Kprobe => Err(NoPlan::NoReadyHooks { asked: "kprobe", why: "it has no kprobes".into() }),
        ReadyHooks::Tracepoints => Ok(stand_ins(kernel, "asked for")),
    }
}

/// The function that every wake-up of an fd in an epoll set goes through (`fs/eventpoll.c`).
const CALLBACK: &str = "ep_poll_callback";

fn callback_by_fentry(why: &str) -> Choice {
    let hooks = vec![Hook::Fentry { program: "callback_fentry", function: CALLBACK }];
    let cost = ExpectedCost::CALLBACK_FENTRY;
    Choice { clock: Clock::KernelReady, hooks, why: why.to_owned(), lost: None, cost }
}

fn callback_by_kprobe(why: &str) -> Choice {
    let hooks = vec![Hook::Kprobe { program: "callback_kprobe", function: CALLBACK }];
    let cost = ExpectedCost::CALLBACK_KPROBE;
    Choice { clock: Clock::KernelReady, hooks, why: why.to_owned(), lost: None, cost }
}

/// The tracepoints of sockets, and the waking of the poller for what is no socket.
fn stand_ins(kernel: &KernelFacts, why: &str) -> Choice {
    let program = |tracepoint: &'static str| match tracepoint {
        "sk_data_ready" => "data_ready",
        "inet_sock_set_state" => "state_change",
        "tcp_receive_reset" => "reset",
        "tcp_probe" => "segment",
        _ => "waking",
    };
    let hooks = kernel
        .tracepoints
        .iter()
        .map(|tracepoint| Hook::Tracepoint { program: program(tracepoint), tracepoint })
        .collect();
    let mut lost =
        "the exact moment for pipes, unix peers that close, and writes (estimated or unknown)".to_owned();
    if !kernel.tracepoints.contains(&"sk_data_ready") {
        lost = format!("when data came to a socket; {lost}");
    }
    let cost = ExpectedCost::STAND_INS;
    Choice { clock: Clock::KernelReady, hooks, why: why.to_owned(), lost: Some(lost), cost }
}

impl Plan {
    /// All hooks, in the order of time.
    pub fn hooks(&self) -> impl DoubleEndedIterator<Item = &Hook> {
        self.choices.iter().flat_map(|choice| &choice.hooks).chain(&self.besides)
    }

    /// Whether tracepoints stand in for `ep_poll_callback`: then sockets must be found by their `struct sock`.
    #[must_use]
    pub fn has_stand_ins(&self) -> bool {
        let is_stand_in = |hook: &Hook| matches!(hook, Hook::Tracepoint { .. }) && *hook != syscall_exit();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> Site {
        Site { name: name.into(), file_offset: 1, instruction: "push rbp".into() }
    }

    fn target() -> TargetFacts {
        TargetFacts {
            wait_start: site("internal/poll.runtime_pollWait+10"),
            wait_end: site("internal/poll.runtime_pollWait+135"),
            broken_off: Ok(site("internal/poll.runtime_pollWait+137")),
            netpollblock: Ok(site("runtime.netpollblock+10")),
            netpollready: Err("netpollready is inlined into netpoll".into()),
            resolver: Vec::new(),
        }
    }

    fn kernel() -> KernelFacts {
        KernelFacts {
            fentry: Some(true),
            has_callback: true,
            kprobe: true,
            tracepoints: super::super::support::READY_TRACEPOINTS.to_vec(),
            syscall_exit: true,
            ..KernelFacts::default()
        }
    }

    fn ready_hooks(kernel: &KernelFacts) -> Vec<String> {
        let plan = make(Hooks::Auto, ReadyHooks::Auto, kernel, &target()).unwrap();
        plan.choices[1].hooks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn callback_by_fentry_then_kprobe_then_tracepoints() {
        assert_eq!(ready_hooks(&kernel()), ["fentry ep_poll_callback"]);
        let no_fentry = KernelFacts { fentry: Some(false), ..kernel() };
        assert_eq!(ready_hooks(&no_fentry), ["kprobe ep_poll_callback"]);
        let neither = KernelFacts { kprobe: false, ..no_fentry };
        assert_eq!(
            ready_hooks(&neither),
            [
                "tracepoint sk_data_ready",
                "tracepoint inet_sock_set_state",
                "tracepoint tcp_receive_reset",
                "tracepoint tcp_probe",
                "tracepoint sched_waking",
            ]
        );
    }

    #[test]
    fn only_the_tracepoint_plan_pays_for_its_maps() {
        let plan = make(Hooks::Auto, ReadyHooks::Auto, &kernel(), &target()).unwrap();
        assert!(!plan.has_stand_ins());
        let bare = KernelFacts { fentry: None, kprobe: false, ..kernel() };
        let plan = make(Hooks::Auto, ReadyHooks::Auto, &bare, &target()).unwrap();
        assert!(plan.has_stand_ins());
    }

    #[test]
    fn runtime_hooks_are_refused_when_inlined() {
        let refusal = make(Hooks::Runtime, ReadyHooks::Auto, &kernel(), &target()).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "--hooks runtime is not possible here: netpollready is inlined into netpoll"
        );
    }

    #[test]
    fn what_is_asked_for_and_not_there_is_refused() {
        let bare = KernelFacts { fentry: None, kprobe: false, ..kernel() };
        let refusal = make(Hooks::Auto, ReadyHooks::Kprobe, &bare, &target()).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "--kernel-ready kprobe is not possible on this kernel: it has no kprobes"
        );
        assert!(make(Hooks::Auto, ReadyHooks::Fentry, &bare, &target()).is_err());
        let asked = make(Hooks::Auto, ReadyHooks::Tracepoints, &kernel(), &target()).unwrap();
        assert!(asked.has_stand_ins());
    }

    #[test]
    fn no_poll_clock_no_plan() {
        let blind = KernelFacts { syscall_exit: false, ..kernel() };
        assert_eq!(make(Hooks::Auto, ReadyHooks::Auto, &blind, &target()), Err(NoPlan::NoSyscallExit));
    }

    #[test]
    fn without_traps_where_the_binary_allows_it() {
        let name = |hooks, target: &TargetFacts| {
            make(hooks, ReadyHooks::Auto, &kernel(), target).map(|plan| (plan.name, plan.follows_syscalls()))
        };
        assert_eq!(name(Hooks::Auto, &target()), Ok(("syscalls", true)));
        assert_eq!(name(Hooks::Pollwait, &target()), Ok(("pollwait", false)));
        let other = TargetFacts { broken_off: Err("unexpected code".into()), ..target() };
        assert_eq!(name(Hooks::Auto, &other), Ok(("pollwait", false)));
        assert_eq!(
            name(Hooks::Syscalls, &other).unwrap_err().to_string(),
            "--hooks syscalls is not possible here: unexpected code"
        );
    }
}
