//! `cargo xtask go-layout`: makes `netpoll-probe/src/goruntime/layout_table.rs`.
//!
//! Builds a small network program with Go toolchains from 1.18 on and reads the offsets of the runtime's structs from its
//! DWARF (`netpoll-probe/examples/go-layout.rs`, a program of its own so that xtask does not depend on netpoll-probe). Of each
//! minor version the first and the last patch are built; where they differ, the patches between are bisected until every range
//! of equal offsets has both ends built. Then it builds with experiments (GOEXPERIMENT), some of which change offsets too, and
//! lists those that do not. The `go` in PATH (1.21 or newer) fetches the toolchains, about 30 of 70 MB; each is removed again,
//! and everything stays in `target/go-layout`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

/// The last patch of each minor version. Extend it when Go releases one, and run the command again.
const LAST_PATCH: &[(u16, u16)] =
    &[(18, 10), (19, 13), (20, 14), (21, 13), (22, 12), (23, 12), (24, 13), (25, 14), (26, 11), (27, 4)];

/// Experiments to look at, with releases that have them. A name with `no` before it turns off what is on by default.
const EXPERIMENTS: &[(u16, u16, &[&str])] = &[
    (21, 13, &["boringcrypto", "loopvar", "nocoverageredesign"]),
    (22, 12, &["boringcrypto", "rangefunc"]),
    (
        24,
        13,
        &[
            "boringcrypto",
            "noaliastypeparams",
            "nocoverageredesign",
            "nospinbitmutex",
            "noswissmap",
            "synctest",
        ],
    ),
    (25, 14, &["boringcrypto", "greenteagc", "jsonv2", "nodwarf5"]),
    (
        26,
        11,
        &[
            "arenas",
            "boringcrypto",
            "goroutineleakprofile",
            "jsonv2",
            "nodwarf5",
            "nogreenteagc",
            "norandomizedheapbase64",
            "runtimesecret",
            "simd",
            "staticlockranking",
        ],
    ),
    (27, 4, &["boringcrypto", "nodwarf5", "nogreenteagc", "nojsonv2"]),
];

/// Links the netpoller and the scheduler; that is all it is for.
const PROGRAM: &str = r#"package main

import "net"

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	l.Accept()
}
"#;

const TABLE: &str = "netpoll-probe/src/goruntime/layout_table.rs";

/// Builds, reads and writes the table.
///
/// # Errors
/// When a toolchain cannot be fetched, or a build or its DWARF is not readable.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
    let mut builds = Builds::new(root)?;
    let mut rows = Vec::new();
    for (minor, last_patch) in LAST_PATCH {
        rows.extend(builds.ranges(*minor, 0, *last_patch)?);
    }
    let mut neutral = BTreeMap::new();
    for (minor, patch, experiments) in EXPERIMENTS {
        let plain = builds.offsets(*minor, *patch, "")?;
        for experiment in *experiments {
            *neutral.entry(*experiment).or_insert(true) &=
                builds.offsets(*minor, *patch, experiment)? == plain;
        }
    }
    let neutral: Vec<&str> = neutral.into_iter().filter_map(|(name, equal)| equal.then_some(name)).collect();
    builds.remove_toolchain()?;
    let table = root.join(TABLE);
    fs::write(&table, render(&rows, &neutral))
        .with_context(|| format!("cannot write {}", table.display()))?;
    run_command(Command::new("rustfmt").arg("--edition=2024").arg(&table))?;
    Ok(())
}

/// A range of patches with equal offsets.
struct Row {
    minor: u16,
    first_patch: u16,
    last_patch: u16,
    /// A Rust expression of type `Offsets`.
    offsets: String,
}

/// The offsets of each version built so far.
struct Builds {
    root: PathBuf,
    folder: PathBuf,
    /// By minor version, patch, and experiment (empty: none).
    offsets: BTreeMap<(u16, u16, String), String>,
    /// The version of the toolchain in the folder.
    fetched: String,
}

impl Builds {
    fn new(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join("target/go-layout");
        let program = folder.join("program");
        fs::create_dir_all(&program).with_context(|| format!("cannot make {}", program.display()))?;
        fs::write(program.join("main.go"), PROGRAM)?;
        fs::write(program.join("go.mod"), "module program\n\ngo 1.18\n")?;
        Ok(Self { root: root.to_owned(), folder, offsets: BTreeMap::new(), fetched: String::new() })
    }

    /// The ranges of equal offsets from one patch to another; the ends of each are built.
    fn ranges(&mut self, minor: u16, first_patch: u16, last_patch: u16) -> anyhow::Result<Vec<Row>> {
        let first = self.offsets(minor, first_patch, "")?;
        let last = self.offsets(minor, last_patch, "")?;
        if first == last {
            return Ok(vec![Row { minor, first_patch, last_patch, offsets: first }]);
        }
        if first_patch + 1 == last_patch {
            return Ok(vec![
                Row { minor, first_patch, last_patch: first_patch, offsets: first },
                Row { minor, first_patch: last_patch, last_patch, offsets: last },
            ]);
        }
        let middle = first_patch.midpoint(last_patch);
        let mut rows = self.ranges(minor, first_patch, middle)?;
        for row in self.ranges(minor, middle, last_patch)? {
            match rows.last_mut() {
                Some(before) if before.offsets == row.offsets => before.last_patch = row.last_patch,
                _ => rows.push(row),
            }
        }
        Ok(rows)
    }

