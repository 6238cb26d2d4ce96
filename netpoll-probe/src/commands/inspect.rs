//! `netpoll-probe inspect`: what a binary allows.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use anyhow::anyhow;

use super::terminal;
use crate::{
    cli::inspect::InspectArgs,
    diagnosis,
    error::Failure,
    exit::Exit,
    gobin::{Error as GobinError, ReadAt},
    report::{findings, schema},
};

/// Runs the command; the exit code says whether attach works on the binary.
///
/// # Errors
/// When the file cannot be read at all.
pub fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let Some(binary) = args.binary.as_deref() else {
        terminal::print(|out| out.write_all(schema::INSPECTION.as_bytes()))?;
        return Ok(Exit::Good);
    };
    let reader = open(binary)?;
    let inspection = diagnosis::binary::inspect(&binary.display().to_string(), &reader).map_err(|error| {
        Failure::new(
            Exit::Failed,
            error,
            format!("does the disk read it? cat {} >/dev/null", binary.display()),
        )
    })?;
    terminal::print(|out| match args.json {
        true => findings::inspection_json(&inspection, out),
        false => findings::inspection_text(&inspection, &terminal::options(), out),
    })?;
    Ok(if inspection.attach.works { Exit::Good } else { Exit::Target })
}

/// Opens a regular file: opening a FIFO would wait for a writer, and reading a device has no end.
fn open(path: &Path) -> Result<Arc<dyn ReadAt>, Failure> {
    let kind = fs::metadata(path).map_err(|error| cannot_open(path, error))?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() { "a directory" } else { "no regular file" };
        let cause = anyhow!("{} is {what}", path.display());
        return Err(Failure::new(Exit::Target, cause, "name an executable: netpoll-probe inspect BINARY"));
    }
    Ok(Arc::new(File::open(path).map_err(|error| cannot_open(path, error))?))
}

fn cannot_open(path: &Path, source: io::Error) -> Failure {
    let (exit, hint) = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            (Exit::Kernel, format!("read it as root: sudo netpoll-probe inspect {}", path.display()))
        }
        _ => (Exit::Target, "is the name right? of a running program: /proc/PID/exe".to_owned()),
    };
    Failure::new(exit, GobinError::Open { path: path.to_owned(), source }, hint)
}
