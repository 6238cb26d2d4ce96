//! Registers of Go code: the only place that knows the machine and its `pt_regs`. One object is built for each machine.
//!
//! Go's ABIInternal (`cmd/compile/abi-internal.md`): integer arguments in RAX, RBX, RCX, … and the current g in R14 on amd64, in R0,
//! R1, R2, … and R28 on arm64; the first result where the first argument was. Verified on Go 1.18–1.27.

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
    let address = machine::instruction_pointer(regs(ctx));
    // SAFETY: a field of a live reference. Volatile, or the compiler merges this read with others, and the verifier knows only plain
    // ones of a context.
    unsafe { address.read_volatile() }
}

/// Shifts a tagged pointer to the right, over its tag (`runtime/tagptr_64bit.go`, `taggedPointer.pointer`): with its sign on amd64,
/// where the bits above an address repeat its highest; on arm64 they are zero.
#[inline(always)]
pub fn shift_tag_out(data: u64, tag_bits: u64) -> u64 {
    machine::shift_tag_out(data, tag_bits)
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
        machine::syscall(bpf_task_pt_regs(task) as *const _)
    }
}

#[cfg(bpf_target_arch = "x86_64")]
mod machine {
    use super::{Syscall, pt_regs};

    #[inline(always)]
    pub(super) fn argument_0(regs: &pt_regs) -> u64 {
        regs.rax
    }

    #[inline(always)]
    pub(super) fn argument_1(regs: &pt_regs) -> u64 {
        regs.rbx
    }

    #[inline(always)]
    pub(super) fn argument_2(regs: &pt_regs) -> u64 {
        regs.rcx
    }

    #[inline(always)]
    pub(super) fn g(regs: &pt_regs) -> u64 {
        regs.r14
    }

    #[inline(always)]
    pub(super) fn stack_pointer(regs: &pt_regs) -> u64 {
        regs.rsp
    }

    #[inline(always)]
    pub(super) fn frame_pointer(regs: &pt_regs) -> u64 {
        regs.rbp
    }

    #[inline(always)]
    pub(super) fn instruction_pointer(regs: &pt_regs) -> *const u64 {
        &raw const regs.rip
    }

    #[inline(always)]
    pub(super) fn shift_tag_out(data: u64, tag_bits: u64) -> u64 {
        (data as i64 >> tag_bits) as u64
    }

    /// # Safety
    /// `regs` are those that a system call was entered with.
    #[inline(always)]
    pub(super) unsafe fn syscall(regs: *const pt_regs) -> Syscall {
        // SAFETY: by the caller's promise.
        unsafe {
            Syscall {
                argument_0: (*regs).rdi,
                argument_1: (*regs).rsi,
                argument_2: (*regs).rdx,
                argument_3: (*regs).r10,
                g: (*regs).r14,
            }
        }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod machine {
    use super::{Syscall, pt_regs};

    /// `struct pt_regs` (`arch/arm64/include/asm/ptrace.h`) as the kernel has it; the ABI's `user_pt_regs` is its beginning.
    #[repr(C)]
    pub(super) struct KernelRegs {
        user: pt_regs,
        /// The first argument of a system call, whose register takes the result.
        orig_x0: u64,
    }

    #[inline(always)]
    pub(super) fn argument_0(regs: &pt_regs) -> u64 {
        regs.regs[0]
    }

    #[inline(always)]
    pub(super) fn argument_1(regs: &pt_regs) -> u64 {
        regs.regs[1]
    }

    #[inline(always)]
    pub(super) fn argument_2(regs: &pt_regs) -> u64 {
        regs.regs[2]
    }

    #[inline(always)]
    pub(super) fn g(regs: &pt_regs) -> u64 {
        regs.regs[28]
    }

    #[inline(always)]
    pub(super) fn stack_pointer(regs: &pt_regs) -> u64 {
        regs.sp
    }

    #[inline(always)]
    pub(super) fn frame_pointer(regs: &pt_regs) -> u64 {
        regs.regs[29]
    }

    #[inline(always)]
    pub(super) fn instruction_pointer(regs: &pt_regs) -> *const u64 {
        &raw const regs.pc
    }

    #[inline(always)]
    pub(super) fn shift_tag_out(data: u64, tag_bits: u64) -> u64 {
        data >> tag_bits
    }

    /// # Safety
    /// `regs` are those that a system call was entered with.
    #[inline(always)]
    pub(super) unsafe fn syscall(regs: *const KernelRegs) -> Syscall {
        // SAFETY: by the caller's promise.
        unsafe {
            Syscall {
                argument_0: (*regs).orig_x0,
                argument_1: (*regs).user.regs[1],
                argument_2: (*regs).user.regs[2],
                argument_3: (*regs).user.regs[3],
                g: (*regs).user.regs[28],
            }
        }
    }
}
