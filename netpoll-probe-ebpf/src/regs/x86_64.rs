//! amd64.

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

/// `struct epoll_event`, `include/uapi/linux/eventpoll.h`: packed, so that it is the same for programs of 32 bits.
pub mod epoll_event {
    pub const BYTES: usize = 12;
    pub const DATA: usize = 4;
}

pub mod number {
    pub const EPOLL_PWAIT: usize = 281;
    pub const EPOLL_CTL: usize = 233;
    pub const CONNECT: usize = 42;
    pub const SPLICE: usize = 275;
    pub const CLOSE: usize = 3;
    /// read, readv, preadv, recvfrom, recvmsg, recvmmsg, accept, accept4.
    pub const READS: [usize; 8] = [0, 19, 295, 45, 47, 299, 43, 288];
    /// write, writev, pwritev, sendto, sendmsg, sendmmsg, sendfile; and getsockopt, by which Go asks for SO_ERROR after a connect.
    pub const WRITES: [usize; 8] = [1, 20, 296, 44, 46, 307, 40, 55];
    /// None of these is as large.
    pub const BOUND: usize = 512;
}

/// The registers that the ABI knows of.
#[inline(always)]
pub(super) fn user(regs: &KernelRegs) -> &pt_regs {
    regs
}

#[inline(always)]
pub(super) fn number_of(regs: &KernelRegs) -> u64 {
    regs.orig_rax
}

#[inline(always)]
pub(super) fn syscall_argument<const N: usize>(regs: &KernelRegs) -> u64 {
    const { assert!(N < 4) }
    match N {
        0 => regs.rdi,
        1 => regs.rsi,
        2 => regs.rdx,
        _ => regs.r10,
    }
}

/// A call pushes it.
#[inline(always)]
pub(super) fn caller(_regs: &KernelRegs) -> u64 {
    crate::stack::ON_TOP
}
