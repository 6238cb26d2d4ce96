//! What a command fails with: a cause, what to type next, and the exit code. Only `main` prints it.

use std::{error::Error, fmt};

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

/// A chain of errors in one line, each said once: many an error's text already has its cause's.
fn one_line<'a>(chain: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut line = String::new();
    for error in chain {
        let text = telling(&error.to_string());
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

/// The line that says what is wrong: the first, and in a log of the verifier, which goes through a program instruction by instruction, the
/// one where it stopped, too.
fn telling(text: &str) -> String {
    let statistics = ["processed ", "verification time ", "stack depth ", "max_states"];
    let mut lines = text.lines().filter(|line| !statistics.iter().any(|begin| line.starts_with(begin)));
    let first = lines.next().unwrap_or_default();
    match lines.rfind(|line| !line.trim().is_empty()) {
        None => first.to_owned(),
        Some(last) => format!("{first} … {}", last.trim()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = one_line(self.cause.chain());
        writeln!(f, "netpoll-probe: {cause}")?;
        write!(f, "  hint: {}", self.hint)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_said_once_and_on_one_line() {
        let cause = Err::<(), _>(io::Error::other("denied\nprocessed 3 insns"))
            .context("cannot load: denied")
            .unwrap_err();
        let failure = Failure::new(Exit::Kernel, cause, "be root");
        assert_eq!(failure.to_string(), "netpoll-probe: cannot load: denied\n  hint: be root");
        let log = "denied: 0: R1=ctx()\n1: (bf) r6 = r1\nR7 invalid mem access 'scalar'\nverification time 3 usec\nprocessed 2 insns";
        let failure = Failure::new(Exit::Kernel, io::Error::other(log), "be root");
        assert_eq!(
            failure.to_string(),
            "netpoll-probe: denied: 0: R1=ctx() … R7 invalid mem access 'scalar'\n  hint: be root"
        );
        let cause = Err::<(), _>(io::Error::other("denied")).context("cannot load").unwrap_err();
        let failure = Failure::new(Exit::Kernel, cause, "be root");
        assert_eq!(failure.to_string(), "netpoll-probe: cannot load: denied\n  hint: be root");
    }
}
