//! Exit codes: part of the interface, for scripts and CI jobs.

use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Good = 0,
    /// It failed while running: an output could not be written, the kernel refused something it had promised.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A permission is missing, or the kernel lacks something.
    Kernel = 3,
    /// The target is gone, is not a Go program, or its Go version is not supported.
    Target = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
