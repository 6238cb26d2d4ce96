//! The rules, as `docs/architecture.md` writes them down.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

/// The heading of the table.
const HEADING: &str = "## What may import what";
/// How the sentence on outside crates begins.
const BOUND: &str = "Only these use an outside crate that is bound to one place:";

/// Who may use what.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By module: the other modules of the crate that it may use.
    pub(super) modules: BTreeMap<String, BTreeSet<String>>,
    /// By outside crate, as it is called in Rust: the modules that may use it.
    pub(super) crates: BTreeMap<String, BTreeSet<String>>,
}

impl Table {
    /// Reads the table and the sentence below it.
    pub(super) fn parse(document: &str) -> Result<Self> {
        let (_, section) =
            document.split_once(HEADING).with_context(|| format!("no heading \"{HEADING}\""))?;
        let section = section.split("\n## ").next().unwrap_or(section);

        let mut modules = BTreeMap::new();
        for line in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let [module, used] = cells.as_slice() else { anyhow::bail!("not two cells: {line}") };
            let module = quoted(module).next().with_context(|| format!("no module: {line}"))?;
            let used = quoted(used).map(str::to_owned).collect();
            let earlier = modules.insert(module.to_owned(), used);
            ensure!(earlier.is_none(), "two rows for {module}");
        }
        ensure!(!modules.is_empty(), "no rows under \"{HEADING}\"");
        for used in modules.values().flatten() {
            ensure!(modules.contains_key(used), "{used} is used and has no row");
        }

        let (_, sentence) = section.split_once(BOUND).with_context(|| format!("no \"{BOUND}\""))?;
        let sentence = sentence.split("\n\n").next().unwrap_or(sentence).replace('\n', " ");
        let mut crates = BTreeMap::new();
        for clause in sentence.split(';') {
            let (names, places) =
                clause.split_once(" in ").with_context(|| format!("not \"crate in module\": {clause}"))?;
            let places: BTreeSet<String> = quoted(places).map(str::to_owned).collect();
            for place in &places {
                ensure!(modules.contains_key(place), "{place} may use a crate and has no row");
            }
            for name in quoted(names) {
                crates.insert(name.replace('-', "_"), places.clone());
            }
        }
        Ok(Self { modules, crates })
    }
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A\n\n## What may import what\n\n| module | may use |\n|---|---|\n| `model` | |\n\
        | `report` | `model` |\n\nOnly these use an outside crate that is bound to one place: `aya`, `aya-log` in \
        `model`;\n`clap` in `model` and `report`.\n\n## Next\n| `x` | `y` |\n";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn reads_rows_and_crates() {
        let table = Table::parse(DOCUMENT).unwrap();
        assert_eq!(table.modules["model"], set(&[]));
        assert_eq!(table.modules["report"], set(&["model"]));
        assert_eq!(table.modules.len(), 2);
        assert_eq!(table.crates["aya_log"], set(&["model"]));
        assert_eq!(table.crates["clap"], set(&["model", "report"]));
        assert_eq!(table.crates.len(), 3);
    }

    #[test]
    fn refuses_a_document_that_says_nothing() {
        assert!(Table::parse("# A\n").is_err());
        assert!(Table::parse(&DOCUMENT.replace("Only these", "Those")).is_err());
        assert!(Table::parse(&DOCUMENT.replace("| `model` |\n\n", "| `modell` |\n\n")).is_err());
    }
}
