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

/// `struct epoll_event`, `include/uapi/linux/eventpoll.h`: as C lays it out.
pub mod epoll_event {
    pub const BYTES: usize = 16;
    pub const DATA: usize = 8;
}

pub mod number {
    pub const EPOLL_PWAIT: usize = 22;
    pub const EPOLL_CTL: usize = 21;
    pub const CONNECT: usize = 203;
    pub const SPLICE: usize = 76;
    pub const CLOSE: usize = 57;
    /// read, readv, preadv, recvfrom, recvmsg, recvmmsg, accept, accept4.
    pub const READS: [usize; 8] = [63, 65, 69, 207, 212, 243, 202, 242];
    /// write, writev, pwritev, sendto, sendmsg, sendmmsg, sendfile; and getsockopt, by which Go asks for SO_ERROR after a connect.
    pub const WRITES: [usize; 8] = [64, 66, 70, 206, 211, 269, 71, 209];
    /// None of these is as large.
    pub const BOUND: usize = 512;
}

/// The registers that the ABI knows of.
#[inline(always)]
pub(super) fn user(regs: &KernelRegs) -> &pt_regs {
    &regs.user
}

#[inline(always)]
pub(super) fn number_of(regs: &KernelRegs) -> u64 {
    u64::from(regs.syscallno as u32)
}

#[inline(always)]
pub(super) fn syscall_argument<const N: usize>(regs: &KernelRegs) -> u64 {
    const { assert!(N < 4) }
    if N == 0 { regs.orig_x0 } else { regs.user.regs[N] }
}

/// A call leaves it in the link register.
#[inline(always)]
pub(super) fn caller(regs: &KernelRegs) -> u64 {
    regs.user.regs[30]
}
