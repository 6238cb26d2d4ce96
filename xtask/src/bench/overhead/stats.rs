//! The middle of measurements, and how sure it is.

use serde::Serialize;

/// The middle of several values, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    /// The median.
    pub(super) median: f64,
    /// The median of all that could be measured is not below this.
    pub(super) least: f64,
    /// Nor above this.
    pub(super) most: f64,
    /// Of how many values.
    pub(super) values: usize,
}

/// Of fewer values there is no interval of 95 %, only the least and the most.
const ENOUGH: usize = 6;

impl Estimate {
    /// The interval holds the true median in at least 95 of 100 cases when there are [`ENOUGH`] values: the order statistics whose
    /// distance from the ends is a binomial quantile.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let cut = cut(values.len());
        let median = match values.len() {
            0 => return None,
            odd if odd % 2 == 1 => *values.get(odd / 2)?,
            even => f64::midpoint(*values.get(even / 2 - 1)?, *values.get(even / 2)?),
        };
        let (least, most) = (*values.get(cut)?, *values.get(values.len() - 1 - cut)?);
        Some(Self { median, least, most, values: values.len() })
    }

    /// Whether it may be this.
    pub(super) fn spans(self, value: f64) -> bool {
        (self.least..=self.most).contains(&value)
    }

    /// Whether a ratio tells anything: there is an interval, and it is not wider than what the median claims.
    fn holds(self) -> bool {
        self.values >= ENOUGH && self.most - self.least <= (1.0 - self.median).abs()
    }

    /// As a ratio, for people. One that does not hold is not printed, only its interval.
    pub(super) fn ratio(self) -> String {
        let Self { median, least, most, values } = self;
        if self.holds() {
            format!("{median:.3} ({least:.3}–{most:.3})")
        } else if values < ENOUGH {
            format!("{least:.3}–{most:.3} in {values}")
        } else if self.spans(1.0) {
            format!("no difference seen ({least:.3}–{most:.3})")
        } else {
            format!("{least:.3}–{most:.3}")
        }
    }
}

/// Between what single values lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    /// Of 100 values two or three are below this.
    pub(super) least: f64,
    /// As many are above this.
    pub(super) most: f64,
}

impl Noise {
    /// Of enough values to tell.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let outside = values.len() / 40;
        let (least, most) = (*values.get(outside)?, *values.get(values.len().checked_sub(1 + outside)?)?);
        (values.len() >= 40).then_some(Self { least, most })
    }
}

/// How many values lie outside the interval on each side: the most for which that happens by chance, with a coin for each
/// value, in at most 2.5 of 100 cases.
fn cut(values: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(values).unwrap_or(i32::MAX));
    let (mut tail, mut cut) = (0.0, 0);
    for outside in 0..values / 2 {
        tail += probability;
        if tail > 0.025 {
            break;
        }
        cut = outside;
        probability *=
            super::super::number((values - outside) as u64) / super::super::number(outside as u64 + 1);
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
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(Estimate::of(values), Some(Estimate { median: 5.5, least: 2.0, most: 9.0, values: 10 }));
        assert_eq!(Estimate::of(vec![f64::NAN]), None);
    }

    #[test]
    fn noise_is_where_95_of_100_values_lie() {
        let values: Vec<f64> = (1..=80).map(f64::from).collect();
        assert_eq!(Noise::of(values.clone()), Some(Noise { least: 3.0, most: 78.0 }));
        assert_eq!(Noise::of(values[..39].to_vec()), None);
    }

    #[test]
    fn claims_no_more_than_it_knows() {
        let estimate = |median, least, most| Estimate { median, least, most, values: 6 };
        let ratio = |median, least, most| estimate(median, least, most).ratio();
        assert_eq!(ratio(0.8, 0.78, 0.82), "0.800 (0.780–0.820)");
        assert_eq!(ratio(0.99, 0.97, 1.01), "no difference seen (0.970–1.010)");
        assert_eq!(ratio(0.95, 0.90, 0.98), "0.900–0.980");
        assert_eq!(Estimate { values: 1, ..estimate(0.8, 0.8, 0.8) }.ratio(), "0.800–0.800 in 1");
    }
}
