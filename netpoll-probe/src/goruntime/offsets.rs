//! Which fields of the runtime's structs are used, as offsets from the start of the struct.
//!
//! Values come from a binary's DWARF or from `layout_table.rs`; nothing here is a number. Source of the fields:
//! `runtime/runtime2.go` (`g`, `gobuf`, `m`, `p`), `runtime/netpoll.go` (`pollDesc`). They are equal on amd64 and arm64.
#![forbid(unsafe_code)]

/// Offsets of fields in `runtime.g`, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct G {
    /// The struct's size.
    pub size: u32,
    /// `stack.lo`, u64: the stack's lowest address.
    pub stack_lo: u32,
    /// `stack.hi`, u64: one past its highest address.
    pub stack_hi: u32,
    /// `m`, u64: the M that runs it, or null.
    pub m: u32,
    /// `sched.sp`, u64: the stack pointer when it was parked.
    pub sched_sp: u32,
    /// `sched.pc`, u64: where it goes on.
    pub sched_pc: u32,
    /// `sched.bp`, u64: the frame pointer when it was parked.
    pub sched_bp: u32,
    /// `syscallsp`, u64: the stack pointer in a system call.
    pub syscall_sp: u32,
    /// `syscallpc`, u64: the caller of a system call.
    pub syscall_pc: u32,
    /// `param`, u64.
    pub param: u32,
    /// `atomicstatus`, u32: a [`super::constants::GStatus`], with the scan bit.
    pub atomic_status: u32,
    /// `goid`, u64.
    pub goid: u32,
    /// `waitsince`, i64: set by the garbage collector only; a lower bound of the wait's age.
    pub wait_since: u32,
    /// `waitreason`, u8.
    pub wait_reason: u32,
    /// `trackingSeq`, u8: counts the times that it stopped running.
    pub tracking_seq: u32,
    /// `gopc`, u64: the `go` statement that made it.
    pub gopc: u32,
    /// `startpc`, u64: its function.
    pub start_pc: u32,
    /// `labels`, u64: its pprof labels.
    pub labels: u32,
}

/// Offsets of fields in `runtime.m`, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct M {
    /// `g0`, u64: the g of its scheduler stack.
    pub g0: u32,
    /// `procid`, u64: the thread id, in the target's own PID namespace.
    pub procid: u32,
    /// `curg`, u64: the goroutine it runs.
    pub curg: u32,
    /// `p`, u64: the P it holds.
    pub p: u32,
    /// `syscalltick`, u32: a copy of the P's at the start of a system call.
    pub syscall_tick: u32,
}

/// Offsets of fields in `runtime.p`, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P {
    /// `id`, i32.
    pub id: u32,
    /// `status`, u32.
    pub status: u32,
    /// `schedtick`, u32: +1 at every call of the scheduler.
    pub sched_tick: u32,
    /// `syscalltick`, u32: +1 at every system call.
    pub syscall_tick: u32,
    /// `m`, u64: the M that holds it.
    pub m: u32,
}

/// Offsets of fields in `runtime.pollDesc`, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollDesc {
    /// The struct's size.
    pub size: u32,
    /// `fd`, u64.
    pub fd: u32,
    /// `fdseq`, u64, from 1.21: tells uses of the same pollDesc apart.
    pub fdseq: Option<u32>,
    /// `atomicInfo`, u32: closing, event error and expired-deadline bits.
    pub atomic_info: u32,
    /// `rg`, u64: nil, ready, wait, or the g that waits for reading.
    pub rg: u32,
    /// `wg`, u64: the same for writing.
    pub wg: u32,
    /// `rd`, i64: the read deadline, CLOCK_MONOTONIC ns; 0 none, −1 expired.
    pub rd: u32,
    /// `wd`, i64: the write deadline.
    pub wd: u32,
}

/// All offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// Of `runtime.g`.
    pub g: G,
    /// Of `runtime.m`.
    pub m: M,
    /// Of `runtime.p`.
    pub p: P,
    /// Of `runtime.pollDesc`.
    pub poll_desc: PollDesc,
}
