//! `cargo xtask layers`: holds the sources to the rules of `netpoll-probe/docs/architecture.md`.

mod rules;
mod source;
mod table;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// The document with the tables.
const ARCHITECTURE: &str = "netpoll-probe/docs/architecture.md";

/// Check who imports what, and where unsafe code, printing and long files are.
///
/// Reads the table "What may import what" and the list of crates bound to one place in
/// netpoll-probe/docs/architecture.md, then every source file: each `use` and each path, also those inside macros and
/// attributes. Further: pure modules forbid unsafe code, only `main` prints, nothing is a uretprobe (they crash Go
/// programs), and a file of more than 400 lines (tests not counted) says in its module documentation why it is long.
#[derive(Debug, clap::Args)]
pub(crate) struct Layers {}

impl Layers {
    /// Prints each finding; fails when there is one.
    pub(crate) fn run(&self) -> Result<()> {
        let root = workspace::root();
        let text = fs::read_to_string(root.join(ARCHITECTURE))
            .with_context(|| format!("cannot read {ARCHITECTURE}"))?;
        let table = table::Table::parse(&text).with_context(|| ARCHITECTURE.to_owned())?;

        let probe = read(root, "netpoll-probe/src")?;
        let mut findings = rules::imports(&table, &probe);
        findings.extend(rules::pure_modules(&probe));
        findings.extend(rules::printing(&probe));
        let programs = read(root, "netpoll-probe-ebpf/src")?;
        findings.extend(probe.iter().chain(&programs).filter_map(rules::uretprobe));
        let mut crates = vec![probe, programs];
        for folder in ["netpoll-probe-common/src", "tests/src", "tests/tests", "xtask/src"] {
            crates.push(read(root, folder)?);
        }
        findings.extend(crates.iter().flat_map(|sources| rules::length(sources)));
        let files: usize = crates.iter().map(Vec::len).sum();

        for finding in &findings {
            println!("{finding}");
        }
        ensure!(findings.is_empty(), "{} findings in {files} files", findings.len());
        println!("layers: {files} files, nothing found");
        Ok(())
    }
}

/// Reads all Rust files under a folder, sorted by path; none when there is no such folder.
fn read(root: &Path, folder: &str) -> Result<Vec<source::Source>> {
    let mut open = vec![root.join(folder)];
    let mut paths = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
                open.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(root).unwrap_or(path);
            let module = path.strip_prefix(root.join(folder)).unwrap_or(path);
            source::Source::parse(&shown.to_string_lossy(), module, &text)
                .with_context(|| format!("cannot parse {}", shown.display()))
        })
        .collect()
}
