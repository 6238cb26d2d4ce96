//! One `runtime.g` and what is read from it.
#![forbid(unsafe_code)]

use crate::{
    goruntime::{
        constants::{GStatus, WAIT_REASON_IO_WAIT},
        offsets,
    },
    target::memory::{u32_at, u64_at},
};

/// The fields of a g at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GFields {
    /// `goid`.
    pub goid: u64,
    /// `atomicstatus` with the scan bit.
    pub raw_status: u32,
    /// `waitreason`; of meaning only while waiting.
    pub wait_reason: u8,
    /// `trackingSeq`.
    pub tracking_seq: u8,
    /// `stack.lo`.
    pub stack_lo: u64,
    /// `stack.hi`.
    pub stack_hi: u64,
    /// `sched.pc`.
    pub sched_pc: u64,
    /// `sched.sp`.
    pub sched_sp: u64,
    /// `syscallpc`.
    pub syscall_pc: u64,
    /// `syscallsp`.
    pub syscall_sp: u64,
    /// `m`.
    pub m: u64,
    /// `waitsince`.
    pub wait_since: u64,
    /// `gopc`.
    pub gopc: u64,
    /// `startpc`.
    pub start_pc: u64,
    /// `labels`.
    pub labels: u64,
}

impl GFields {
    /// Reads the fields of the struct in `bytes`; `None` if it is too short.
    #[must_use]
    pub fn read(bytes: &[u8], offsets: &offsets::G) -> Option<Self> {
        let word = |offset: u32| u64_at(bytes, offset as usize);
        let byte = |offset: u32| bytes.get(offset as usize).copied();
        Some(Self {
            goid: word(offsets.goid)?,
            raw_status: u32_at(bytes, offsets.atomic_status as usize)?,
            wait_reason: byte(offsets.wait_reason)?,
            tracking_seq: byte(offsets.tracking_seq)?,
            stack_lo: word(offsets.stack_lo)?,
            stack_hi: word(offsets.stack_hi)?,
            sched_pc: word(offsets.sched_pc)?,
            sched_sp: word(offsets.sched_sp)?,
            syscall_pc: word(offsets.syscall_pc)?,
            syscall_sp: word(offsets.syscall_sp)?,
            m: word(offsets.m)?,
            wait_since: word(offsets.wait_since)?,
            gopc: word(offsets.gopc)?,
            start_pc: word(offsets.start_pc)?,
            labels: word(offsets.labels)?,
        })
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> GStatus {
        GStatus::from_raw(self.raw_status)
    }

    /// Parked in the poller.
    #[must_use]
    pub fn is_io_wait(&self) -> bool {
        self.status() == GStatus::Waiting && self.wait_reason == WAIT_REASON_IO_WAIT
    }

    /// Where a walk of its stack begins, pc and sp; `None` while it runs or its stack is being moved.
    #[must_use]
    pub fn saved_registers(&self) -> Option<(u64, u64)> {
        match self.status() {
            GStatus::Syscall => Some((self.syscall_pc, self.syscall_sp)),
            GStatus::Runnable | GStatus::Waiting | GStatus::Preempted | GStatus::Leaked => {
                Some((self.sched_pc, self.sched_sp))
            }
            _ => None,
        }
    }

    /// Whether the goroutine did not run between two readings, as far as the g tells.
    #[must_use]
    pub fn did_not_run(&self, later: &Self) -> bool {
        let identity = |g: &Self| {
            (
                (g.goid, g.raw_status, g.wait_reason, g.tracking_seq),
                (g.sched_pc, g.sched_sp, g.syscall_pc, g.syscall_sp),
                (g.stack_lo, g.stack_hi),
            )
        };
        identity(self) == identity(later)
    }
}
