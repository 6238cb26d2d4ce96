//! `--max-overhead`: which waits are followed, so that the recording costs no more than it may.
//!
//! The issue of a budget is truth: following some of the waits, chosen by chance when they begin, leaves every sum right on average, long
//! waits included. Recording for a part of the time would not: a wait that is longer than the part is never seen whole.
#![forbid(unsafe_code)]

use netpoll_probe_common::sampling::Sampling;

use crate::{
    model::profile::{Budget as Told, BudgetChange},
    report::unit::OfCore,
};

/// Steps that it goes at once at most: what is measured in 20 ms may be a peak.
const STEPS_AT_ONCE: u32 = 3;
/// It costs less than this part of what it may before more is followed again: else it would go back and forth.
const BACK_BELOW: u64 = 3;

/// Whether waits are added up in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adds {
    /// From the beginning.
    pub(super) at_first: bool,
    /// When it is needed.
    pub(super) may: bool,
}

/// What it may cost, and what is done about it: waits are added up first, for that leaves all sums exact; then fewer are followed.
#[derive(Debug)]
pub(super) struct Budget {
    /// How far it has gone, from 0.
    step: u32,
    adds: Adds,
    told: Told,
    /// That nothing more can be done was said.
    has_given_up: bool,
}

/// What is to be done and said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// What the programs follow from now on; `None`: as before.
    pub(super) sampling: Option<Sampling>,
    /// For people.
    pub(super) text: String,
}

impl Budget {
    /// Of so many millionths of one core.
    pub(super) fn new(most_ppm: u64, adds: Adds) -> Self {
        Self { step: 0, adds, told: Told { most_ppm, ..Told::default() }, has_given_up: false }
    }

    /// What the programs follow now.
    pub(super) fn sampling(&self) -> Option<Sampling> {
        (!self.told.changes.is_empty()).then(|| self.of_step(self.step))
    }

    /// What the programs follow at a step. Each costs about half of what the one before did.
    fn of_step(&self, step: u32) -> Sampling {
        let adds_up = self.adds.at_first || self.adds.may && step > 0;
        let halvings = step.saturating_sub(self.steps_before_halving());
        Sampling { busy_one_in: 1 << halvings, adds_up: u32::from(adds_up) }
    }

    /// Steps that follow all.
    fn steps_before_halving(&self) -> u32 {
        u32::from(self.adds.may && !self.adds.at_first)
    }

    /// It has cost so much since the last look. `after_ns` is the time since the recording began.
    pub(super) fn decide(&mut self, cost_ppm: u64, after_ns: u64) -> Option<Decision> {
        self.told.last_ppm = Some(cost_ppm);
        let most_ppm = self.told.most_ppm;
        let last_step = self.steps_before_halving() + Sampling::LAST_HALVING;
        let step = next_step(self.step, cost_ppm, most_ppm).min(last_step);
        let (cost, most) = (OfCore(cost_ppm), OfCore(most_ppm));
        if step == self.step {
            let gives_up = cost_ppm > most_ppm && !self.has_given_up;
            self.has_given_up |= gives_up;
            return gives_up.then(|| Decision {
                sampling: None,
                text: format!(
                    "it costs {cost} of one core, more than --max-overhead {most}, with as few waits followed as can be: the hooks themselves cost that"
                ),
            });
        }
        self.step = step;
        let sampling = self.of_step(step);
        let Sampling { busy_one_in, adds_up } = sampling;
        self.told.changes.push(BudgetChange { after_ns, cost_ppm, busy_one_in, adds_up: adds_up != 0 });
        let why = if cost_ppm > most_ppm {
            format!("it costs {cost} of one core, more than --max-overhead {most}")
        } else {
            format!("it costs {cost} of one core, much less than --max-overhead {most}")
        };
        Some(Decision {
            sampling: Some(sampling),
            text: format!("{why}: {} from now on", followed(sampling)),
        })
    }

    /// For the report.
    pub(super) fn finish(self) -> Told {
        self.told
    }
}

