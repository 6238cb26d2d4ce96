//! A child process in a process group of its own, killed with its children when dropped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

/// Which of the child's outputs to follow line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    reaped: bool,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    outputs: [Arc<Mutex<String>>; 2],
    readers: Vec<JoinHandle<()>>,
}

/// What a child left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

/// Now, CLOCK_MONOTONIC ns, the clock of records and truth.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Process {
    /// Starts it; the lines of one output can be waited for.
    pub fn spawn(command: &mut Command, follow: Follow) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        let outputs = [Arc::default(), Arc::default()];
        let (sender, lines) = channel();
        let mut readers = Vec::new();
        let streams: [(Option<Box<dyn Read + Send>>, Follow); 2] = [
            (child.stdout.take().map(|stream| Box::new(stream) as _), Follow::Stdout),
            (child.stderr.take().map(|stream| Box::new(stream) as _), Follow::Stderr),
        ];
        for ((stream, which), output) in streams.into_iter().zip(&outputs) {
            let Some(stream) = stream else { continue };
            let output = Arc::clone(output);
            let sender = (which == follow).then(|| sender.clone());
            readers.push(std::thread::spawn(move || read_lines(stream, &output, sender.as_ref())));
        }
        Ok(Self { name, child, reaped: false, stdin, lines, outputs, readers })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the followed output that begins with `prefix` and gives the whole line.
    pub fn wait_for_line(&mut self, prefix: &str, timeout: Duration) -> Result<String> {
        let until = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(prefix) => return Ok(line),
                Ok(_) => {}
                Err(reason) => {
                    let what = match reason {
                        RecvTimeoutError::Timeout => format!("in {timeout:?}"),
                        RecvTimeoutError::Disconnected => "before it ended".to_owned(),
                    };
                    bail!("{} printed no line {prefix:?} {what}; its output:\n{}", self.name, self.said());
                }
            }
        }
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { bail!("the standard input of {} is closed", self.name) };
        writeln!(stdin, "{line}").with_context(|| format!("cannot tell {} {line:?}", self.name))?;
        stdin.flush().with_context(|| format!("cannot tell {} {line:?}", self.name))
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("no process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> Result<bool> {
        let status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        self.reaped |= status.is_some();
        Ok(status.is_none())
    }

    /// Waits for its end.
    pub fn finish(mut self, timeout: Duration) -> Result<Finished> {
        self.stdin = None;
        let until = Instant::now() + timeout;
        let status = loop {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?
            {
                self.reaped = true;
                break status;
            }
            if Instant::now() > until {
                bail!("{} did not end in {timeout:?}; its output:\n{}", self.name, self.said());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            // A reader only ends early by a panic, which then has been printed.
            let _ = reader.join();
        }
        Ok(Finished { status, stdout: self.output(Follow::Stdout), stderr: self.output(Follow::Stderr) })
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// What it has written to one of its outputs so far.
    #[must_use]
    pub fn output(&self, which: Follow) -> String {
        let [stdout, stderr] = &self.outputs;
        let output = if which == Follow::Stdout { stdout } else { stderr };
        output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn said(&self) -> String {
        format!("{}{}", self.output(Follow::Stdout), self.output(Follow::Stderr))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if let Some(pid) = self.pid() {
            // It may have ended this moment; then there is nothing to kill.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn read_lines(
    stream: Box<dyn Read + Send>,
    output: &Mutex<String>,
    lines: Option<&std::sync::mpsc::Sender<String>>,
) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
        if let Some(lines) = lines {
            // Nobody listens any more: the output is kept all the same.
            let _ = lines.send(line);
        }
    }
}
