//! What wrk prints (Debian's `wrk`, https://github.com/wg/wrk, `src/wrk.c`).

use super::load::Counted;

/// Reads it: how many requests in what time, and the distribution of their latency.
pub(super) fn parse(text: &str) -> Option<Counted> {
    let mut lines = text.lines().map(str::trim);
    let quantile_ns = |percent: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(percent))?;
        nanoseconds(line.trim())
    };
    let (requests, rest) = lines.find_map(|line| line.split_once(" requests in "))?;
    let seconds = nanoseconds(rest.split(',').next()?)? / 1e9;
    Some(Counted {
        operations: requests.parse().ok()?,
        seconds,
        p50_ns: quantile_ns("50%")?,
        p99_ns: quantile_ns("99%")?,
        p999_ns: None,
    })
}

/// A time with its unit, such as `2.05ms`.
fn nanoseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(at)?;
    let scale = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        _ => return None,
    };
    Some(number.trim().parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Running 2s test @ http://127.0.0.1:43445/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   328.51us  612.43us  11.92ms   93.75%
    Req/Sec    70.79k     2.86k   75.81k    76.19%
  Latency Distribution
     50%  176.00us
     75%  247.00us
     90%  597.00us
     99%    3.04ms
  147952 requests in 2.10s, 17.50MB read
Requests/sec:  70451.06
Transfer/sec:      8.33MB
";

    #[test]
    fn reads_what_wrk_prints() {
        let counted = parse(TEXT).unwrap();
        assert!((counted.per_second() - 70_453.3).abs() < 1.0, "{counted:?}");
        assert_eq!((counted.p50_ns, counted.p99_ns, counted.p999_ns), (176_000.0, 3_040_000.0, None));
        assert!(parse("").is_none());
        assert!(parse(&TEXT.replace("3.04ms", "3.04 fortnights")).is_none());
    }
}
