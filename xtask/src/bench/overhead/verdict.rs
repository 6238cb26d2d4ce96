//! Whether a goal is reached.

use std::fmt;

use super::stats::Estimate;

/// By how much a goal that cannot be reached may be missed: so many times the floor.
pub(super) const NEAR: f64 = 1.3;

/// What is made of a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is reached.
    Reached,
    /// It is not, but no more than [`NEAR`] times the floor is taken: so many.
    Near(f64),
    /// It is neither.
    Missed,
}

impl Verdict {
    /// Of a cost that may be `most`, and that nobody can press below `floor`.
    pub(super) fn of(cost: f64, most: f64, floor: Option<f64>) -> Self {
        let times = floor.filter(|&floor| floor > 0.0).map(|floor| cost / floor);
        match times {
            _ if cost <= most => Self::Reached,
            Some(times) if times <= NEAR => Self::Near(times),
            _ => Self::Missed,
        }
    }

    /// Of a median, when the goal is to be at `bar`: whether it is sure.
    pub(super) fn by(self, measured: Estimate, bar: f64) -> String {
        if measured.spans(bar) && measured.least < measured.most {
            format!("{self}, not for sure")
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached => f.write_str("reached"),
            Self::Near(times) => write!(f, "within {NEAR} × of the floor ({times:.2})"),
            Self::Missed => f.write_str("missed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_held_against_the_goal_and_then_against_the_floor() {
        assert_eq!(Verdict::of(0.08, 0.10, Some(0.01)), Verdict::Reached);
        assert_eq!(Verdict::of(0.12, 0.10, Some(0.10)).to_string(), "within 1.3 × of the floor (1.20)");
        assert_eq!(Verdict::of(0.14, 0.10, Some(0.10)), Verdict::Missed);
        assert_eq!(Verdict::of(0.14, 0.10, Some(-0.01)), Verdict::Missed);
        assert_eq!(Verdict::of(0.14, 0.10, None), Verdict::Missed);
    }

    #[test]
    fn a_goal_within_the_interval_is_not_sure() {
        let measured = |least, most| Estimate { median: 0.95, least, most, values: 10 };
        assert_eq!(Verdict::Reached.by(measured(0.92, 0.97), 0.90), "reached");
        assert_eq!(Verdict::Reached.by(measured(0.89, 0.97), 0.90), "reached, not for sure");
    }
}