/// What is followed, for people.
fn followed(Sampling { busy_one_in, adds_up }: Sampling) -> String {
    let which = match busy_one_in {
        0 | 1 => "all waits are followed".to_owned(),
        busy => format!("one of {busy} waits on busy fds is followed"),
    };
    if adds_up == 0 { which } else { which + ", and added up in the kernel" }
}

/// The step after this one, were there no last.
fn next_step(step: u32, cost_ppm: u64, most_ppm: u64) -> u32 {
    if cost_ppm > most_ppm {
        let times = cost_ppm.div_ceil(most_ppm.max(1));
        let steps = times.next_power_of_two().ilog2().clamp(1, STEPS_AT_ONCE);
        step + steps
    } else if cost_ppm.saturating_mul(BACK_BELOW) < most_ppm {
        step.saturating_sub(1)
    } else {
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Adds = Adds { at_first: false, may: false };

    #[test]
    fn it_adds_up_before_it_leaves_out() {
        let mut budget = Budget::new(10_000, Adds { at_first: false, may: true });
        let first = budget.decide(11_000, 200).unwrap();
        assert_eq!(first.sampling, Some(Sampling { busy_one_in: 1, adds_up: 1 }));
        assert!(
            first.text.ends_with("all waits are followed, and added up in the kernel from now on"),
            "{}",
            first.text
        );
        let second = budget.decide(52_000, 1_200).unwrap();
        assert_eq!(second.sampling, Some(Sampling { busy_one_in: 8, adds_up: 1 }));
        let mut last = second.sampling;
        while let Some(Decision { sampling: Some(sampling), .. }) = budget.decide(0, 2_200) {
            last = Some(sampling);
        }
        assert_eq!(last, Some(Sampling { busy_one_in: 1, adds_up: 0 }));

        let mut always = Budget::new(10_000, Adds { at_first: true, may: true });
        let first = always.decide(11_000, 200).unwrap();
        assert_eq!(first.sampling, Some(Sampling { busy_one_in: 2, adds_up: 1 }));
        for second in 0..20 {
            always.decide(1_000_000, second);
        }
        assert_eq!(always.sampling(), Some(Sampling { busy_one_in: 64, adds_up: 1 }));
    }

    #[test]
    fn it_halves_until_it_fits() {
        let mut budget = Budget::new(10_000, NEVER);
        assert_eq!(budget.sampling(), None);
        let first = budget.decide(52_000, 200).unwrap();
        assert_eq!(first.sampling, Some(Sampling { busy_one_in: 8, adds_up: 0 }));
        assert_eq!(
            first.text,
            "it costs 5.2 % of one core, more than --max-overhead 1.0 %: one of 8 waits on busy fds is followed from now on"
        );
        assert_eq!(budget.decide(9_000, 1_200), None);
        let back = budget.decide(3_000, 2_200).unwrap();
        assert_eq!(back.sampling, Some(Sampling { busy_one_in: 4, adds_up: 0 }));
        assert_eq!(budget.decide(4_000, 3_200), None);
        let told = budget.finish();
        assert_eq!((told.last_ppm, told.changes.len()), (Some(4_000), 2));
    }

    #[test]
    fn it_gives_up_once() {
        let mut budget = Budget::new(10, NEVER);
        let mut last = Sampling::ALL;
        let mut texts = Vec::new();
        for second in 0..20 {
            if let Some(decision) = budget.decide(1_000_000, second) {
                last = decision.sampling.unwrap_or(last);
                texts.push(decision.text);
            }
        }
        assert_eq!(last, Sampling { busy_one_in: 64, adds_up: 0 });
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts.last().unwrap().contains("the hooks themselves"), "{texts:?}");
    }

    #[test]
    fn what_costs_nothing_follows_all() {
        let mut budget = Budget::new(10_000, NEVER);
        assert_eq!(budget.decide(0, 1), None);
        budget.decide(11_000, 2);
        let all = budget.decide(0, 3).unwrap();
        assert_eq!(all.sampling, Some(Sampling::ALL));
        assert!(all.text.ends_with("all waits are followed from now on"), "{}", all.text);
    }
}
