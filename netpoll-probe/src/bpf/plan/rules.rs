//! The rules: facts of the kernel and the target → plan.

use super::{
    super::{cost::ExpectedCost, support::KernelFacts},
    Choice, Clock, Hook, Hooks, NoPlan, Plan, ReadyHooks, Site, TargetFacts,
};

/// Decides. `auto` is `syscalls` where the binary allows it: it sees the same waits, and leaves a busy server more of its throughput
/// (docs/overhead.md). Where it does not, `pollwait`: its functions cannot be inlined, so its counts hold in every build.
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
pub(super) fn syscall_exit() -> Hook {
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
        hooks: vec![syscall_exit()],
        why: "the event array of epoll_pwait says which pollDescs were collected".into(),
        lost: None,
        cost: ExpectedCost::POLL_EXIT,
    };
    let end = Choice {
        clock: Clock::End,
        hooks: vec![syscall_exit(), Hook::Uprobe { program: "broken_off", site: broken_off.clone() }],
        why: "it asks the kernel again. A wait that is broken off passes the uprobe instead".into(),
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

#[cfg(test)]
mod tests {
    use super::super::*;
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
            tracepoints: super::super::super::support::READY_TRACEPOINTS.to_vec(),
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
