//! What a snapshot tells of goroutines.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::unwind::GoStack;
use crate::goruntime::constants::GStatus;

/// The direction of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PollMode {
    /// Until the fd can be read.
    Read,
    /// Until it can be written.
    Write,
}

/// A park in the poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollWait {
    /// The address of its pollDesc.
    pub poll_desc: u64,
    /// The direction.
    pub mode: PollMode,
    /// The fd.
    pub fd: i32,
    /// `pollDesc.fdseq`, from Go 1.21: with the address an identity of the fd's registration.
    pub fdseq: Option<u64>,
    /// The deadline of the direction, CLOCK_MONOTONIC ns, if there is one.
    pub deadline_ns: Option<u64>,
    /// The index of `runtime_pollWait`'s frame in the stack; frames before it are the runtime's parking.
    pub frame: usize,
}

/// What is known of a goroutine's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackState {
    /// It was walked; equal stacks are shared.
    Walked(Arc<GoStack>),
    /// The goroutine runs, or its stack was just being moved: there is no saved pc.
    Running,
    /// It ran at every try between the first and the second reading.
    Moving,
}

/// One goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// The address of its g.
    pub g: u64,
    /// Its id.
    pub goid: u64,
    /// Its status.
    pub status: GStatus,
    /// `g.waitreason`, while it waits.
    pub wait_reason: Option<u8>,
    /// When the garbage collector first found it waiting, CLOCK_MONOTONIC ns: the wait is at least this old.
    pub waiting_before_ns: Option<u64>,
    /// Equal in two snapshots, with the same goid: it did not run in between (up to Go 1.25, and outside system calls).
    pub tracking_seq: u8,
    /// The `go` statement that began it, a run-time address.
    pub created_by_pc: u64,
    /// Its function, a run-time address.
    pub start_pc: u64,
    /// Its stack.
    pub stack: StackState,
    /// What it waits for in the poller; `None` when it is not in IO wait, or the pollDesc could not be confirmed.
    pub poll: Option<PollWait>,
}

/// What a snapshot did and did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Length of `runtime.allgs`.
    pub gs: u64,
    /// Of these, unused ones.
    pub dead: u64,
    /// g structs that could not be read.
    pub unreadable: u64,
    /// Goroutines that ran at every try.
    pub moving: u64,
    /// Goroutines in IO wait whose pollDesc was not found or did not name them.
    pub unconfirmed: u64,
    /// Goroutines whose stack walk did not reach the first function.
    pub incomplete_stacks: u64,
}

/// The goroutines of a process.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The goroutines, in no order that means anything.
    pub goroutines: Vec<Goroutine>,
    /// What it did and did not get.
    pub counts: Counts,
}
