//! Numbers as people read them.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds, with three digits in the unit that suits: `850 ns`, `48.0 ms`, `1.20 s`, `33.5 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

/// A count with separators: `1,204`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

/// A part of a whole: `81 %`, `0.3 %`, `<0.1 %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u64, pub u64);

/// Millionths of one core; several cores are more than 100 %.
#[derive(Clone, Copy, Debug)]
pub struct OfCore(pub u64);

/// Bytes: `18.2 MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Three digits.
fn three(value: f64) -> String {
    // Where rounding would make a fourth digit, one decimal less.
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, f64, f64); 5] = [
            ("µs", 1e3, 999.5),
            ("ms", 1e6, 999.5),
            ("s", 1e9, 999.5),
            ("min", 60e9, 119.95),
            ("h", 3600e9, f64::INFINITY),
        ];
        if self.0 < 1000 {
            return f.pad(&format!("{} ns", self.0));
        }
        let fits = |(_, size, limit): &&(&str, f64, f64)| (self.0 as f64) / size < *limit;
        let (unit, size, _) = UNITS.iter().find(fits).unwrap_or(&UNITS[4]);
        f.pad(&format!("{} {unit}", three(self.0 as f64 / size)))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

impl fmt::Display for OfCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 as f64 / 1e4;
        let text = match self.0 {
            0 => "0 %".to_owned(),
            1..1_000 => "<0.1 %".to_owned(),
            1_000..99_500 => format!("{percent:.1} %"),
            _ => format!("{percent:.0} %"),
        };
        f.pad(&text)
    }
}

impl Share {
    /// In percent; 0 of nothing.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.1 == 0 { 0.0 } else { self.0 as f64 * 100.0 / self.1 as f64 }
    }
}

impl fmt::Display for Share {
    /// One decimal where it tells: below 10 % and above 99 %. Never 0 or 100 for what is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.percent();
        let text = if self.0 == 0 {
            "0 %".to_owned()
        } else if self.0 >= self.1 {
            "100 %".to_owned()
        } else if percent < 0.1 {
            "<0.1 %".to_owned()
        } else if percent > 99.9 {
            ">99.9 %".to_owned()
        } else if !(9.95..=99.0).contains(&percent) {
            format!("{percent:.1} %")
        } else {
            format!("{percent:.0} %")
        };
        f.pad(&text)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, f64); 3] = [("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
        let fits = |(_, size): &&(&str, f64)| (self.0 as f64) / size < 999.5;
        let (unit, size) = UNITS.iter().find(fits).unwrap_or(&UNITS[2]);
        f.pad(&format!("{} {unit}", three(self.0 as f64 / size)))
    }
}

/// A time of day, UTC: `2026-11-21T09:35:10Z`, with milliseconds if asked for. What RFC 3339 has no form for (before
/// 1970 here, after 9999) is shown as the nearest that it has.
#[must_use]
pub fn wall_time(time: SystemTime, with_milliseconds: bool) -> String {
    /// 9999-12-31T23:59:59Z
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let time = time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST);
    match with_milliseconds {
        true => humantime::format_rfc3339_millis(time).to_string(),
        false => humantime::format_rfc3339_seconds(time).to_string(),
    }
}

/// Text from a target (names of functions, files, sockets, processes), with control characters escaped: it could
/// steer the terminal of the root user who reads it, or break a line or an XML file.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    // Format characters that reorder text (U+202A..U+202E, U+2066..U+2069) deceive the reader as well.
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}'..='\u{ffff}')
    };
    if !text.contains(unsafe_char) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if unsafe_char(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (48_000_000, "48.0 ms"),
            (1_204_000_000, "1.20 s"),
            (521_000_000_000, "521 s"),
            (2_010_000_000_000, "33.5 min"),
            (36_000_000_000_000, "10.0 h"),
            (u64::MAX, "5124096 h"),
        ];
        for (ns, text) in cases {
            assert_eq!(Time(ns).to_string(), text);
        }
        assert_eq!(format!("{:>9}|{:<9}|", Time(1_500), Count(1_204)), "  1.50 µs|1,204    |");
    }

    #[test]
    fn counts_and_bytes() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(Count(count).to_string(), text);
        }
        for (bytes, text) in [(0, "0.00 kB"), (18_240_000, "18.2 MB"), (5_000_000_000, "5.00 GB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn shares() {
        let cases = [
            (0, 0, "0 %"),
            (0, 5, "0 %"),
            (1, 100_000, "<0.1 %"),
            (3, 1_000, "0.3 %"),
            (99, 1_000, "9.9 %"),
            (999, 10_000, "10 %"),
            (81, 100, "81 %"),
            (997, 1_000, "99.7 %"),
            (99_999, 100_000, ">99.9 %"),
            (7, 7, "100 %"),
        ];
        for (part, whole, text) in cases {
            assert_eq!(Share(part, whole).to_string(), text);
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_no_reason_to_stop() {
        let begin = UNIX_EPOCH + Duration::from_millis(1_795_253_710_250);
        assert_eq!(wall_time(begin, false), "2026-11-21T09:35:10Z");
        assert_eq!(wall_time(begin, true), "2026-11-21T09:35:10.250Z");
        assert_eq!(wall_time(UNIX_EPOCH - Duration::from_secs(5), false), "1970-01-01T00:00:00Z");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(wall_time(far, false), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_target_cannot_steer_the_terminal() {
        assert_eq!(clean("/run/db.sock"), "/run/db.sock");
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\\u{1b}[2Jb\\nc\\u{202e}d");
    }
}
