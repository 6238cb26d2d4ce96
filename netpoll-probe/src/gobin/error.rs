//! What can go wrong while a Go binary is read. Every message names the file, the offset or the value that was met.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a file could not be read as a Go binary.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be opened.
    #[error("open {}: {source}", path.display())]
    Open {
        /// The path that was asked for.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A read failed.
    #[error("read {len_bytes} bytes at file offset {offset:#x}: {source}")]
    Read {
        /// Offset in the file.
        offset: u64,
        /// How many bytes were wanted.
        len_bytes: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// The file ends before what its headers promise; also when somebody cut it while it was being read.
    #[error("file ends at {size_bytes:#x}, before the {len_bytes} bytes at offset {offset:#x}")]
    Truncated {
        /// Offset in the file.
        offset: u64,
        /// How many bytes were wanted.
        len_bytes: usize,
        /// Size of the file when it was opened.
        size_bytes: u64,
    },
    /// No ELF file at all.
    #[error("not an ELF file: it starts with {start:02x?}")]
    NotElf {
        /// The first bytes, up to four.
        start: Vec<u8>,
    },
    /// An ELF file of a kind this module does not read.
    #[error("unsupported ELF file: {found}; read are 64-bit little-endian x86-64 and aarch64 executables")]
    UnsupportedElf {
        /// What it is instead.
        found: String,
    },
    /// An ELF executable without any trace of Go.
    #[error("not a Go binary: {found}")]
    NotGo {
        /// What was found and what was missed.
        found: String,
    },
    /// A Go binary older than Go 1.18.
    #[error("unsupported Go version: {found}; supported is Go 1.18 and later")]
    UnsupportedGoVersion {
        /// The version, or what tells its age.
        found: String,
    },
    /// A table contradicts itself.
    #[error("broken {what} at {at:#x}: {why}")]
    Broken {
        /// Which table.
        what: &'static str,
        /// File offset, or address when `what` says so.
        at: u64,
        /// The contradiction.
        why: String,
    },
    /// The address has no bytes in the file: unmapped, or zero-filled (`.bss`).
    #[error("no bytes in the file for the {len_bytes} bytes at address {vaddr:#x}")]
    NotInFile {
        /// Virtual address as linked.
        vaddr: u64,
        /// How many bytes were wanted.
        len_bytes: usize,
    },
    /// A DWARF section could not be decoded.
    #[error("decode DWARF in {section} at {offset:#x}: {source}")]
    Dwarf {
        /// The section.
        section: &'static str,
        /// Offset of the unit in the (decompressed) section.
        offset: u64,
        /// The decoder's reason.
        source: gimli::Error,
    },
    /// A section could not be read or decompressed.
    #[error("read {section} at {offset:#x} of its contents: {source}")]
    Decompress {
        /// The section.
        section: &'static str,
        /// Offset in the (decompressed) section.
        offset: u64,
        /// The decompressor's or the system's reason.
        source: io::Error,
    },
}

impl Error {
    /// Shorthand for [`Error::Broken`].
    pub(super) fn broken(what: &'static str, at: u64, why: impl Into<String>) -> Self {
        Self::Broken { what, at, why: why.into() }
    }
}

/// Why an address has no symbol. Fits into the brackets of `[unknown: …]`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoSymbol {
    /// Outside of Go's text: C code, vdso, a shared library, or no code at all.
    #[error("not in Go's text")]
    NotInText,
    /// In Go's text, but between functions.
    #[error("no function there")]
    NoFunction,
    /// The tables could not be read.
    #[error("pclntab broken: {why}")]
    Broken {
        /// What was wrong.
        why: String,
    },
}

impl From<Error> for NoSymbol {
    fn from(error: Error) -> Self {
        Self::Broken { why: error.to_string() }
    }
}
