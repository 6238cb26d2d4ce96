//! Which processes a recording is of: who joins, who runs another program, who leaves.

use std::{collections::HashSet, fs::File, path::Path, rc::Rc, time::Duration};

use super::{
    attached::{Attached, Exec},
    go_program::{self, GoProgram},
    recording::Recording,
    records::Until,
    tell,
};
use crate::{error::Failure, exit::Exit, gobin::Error as GobinError, target::process::Process};

/// How long a process of an unknown Go is waited for until its memory confirms offsets.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same while others are recorded, whose records wait in the ring meanwhile.
const PATIENCE_WHILE_RECORDING: Duration = Duration::from_millis(200);

impl Recording {
    /// Attaches to processes that are selected and were not seen before.
    pub(super) fn join_new(&mut self) -> Result<(), Failure> {
        let known: HashSet<u32> =
            self.attached.iter().flat_map(Attached::members).map(|member| member.process.pid()).collect();
        for pid in self.selection.find(&known)? {
            let joined = Process::open(pid).map_err(Failure::from).and_then(|process| self.join(process));
            match joined {
                Ok(()) => {}
                // What was found, and not asked for by its pid, may be a shell, or end at any moment.
                Err(failure) if failure.exit == Exit::Target && !self.selection.names_each() => {
                    self.selection.refuse(pid);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn join(&mut self, process: Process) -> Result<(), Failure> {
        let path = process.executable_path().to_owned();
        let patience = if self.started_ns == 0 { PATIENCE } else { PATIENCE_WHILE_RECORDING };
        let at = self.attached_to(process.executable(), &path, Some((&process, patience)))?;
        let Some(attached) = self.attached.get_mut(at) else { return Ok(()) };
        let joined = attached.join(process, &mut self.privileges)?.described().clone();
        self.targets.push(joined);
        Ok(())
    }

    /// Attaches to the process that was launched, before it becomes its program.
    pub(super) fn expect_launched(&mut self) -> Result<(), Failure> {
        let Some((pid, path)) = self.launched.as_ref().map(|it| (it.pid(), it.program().to_owned())) else {
            return Ok(());
        };
        let file = File::open(&path).map_err(|source| GobinError::Open { path: path.clone(), source })?;
        let at = self.attached_to(&file, &path, None)?;
        let Some(attached) = self.attached.get_mut(at) else { return Ok(()) };
        attached.expect(pid, &path, &mut self.privileges)
    }

    /// Where the programs for an executable stand in `attached`; they are loaded if it is a new one. `running`: a process of
    /// it, whose memory may be asked for so long.
    fn attached_to(
        &mut self,
        file: &File,
        path: &Path,
        running: Option<(&Process, Duration)>,
    ) -> Result<usize, Failure> {
        let binary = go_program::read_binary(file, &path.display().to_string())?;
        let identity = go_program::identity(&binary, file)?;
        if let Some(at) = self.attached.iter().position(|attached| attached.identity == identity) {
            return Ok(at);
        }
        let program = GoProgram::of(binary, self.attacher.wants_runtime_hooks(), running)?;
        let mut attached = self.attacher.attach(Rc::new(program), identity)?;
        // The same waits as of the others.
        if let Some(sampling) = self.overhead.sampling() {
            attached.follow(sampling)?;
        }
        self.attached.push(attached);
        Ok(self.attached.len() - 1)
    }

    /// A process runs another program. What it waited for before is complete; what it waits for now may belong to another
    /// executable.
    pub(super) fn exec(&mut self, at: usize, exec: Exec) -> Result<(), Failure> {
        let Some(attached) = self.attached.get_mut(at) else { return Ok(()) };
        let (tgid, at_ns, probes_stay, mut before) = match exec {
            Exec::Begun { tgid } => {
                let begun = attached.begun(tgid);
                return match begun {
                    Ok(process) => {
                        self.targets.extend(process.map(|process| process.described().clone()));
                        Ok(())
                    }
                    // It has ended already.
                    Err(failure) if failure.exit == Exit::Target => Ok(()),
                    Err(failure) => Err(failure),
                };
            }
            Exec::Changed { tgid, at_ns, probes_stay, before } => (tgid, at_ns, probes_stay, before),
        };
        attached.take_before(tgid, &mut before, &mut self.adder);
        self.adder.tally.quality.merge(&before.quality(&[]));
        attached.forget_memory(tgid, at_ns)?;
        let old = attached.name_of(tgid).unwrap_or_default();
        match self.follow(at, tgid, probes_stay) {
            Ok(()) => tell(&format!("{old} runs its program again")),
            Err(failure) if failure.exit == Exit::Target => {
                tell(&format!("{old} runs another program now, and is left"));
                tell(&failure.to_string());
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Goes on with a process that runs another program, or the same one again.
    fn follow(&mut self, at: usize, tgid: u32, probes_stay: bool) -> Result<(), Failure> {
        let Some(attached) = self.attached.get_mut(at) else { return Ok(()) };
        let Some(pid) = attached.pid_of(tgid) else { return Ok(()) };
        let process = Process::open(pid).inspect_err(|_ended| self.selection.refuse(pid))?;
        // Not by reading it, which takes longer than a new program needs for its first waits.
        if attached.runs_in(tgid, &process) {
            return attached.again(tgid, process, probes_stay);
        }
        attached.leave(tgid)?;
        self.join(process).inspect_err(|_refused| self.selection.refuse(pid))
    }

    /// Takes out the processes that have ended. Returns whether none is left, and none will come.
    pub(super) fn part_with_ended(&mut self) -> Result<bool, Failure> {
        let mut left = 0;
        for at in 0..self.attached.len() {
            let Some(attached) = self.attached.get_mut(at) else { continue };
            let ended: Vec<u32> = attached
                .members()
                .filter(|member| member.process.has_exited())
                .map(|member| member.process.id().tgid)
                .collect();
            left += attached.members().count() - ended.len() + attached.expected();
            if ended.is_empty() {
                continue;
            }
            let execs = attached.drain(Until::Now, Some(&mut self.adder));
            attached.take(true, &mut self.adder);
            for tgid in ended {
                if let Some(member) = attached.leave(tgid)? {
                    self.adder.tally.quality.merge(&member.correlator.quality(&[]));
                }
            }
            for exec in execs {
                self.exec(at, exec)?;
            }
        }
        Ok(left == 0 && !self.selection.grows())
    }
}
