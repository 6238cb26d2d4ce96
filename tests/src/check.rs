//! Verdicts: a line each, and whether all of them are good.

use std::fmt;

/// One thing that must hold.
#[derive(Clone, Debug)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub good: bool,
    /// The numbers, and a few examples of what is wrong.
    pub detail: String,
    /// The same numbers, for tables.
    pub measured: Measured,
}

/// What a check is a verdict on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A share: so many right ones of so many.
    Share {
        /// The right ones.
        right: usize,
        /// All.
        total: usize,
    },
    /// Lengths of time.
    Spread {
        /// How many.
        count: usize,
        /// The median, ns.
        p50_ns: i64,
        /// ns
        p99_ns: i64,
    },
    /// Something else.
    Other,
}

/// All verdicts of one comparison.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    checks: Vec<Check>,
}

impl Verdict {
    /// Adds a verdict.
    pub fn add(&mut self, name: &'static str, good: bool, detail: impl Into<String>) {
        self.add_measured(name, good, detail.into(), Measured::Other);
    }

    fn add_measured(&mut self, name: &'static str, good: bool, detail: String, measured: Measured) {
        self.checks.push(Check { name, good, detail, measured });
    }

    /// Adds a verdict on a share: of `tally`, at least `least` must be right. A tally of nothing is wrong: a check that
    /// saw no case proves nothing.
    pub fn add_share(&mut self, name: &'static str, least: f64, tally: &Tally) {
        self.add_measured(
            name,
            tally.total > 0 && tally.share() >= least,
            format!("{tally}, at least {:.2} %", least * 100.0),
            tally.measured(),
        );
    }

    /// The same for something that happens so seldom that one wrong case may be more than the share: it is let pass.
    pub fn add_share_but_one(&mut self, name: &'static str, least: f64, tally: &Tally) {
        let good = tally.right > 0 && (tally.share() >= least || tally.right + 1 == tally.total);
        let detail = format!("{tally}, at least {:.2} % or all but one", least * 100.0);
        self.add_measured(name, good, detail, tally.measured());
    }

    /// The same for cases so few that chance decides: as many may be wrong besides as three standard deviations of a binomial
    /// distribution with that share. Of 30 cases, two wrong ones say nothing against 95 %.
    pub fn add_share_of_few(&mut self, name: &'static str, least: f64, tally: &Tally) {
        let of = |share: f64| share * 100.0;
        let cases = f64::from(u32::try_from(tally.total).unwrap_or(u32::MAX));
        let chance = if tally.total == 0 { 0.0 } else { 3.0 * (least * (1.0 - least) / cases).sqrt() };
        let good = tally.right > 0 && tally.share() >= least - chance;
        let detail = format!("{tally}, at least {:.2} % less {:.2} % of chance", of(least), of(chance));
        self.add_measured(name, good, detail, tally.measured());
    }

    /// Adds a verdict on lengths of time: at most so long at the median and at p99, ns. No lengths are wrong. Of fewer than
    /// a thousand, p99 is but the worst few, and the machine's rather than the probe's: then p90 is held against the
    /// bound.
    pub fn add_spread(&mut self, name: &'static str, spread: &Spread, (p50_ns, p99_ns): (i64, i64)) {
        let (per_mille, high) = if spread.len() < 1000 { (900, "p90") } else { (990, "p99") };
        self.add_measured(
            name,
            !spread.is_empty()
                && spread.quantile_ns(500) <= p50_ns
                && spread.quantile_ns(per_mille) <= p99_ns,
            format!("{spread} (p50 ≤ {} µs, {high} ≤ {} µs)", p50_ns / 1000, p99_ns / 1000),
            Measured::Spread {
                count: spread.len(),
                p50_ns: spread.quantile_ns(500),
                p99_ns: spread.quantile_ns(990),
            },
        );
    }

    /// Whether everything holds.
    #[must_use]
    pub fn good(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.good)
    }

    /// The check of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The checks, in the order in which they were made.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The names of what does not hold.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| !check.good).map(|check| check.name).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, good, detail, .. } in &self.checks {
            writeln!(f, "{} {name}: {detail}", if *good { "ok  " } else { "FAIL" })?;
        }
        Ok(())
    }
}

/// Counts cases, and keeps a few examples of the wrong ones.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All cases.
    pub total: usize,
    /// The right ones.
    pub right: usize,
    wrong: Vec<String>,
}

impl Tally {
    const EXAMPLES: usize = 6;

    /// Counts a case; `example` says what is wrong with it.
    pub fn case(&mut self, right: bool, example: impl FnOnce() -> String) {
        self.total += 1;
        if right {
            self.right += 1;
        } else if self.wrong.len() < Self::EXAMPLES {
            self.wrong.push(example());
        }
    }

    fn measured(&self) -> Measured {
        Measured::Share { right: self.right, total: self.total }
    }

    /// The share of right cases, 1 when there is none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn share(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.right as f64 / self.total as f64 }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:.3} %)", self.right, self.total, self.share() * 100.0)?;
        for example in &self.wrong {
            write!(f, "\n       {example}")?;
        }
        Ok(())
    }
}

/// Lengths of time, for quantiles.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    values_ns: Vec<i64>,
}

impl Spread {
    /// Adds a length.
    pub fn add(&mut self, value_ns: i64) {
        self.values_ns.push(value_ns);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values_ns.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values_ns.is_empty()
    }

    /// The quantile `per_mille` (500 is the median), 0 when there is none.
    #[must_use]
    pub fn quantile_ns(&self, per_mille: usize) -> i64 {
        let mut sorted = self.values_ns.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or(0)
    }
}

impl fmt::Display for Spread {
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a test run are far below 2^52")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |per_mille| self.quantile_ns(per_mille) as f64 / 1000.0;
        write!(
            f,
            "n {} µs: min {:.1} p50 {:.1} p90 {:.1} p99 {:.1} max {:.1}",
            self.len(),
            us(0),
            us(500),
            us(900),
            us(990),
            us(1000)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_cases_leave_room_for_chance() {
        let good = |right: usize, total: usize| {
            let mut tally = Tally::default();
            for case in 0..total {
                tally.case(case < right, String::new);
            }
            let mut verdict = Verdict::default();
            verdict.add_share_of_few("few", 0.95, &tally);
            verdict.good()
        };
        assert!(good(29, 31) && good(26, 31) && good(950, 1000));
        assert!(!good(24, 31) && !good(900, 1000) && !good(0, 1) && !good(0, 0));
    }
}
