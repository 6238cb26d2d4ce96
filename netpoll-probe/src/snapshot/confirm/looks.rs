//! Looks at a running process until it confirms offsets or refuses them.
#![forbid(unsafe_code)]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::{ConfirmError, Confirmed, Refused, Target, confirm};
use crate::{
    gobin::GoBinary,
    goruntime::{
        binary::{Error as RuntimeError, GoRuntime},
        globals::Global,
    },
    snapshot::{frames::BinaryFrames, unwind::FrameWord},
    target::{error::Error as TargetError, process::Process},
};

/// How long it waits between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// So many looks in a row must speak against a field: goroutines, threads and fds come and go while one look reads them.
const LOOKS_TO_REFUSE: u32 = 3;

/// Why a process's offsets are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process cannot be read.
    #[error(transparent)]
    Process(#[from] TargetError),
    /// The executable has no candidates, or lacks what they are held against.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// No candidate is confirmed: why the one is not that comes nearest.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
    /// There is no candidate.
    #[error("no offsets to try")]
    NoCandidate,
}

impl Error {
    /// Whether nothing spoke against some offsets, so that they may be confirmed when the process has work.
    #[must_use]
    pub fn may_be_confirmed_later(&self) -> bool {
        matches!(self, Self::Confirm(ConfirmError::Refused(refused)) if refused.may_be_confirmed_later())
    }
}

/// Confirms one of the candidates for `binary` by the memory of `process`, which runs it. What a process without work does not
/// show is waited for as long as `patience`.
///
/// # Errors
/// When the process cannot be read, or confirms none.
pub fn look(
    process: &Process,
    binary: &Arc<GoBinary>,
    runtime: &GoRuntime<'_>,
    patience: Duration,
) -> Result<Confirmed, Error> {
    let frames = BinaryFrames::new(Arc::clone(binary), runtime);
    let memory = process.memory();
    let load_bias = process.load_bias(binary.elf().entry_vaddr)?;
    let poll_desc = FrameWord {
        function: runtime.poll_wait()?.entry_vaddr,
        from_cfa_bytes: runtime.poll_wait_sites()?.pd_from_cfa_bytes,
    };
    let (allgs, allp, sched) =
        (runtime.global(Global::Allgs)?, runtime.global(Global::Allp)?, runtime.global(Global::Sched)?);
    let began = Instant::now();
    let mut nearest: Option<Refused> = None;
    for candidate in runtime.layout_candidates()? {
        let mut refusals = Refusals::default();
        // One look that is disturbed must not leave it to a less likely candidate.
        let refused = loop {
            let (fds, threads) = (process.fds()?, process.own_threads()?);
            let target = Target {
                memory: &memory,
                frames: &frames,
                load_bias,
                allgs,
                allp,
                sched,
                poll_desc,
                fds: &fds,
                threads: &threads,
                now_ns: now_ns(),
            };
            match confirm(&candidate, &target) {
                Err(ConfirmError::Refused(refused)) if refusals.are_enough(&refused) => break refused,
                Err(ConfirmError::Refused(refused)) if began.elapsed() > patience => {
                    return Err(ConfirmError::Refused(refused).into());
                }
                Err(ConfirmError::Refused(_)) => thread::sleep(PAUSE),
                other => return Ok(other?),
            }
        };
        if nearest.as_ref().is_none_or(|nearest| refused.against.len() < nearest.against.len()) {
            nearest = Some(refused);
        }
    }
    Err(nearest.map_or(Error::NoCandidate, |refused| ConfirmError::Refused(refused).into()))
}

/// Counts looks that speak against offsets.
#[derive(Debug, Default)]
struct Refusals {
    in_a_row: u32,
}

impl Refusals {
    fn are_enough(&mut self, refused: &Refused) -> bool {
        self.in_a_row = if refused.may_be_confirmed_later() { 0 } else { self.in_a_row + 1 };
        self.in_a_row >= LOOKS_TO_REFUSE
    }
}

/// CLOCK_MONOTONIC, Go's `nanotime`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        goruntime::version::Release,
        snapshot::confirm::evidence::{Finding, Verdict},
    };

    fn refused(verdict: Verdict) -> Refused {
        let finding = Finding { field: "m.procid", offset: 64, fact: "", required: false, verdict };
        Refused { version: "go1.99".to_owned(), like: Release::new(27, 4), against: vec![finding] }
    }

    #[test]
    fn one_look_refuses_nothing() {
        let against = refused(Verdict::Contradicted { wrong: 1, of: 4, found: String::new() });
        let unseen = refused(Verdict::Unconfirmed);
        let mut refusals = Refusals::default();
        let seen = [&against, &against, &unseen, &against, &against].map(|it| refusals.are_enough(it));
        assert_eq!(seen, [false; 5]);
        assert!(refusals.are_enough(&against));
    }
}
