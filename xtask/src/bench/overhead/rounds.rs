//! Measuring everybody on a load, each next to nobody.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    super::number,
    account::{Least, Timed, Traced, clock_ns_per_run},
    load::{Load, Target, Worked},
    stats::{Estimate, Noise},
    subject::Subject,
    tools::Tools,
};

/// Runs of netpoll-probe with its eBPF programs timed.
const TIMED_RUNS: u32 = 3;
/// Rounds that those take part in of whom few tell enough.
pub(super) const FEW: u32 = 10;

/// Somebody watched, and nobody did just before and just after.
///
/// A machine's speed drifts, most of all a virtual one's. By the middle of its two neighbours in time a measurement is freed from any drift
/// that is steady over the three.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) before: Worked,
    pub(super) with: Worked,
    pub(super) after: Worked,
}

impl Sample {
    /// With, to without: to the geometric mean, which is to ratios what the mean is to differences.
    fn ratio(&self, value: impl Fn(&Worked) -> f64) -> f64 {
        value(&self.with) / (value(&self.before) * value(&self.after)).sqrt()
    }
}

/// A subject on a load, over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) subject: Subject,
    /// Operations a second, with and without, as all that follow.
    pub(super) throughput: Option<Estimate>,
    /// Median of latency.
    pub(super) p50: Option<Estimate>,
    /// 99th percentile of latency.
    pub(super) p99: Option<Estimate>,
    /// 99.9th.
    pub(super) p999: Option<Estimate>,
    /// CPU time for each operation.
    pub(super) cpu: Option<Estimate>,
    /// Of netpoll-probe: some runs.
    pub(super) timed: Vec<Timed>,
    /// Of netpoll-probe, where it follows all waits.
    pub(super) traced: Option<Traced>,
    pub(super) samples: Vec<Sample>,
}

/// A load, with everybody.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) load: Load,
    /// Nobody, each time.
    pub(super) nobody: Vec<Worked>,
    pub(super) rows: Vec<Row>,
    /// What the kernel's reading of the clock takes when it times a run of an eBPF program, ns, some times.
    pub(super) clock_ns_per_run: Vec<f64>,
    /// The least that a wait takes, some times; none where [`Subject::Least`] sees no waits.
    pub(super) least: Vec<Least>,
}

impl Table {
    /// The row of a subject.
    pub(super) fn row(&self, subject: Subject) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == subject)
    }

    /// The time in a row's eBPF programs for each wait, ns, less that of the kernel's reading of the clock, which it takes only while they
    /// are timed.
    pub(super) fn ns_per_wait(&self, row: &Row) -> Option<Estimate> {
        let clock_ns = self.clock_ns()?;
        row.timed(|timed| Some(timed.ns_per_wait()? - clock_ns * timed.per_wait(timed.runs.count)?))
    }

    /// The same of [`Subject::Least`].
    pub(super) fn least_ns_per_wait(&self) -> Option<Estimate> {
        let clock_ns = self.clock_ns()?;
        let ns = |it: &Least| (number(it.runs.ns) - clock_ns * number(it.runs.count)) / number(it.waits);
        Estimate::of(self.least.iter().map(ns).collect())
    }

    fn clock_ns(&self) -> Option<f64> {
        Estimate::of(self.clock_ns_per_run.clone()).map(|it| it.median)
    }

    /// What nobody's measurements are to those before and after them, as those of a subject are compared: how much a value of one
    /// measurement varies by itself.
    pub(super) fn noise(&self, value: impl Fn(&Worked) -> f64) -> Option<Noise> {
        let ratios = self.nobody.windows(3).filter_map(|three| match *three {
            [before, with, after] => Some(Sample { before, with, after }.ratio(&value)),
            _ => None,
        });
        Noise::of(ratios.collect())
    }

    /// Measures.
    pub(super) fn measure(load: Load, rounds: u32, tools: &Tools) -> Result<Self> {
        let mut target = load.start(&tools.program)?;
        let mut all: Vec<(Subject, Vec<Sample>)> =
            Subject::on(load).map(|subject| (subject, Vec::new())).collect();
        // The first time is slower: caches, Go's heap.
        work(Subject::Nobody, tools, &mut target)?;
        let mut before = work(Subject::Nobody, tools, &mut target)?;
        let mut nobody = vec![before];
        for round in 0..rounds {
            eprintln!("{}: round {} of {rounds}", load.name(), round + 1);
            // Or everybody would always come after the same.
            all.reverse();
            for (subject, samples) in all.iter_mut().filter(|(it, _)| round < FEW || !it.takes_few()) {
                let with = work(*subject, tools, &mut target)?;
                let after = work(Subject::Nobody, tools, &mut target)?;
                samples.push(Sample { before, with, after });
                nobody.push(after);
                before = after;
            }
        }
        if rounds % 2 == 1 {
            all.reverse();
        }
        let rows = all
            .into_iter()
            .map(|(subject, samples)| Row::new(subject, samples, tools, &mut target))
            .collect::<Result<_>>()?;
        let clock_ns_per_run = (0..if load.is_beside() { 0 } else { TIMED_RUNS })
            .map(|_| clock_ns_per_run(tools, &mut target))
            .collect::<Result<_>>()?;
        let least = (0..if load.waits_in_read() { TIMED_RUNS } else { 0 })
            .map(|_| Least::measure(tools, &mut target))
            .collect::<Result<_>>()?;
        Ok(Self { load, nobody, rows, clock_ns_per_run, least })
    }
}

impl Row {
    /// Of the runs with timed eBPF programs.
    pub(super) fn timed(&self, value: impl Fn(&Timed) -> Option<f64>) -> Option<Estimate> {
        Estimate::of(self.timed.iter().filter_map(value).collect())
    }

    /// From its samples, and from further runs of netpoll-probe.
    fn new(subject: Subject, samples: Vec<Sample>, tools: &Tools, target: &mut Target) -> Result<Self> {
        let estimate = |value: fn(&Worked) -> f64| {
            Estimate::of(samples.iter().map(|sample| sample.ratio(value)).collect())
        };
        let runs = if subject.is_ours() && !target.load.is_beside() { TIMED_RUNS } else { 0 };
        let timed = (0..runs).map(|_| Timed::measure(subject, tools, target)).collect::<Result<_>>()?;
        let counts_waits = target.load.has_waits() && subject.follows_all();
        let traced = counts_waits.then(|| Traced::measure(subject, tools, target)).transpose()?;
        Ok(Self {
            subject,
            throughput: estimate(Worked::per_second),
            p50: estimate(|worked| worked.counted.p50_ns),
            p99: estimate(|worked| worked.counted.p99_ns),
            p999: estimate(|worked| worked.counted.p999_ns),
            cpu: estimate(|worked| worked.cpu_ns_per_operation),
            timed,
            traced,
            samples,
        })
    }
}

/// The load once, while somebody watches.
fn work(subject: Subject, tools: &Tools, target: &mut Target) -> Result<Worked> {
    let watching = subject.watch(tools, target, false);
    let watching = watching.with_context(|| format!("cannot watch with {}", subject.name()))?;
    watching.settle(target, &tools.program)?;
    let worked = target.work(&tools.program)?;
    watching.end(target)?;
    Ok(worked)
}
