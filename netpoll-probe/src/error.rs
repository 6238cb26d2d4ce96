//! What a command fails with: a cause, what to type next, and the exit code. Only `main` prints it.

use std::fmt;

use crate::exit::Exit;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// The cause, in one line.
    pub cause: anyhow::Error,
    /// What to do about it, in one line.
    pub hint: String,
    /// What the process ends with.
    pub exit: Exit,
}

impl Failure {
    /// A failure with its hint.
    pub fn new(exit: Exit, cause: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: hint.into(), exit }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = format!("{:#}", self.cause);
        // A cause from the kernel may have many lines (the verifier's log); `-v` shows them.
        writeln!(f, "netpoll-probe: {}", cause.lines().next().unwrap_or_default())?;
        write!(f, "  hint: {}", self.hint)
    }
}
