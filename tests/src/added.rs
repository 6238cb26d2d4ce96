//! What is added up in the kernel against the records of the same waits, by another recording at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    check::Verdict,
    live::{Options, Truth},
    probe::{Recording, Summing},
};

/// Groups of fewer waits are not compared: the two recordings do not begin and end at the same moment.
const FEW: f64 = 100.0;

/// How far counts may be apart, and sums of times: two recordings by the same hooks take their clocks one after the other.
const COUNT: f64 = 0.01;
const TIME: f64 = 0.03;

/// Of waits that end soon after they begin, two programs one after the other see different lengths: by most where both look up a new file
/// first, as in connects: 3 µs were too few in one run of four.
const OWN_NS: f64 = 6_000.0;

/// The same of what begins at the poll clock, which the second takes after the first has gone through all events of the poll: 5 to 7 µs were
/// measured, whichever of the two added up.
const POLL_NS: f64 = 20_000.0;

/// Groups of fewer waits are not compared by their medians: one wait more or less, and the median is that of the next one, which may be much
/// longer (15.3 and 17.6 ms were seen in a virtual machine).
const MEDIAN_OF: f64 = 1_000.0;

/// The same of a median: what connecting takes, some 150 µs, is seen 20 µs longer by one of the two.
const MEDIAN_NS: f64 = 50_000.0;

/// The same of one wait, if the CPU is taken away between the two programs: it may be the longest one, and is part of each sum.
const INTERRUPTED_NS: f64 = 10_000_000.0;

/// Records a load twice at the same time by the same hooks: wait by wait, and added up.
///
/// # Errors
/// When that cannot be done.
pub fn run(options: &Options) -> Result<Verdict> {
    let hooks = ["--hooks", &options.hooks, "--kernel-ready", &options.kernel_ready];
    let timeout = Duration::from_secs(60) * options.patience;
    let mut truth = Truth::start(options, false)?;
    let one_by_one = Recording::start(&options.probe, truth.id(), &hooks, timeout)?;
    let adding = ["--aggregate"].into_iter().chain(hooks).collect::<Vec<_>>();
    let adding = Summing::start(&options.probe, truth.id(), &adding, timeout)?;
    truth.load()?;
    let added = adding.stop(timeout)?;
    let one_by_one = one_by_one.stop(timeout)?;
    truth.end()?;
    judge(&one_by_one.summary, &added, options)
}

fn judge(records: &Value, added: &Value, options: &Options) -> Result<Verdict> {
    // A slow machine has a light load, and so less of each kind.
    let (least_share, least_groups) = if options.patience > 1 { (0.1, 3) } else { (0.5, 8) };
    let mut verdict = Verdict::default();
    let quality = &added["quality"];
    verdict.add("nothing lost", quality["lost"] == serde_json::json!({}), quality.to_string());
    let (seen, in_kernel) = (number(quality, "/seen")?, number(quality, "/added_in_kernel")?);
    let came = number(added, "/cost/ring_records")?;
    let detail = format!("{in_kernel} of {seen} waits, {came} records");
    verdict.add("added in the kernel", in_kernel > seen * least_share && came < seen, detail);

    let longer_ns = (number(records, "/duration_ns")? - number(added, "/duration_ns")?).abs();
    let compare = |what: &str, expected: &Value, found: &Value| {
        differences(what, expected, found, longer_ns, f64::from(options.patience))
    };
    let mut wrong = compare("totals", &records["totals"], &added["totals"])?;
    let mut compared = 0;
    for kind in ["peers", "stacks", "roles", "outcomes"] {
        let groups = |of: &Value| of["groups"][kind].as_array().cloned().unwrap_or_default();
        let found = groups(added);
        for expected in groups(records) {
            if number(&expected, "/count")? < FEW {
                continue;
            }
            compared += 1;
            let name = format!("{kind} {}", expected["name"]);
            let same =
                |found: &&Value| found["name"] == expected["name"] && found["stack"] == expected["stack"];
            match found.iter().find(same) {
                Some(found) => wrong.extend(compare(&name, &expected, found)?),
                None => wrong.push(format!("no {name}")),
            }
        }
    }
    let detail = format!("{compared} groups; {}", wrong.join("; "));
    verdict.add("same sums", wrong.is_empty() && compared >= least_groups, detail);
    Ok(verdict)
}

fn number(of: &Value, path: &str) -> Result<f64> {
    of.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {of}"))
}

/// In what counts and times of one group of waits are apart. One recording was longer by `longer_ns`, and so are waits in it that were open
/// when it began or ended. On a machine that is so many times `slower`, so is everything between two clocks.
fn differences(
    what: &str,
    expected: &Value,
    found: &Value,
    longer_ns: f64,
    slower: f64,
) -> Result<Vec<String>> {
    let cut = number(expected, "/open")? + number(expected, "/started_before")?;
    let count = number(expected, "/count")?;
    let slack_ns = |each_ns: f64| each_ns * count + cut * longer_ns + INTERRUPTED_NS * slower;
    let own_ns = slack_ns(OWN_NS * slower);
    let mut wrong = Vec::new();
    for (path, share, slack) in [
        ("/count", COUNT, 5.0),
        ("/total_ns", TIME, own_ns),
        ("/phases_ns/peer", TIME, own_ns),
        ("/phases_ns/queue", 2.0 * TIME, slack_ns((OWN_NS * slower).max(POLL_NS))),
        ("/spurious", COUNT, 5.0),
        ("/longest/duration_ns", TIME, INTERRUPTED_NS * slower),
        ("/durations/p50_ns", 2.0 * TIME, MEDIAN_NS * slower),
    ] {
        // How long those have lasted is a matter of when the recording began and ended.
        if path.starts_with("/longest") && cut > 0.0 || path.ends_with("p50_ns") && count < MEDIAN_OF {
            continue;
        }
        let (expected, found) = (number(expected, path)?, number(found, path)?);
        if (found - expected).abs() > expected * share + slack {
            wrong.push(format!("{what}{path}: {found} for {expected}, of {count} waits"));
        }
    }
    Ok(wrong)
}
