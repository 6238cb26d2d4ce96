//! `ebpf.lock`: which sources and which toolchain the committed objects were built from.
//!
//! Compiled into `netpoll-probe/build.rs`, which checks the lock, and into xtask, which writes it; so the two cannot
//! disagree on what is hashed. Plain `key = "value"` lines, in the order of [`Lock::render`].

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The folder of the eBPF programs, under the workspace's root.
pub(crate) const PROGRAMS: &str = "netpoll-probe-ebpf";

/// The machines that the programs are built for, by Rust's names: the layout of `pt_regs` is theirs.
pub(crate) const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

/// The file name of a machine's object.
pub(crate) fn object_name(machine: &str) -> String {
    format!("netpoll-probe.{machine}.bpf.o")
}

/// What goes into the objects, relative to the workspace's root: these files, and each `.rs` file under these folders.
pub(crate) const WATCHED: [&str; 5] = [
    "netpoll-probe-common/Cargo.toml",
    "netpoll-probe-common/src",
    "netpoll-probe-ebpf/Cargo.lock",
    "netpoll-probe-ebpf/Cargo.toml",
    "netpoll-probe-ebpf/src",
];

/// All files of [`WATCHED`], relative to the workspace's root, sorted.
pub(crate) fn sources(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = WATCHED.iter().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        if root.join(&path).is_dir() {
            for entry in fs::read_dir(root.join(&path))? {
                let child = path.join(entry?.file_name());
                if child.extension().is_some_and(|extension| extension == "rs") || root.join(&child).is_dir()
                {
                    open.push(child);
                }
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// SHA-256 over [`sources`]: of each its path, its length and its bytes.
pub(crate) fn sources_sha256(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for path in sources(root)? {
        let bytes = fs::read(root.join(&path))?;
        hash.update(path.to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of `bytes`, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The contents of `ebpf.lock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    /// SHA-256 of each object, in the order of [`MACHINES`].
    pub(crate) objects_sha256: [String; MACHINES.len()],
    /// [`sources_sha256`] when they were built.
    pub(crate) sources_sha256: String,
    /// What built them: name and version.
    pub(crate) toolchain: Vec<(String, String)>,
}

impl Lock {
    /// Reads the text of a lock; the error says which line or key is at fault.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut objects = MACHINES.map(|machine| (machine, None));
        let (mut sources, mut toolchain) = (None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line
                .split_once('=')
                .and_then(|(key, value)| {
                    Some((key.trim(), value.trim().strip_prefix('"')?.strip_suffix('"')?))
                })
                .ok_or_else(|| format!("not of the form key = \"value\": {line}"))?;
            let machine = key.strip_suffix("_sha256").unwrap_or_default();
            if let Some((_, object)) = objects.iter_mut().find(|(known, _)| *known == machine) {
                *object = Some(value.to_owned());
            } else if key == "sources_sha256" {
                sources = Some(value.to_owned());
            } else {
                toolchain.push((key.to_owned(), value.to_owned()));
            }
        }
        if let Some((machine, _)) = objects.iter().find(|(_, object)| object.is_none()) {
            return Err(format!("no {machine}_sha256"));
        }
        Ok(Self {
            objects_sha256: objects.map(|(_, object)| object.unwrap_or_default()),
            sources_sha256: sources.ok_or("no sources_sha256")?,
            toolchain,
        })
    }
}