    fn offsets(&mut self, minor: u16, patch: u16, experiment: &str) -> anyhow::Result<String> {
        let key = (minor, patch, experiment.to_owned());
        if let Some(offsets) = self.offsets.get(&key) {
            return Ok(offsets.clone());
        }
        // The first release has a patch number since 1.21.
        let version =
            if patch == 0 && minor < 21 { format!("go1.{minor}") } else { format!("go1.{minor}.{patch}") };
        let binary = self
            .build(&version, experiment)
            .with_context(|| format!("cannot build with {version} {experiment}"))?;
        let mut example = Command::new(env!("CARGO"));
        example.current_dir(&self.root).args([
            "run",
            "--quiet",
            "--package",
            "netpoll-probe",
            "--example",
            "go-layout",
        ]);
        let offsets = run_command(example.arg("--").arg(&binary))?;
        let (built_by, offsets) = offsets
            .trim_end()
            .split_once('\t')
            .with_context(|| format!("unexpected output of the go-layout example: {offsets}"))?;
        // `go1.26.8`, or with an experiment `go1.26.8 X:name`, from 1.26 on `go1.26.8-X:name`.
        let as_asked = match built_by.strip_prefix(&version) {
            Some("") => experiment.is_empty(),
            Some(suffix) => suffix.get(1..).and_then(|suffix| suffix.strip_prefix("X:")) == Some(experiment),
            None => false,
        };
        ensure!(as_asked, "{} was built by {built_by}, not {version} {experiment}", binary.display());
        self.offsets.insert(key, offsets.to_owned());
        Ok(offsets.to_owned())
    }

    /// Builds the program with a toolchain, unless that was done before. The toolchain stays until the next one is fetched.
    fn build(&mut self, version: &str, experiment: &str) -> anyhow::Result<PathBuf> {
        let name = if experiment.is_empty() { version.to_owned() } else { format!("{version}-{experiment}") };
        let binary = self.folder.join(name);
        if binary.exists() {
            return Ok(binary);
        }
        if self.fetched != version {
            self.remove_toolchain()?;
            version.clone_into(&mut self.fetched);
        }
        let mut find = Command::new("go");
        find.args(["env", "GOROOT"])
            .current_dir(self.folder.join("program"))
            .env("GOTOOLCHAIN", version)
            .env("GOMODCACHE", self.folder.join("modules"))
            .env("GOFLAGS", "-modcacherw");
        let toolchain = PathBuf::from(run_command(&mut find)?.trim_end());
        // Its own go command, because that of 1.19 does not find its library when another one calls it.
        let mut build = Command::new(toolchain.join("bin/go"));
        build
            .args(["build", "-buildvcs=false", "-o"])
            .arg(&binary)
            .arg(".")
            .current_dir(self.folder.join("program"))
            .env("GOROOT", &toolchain)
            .env("GOTOOLCHAIN", "local")
            .env("GOPATH", self.folder.join("path"))
            .env("GOCACHE", self.folder.join("cache"))
            .envs([
                ("GOFLAGS", ""),
                ("GOEXPERIMENT", experiment),
                ("CGO_ENABLED", "0"),
                ("GOOS", "linux"),
                ("GOARCH", "amd64"),
            ]);
        run_command(&mut build)?;
        Ok(binary)
    }

    fn remove_toolchain(&self) -> anyhow::Result<()> {
        for folder in ["modules", "cache"] {
            fs::remove_dir_all(self.folder.join(folder)).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }
}

/// Runs a command; its stdout, or an error with its stderr.
fn run_command(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn render(rows: &[Row], neutral: &[&str]) -> String {
    let mut text = String::from(
        "//! Generated by `cargo xtask go-layout`; not edited by hand.
//!
//! Offsets from the DWARF of a small program built with Go releases (linux/amd64; arm64 has the same). The first and the last patch of
//! each range were built and are equal. To regenerate (fetches some 30 toolchains of 70 MB): `cargo xtask go-layout`.
#![forbid(unsafe_code)]

use super::{
    layout::Row,
    offsets::{G, M, Offsets, P, PollDesc},
};

/// Ranges of releases with equal offsets, in the order of versions.
pub(super) const TABLE: &[Row] = &[
",
    );
    for Row { minor, first_patch, last_patch, offsets } in rows {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "Row {{ minor: {minor}, first_patch: {first_patch}, last_patch: {last_patch}, offsets: {offsets} }},"
        );
    }
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "];

/// Experiments (GOEXPERIMENT) with which the offsets are those without.
pub(super) const NEUTRAL_EXPERIMENTS: &[&str] = &{neutral:?};"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds whose offsets are these, by patch.
    fn builds(offsets: &[&str]) -> Builds {
        let offsets = (0..)
            .zip(offsets)
            .map(|(patch, offsets)| ((1, patch, String::new()), (*offsets).to_owned()))
            .collect();
        Builds { root: PathBuf::new(), folder: PathBuf::new(), offsets, fetched: String::new() }
    }

    fn ranges(offsets: &[&str]) -> Vec<(u16, u16, String)> {
        let last = u16::try_from(offsets.len() - 1).unwrap();
        let rows = builds(offsets).ranges(1, 0, last).unwrap();
        rows.into_iter().map(|row| (row.first_patch, row.last_patch, row.offsets)).collect()
    }

    #[test]
    fn finds_every_change() {
        assert_eq!(ranges(&["a"]), [(0, 0, "a".into())]);
        assert_eq!(ranges(&["a", "a", "a", "a"]), [(0, 3, "a".into())]);
        assert_eq!(ranges(&["a", "b"]), [(0, 0, "a".into()), (1, 1, "b".into())]);
        assert_eq!(
            ranges(&["a", "a", "a", "b", "b", "b", "b", "c", "d"]),
            [(0, 2, "a".into()), (3, 6, "b".into()), (7, 7, "c".into()), (8, 8, "d".into())]
        );
    }
}
