//! Why a process cannot be looked at.
#![forbid(unsafe_code)]

use std::{io, path::PathBuf};

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no process with this pid.
    #[error("no process has pid {pid}")]
    NoSuchProcess {
        /// The pid that was asked for.
        pid: u32,
    },
    /// The number is the id of a thread, not of a process.
    #[error("{tid} is a thread of process {pid}, not a process")]
    Thread {
        /// The number that was asked for.
        tid: u32,
        /// The process that the thread belongs to.
        pid: u32,
    },
    /// The process ended.
    #[error("process {pid} has exited")]
    Exited {
        /// Its pid.
        pid: u32,
    },
    /// The kernel refused: ptrace access to the process is needed (root, or `CAP_SYS_PTRACE`).
    #[error("permission denied for {what} of process {pid}")]
    Permission {
        /// Its pid.
        pid: u32,
        /// What was being read.
        what: &'static str,
    },
    /// The process runs no executable: a kernel thread, or a zombie.
    #[error("process {pid} has no executable (a kernel thread, or a zombie)")]
    NoExecutable {
        /// Its pid.
        pid: u32,
    },
    /// A read failed for another reason.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `process_vm_readv` failed as a whole.
    #[error("cannot read memory of process {pid}: {source}")]
    Memory {
        /// Its pid.
        pid: u32,
        /// The cause.
        source: io::Error,
    },
    /// A file of `/proc` is not of the form that proc(5) documents.
    #[error("{path} is malformed: {what}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the text found.
        what: String,
    },
    /// The executable is not mapped where its entry point says.
    #[error("no executable file mapping holds the entry point {entry:#x} of process {pid}")]
    NotMapped {
        /// Its pid.
        pid: u32,
        /// The run-time address of the entry point, from the auxiliary vector.
        entry: u64,
    },
    /// The entry point in memory does not belong to the executable that was read.
    #[error("the entry point {found:#x} of process {pid} is not that of its executable, {expected:#x}")]
    EntryMismatch {
        /// Its pid.
        pid: u32,
        /// The run-time address of the entry point, from the auxiliary vector.
        found: u64,
        /// `e_entry` of the executable.
        expected: u64,
    },
}
