//! arm64.

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

pub mod number {
    pub const EPOLL_PWAIT: usize = 22;
    pub const EPOLL_CTL: usize = 21;
    pub const CONNECT: usize = 203;
    pub const SPLICE: usize = 76;
    /// read, readv, preadv, recvfrom, recvmsg, recvmmsg, accept, accept4.
    pub const READS: [usize; 8] = [63, 65, 69, 207, 212, 243, 202, 242];
    /// write, writev, pwritev, sendto, sendmsg, sendmmsg, sendfile; and getsockopt, by which Go asks for SO_ERROR after a connect.
    pub const WRITES: [usize; 8] = [64, 66, 70, 206, 211, 269, 71, 209];
    /// None of these is as large.
    pub const BOUND: usize = 512;
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
