//! Constants of the runtime that are the same in Go 1.18 to 1.27.
//!
//! Sources: `runtime/runtime2.go` (statuses, wait reasons), `runtime/netpoll.go` (pollDesc states and info bits); checked against
//! `DW_TAG_constant` of a build of each minor version, on amd64 and arm64.
#![forbid(unsafe_code)]

/// `waitReasonIOWait`; the only wait reason used here that never moved.
pub const WAIT_REASON_IO_WAIT: u8 = 2;

/// `_Gscan`: set in a status while the garbage collector scans the stack.
pub const STATUS_SCAN_BIT: u32 = 0x1000;

/// `pdReady`: a state of `pollDesc.rg` and `wg`.
pub const POLL_DESC_READY: u64 = 1;

/// `pdWait`: a state of `pollDesc.rg` and `wg`; greater values are the waiting g.
pub const POLL_DESC_WAIT: u64 = 2;

/// `pollClosing`: a bit of `pollDesc.atomicInfo`.
pub const POLL_INFO_CLOSING: u32 = 1;

/// `pollEventErr`: a bit of `pollDesc.atomicInfo`.
pub const POLL_INFO_EVENT_ERROR: u32 = 2;

/// `pollExpiredReadDeadline`: a bit of `pollDesc.atomicInfo`.
pub const POLL_INFO_EXPIRED_READ: u32 = 4;

/// `pollExpiredWriteDeadline`: a bit of `pollDesc.atomicInfo`.
pub const POLL_INFO_EXPIRED_WRITE: u32 = 8;

/// The constants above and below by their names in DWARF, to hold a newer Go against.
pub const DWARF_CONSTANTS: &[(&str, i64)] = &[
    ("runtime.waitReasonIOWait", 2),
    ("runtime._Gidle", 0),
    ("runtime._Grunnable", 1),
    ("runtime._Grunning", 2),
    ("runtime._Gsyscall", 3),
    ("runtime._Gwaiting", 4),
    ("runtime._Gdead", 6),
    ("runtime._Gcopystack", 8),
    ("runtime._Gpreempted", 9),
    ("runtime._Gscan", 0x1000),
    ("runtime.pdReady", 1),
    ("runtime.pdWait", 2),
    ("runtime.pollClosing", 1),
    ("runtime.pollEventErr", 2),
    ("runtime.pollExpiredReadDeadline", 4),
    ("runtime.pollExpiredWriteDeadline", 8),
];

/// Status of a goroutine (`g.atomicstatus` without [`STATUS_SCAN_BIT`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GStatus {
    /// `_Gidle`: just allocated.
    Idle,
    /// `_Grunnable`: on a run queue.
    Runnable,
    /// `_Grunning`: running; it has no saved pc.
    Running,
    /// `_Gsyscall`: in a system call or C code.
    Syscall,
    /// `_Gwaiting`: parked.
    Waiting,
    /// `_Gdead`: unused, kept for the next `go` statement.
    Dead,
    /// `_Gcopystack`: its stack is being moved.
    Copystack,
    /// `_Gpreempted`: stopped by the garbage collector.
    Preempted,
    /// `_Gleaked`, from 1.26: waiting for something that nothing can reach.
    Leaked,
    /// `_Gdeadextra`, from 1.26: a dead g of an extra M.
    DeadExtra,
    /// None of the known ones; the raw value.
    Unknown(u32),
}

impl GStatus {
    /// Of the raw value, with or without the scan bit.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw & !STATUS_SCAN_BIT {
            0 => Self::Idle,
            1 => Self::Runnable,
            2 => Self::Running,
            3 => Self::Syscall,
            4 => Self::Waiting,
            6 => Self::Dead,
            8 => Self::Copystack,
            9 => Self::Preempted,
            10 => Self::Leaked,
            11 => Self::DeadExtra,
            other => Self::Unknown(other),
        }
    }

    /// The name that records and reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Syscall => "syscall",
            Self::Waiting => "waiting",
            Self::Dead | Self::DeadExtra => "dead",
            Self::Copystack => "copystack",
            Self::Preempted => "preempted",
            Self::Leaked => "leaked",
            Self::Unknown(_) => "unknown",
        }
    }
}
