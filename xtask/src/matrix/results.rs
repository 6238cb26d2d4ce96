//! Results of cells, in `target/matrix/matrix.json`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use netpoll_probe_tests::{
    check::{Measured, Verdict},
    matrix::{self, Cell, Outcome},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::process::CommandExt as _;

/// What a cell came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Everything holds.
    Passed,
    /// Something does not, or it could not be run.
    Failed,
    /// It cannot be.
    NotPossible,
}

/// A share: so many right ones of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    /// The right ones.
    pub(super) right: usize,
    /// All.
    pub(super) total: usize,
}

/// The result of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Such as `go1.18.10`.
    pub(super) go: String,
    /// The way it was built.
    pub(super) mode: String,
    /// What it came to.
    pub(super) state: State,
    /// Why it failed or is not possible.
    pub(super) reasons: Vec<String>,
    /// Waits of the program that were found.
    pub(super) found: Option<Share>,
    /// Outcomes that are right.
    pub(super) outcome: Option<Share>,
    /// Error of the durations of exact waits, ns: median and p99.
    pub(super) error_ns: Option<(i64, i64)>,
    /// Of profile-guided builds: whether `runtime.netpollready` was inlined.
    pub(super) netpollready: Option<String>,
    /// How long the build took.
    pub(super) build_seconds: f64,
    /// How long the run took.
    pub(super) run_seconds: f64,
    /// When, UTC.
    pub(super) date: String,
}

impl Record {
    /// The record of what a cell came to.
    pub(super) fn new(cell: Cell, outcome: &Result<Outcome>) -> Self {
        let mut record = Self {
            go: cell.version.to_owned(),
            mode: cell.mode.name().to_owned(),
            state: State::Failed,
            reasons: Vec::new(),
            found: None,
            outcome: None,
            error_ns: None,
            netpollready: None,
            build_seconds: 0.0,
            run_seconds: 0.0,
            date: today(),
        };
        match outcome {
            Err(error) => record.reasons.push(format!("{error:#}")),
            Ok(Outcome::NotPossible(reason)) => {
                record.state = State::NotPossible;
                record.reasons.push((*reason).to_owned());
            }
            Ok(Outcome::Compared(compared)) => {
                let verdict = &compared.verdict;
                record.found = share(verdict, "waits found");
                record.outcome = share(verdict, "outcome");
                record.error_ns = spread(verdict, "duration of exact waits");
                record.netpollready.clone_from(&compared.netpollready);
                record.build_seconds = compared.build.as_secs_f64();
                record.run_seconds = compared.run.as_secs_f64();
                if verdict.good() {
                    record.state = State::Passed;
                } else {
                    record.reasons = matrix::broken(verdict);
                }
            }
        }
        record
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let mut parts = vec![match self.state {
            State::Passed => "passed".to_owned(),
            State::Failed => "FAILED".to_owned(),
            State::NotPossible => "not possible".to_owned(),
        }];
        if let (Some(found), Some(outcome)) = (self.found, self.outcome) {
            parts.push(format!(
                "found {} of {}, outcome {} of {}",
                found.right, found.total, outcome.right, outcome.total
            ));
        }
        if let Some((p50_ns, p99_ns)) = self.error_ns {
            parts.push(format!("error p50 {} p99 {} µs", micros(p50_ns), micros(p99_ns)));
        }
        parts.extend(self.netpollready.clone());
        parts.extend(self.reasons.iter().cloned());
        parts.join("; ")
    }
}

/// Microseconds with one digit behind the point.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a test run are far below 2^52")]
pub(super) fn micros(ns: i64) -> String {
    format!("{:.1}", ns as f64 / 1000.0)
}

fn share(verdict: &Verdict, name: &str) -> Option<Share> {
    match verdict.get(name)?.measured {
        Measured::Share { right, total } => Some(Share { right, total }),
        Measured::Spread { .. } | Measured::Other => None,
    }
}

fn spread(verdict: &Verdict, name: &str) -> Option<(i64, i64)> {
    match verdict.get(name)?.measured {
        Measured::Spread { p50_ns, p99_ns, .. } => Some((p50_ns, p99_ns)),
        Measured::Share { .. } | Measured::Other => None,
    }
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Content {
    /// The SHA-256 of the probe's executable; results of another one are not kept.
    pub(super) probe: String,
    /// The kernel's release.
    pub(super) kernel: String,
    /// How many CPUs the machine has.
    pub(super) cpus: usize,
    /// The last result of each cell.
    pub(super) cells: Vec<Record>,
}

/// The results so far.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    /// What the file holds.
    pub(super) content: Content,
}

impl Results {
    /// Those in `folder`, if they are of this probe on this kernel; otherwise none.
    pub(super) fn open(folder: &Path, probe: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("matrix.json");
        let executable = fs::read(probe).with_context(|| format!("cannot read {}", probe.display()))?;
        let digest: Vec<String> =
            Sha256::digest(&executable).iter().map(|byte| format!("{byte:02x}")).collect();
        let kernel =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
        let mut content = Content {
            probe: digest.concat(),
            kernel: kernel.trim().to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            cells: Vec::new(),
        };
        // A file that is not there, or of another form, has no results to keep.
        if let Some(earlier) =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok())
            && (&earlier.probe, &earlier.kernel, earlier.cpus)
                == (&content.probe, &content.kernel, content.cpus)
        {
            content.cells = earlier.cells;
        }
        Ok(Self { path, content })
    }

    /// Puts a result in the place of an earlier one of the same cell, and writes the file.
    pub(super) fn put(&mut self, record: Record) -> Result<()> {
        self.content.cells.retain(|cell| (&cell.go, &cell.mode) != (&record.go, &record.mode));
        self.content.cells.push(record);
        let text = serde_json::to_string_pretty(&self.content)?;
        fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The result of a cell; `None` if it was not tested.
    pub(super) fn get(&self, go: &str, mode: &str) -> Option<&Record> {
        self.content.cells.iter().find(|cell| cell.go == go && cell.mode == mode)
    }
}

/// The date, UTC; "unknown" where there is no `date`.
fn today() -> String {
    let text = Command::new("date").args(["--utc", "+%Y-%m-%d"]).stdout_text();
    text.map_or_else(|_no_command| "unknown".to_owned(), |text| text.trim().to_owned())
}
