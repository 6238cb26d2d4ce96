//! Starting a program that is attached to before its first instruction.
//!
//! The child is this tool itself, which stops and, when it is continued, becomes the program: so the probes can be placed for
//! its process while there is no such program in it yet.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_parent_process_death_signal, waitpid},
};

use super::tell;
use crate::{cli::run::ExecArgs, error::Failure, exit::Exit};

/// How long a program that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// A child that has not become the program yet, or is it.
#[derive(Debug)]
pub(super) struct Launched {
    child: Child,
    program: PathBuf,
}

impl Launched {
    /// Starts the child, and waits until it has stopped.
    pub(super) fn stopped(command: &[OsString]) -> Result<Self, Failure> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(Failure::new(
                Exit::Usage,
                anyhow!("no program to run"),
                "netpoll-probe run -- ./server",
            ));
        };
        let program = find(name)?;
        let child = Command::new("/proc/self/exe")
            .arg("run-stopped")
            .arg("--")
            .arg(&program)
            .arg(name)
            .args(arguments)
            .spawn()
            .context("cannot start a process")
            .map_err(|error| Failure::new(Exit::Failed, error, "is there room for one more? ulimit -u"))?;
        let launched = Self { child, program };
        launched.wait_until_stopped()?;
        Ok(launched)
    }

    /// The program's file.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The child's id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the child become the program.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT).map_err(|errno| self.failed("continue", errno))
    }

    fn wait_until_stopped(&self) -> Result<(), Failure> {
        loop {
            match waitpid(self.raw_pid(), WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => return Ok(()),
                Ok(Some(_)) => return Err(self.failed("stop", Errno::CHILD)),
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("stop", errno)),
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        self.raw_pid().map_or(Err(Errno::SRCH), |pid| kill_process(pid, signal))
    }

    fn raw_pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn failed(&self, what: &str, errno: Errno) -> Failure {
        let cause = anyhow::Error::from(errno).context(format!("cannot {what} process {}", self.pid()));
        Failure::new(Exit::Failed, cause, "start the program yourself, then: netpoll-probe attach --pid PID")
    }
}

impl Drop for Launched {
    /// What it started it ends.
    fn drop(&mut self) {
        // Stopped, it would not see the other signal. Both fail only when it has ended.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        tell(&format!("process {} does not end on SIGTERM, and was left running", self.child.id()));
    }
}

/// The child's side: stops, then becomes the program. The arguments are its file, and its name and arguments.
///
/// # Errors
/// When the program cannot be executed.
pub fn run_stopped(args: &ExecArgs) -> Result<(), Failure> {
    let cannot = |cause: anyhow::Error| {
        Failure::new(Exit::Target, cause, "is it a program for this machine? file PROGRAM")
    };
    let [program, name, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::new(Exit::Usage, anyhow!("no program to run"), "netpoll-probe run -- ./server"));
    };
    let died_alone =
        |errno: Errno| cannot(anyhow::Error::from(errno).context("cannot follow the end of the parent"));
    // Killed while this one is stopped, the parent must not leave it behind.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(died_alone)?;
    kill_process(getpid(), Signal::STOP).map_err(died_alone)?;
    set_parent_process_death_signal(None).map_err(died_alone)?;
    let error = Command::new(program).arg0(name).args(arguments).exec();
    Err(cannot(anyhow::Error::from(error).context(format!("cannot run {}", program.display()))))
}

/// The file of a program, found as a shell does (execvp(3)).
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let path = Path::new(name);
    let found = if path.components().count() > 1 {
        is_program(path).then(|| path.to_owned())
    } else {
        let folders = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&folders).map(|folder| folder.join(path)).find(|path| is_program(path))
    };
    found.ok_or_else(|| {
        let cause = anyhow!("there is no program {}", path.display());
        Failure::new(
            Exit::Target,
            cause,
            "name its file: netpoll-probe run -- ./server (a shell's built-ins are none)",
        )
    })
}
