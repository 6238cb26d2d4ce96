//! Ratios over rounds, and how sure they are.

use std::fmt;

use serde::Serialize;

/// The middle of several ratios, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// The median.
    pub(super) median: f64,
    /// The median of all rounds that could be is not below this.
    pub(super) least: f64,
    /// Nor above this.
    pub(super) most: f64,
}

impl Ratio {
    /// Of the ratios of all rounds. The interval holds the true median in at least 95 of 100 cases when there are six rounds or
    /// more: the order statistics whose distance from the ends is a binomial quantile.
    pub(super) fn of(mut ratios: Vec<f64>) -> Option<Self> {
        ratios.retain(|ratio| ratio.is_finite());
        ratios.sort_by(f64::total_cmp);
        let cut = cut(ratios.len());
        let median = match ratios.len() {
            0 => return None,
            odd if odd % 2 == 1 => *ratios.get(odd / 2)?,
            even => f64::midpoint(*ratios.get(even / 2 - 1)?, *ratios.get(even / 2)?),
        };
        Some(Self { median, least: *ratios.get(cut)?, most: *ratios.get(ratios.len() - 1 - cut)? })
    }

    /// Whether it tells anything: the interval is not wider than what the median claims.
    pub(super) fn holds(self) -> bool {
        self.most - self.least <= (1.0 - self.median).abs()
    }
}

/// A ratio that does not hold is not printed, only its interval.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        if self.holds() {
            write!(f, "{median:.3} ({least:.3}–{most:.3})")
        } else if (*least..=*most).contains(&1.0) {
            write!(f, "no difference seen ({least:.3}–{most:.3})")
        } else {
            write!(f, "{least:.3}–{most:.3}")
        }
    }
}

/// How many rounds lie outside the interval on each side: the most for which that happens by chance, with a coin for each
/// round, in at most 2.5 of 100 cases.
fn cut(rounds: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
    let (mut tail, mut cut) = (0.0, 0);
    for outside in 0..rounds / 2 {
        tail += probability;
        if tail > 0.025 {
            break;
        }
        cut = outside;
        probability *=
            super::super::number((rounds - outside) as u64) / super::super::number(outside as u64 + 1);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // Tables of the sign test: of ten, the second and the ninth; of 20, the sixth and the fifteenth.
        assert_eq!([5, 6, 10, 20].map(cut), [0, 0, 1, 5]);
        let rounds: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(Ratio::of(rounds), Some(Ratio { median: 5.5, least: 2.0, most: 9.0 }));
        assert_eq!(Ratio::of(vec![f64::NAN]), None);
    }

    #[test]
    fn claims_no_more_than_it_knows() {
        let ratio = |median, least, most| Ratio { median, least, most }.to_string();
        assert_eq!(ratio(0.8, 0.78, 0.82), "0.800 (0.780–0.820)");
        assert_eq!(ratio(0.99, 0.97, 1.01), "no difference seen (0.970–1.010)");
        assert_eq!(ratio(0.95, 0.90, 0.98), "0.900–0.980");
    }
}
