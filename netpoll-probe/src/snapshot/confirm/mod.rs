//! Holds offsets of another release against the memory of a process, before anything trusts them.
//!
//! Facts that only the right offset passes, each counted over the goroutines, Ms, Ps and pollDescs there are:
//!
//! - `runtime.allgs[0]` is goroutine 1, and all ids differ; stacks are powers of two and hold the saved stack pointer, from which frame
//!   sizes lead to the first function ([`goroutines`]).
//! - A goroutine whose stack stands in `internal/poll.runtime_pollWait` has status waiting and reason IO wait, and the pollDesc in that frame
//!   names it, and an open fd of the process ([`polls`]).
//! - An M's g0 points back to it, its thread is one of the process, the P that it holds points back ([`scheduler`]).
//!
//! `/proc/PID/fdinfo` would tell more, but reading it makes the process's own epoll_wait stand still. What could not be seen is
//! not believed: an idle process may have to be looked at again when it has work ([`looks`]).
#![forbid(unsafe_code)]

mod evidence;
mod goroutines;
pub mod looks;
mod polls;
mod scheduler;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::evidence::{Finding, Verdict};
use super::{
    allgs::AllgsError,
    unwind::{FrameTable, FrameWord},
};
use crate::{
    goruntime::{candidate::Candidate, layout::Layout, offsets::Offsets, version::Release},
    target::{fds::FdTarget, memory::ReadMemory},
};

/// What is looked at.
#[derive(Debug)]
pub struct Target<'a, M, F> {
    /// The process's memory.
    pub memory: &'a M,
    /// Frame sizes of its executable.
    pub frames: &'a F,
    /// What is added to an address of the executable's file to get one in memory.
    pub load_bias: u64,
    /// The address of `runtime.allgs`, as the linker gave it.
    pub allgs: u64,
    /// The address of `runtime.allp`, as the linker gave it.
    pub allp: u64,
    /// The address of `runtime.sched`, as the linker gave it.
    pub sched: u64,
    /// Where `internal/poll.runtime_pollWait` keeps its pollDesc.
    pub poll_desc: FrameWord,
    /// What the process's fds refer to.
    pub fds: &'a [(u32, FdTarget)],
    /// Its threads, by their ids in its own PID namespace.
    pub threads: &'a [u32],
    /// CLOCK_MONOTONIC now, ns.
    pub now_ns: u64,
}

/// A layout that a process confirmed.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// The layout; its source is `LayoutSource::Confirmed`.
    pub layout: Layout,
    /// What confirmed it, and what could not be seen.
    pub findings: Vec<Finding>,
}

/// Why a candidate is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The goroutines cannot be read.
    #[error(transparent)]
    Allgs(#[from] AllgsError),
    /// The memory does not confirm it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A candidate was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The binary's Go version.
    pub version: String,
    /// The release that the offsets are of.
    pub like: Release,
    /// What speaks against them: the contradictions, or if there are none what is required and could not be seen.
    pub against: Vec<Finding>,
}

impl Refused {
    /// Whether nothing spoke against the candidate, so that another look may confirm it, when the process has work.
    #[must_use]
    pub fn may_be_confirmed_later(&self) -> bool {
        self.against.iter().all(|finding| finding.verdict == Verdict::Unconfirmed)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, like, against } = self;
        write!(
            f,
            "the offsets of {version} are not known, and those of {like} are not confirmed by its memory: "
        )?;
        for (index, finding) in against.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Confirms a candidate by one look at the memory.
///
/// # Errors
/// [`ConfirmError::Refused`], which says what speaks against each offset; [`ConfirmError::Allgs`].
pub fn confirm<M: ReadMemory, F: FrameTable>(
    candidate: &Candidate,
    target: &Target<'_, M, F>,
) -> Result<Confirmed, ConfirmError> {
    let findings = examine(candidate.offsets(), candidate, target)?;
    let against = against(&findings);
    if against.is_empty() {
        return Ok(Confirmed { layout: candidate.clone().confirmed(), findings });
    }
    Err(Refused { version: candidate.version().to_owned(), like: candidate.like(), against }.into())
}

/// What the memory says of each offset.
fn examine<M: ReadMemory, F: FrameTable>(
    offsets: &Offsets,
    candidate: &Candidate,
    target: &Target<'_, M, F>,
) -> Result<Vec<Finding>, AllgsError> {
    let goroutines = goroutines::read(offsets, target)?;
    let mut findings = goroutines::examine(&goroutines, offsets, target)?;
    findings.extend(polls::examine(&goroutines, offsets, candidate.epoll_data(), target));
    findings.extend(scheduler::examine(&goroutines, offsets, target)?);
    Ok(findings)
}

/// What keeps the offsets from being trusted: contradictions; if there are none, required fields that nothing confirmed.
fn against(findings: &[Finding]) -> Vec<Finding> {
    let contradicted: Vec<Finding> = findings
        .iter()
        .filter(|finding| matches!(finding.verdict, Verdict::Contradicted { .. }))
        .cloned()
        .collect();
    if !contradicted.is_empty() {
        return contradicted;
    }
    let is_confirmed =
        |field: &str| findings.iter().any(|finding| finding.field == field && finding.is_confirmed());
    findings.iter().filter(|finding| finding.required && !is_confirmed(finding.field)).cloned().collect()
}
