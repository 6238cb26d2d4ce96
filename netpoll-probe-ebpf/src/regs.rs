//! Registers of Go code: the only place that knows `pt_regs`.
//!
//! Go's ABIInternal (`cmd/compile/abi-internal.md`), amd64: integer arguments in AX, BX, CX, …; results from AX;
//! the current g in R14. Verified on Go 1.18–1.27.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::ProbeContext,
};

#[inline(always)]
fn regs(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: a uprobe's context is the pt_regs of the interrupted user code.
    unsafe { &*ctx.regs }
}

/// The first integer argument, or the first result.
#[inline(always)]
pub fn argument_0(ctx: &ProbeContext) -> u64 {
    regs(ctx).rax
}

/// The second integer argument.
#[inline(always)]
pub fn argument_1(ctx: &ProbeContext) -> u64 {
    regs(ctx).rbx
}

/// The third integer argument.
#[inline(always)]
pub fn argument_2(ctx: &ProbeContext) -> u64 {
    regs(ctx).rcx
}

/// The current `runtime.g`.
#[inline(always)]
pub fn g(ctx: &ProbeContext) -> u64 {
    regs(ctx).r14
}

/// The stack pointer.
#[inline(always)]
pub fn stack_pointer(ctx: &ProbeContext) -> u64 {
    regs(ctx).rsp
}

/// The arguments of the system call that the current thread is in, and the `runtime.g` that made it.
pub struct Syscall {
    /// First argument.
    pub argument_0: u64,
    /// Second argument.
    pub argument_1: u64,
    /// Third argument.
    pub argument_2: u64,
    /// Fourth argument.
    pub argument_3: u64,
    /// The g register: `runtime/internal/syscall.Syscall6` and `runtime.epollwait` leave it alone.
    pub g: u64,
}

/// Reads them; at the exit of a system call the arguments still stand there.
#[inline(always)]
pub fn syscall() -> Syscall {
    // SAFETY: both helpers return valid pointers of the current task; the verifier knows their types, and a load
    // through them cannot fault.
    unsafe {
        let task = bpf_get_current_task_btf();
        let regs = bpf_task_pt_regs(task) as *const pt_regs;
        Syscall {
            argument_0: (*regs).rdi,
            argument_1: (*regs).rsi,
            argument_2: (*regs).rdx,
            argument_3: (*regs).r10,
            g: (*regs).r14,
        }
    }
}
