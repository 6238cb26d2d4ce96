//! `ebpf.lock`: which sources and which toolchain the committed object was built from.
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

/// What goes into the object, relative to the workspace's root: these files, and each `.rs` file under these folders.
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
    /// SHA-256 of `netpoll-probe.bpf.o`.
    pub(crate) object_sha256: String,
    /// [`sources_sha256`] when it was built.
    pub(crate) sources_sha256: String,
    /// What built it: name and version.
    pub(crate) toolchain: Vec<(String, String)>,
}

impl Lock {
    /// Reads the text of a lock; the error says which line or key is at fault.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut object, mut sources, mut toolchain) = (None, None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line
                .split_once('=')
                .and_then(|(key, value)| {
                    Some((key.trim(), value.trim().strip_prefix('"')?.strip_suffix('"')?))
                })
                .ok_or_else(|| format!("not of the form key = \"value\": {line}"))?;
            match key {
                "object_sha256" => object = Some(value.to_owned()),
                "sources_sha256" => sources = Some(value.to_owned()),
                _ => toolchain.push((key.to_owned(), value.to_owned())),
            }
        }
        Ok(Self {
            object_sha256: object.ok_or("no object_sha256")?,
            sources_sha256: sources.ok_or("no sources_sha256")?,
            toolchain,
        })
    }
}
