//! Running other programs: a failure names the command.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// What every command here needs of [`Command`].
pub(crate) trait CommandExt {
    /// Runs it with our own outputs and no input; an exit code other than 0 is an error.
    fn run(&mut self) -> Result<()>;
    /// Runs it and returns what it wrote to stdout; its stderr is ours.
    fn stdout_text(&mut self) -> Result<String>;
}

impl CommandExt for Command {
    fn run(&mut self) -> Result<()> {
        let status =
            self.stdin(Stdio::null()).status().with_context(|| format!("cannot run {}", line(self)))?;
        ensure!(status.success(), "{} ended with {status}", line(self));
        Ok(())
    }

    fn stdout_text(&mut self) -> Result<String> {
        let output = self
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", line(self)))?;
        ensure!(output.status.success(), "{} ended with {}", line(self), output.status);
        String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", line(self)))
    }
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}
