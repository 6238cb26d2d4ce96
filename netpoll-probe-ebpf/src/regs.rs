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

/// A system call that returns: the registers that it was entered with, and its result. The kernel gives them to `sys_exit` with their type,
/// so a load cannot fault.
pub struct Syscall {
    context: *mut c_void,
    regs: *const machine::KernelRegs,
    result: i64,
}

impl Syscall {
    /// `TP_PROTO(struct pt_regs *regs, long ret)` of `sys_exit`, `include/trace/events/syscalls.h`.
    #[inline(always)]
    pub fn returning(ctx: &BtfTracePointContext) -> Self {
        Self { context: ctx.as_ptr(), regs: ctx.arg(0), result: ctx.arg(1) }
    }

    /// The program's context, for helpers that want it.
    #[inline(always)]
    pub fn context(&self) -> *mut c_void {
        self.context
    }

    /// Which one ([`number`]).
    #[inline(always)]
    pub fn number(&self) -> u64 {
        // SAFETY: the kernel's registers of the current task.
        unsafe { machine::number_of(self.regs) }
    }

    /// What it returns; an error is negative.
    #[inline(always)]
    pub fn result(&self) -> i64 {
        self.result
    }

    /// First argument.
    #[inline(always)]
    pub fn argument_0(&self) -> u64 {
        // SAFETY: as in `number`; so are the next ones.
        unsafe { machine::syscall_argument_0(self.regs) }
    }

    /// Second argument.
    #[inline(always)]
    pub fn argument_1(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_argument_1(self.regs) }
    }

    /// Third argument.
    #[inline(always)]
    pub fn argument_2(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_argument_2(self.regs) }
    }

    /// Fourth argument.
    #[inline(always)]
    pub fn argument_3(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_argument_3(self.regs) }
    }

    /// The `runtime.g` that made it: `runtime/internal/syscall.Syscall6`, `syscall.Syscall` (Go 1.18) and `runtime.epollwait` leave the
    /// register alone.
    #[inline(always)]
    pub fn g(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_g(self.regs) }
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack_pointer(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_stack_pointer(self.regs) }
    }

    /// The frame pointer: that of the caller of the function that makes the system call, which has no frame.
    #[inline(always)]
    pub fn frame_pointer(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_frame_pointer(self.regs) }
    }

    /// The address after the instruction.
    #[inline(always)]
    pub fn instruction_pointer(&self) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_instruction_pointer(self.regs) }
    }

    /// Where that function will return to; `top` is the word on top of the stack.
    #[inline(always)]
    pub fn return_address(&self, top: u64) -> u64 {
        // SAFETY: see above.
        unsafe { machine::syscall_return_address(self.regs, top) }
    }
}

/// Whether a sleeping thread is in `epoll_pwait`.
#[inline(always)]
pub fn sleeps_in_poll(task: *const task_struct) -> bool {
    // SAFETY: the task is a BTF pointer that is not null. The helper gives the place of its registers, with their type.
    unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut()) as *const machine::KernelRegs;
        machine::number_of(regs) == number::EPOLL_PWAIT
    }
}

/// Numbers of system calls: `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`.
pub mod number {
    pub use super::machine::number::*;
}

#[cfg(bpf_target_arch = "x86_64")]
mod machine {
    use super::pt_regs;

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

    pub(super) type KernelRegs = pt_regs;

    pub(in super::super) mod number {
        pub const READ: u64 = 0;
        pub const WRITE: u64 = 1;
        pub const READV: u64 = 19;
        pub const WRITEV: u64 = 20;
        pub const SENDFILE: u64 = 40;
        pub const CONNECT: u64 = 42;
        pub const ACCEPT: u64 = 43;
        pub const SENDTO: u64 = 44;
        pub const RECVFROM: u64 = 45;
        pub const SENDMSG: u64 = 46;
        pub const RECVMSG: u64 = 47;
        pub const GETSOCKOPT: u64 = 55;
        pub const EPOLL_CTL: u64 = 233;
        pub const SPLICE: u64 = 275;
        pub const EPOLL_PWAIT: u64 = 281;
        pub const ACCEPT4: u64 = 288;
        pub const PREADV: u64 = 295;
        pub const PWRITEV: u64 = 296;
        pub const RECVMMSG: u64 = 299;
        pub const SENDMMSG: u64 = 307;
    }

    #[inline(always)]
    pub(super) unsafe fn number_of(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).orig_rax }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_0(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rdi }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_1(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rsi }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_2(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rdx }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_3(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).r10 }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_g(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).r14 }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_stack_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rsp }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_frame_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rbp }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_instruction_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).rip }
    }

    /// A call pushes it.
    #[inline(always)]
    pub(super) unsafe fn syscall_return_address(_regs: *const KernelRegs, top: u64) -> u64 {
        top
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod machine {
    use super::pt_regs;

    /// `struct pt_regs` (`arch/arm64/include/asm/ptrace.h`) as the kernel has it; the ABI's `user_pt_regs` is its beginning.
    #[repr(C)]
    pub(super) struct KernelRegs {
        user: pt_regs,
        /// The first argument of a system call, whose register takes the result.
        orig_x0: u64,
        /// Its number.
        syscallno: i32,
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

    pub(in super::super) mod number {
        pub const EPOLL_CTL: u64 = 21;
        pub const EPOLL_PWAIT: u64 = 22;
        pub const READ: u64 = 63;
        pub const WRITE: u64 = 64;
        pub const READV: u64 = 65;
        pub const WRITEV: u64 = 66;
        pub const PREADV: u64 = 69;
        pub const PWRITEV: u64 = 70;
        pub const SENDFILE: u64 = 71;
        pub const SPLICE: u64 = 76;
        pub const ACCEPT: u64 = 202;
        pub const CONNECT: u64 = 203;
        pub const SENDTO: u64 = 206;
        pub const RECVFROM: u64 = 207;
        pub const GETSOCKOPT: u64 = 209;
        pub const SENDMSG: u64 = 211;
        pub const RECVMSG: u64 = 212;
        pub const ACCEPT4: u64 = 242;
        pub const RECVMMSG: u64 = 243;
        pub const SENDMMSG: u64 = 269;
    }

    #[inline(always)]
    pub(super) unsafe fn number_of(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { u64::from((*regs).syscallno as u32) }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_0(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).orig_x0 }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_1(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.regs[1] }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_2(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.regs[2] }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_argument_3(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.regs[3] }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_g(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.regs[28] }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_stack_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.sp }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_frame_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.regs[29] }
    }

    #[inline(always)]
    pub(super) unsafe fn syscall_instruction_pointer(regs: *const KernelRegs) -> u64 {
        // SAFETY: by the caller's promise that these are the kernel's registers of a task; so in the next ones.
        unsafe { (*regs).user.pc }
    }

    /// A call leaves it in the link register.
    #[inline(always)]
    pub(super) unsafe fn syscall_return_address(regs: *const KernelRegs, _top: u64) -> u64 {
        // SAFETY: see above.
        unsafe { (*regs).user.regs[30] }
    }
}
