//! Where the results go. Files are opened before the recording starts: a bad `-o` must not cost a minute of recording. What is in
//! them stays until it has started: a failed attach must not cost the last recording.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::terminal;
use crate::{
    cli::record::{FormatArg, GroupArg, RecordArgs},
    error::Failure,
    exit::Exit,
    model::{group::Dimension, profile::Profile, stack::StackTable, wait::Wait},
    report::{Format, NdjsonWriter, Options},
};

/// What standard output is called in messages.
const STDOUT: &str = "standard output";

/// All outputs of one recording.
#[derive(Debug)]
pub(super) struct Outputs {
    files: Vec<Output>,
    streams: Vec<Stream>,
    stdout: Format,
    options: Options,
    /// Those of the files that are still as they were found.
    untouched: Vec<Untouched>,
}

/// A file that was opened, and nothing was written to it yet.
#[derive(Debug)]
struct Untouched {
    path: PathBuf,
    file: File,
    /// It was not there before.
    is_new: bool,
}

impl Drop for Outputs {
    /// Nothing was recorded: takes away the empty files.
    fn drop(&mut self) {
        for Untouched { path, .. } in self.untouched.iter().filter(|untouched| untouched.is_new) {
            // If it is in the way, whoever put it there may remove it as well.
            let _ = fs::remove_file(path);
        }
    }
}

/// A file that is written at the end.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    format: Format,
    file: File,
}

/// A destination that gets each wait when it is complete.
struct Stream {
    name: String,
    /// `None` once it failed.
    writer: Option<NdjsonWriter<Box<dyn Write>>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Outputs {
    /// Opens all that the command line names.
    ///
    /// # Errors
    /// When a format is not known, or a file cannot be created.
    pub(super) fn open(args: &RecordArgs) -> Result<Self, Failure> {
        let stdout = match args.format {
            FormatArg::Txt => Format::Text,
            FormatArg::Json => Format::Json,
            FormatArg::Ndjson => Format::Ndjson,
            FormatArg::Svg => Format::Svg,
            FormatArg::Folded => Format::Folded,
        };
        let options = Options {
            group_by: args.group_by.map(dimension),
            include_idle: args.idle,
            ..terminal::options()
        };
        let mut outputs =
            Self { files: Vec::new(), streams: Vec::new(), stdout, options, untouched: Vec::new() };
        if stdout == Format::Ndjson {
            outputs.stream(STDOUT.to_owned(), Box::new(io::stdout()));
        }
        for path in &args.output {
            let format = Format::of_path(path).map_err(|error| {
                Failure::new(Exit::Usage, error, "name it after what you want: -o waits.svg, -o waits.ndjson")
            })?;
            let file = outputs.open_file(path)?;
            if format == Format::Ndjson {
                outputs.stream(path.display().to_string(), Box::new(file));
            } else {
                outputs.files.push(Output { path: path.clone(), format, file });
            }
        }
        Ok(outputs)
    }

    fn open_file(&mut self, path: &Path) -> Result<File, Failure> {
        let is_new = !path.exists();
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        let (file, again) = opened
            .and_then(|file| Ok((file.try_clone()?, file)))
            .with_context(|| format!("cannot create {}", path.display()))
            .map_err(|error| {
                let hint = "name a file in a directory that exists and can be written";
                Failure::new(Exit::Failed, error, hint)
            })?;
        self.untouched.push(Untouched { path: path.to_owned(), file: again, is_new });
        Ok(file)
    }

    /// The recording has started: what the files had before goes.
    ///
    /// # Errors
    /// When a file cannot be emptied.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        for Untouched { path, file, .. } in self.untouched.drain(..) {
            // Pipes and devices keep nothing.
            let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
            if is_file {
                file.set_len(0).map_err(|error| cannot_write(&path.display().to_string(), error))?;
            }
        }
        Ok(())
    }

    fn stream(&mut self, name: String, to: Box<dyn Write>) {
        let buffered: Box<dyn Write> = Box::new(BufWriter::with_capacity(1 << 16, to));
        self.streams.push(Stream { name, writer: Some(NdjsonWriter::new(buffered)) });
    }

    /// Whether some output has every wait.
    pub(super) fn have_each_wait(&self) -> bool {
        !self.streams.is_empty()
    }

    /// One wait, for the formats that have each of them.
    ///
    /// # Errors
    /// When a destination fails; it gets nothing more, the others go on.
    pub(super) fn wait(&mut self, wait: &Wait, stacks: &StackTable) -> Result<(), Failure> {
        self.each_stream(|writer| writer.write(wait, stacks))
    }

    /// Sends everything so far on its way to the readers.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.each_stream(NdjsonWriter::flush)
    }

    fn each_stream(
        &mut self,
        mut each: impl FnMut(&mut NdjsonWriter<Box<dyn Write>>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut result = Ok(());
        for stream in &mut self.streams {
            let Some(writer) = &mut stream.writer else { continue };
            if let Err(error) = each(writer) {
                stream.writer = None;
                if error.kind() != io::ErrorKind::BrokenPipe {
                    result = Err(cannot_write(&stream.name, error));
                }
            }
        }
        result
    }

    /// Whether nobody reads the waits any more: `attach -f ndjson | head`.
    pub(super) fn nobody_reads(&self) -> bool {
        self.stdout == Format::Ndjson
            && self.files.is_empty()
            && self.streams.iter().all(|stream| stream.writer.is_none())
    }

    /// Renders the profile into every file, then to stdout. All are tried; the first failure is returned.
    ///
    /// # Errors
    /// When a destination fails. A closed pipe is no failure.
    pub(super) fn finish(mut self, profile: &Profile) -> Result<(), Failure> {
        let mut result = self.flush();
        let plain = Options { color: false, width: Options::default().width, ..self.options.clone() };
        for output in &self.files {
            let written = render(output.format, profile, &plain, &output.file);
            result =
                result.and(written.map_err(|error| cannot_write(&output.path.display().to_string(), error)));
        }
        match render(self.stdout, profile, &self.options, io::stdout().lock()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                result.and(Err(cannot_write(STDOUT, error)))
            }
            _ => result,
        }
    }

    /// The files, for the last line on stderr.
    pub(super) fn names(&self) -> Vec<String> {
        let files = self.files.iter().map(|output| output.path.display().to_string());
        let streams = self.streams.iter().map(|stream| stream.name.clone());
        files.chain(streams.filter(|name| name != STDOUT)).collect()
    }
}

fn render(format: Format, profile: &Profile, options: &Options, to: impl Write) -> io::Result<()> {
    let Some(renderer) = format.renderer() else { return Ok(()) };
    let mut buffered = BufWriter::new(to);
    renderer(profile, options, &mut buffered)?;
    buffered.flush()
}

fn cannot_write(name: &str, error: io::Error) -> Failure {
    let cause = anyhow::Error::from(error).context(format!("cannot write {name}"));
    Failure::new(Exit::Failed, cause, "is the disk full? df -h (the other outputs are complete)")
}

fn dimension(group: GroupArg) -> Dimension {
    match group {
        GroupArg::Peer => Dimension::Peer,
        GroupArg::Stack => Dimension::Stack,
        GroupArg::Function => Dimension::Function,
        GroupArg::Goroutine => Dimension::Goroutine,
        GroupArg::Fd => Dimension::Fd,
        GroupArg::Role => Dimension::Role,
        GroupArg::Outcome => Dimension::Outcome,
        GroupArg::Phase => Dimension::Phase,
    }
}
