//! Registers of Go code: the only place that knows the machine and its `pt_regs`. One object is built for each machine.
//!
//! Go's ABIInternal (`cmd/compile/abi-internal.md`): integer arguments in RAX, RBX, RCX, … and the current g in R14 on amd64, in R0,
//! R1, R2, … and R28 on arm64; the first result where the first argument was. Verified on Go 1.18–1.27.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{pt_regs, task_struct},
    helpers::generated::bpf_task_pt_regs,
    programs::{BtfTracePointContext, ProbeContext},
};

#[cfg(bpf_target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod machine;
#[cfg(bpf_target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod machine;

#[inline(always)]
fn regs(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: a uprobe's context is the pt_regs of the interrupted user code.
    unsafe { &*ctx.regs }
}

/// The first integer argument, or the first result.
#[inline(always)]
pub fn argument_0(ctx: &ProbeContext) -> u64 {
    machine::argument_0(regs(ctx))
}

/// The second integer argument.
#[inline(always)]
pub fn argument_1(ctx: &ProbeContext) -> u64 {
    machine::argument_1(regs(ctx))
}

/// The third integer argument.
#[inline(always)]
pub fn argument_2(ctx: &ProbeContext) -> u64 {
    machine::argument_2(regs(ctx))
}

/// The current `runtime.g`.
#[inline(always)]
pub fn g(ctx: &ProbeContext) -> u64 {
    machine::g(regs(ctx))
}

/// The stack pointer.
#[inline(always)]
pub fn stack_pointer(ctx: &ProbeContext) -> u64 {
    machine::stack_pointer(regs(ctx))
}

/// The frame pointer.
#[inline(always)]
pub fn frame_pointer(ctx: &ProbeContext) -> u64 {
    machine::frame_pointer(regs(ctx))
}

/// The address of the instruction.
#[inline(always)]
pub fn instruction_pointer(ctx: &ProbeContext) -> u64 {
    read_plainly(machine::instruction_pointer(regs(ctx)))
}

/// Reads a register. Volatile, or the compiler merges this read with others, and the verifier knows only plain ones of a context.
#[inline(always)]
fn read_plainly(register: *const u64) -> u64 {
    // SAFETY: a field of a live reference, in every call.
    unsafe { register.read_volatile() }
}

/// Shifts a tagged pointer to the right, over its tag (`runtime/tagptr_64bit.go`, `taggedPointer.pointer`): with its sign on amd64,
/// where the bits above an address repeat its highest; on arm64 they are zero.
#[inline(always)]
pub fn shift_tag_out(data: u64, tag_bits: u64) -> u64 {
    machine::shift_tag_out(data, tag_bits)
}

/// A system call that returns: `TP_PROTO(struct pt_regs *regs, long ret)` of `sys_exit`, `include/trace/events/syscalls.h`. Only the program's
/// context, so that functions get it in a register; the kernel gives it with the types of what is in it, so a load cannot fault.
#[derive(Clone, Copy)]
pub struct Syscall {
    context: *mut c_void,
}

impl Syscall {
    /// The one that a program of `sys_exit` runs for.
    #[inline(always)]
    pub fn returning(ctx: &BtfTracePointContext) -> Self {
        Self { context: ctx.as_ptr() }
    }

    /// The program's context, for helpers that want it.
    #[inline(always)]
    pub fn context(self) -> *mut c_void {
        self.context
    }

    /// The registers that it was entered with.
    #[inline(always)]
    fn regs<'a>(self) -> &'a machine::KernelRegs {
        // SAFETY: the first argument: the kernel's registers of the current task.
        unsafe { &**self.context.cast::<*const machine::KernelRegs>() }
    }

    /// Which one ([`number`]).
    #[inline(always)]
    pub fn number(self) -> u64 {
        machine::number_of(self.regs())
    }

    /// What it returns; an error is negative.
    #[inline(always)]
    pub fn result(self) -> i64 {
        // SAFETY: the second argument.
        unsafe { *self.context.cast::<i64>().add(1) }
    }

    /// One of its first four arguments.
    #[inline(always)]
    pub fn argument<const N: usize>(self) -> u64 {
        machine::syscall_argument::<N>(self.regs())
    }

    /// 0: the highest byte of an address of a process. The verifier does not know that, so what is combined with it may be anything to it, and
    /// paths that differ in constants only become one.
    #[inline(always)]
    pub fn nothing(self) -> u64 {
        self.instruction_pointer() >> 56
    }

    /// The `runtime.g` that made it: `runtime/internal/syscall.Syscall6`, `syscall.Syscall` (Go 1.18) and `runtime.epollwait` leave the
    /// register alone.
    #[inline(always)]
    pub fn g(self) -> u64 {
        machine::g(machine::user(self.regs()))
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack_pointer(self) -> u64 {
        machine::stack_pointer(machine::user(self.regs()))
    }

    /// The frame pointer: that of the caller of the function that makes the system call, which has no frame.
    #[inline(always)]
    pub fn frame_pointer(self) -> u64 {
        machine::frame_pointer(machine::user(self.regs()))
    }

    /// The address after the instruction.
    #[inline(always)]
    pub fn instruction_pointer(self) -> u64 {
        read_plainly(machine::instruction_pointer(machine::user(self.regs())))
    }

    /// Where that function will return to: an address, or [`crate::stack::ON_TOP`].
    #[inline(always)]
    pub fn caller(self) -> u64 {
        machine::caller(self.regs())
    }
}

/// Whether a sleeping thread is in `epoll_pwait`.
#[inline(always)]
pub fn sleeps_in_poll(task: *const task_struct) -> bool {
    // SAFETY: the task is a BTF pointer that is not null. The helper gives the place of its registers, with their type.
    unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut()) as *const machine::KernelRegs;
        machine::number_of(&*regs) == number::EPOLL_PWAIT as u64
    }
}

/// `struct epoll_event`: its size, and where its `data` is, after `events`.
pub mod epoll_event {
    pub use super::machine::epoll_event::*;
}

/// Numbers of system calls: `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`.
pub mod number {
    pub use super::machine::number::*;
}
