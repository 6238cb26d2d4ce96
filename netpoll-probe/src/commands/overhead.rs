//! What a recording costs, and what is done about it: measured ([`Meter`]), decided ([`Budget`]), told to the programs.

use netpoll_probe_common::sampling::Sampling;

use super::{attached::Attached, budget::Budget, meter::Meter, own::now_ns, recording::Recording, tell};
use crate::{bpf::session::RunTime, error::Failure};

/// What the recording costs, and may cost.
#[derive(Debug)]
pub(super) struct Overhead {
    pub(super) meter: Meter,
    /// `None`: whatever it takes.
    pub(super) budget: Option<Budget>,
    /// Waits are added up in the kernel from the beginning.
    pub(super) aggregate: bool,
}

impl Overhead {
    /// What the programs follow now; `None`: all, as they do by themselves.
    pub(super) fn sampling(&self) -> Option<Sampling> {
        let at_first = self.aggregate.then_some(Sampling { busy_one_in: 0, adds_up: 1 });
        self.budget.as_ref().and_then(Budget::sampling).or(at_first)
    }
}

impl Recording {
    /// Measures what the recording costs, when it is time, and has fewer or more waits followed.
    pub(super) fn look_at_cost(&mut self) -> Result<(), Failure> {
        let now_ns = now_ns();
        let attached = &self.attached;
        let Some(cost_ppm) = self.overhead.meter.tick(now_ns, || run_time(attached)) else { return Ok(()) };
        let after_ns = now_ns.saturating_sub(self.started_ns);
        let Some(budget) = &mut self.overhead.budget else { return Ok(()) };
        let Some(decision) = budget.decide(cost_ppm, after_ns) else { return Ok(()) };
        tell(&decision.text);
        let Some(sampling) = decision.sampling else { return Ok(()) };
        for attached in &mut self.attached {
            attached.follow(sampling)?;
        }
        Ok(())
    }
}

/// What all programs have run so far, as far as the kernel measured it.
pub(super) fn run_time(attached: &[Attached]) -> RunTime {
    let mut sum = RunTime::default();
    for attached in attached {
        sum.merge(attached.session.run_time());
    }
    sum
}
