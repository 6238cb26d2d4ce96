//! Measured quantities and their bounds.

use serde::Serialize;

/// One measured quantity over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Measurement {
    /// What on.
    target: String,
    /// What.
    name: &'static str,
    /// In what.
    unit: &'static str,
    /// Above this it is too much; `None` when nothing was promised.
    bound: Option<f64>,
    /// The middle value.
    median: f64,
    /// All of them, in the order of the rounds.
    values: Vec<f64>,
}

impl Measurement {
    pub(super) fn new(
        target: &str,
        name: &'static str,
        unit: &'static str,
        bound: Option<f64>,
        values: Vec<f64>,
    ) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        Self { target: target.to_owned(), name, unit, bound, median, values }
    }
}

/// Prints them as a table, and which are over their bounds.
pub(super) fn print(measurements: &[Measurement]) {
    println!(
        "{:<20}{:<32}{:>10}{:>10}{:>10}{:>10}  unit",
        "target", "measured", "median", "least", "most", "bound"
    );
    for measurement in measurements {
        let least = measurement.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = measurement.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bound = measurement.bound.map_or_else(String::new, |bound| format!("{bound:.0}"));
        let over = measurement.bound.is_some_and(|bound| measurement.median > bound);
        println!(
            "{:<20}{:<32}{:>10.1}{least:>10.1}{most:>10.1}{bound:>10}  {}{}",
            measurement.target,
            measurement.name,
            measurement.median,
            measurement.unit,
            if over { "  OVER" } else { "" }
        );
    }
}
