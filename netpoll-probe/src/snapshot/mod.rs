//! The goroutines of a running process, read without stopping it.
//!
//! `runtime.allgs` lists every g there ever was ([`allgs`]). Goroutines are read sorted by address, 64 at a time: the g structs, their
//! stacks, the pollDescs of those in IO wait, and the g structs again ([`scan`]). One is accepted when it did not run in
//! between: goid, status, wait reason, saved pc and sp, stack bounds and `trackingSeq` (+1 whenever a goroutine stops running) are
//! equal, and for system calls from Go 1.26 `m.syscalltick` too. The others are read again, three times, then called moving.
//! Stacks are walked with the frame sizes of pclntab ([`unwind`]); frame pointers are wrong for one preempted goroutine in two.
//!
//! The fd of a wait comes from the goroutine's own stack: the argument of `internal/poll.runtime_pollWait` is its pollDesc,
//! confirmed by `pd.rg` or `pd.wg` being this g. `/proc/PID/fdinfo` of the epoll fd would tell too, but reading it makes the
//! target's own epoll_wait stand still.
//!
//! Everything here but [`confirm::looks`] is a function of memory, frame sizes and layout, so that tests run it over bytes. Stacks
//! move, so no stack address leaves this module.
#![forbid(unsafe_code)]

pub mod allgs;
pub mod confirm;
pub mod frames;
pub mod g;
pub mod goroutine;
pub mod scan;
#[cfg(test)]
mod tests;
pub mod unwind;
