//! `cargo xtask overhead`: what watching costs the watched, side by side with what people use today.

mod load;
mod page;
mod stats;
mod subject;
mod wrk;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use self::{
    load::{Counted, Load, Target},
    stats::Ratio,
    subject::{Own, Subject, cpu_ticks},
};
use crate::{debian, golang, machine::Machine, probe, workspace};

/// How long a load works in one measurement.
const SECONDS: &str = "2";

/// Measure what watching a program costs it: netpoll-probe by each hook plan, a bpftrace script, Go's execution tracer, strace.
///
/// Every round measures all subjects on a load, one after the other, and each is compared with nobody watching at the beginning, in the
/// middle and at the end of the same round. Prints
/// medians of the ratios with 95 % intervals; a ratio whose interval is wider than what it claims is not printed. Installs bpftrace, strace
/// and wrk. All values go to target/bench/overhead.json. Needs root, Go, and a machine that has nothing else to do: half an hour.
#[derive(Debug, clap::Args)]
pub(crate) struct Overhead {
    /// Rounds of each load
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this load (repeatable): http, http-fixed, proxy, pingpong, compute, others
    #[arg(long, value_name = "NAME")]
    load: Vec<String>,
    /// Write netpoll-probe/docs/overhead.md
    #[arg(long)]
    docs: bool,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    counted: Counted,
    /// CPU time of the watched process for each operation, clock ticks.
    ticks_per_operation: f64,
}

impl Measured {
    /// The mean of several.
    fn mean(all: &[Self]) -> Self {
        let count = super::number(all.len() as u64);
        let mean = |value: fn(&Self) -> f64| all.iter().map(value).sum::<f64>() / count;
        Self {
            counted: Counted {
                operations: mean(|it| it.counted.operations),
                seconds: mean(|it| it.counted.seconds),
                p50_ns: mean(|it| it.counted.p50_ns),
                p99_ns: mean(|it| it.counted.p99_ns),
                p999_ns: all
                    .iter()
                    .all(|it| it.counted.p999_ns.is_some())
                    .then(|| mean(|it| it.counted.p999_ns.unwrap_or(0.0))),
            },
            ticks_per_operation: mean(|it| it.ticks_per_operation),
        }
    }
}

/// A subject on a load, over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    load: &'static str,
    subject: String,
    rounds: Vec<Measured>,
    /// Operations a second, with and without.
    throughput: Option<Ratio>,
    /// 99th percentile of latency, with and without.
    p99: Option<Ratio>,
    /// CPU time of the watched process for each operation, with and without.
    cpu: Option<Ratio>,
    /// What netpoll-probe says of itself, in a further round in which its eBPF programs are timed.
    own: Option<Own>,
}

impl Overhead {
    /// Measures, prints.
    pub(crate) fn run(&self) -> Result<()> {
        probe::require_root("the benchmark")?;
        for name in &self.load {
            if !Load::ALL.iter().any(|load| load.name() == name) {
                bail!("{name} is none of {}", Load::ALL.map(Load::name).join(", "));
            }
        }
        let packages: Vec<&str> =
            Subject::ALL.into_iter().filter_map(Subject::package).chain(["wrk"]).collect();
        debian::install(&packages)?;
        let folder = workspace::target()?.join("bench");
        let program = folder.join("overhead");
        golang::build(&workspace::root().join("xtask/go/overhead"), &program, Machine::host(), &[])?;
        let executable = probe::build_release()?;
        let wanted = |load: &Load| self.load.is_empty() || self.load.iter().any(|name| name == load.name());
        let mut rows = Vec::new();
        for load in Load::ALL.into_iter().filter(wanted) {
            rows.extend(self.measure(load, &executable, &program)?);
            println!("{}", page::table(&rows, load));
        }
        let json = folder.join("overhead.json");
        fs::write(&json, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        println!("all values: {}", json.display());
        if self.docs {
            let page = workspace::root().join(page::PATH);
            fs::write(&page, page::render(&rows, self.rounds)?)
                .with_context(|| format!("cannot write {}", page.display()))?;
        }
        Ok(())
    }

    /// All subjects on one load.
    fn measure(&self, load: Load, executable: &Path, program: &Path) -> Result<Vec<Row>> {
        let mut target = load.start(program)?;
        let subjects: Vec<Subject> =
            Subject::ALL.into_iter().filter(|subject| subject.can_watch(&target)).collect();
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); subjects.len()];
        // The first time is slower: caches, Go's heap.
        measure_one(Subject::Nobody, executable, program, &mut target, false)?;
        for round in 0..self.rounds {
            eprintln!("{}: round {} of {}", load.name(), round + 1, self.rounds);
            let mut without = Vec::new();
            for (at, (subject, rounds)) in subjects.iter().zip(&mut measured).enumerate() {
                let one = measure_one(*subject, executable, program, &mut target, false)?.0;
                if *subject == Subject::Nobody {
                    without.push(one);
                } else {
                    rounds.push(one);
                }
                // The machine's speed changes meanwhile, so nobody watches in the middle and at the end, too.
                if at == subjects.len() / 2 || at + 1 == subjects.len() {
                    without.push(measure_one(Subject::Nobody, executable, program, &mut target, false)?.0);
                }
            }
            if let Some(rounds) = measured.first_mut() {
                rounds.push(Measured::mean(&without));
            }
        }
        let without = measured.first().cloned().unwrap_or_default();
        let ratio = |with: &[Measured], value: fn(&Measured) -> f64| {
            Ratio::of(with.iter().zip(&without).map(|(with, without)| value(with) / value(without)).collect())
        };
        subjects
            .iter()
            .zip(measured)
            .map(|(subject, rounds)| {
                let own = if subject.is_ours() {
                    measure_one(*subject, executable, program, &mut target, true)?.1
                } else {
                    None
                };
                Ok(Row {
                    load: load.name(),
                    subject: subject.name(),
                    throughput: ratio(&rounds, |measured| measured.counted.per_second()),
                    p99: ratio(&rounds, |measured| measured.counted.p99_ns),
                    cpu: ratio(&rounds, |measured| measured.ticks_per_operation),
                    rounds,
                    own,
                })
            })
            .collect()
    }
}

fn measure_one(
    subject: Subject,
    executable: &Path,
    program: &Path,
    target: &mut Target,
    stats: bool,
) -> Result<(Measured, Option<Own>)> {
    let watching = subject
        .watch(executable, program, target, stats)
        .with_context(|| format!("cannot watch with {}", subject.name()))?;
    if subject.settles() {
        target.work(program)?;
    }
    let before = (cpu_ticks(target.pid)?, watching.cpu_ns()?);
    let counted = target.work(program)?;
    let ticks = cpu_ticks(target.pid)?.saturating_sub(before.0);
    let own_cpu_ns = watching.cpu_ns()?.saturating_sub(before.1);
    let own = watching.end(target, super::number(own_cpu_ns) / 1e9 / counted.seconds)?;
    let measured = Measured { counted, ticks_per_operation: super::number(ticks) / counted.operations() };
    Ok((measured, own))
}
