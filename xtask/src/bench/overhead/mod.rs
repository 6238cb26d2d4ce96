//! `cargo xtask overhead`: what watching costs the watched, side by side with what people use today.

mod account;
mod cpu;
mod goals;
mod hooks;
mod load;
mod page;
mod rounds;
mod stats;
mod subject;
mod tables;
mod tools;
mod verdict;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use self::{load::Load, rounds::Table, subject::Subject, tools::Tools};
use super::{Attach, UnderLoad, attach, under_load};
use crate::{debian, probe, workspace};

/// Readers of the program that counts its waits, none of which may be lost: each waits a thousand times a second, if the machine can.
const WAITING_READERS: u32 = 100;
/// How long it is recorded each time, and how often.
const WAITING_TIME: Duration = Duration::from_secs(3);
const WAITING_ROUNDS: u32 = 3;

/// Measure what watching a program costs it: netpoll-probe by each hook plan, a bpftrace script, Go's execution tracer, strace.
///
/// Every round measures all subjects on a load, each between two measurements with nobody watching, which it is compared with. Prints
/// medians of the ratios with 95 % intervals; a ratio whose interval is wider than what it claims is not printed. Installs bpftrace,
/// strace and wrk. All values go to target/bench/overhead.json. Needs root, Go, and a machine that has nothing else to do: 35 minutes.
#[derive(Debug, clap::Args)]
pub(crate) struct Overhead {
    /// Rounds of each load; with fewer than six no ratio is sure enough to be printed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this load (repeatable): http, http-fixed, proxy, pingpong, compute, beside, others
    #[arg(long, value_name = "NAME")]
    load: Vec<String>,
    /// Write netpoll-probe/docs/overhead.md
    #[arg(long)]
    docs: bool,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Results {
    tables: Vec<Table>,
    /// Attaching and detaching.
    attaching: Vec<Attach>,
    /// A program that counts its waits.
    waiting: Vec<UnderLoad>,
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
        let packages: Vec<&str> = Subject::PACKAGES.into_iter().chain(["wrk"]).collect();
        debian::install(&packages)?;
        let tools = Tools::new()?;
        let results = self.measure(&tools)?;
        println!("{}", goals::table(&results));
        let json = tools.folder.join("overhead.json");
        fs::write(&json, serde_json::to_string_pretty(&results)?)
            .with_context(|| format!("cannot write {}", json.display()))?;
        println!("all values: {}", json.display());
        if self.docs {
            let page = workspace::root().join(page::PATH);
            fs::write(&page, page::render(&results, self.rounds)?)
                .with_context(|| format!("cannot write {}", page.display()))?;
        }
        Ok(())
    }

    fn measure(&self, tools: &Tools) -> Result<Results> {
        eprintln!("attaching and detaching");
        let attaching = (0..self.rounds.min(rounds::FEW))
            .map(|_| attach(&tools.probe, &tools.waiting, &tools.folder))
            .collect::<Result<_>>()?;
        eprintln!("waits that may not be lost");
        let waiting = (0..WAITING_ROUNDS)
            .map(|_| under_load(&tools.probe, &tools.waiting, WAITING_READERS, WAITING_TIME))
            .collect::<Result<_>>()?;
        let wanted = |load: &Load| self.load.is_empty() || self.load.iter().any(|name| name == load.name());
        let mut tables = Vec::new();
        for load in Load::ALL.into_iter().filter(wanted) {
            let table = Table::measure(load, self.rounds, tools)?;
            println!("{}\n\n{}", load.what(), tables::of_load(&table));
            tables.push(table);
        }
        Ok(Results { tables, attaching, waiting })
    }
}
