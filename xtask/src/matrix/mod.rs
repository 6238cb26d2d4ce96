//! `cargo xtask matrix`: every supported Go version, built in every way, held against a program that knows its own waits.

mod page;
mod results;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use netpoll_probe_tests::matrix::{self, Cell, EVERY_RUN, Mode, Outcome, VERSIONS};

use self::results::{Record, Results, State};
use crate::{debian, probe, test, workspace};

/// Hold the probe's records against the truth for each Go version, built in each way.
///
/// Versions are the newest patch of Go 1.18 to 1.27; the go command fetches their toolchains. Of each cell the truth program is built, run
/// with the release build of the probe attached, and compared. Without --all, --go or --mode: the cells of every CI run. The last
/// line is "N passed, N failed". Results go to target/matrix/matrix.json, which keeps those of earlier runs of the same probe.
#[derive(Debug, clap::Args)]
pub(crate) struct Matrix {
    /// All versions, all modes
    #[arg(long)]
    all: bool,
    /// Only this version, such as 1.26 (repeatable)
    #[arg(long, value_name = "VERSION")]
    go: Vec<String>,
    /// Only this way to build (repeatable)
    #[arg(long, value_name = "NAME")]
    mode: Vec<String>,
    /// Write netpoll-probe/docs/matrix.md from the results
    #[arg(long)]
    docs: bool,
}

impl Matrix {
    /// Runs the cells; fails when one does.
    pub(crate) fn run(&self) -> Result<()> {
        probe::require_root("the matrix")?;
        let cells = self.cells()?;
        debian::install(test::C_COMPILER)?;
        let probe = probe::build_release()?;
        let folder = workspace::target()?.join("matrix");
        let mut results = Results::open(&folder, &probe)?;
        println!("{:<10} {:<22} {:>7} {:>6}  result", "Go", "built", "build s", "run s");
        let begun = Instant::now();
        let (mut passed, mut failed) = (0, 0);
        let mut work = Work { folder, probe, version: "", profiled: false, cache_bytes: 0 };
        for cell in cells {
            let record = work.run(cell)?;
            println!(
                "{:<10} {:<22} {:>7.1} {:>6.1}  {}",
                cell.version,
                cell.mode.name(),
                record.build_seconds,
                record.run_seconds,
                record.line()
            );
            match record.state {
                State::Passed => passed += 1,
                State::Failed => failed += 1,
                State::NotPossible => {}
            }
            results.put(record)?;
            if self.docs {
                // After each cell, so that a run that is cut short leaves what it found out.
                let page = workspace::root().join(page::PATH);
                fs::write(&page, page::render(&results)?)
                    .with_context(|| format!("cannot write {}", page.display()))?;
            }
        }
        work.leave_version()?;
        println!(
            "{:.0} s; Go's build cache of one version took up to {} MB",
            begun.elapsed().as_secs_f64(),
            work.cache_bytes / 1_000_000
        );
        println!("{passed} passed, {failed} failed");
        ensure!(failed == 0, "{failed} cells of the matrix failed");
        Ok(())
    }

    /// The cells asked for, all of one version together, so that they share what was compiled.
    fn cells(&self) -> Result<Vec<Cell>> {
        if !self.all && self.go.is_empty() && self.mode.is_empty() {
            return Ok(EVERY_RUN.iter().map(|(cell, _)| *cell).collect());
        }
        for name in &self.go {
            if !VERSIONS.iter().any(|version| is_version(version, name)) {
                bail!("{name} is none of {}", VERSIONS.join(", "));
            }
        }
        for name in &self.mode {
            if Mode::by_name(name).is_none() {
                bail!("{name} is none of {}", Mode::ALL.map(Mode::name).join(", "));
            }
        }
        // The newest first: where something is broken, it is most likely there.
        let versions = VERSIONS
            .into_iter()
            .rev()
            .filter(|version| self.go.is_empty() || self.go.iter().any(|name| is_version(version, name)));
        let modes = |mode: &Mode| self.mode.is_empty() || self.mode.iter().any(|name| name == mode.name());
        Ok(versions
            .flat_map(|version| Mode::ALL.into_iter().filter(modes).map(move |mode| Cell { version, mode }))
            .collect())
    }
}

/// Whether `go1.26.11` is meant by `1.26` (or by `go1.26`, `1.26.11`).
fn is_version(version: &str, name: &str) -> bool {
    let name = name.strip_prefix("go").unwrap_or(name);
    let number = version.strip_prefix("go").unwrap_or(version);
    number.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What goes from cell to cell.
struct Work {
    folder: PathBuf,
    probe: PathBuf,
    /// The version that the cache is of.
    version: &'static str,
    /// There is a profile of this version.
    profiled: bool,
    /// The largest that the cache was.
    cache_bytes: u64,
}

impl Work {
    fn cache(&self) -> PathBuf {
        self.folder.join("go-cache")
    }

    fn profile(&self) -> PathBuf {
        self.folder.join("profile.pprof")
    }

    /// Runs a cell. Whatever goes wrong with it is its result.
    fn run(&mut self, cell: Cell) -> Result<Record> {
        if self.version != cell.version {
            self.leave_version()?;
            self.version = cell.version;
        }
        let outcome = self.outcome(cell);
        Ok(Record::new(cell, &outcome))
    }

    fn outcome(&mut self, cell: Cell) -> Result<Outcome> {
        if cell.mode.needs_profile() && cell.not_possible().is_none() && !self.profiled {
            let program = matrix::build_default(cell.version, Some(&self.cache()))?;
            matrix::profile(&program, &self.profile()).context("cannot make a profile")?;
            self.profiled = true;
        }
        cell.run(&self.probe, Some(&self.cache()), Some(&self.profile()))
    }

    /// Versions share nothing in Go's build cache, and all of them together would be several GB.
    fn leave_version(&mut self) -> Result<()> {
        let cache = self.cache();
        if cache.exists() {
            self.cache_bytes = self.cache_bytes.max(bytes_under(&cache)?);
            fs::remove_dir_all(&cache).with_context(|| format!("cannot remove {}", cache.display()))?;
        }
        self.profiled = false;
        Ok(())
    }
}

fn bytes_under(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_under(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(go: &[&str], mode: &[&str]) -> Result<usize> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let matrix = Matrix { all: false, go: names(go), mode: names(mode), docs: false };
        matrix.cells().map(|cells| cells.len())
    }

    #[test]
    fn chooses_cells() {
        assert_eq!(cells(&[], &[]).unwrap(), EVERY_RUN.len());
        assert_eq!(cells(&["1.26"], &[]).unwrap(), Mode::ALL.len());
        assert_eq!(cells(&[], &["race"]).unwrap(), VERSIONS.len());
        assert_eq!(cells(&["go1.18.10", "1.27"], &["pie", "pgo"]).unwrap(), 4);
        // 1.2 is not the beginning of 1.26 and no version by itself.
        assert!(cells(&["1.2"], &[]).is_err());
        assert!(cells(&[], &["PIE"]).is_err());
    }
}
