//! The eBPF programs: entry points only, each a line that calls its body.
//!
//! | program | hook | body |
//! |---|---|---|
//! | `wait_start` | uprobe, `internal/poll.runtime_pollWait` or `runtime.netpollblock`, after the stack check | [`wait::start_in_poll_wait`] |
//! | `wait_end` | uprobe, the conditional jump after the call of `netpollblock` in `runtime_pollWait` | [`wait::end_in_poll_wait`] |
//! | `netpollready` | uprobe, `runtime.netpollready` (`--hooks runtime`) | [`poll::netpollready`] |
//! | `broken_off` | uprobe, the way of `runtime_pollWait` when `netpollblock` has returned false | [`wait::broken_off`] |
//! | `syscall_exit` | BTF tracepoint `sys_exit` | [`syscall::exit`] |
//! | `callback_fentry`, `callback_kprobe` | `ep_poll_callback` | [`ready::callback`] |
//! | `data_ready`, `state_change`, `reset`, `segment`, `waking` | BTF tracepoints, where the callback cannot be hooked | [`ready`] |
//! | `resolve_start`, `resolve_end` | uprobes, the call of `runtime.cgocall` in `net._C2func_getaddrinfo` and its like, and the jump after it | [`resolver`] |
//! | `exec` | BTF tracepoint `sched_process_exec` | [`exec::exec`] |
//! | `files`, `tasks` | iterators over the files of tasks and over tasks, at attach | [`files`], [`tasks`] |
//!
//! Functions that are `no_mangle` and no programs are global to the verifier (`Documentation/bpf/bpf_design_QA.rst` calls it function by
//! function verification): it goes through each once, whoever calls it, and knows nothing of its arguments, nor its callers anything of what
//! it did. So ways that differ in constants only become one, and loading takes a third of the time. A pointer that they get may be null to it.
#![no_std]
#![no_main]
// For `cells`, as aya-ebpf does.
#![feature(asm_experimental_arch)]

mod cells;
mod config;
mod emit;
mod exec;
mod fd_slot;
mod file;
mod files;
mod goroutine;
mod hand_over;
mod hint;
mod labels;
mod maps;
mod poll;
mod polldesc;
mod poller;
mod publish;
mod read;
mod ready;
mod regs;
mod resolver;
mod sampling;
mod scratch;
mod slots;
mod sockets;
mod stack;
mod syscall;
mod target;
mod tasks;
mod ticks;
mod wait;

use core::ffi::c_void;

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, fentry, kprobe, uprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};

use crate::regs::Syscall;

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// `func runtime_pollWait(pd *pollDesc, mode int) int` (Go, `runtime/netpoll.go`), or
/// `func netpollblock(pd *pollDesc, mode int32, waitio bool) bool`: the same first two arguments.
#[uprobe]
pub fn wait_start(ctx: ProbeContext) -> u32 {
    wait::start_in_poll_wait(&ctx);
    0
}

/// The conditional jump on the result of `netpollblock`, in `runtime_pollWait`.
#[uprobe]
pub fn wait_end(ctx: ProbeContext) -> u32 {
    wait::end_in_poll_wait(&ctx);
    0
}

/// `func netpollready(toRun *gList, pd *pollDesc, mode int32)` (Go, `runtime/netpoll.go`).
#[uprobe]
pub fn netpollready(ctx: ProbeContext) -> u32 {
    poll::netpollready(&ctx);
    0
}

/// The call of `runtime.cgocall` in what cmd/cgo makes of `C.getaddrinfo` (Go, `_cgo_gotypes.go`).
#[uprobe]
pub fn resolve_start(ctx: ProbeContext) -> u32 {
    resolver::start(&ctx);
    0
}

/// The first jump after it.
#[uprobe]
pub fn resolve_end(ctx: ProbeContext) -> u32 {
    resolver::end(&ctx);
    0
}

/// After the conditional jump on the result of `netpollblock`, where it is false.
#[uprobe]
pub fn broken_off(ctx: ProbeContext) -> u32 {
    wait::broken_off(&ctx);
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`, `include/trace/events/syscalls.h`.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> u32 {
    syscall::exit(Syscall::returning(&ctx));
    0
}

/// `static int ep_poll_callback(wait_queue_entry_t *wait, unsigned mode, int sync, void *key)`, `fs/eventpoll.c`.
#[fentry(function = "ep_poll_callback")]
pub fn callback_fentry(ctx: FEntryContext) -> u32 {
    ready::callback(ctx.arg(0), ctx.arg(3));
    0
}

/// The same by kprobe, where function hooks are not to be had.
#[kprobe]
pub fn callback_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(wait), Some(key)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(3)) {
        ready::callback(wait, key);
    }
    0
}

/// `TP_PROTO(const struct sock *sk)`, `include/trace/events/sock.h`, kernel 6.3.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn data_ready(ctx: BtfTracePointContext) -> u32 {
    ready::data_ready(ctx.arg(0));
    0
}

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`, `include/trace/events/sock.h`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_change(ctx: BtfTracePointContext) -> u32 {
    ready::state_change(ctx.arg(0), ctx.arg(2));
    0
}

/// `TP_PROTO(struct sock *sk)`, `include/trace/events/tcp.h`.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn reset(ctx: BtfTracePointContext) -> u32 {
    ready::reset(ctx.arg(0));
    0
}

/// `TP_PROTO(struct sock *sk, const struct sk_buff *skb)` of `tcp_probe`, `include/trace/events/tcp.h`.
#[btf_tracepoint(function = "tcp_probe")]
pub fn segment(ctx: BtfTracePointContext) -> u32 {
    ready::segment(ctx.arg(0));
    0
}

/// `TP_PROTO(struct task_struct *p)` of `sched_waking`, `include/trace/events/sched.h`.
#[btf_tracepoint(function = "sched_waking")]
pub fn waking(ctx: BtfTracePointContext) -> u32 {
    ready::waking(ctx.arg(0));
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)` of `sched_process_exec`,
/// `include/trace/events/sched.h`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec(ctx: BtfTracePointContext) -> u32 {
    exec::exec(ctx.arg(1));
    0
}

/// `DEFINE_BPF_ITER_FUNC(task, struct bpf_iter_meta *meta, struct task_struct *task)`, `kernel/bpf/task_iter.c`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn tasks(ctx: *mut c_void) -> u32 {
    tasks::entry(ctx.cast());
    0
}

/// `DEFINE_BPF_ITER_FUNC(task_file, struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)`,
/// `kernel/bpf/task_iter.c`. aya-ebpf has no macro for iterators, hence the section by hand.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn files(ctx: *mut c_void) -> u32 {
    files::entry(ctx.cast());
    0
}

/// The verifier refuses an endless loop, so a program that could panic does not load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
