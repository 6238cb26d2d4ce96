//! Parsers of values on the command line.

use std::time::Duration;

/// A time as people write it: `30s`, `1.5s`, `500ms`, `100us`, `2m`, `1h`, or seconds.
///
/// # Errors
/// When it is not a number with one of these units, or not above zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let seconds_per_unit = match &text[number.len()..] {
        "" | "s" => 1.0,
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}; use ns, us, ms, s, m or h")),
    };
    let value: f64 = number.parse().map_err(|_not_a_number| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(value * seconds_per_unit)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text} is not a time above zero"))
}

/// A share of one core as people write it: `1%`, `0.5%`, `150%`, or `1`, which is a percent too. In millionths.
///
/// # Errors
/// When it is not a number, or not above zero.
pub fn share_of_core(text: &str) -> Result<u64, String> {
    /// A hundred cores: what is above it is a mistake.
    const MOST: Duration = Duration::from_secs(100);
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let percent: f64 = number.parse().map_err(|_not_a_number| format!("{number:?} is not a number"))?;
    // As CPU time in a second.
    Duration::try_from_secs_f64(percent / 100.0)
        .ok()
        .filter(|time| *time <= MOST)
        .and_then(|time| u64::try_from(time.as_micros()).ok())
        .filter(|ppm| *ppm > 0)
        .ok_or_else(|| format!("{text} is not a share above zero, such as 1%"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("3 parsecs").unwrap_err(), "unknown unit \"parsecs\"; use ns, us, ms, s, m or h");
        assert_eq!(duration("s").unwrap_err(), "\"\" is not a number");
        assert_eq!(duration("0s").unwrap_err(), "0s is not a time above zero");
        assert_eq!(duration("-1s").unwrap_err(), "-1s is not a time above zero");
    }

    #[test]
    fn shares_as_people_write_them() {
        assert_eq!(share_of_core("1%"), Ok(10_000));
        assert_eq!(share_of_core("0.5 %"), Ok(5_000));
        assert_eq!(share_of_core("150"), Ok(1_500_000));
        assert_eq!(share_of_core("0%").unwrap_err(), "0% is not a share above zero, such as 1%");
        assert_eq!(share_of_core("-3%").unwrap_err(), "-3% is not a share above zero, such as 1%");
        assert_eq!(share_of_core("NaN%").unwrap_err(), "NaN% is not a share above zero, such as 1%");
        assert_eq!(share_of_core("much").unwrap_err(), "\"much\" is not a number");
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_an_error(text in ".*") {
            let _ = duration(&text);
            let _ = share_of_core(&text);
        }
    }
}
