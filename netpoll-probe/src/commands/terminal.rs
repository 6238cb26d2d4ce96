//! How to write to the terminal: colors, width, and a report on stdout.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;

use crate::{error::Failure, exit::Exit, report::Options};

/// How stdout wants a report: colors only on a terminal, and only for people who have not said no (no-color.org).
pub(super) fn options() -> Options {
    let color =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let width = rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(Options::default().width);
    Options { color, width, ..Options::default() }
}

/// Prints on stdout. That nobody reads on (`| head`) is no failure.
pub(super) fn print(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match render(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error)
            .context("cannot write to stdout")
            .map_err(|error| Failure::new(Exit::Failed, error, "is the disk full? df -h")),
        _ => Ok(()),
    }
}
