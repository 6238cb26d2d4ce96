//! A running process of a Go program.

use std::rc::Rc;

use super::go_program::GoProgram;
use crate::{
    bpf::session::TargetId,
    error::Failure,
    model::profile::Target,
    snapshot::{
        goroutine::Goroutine,
        scan::{Source, Wanted},
    },
    target::{
        fds::FdTarget,
        memory::{ReadMemory as _, u32_at},
        process::Process,
    },
};

/// A process, and the program that it runs.
#[derive(Debug)]
pub(super) struct GoProcess {
    process: Process,
    program: Rc<GoProgram>,
    id: TargetId,
    load_bias: u64,
    described: Target,
}

impl GoProcess {
    /// Holds a process and its program together.
    ///
    /// # Errors
    /// When the process has another program in its memory, or has exited.
    pub(super) fn new(process: Process, program: Rc<GoProgram>, id: TargetId) -> Result<Self, Failure> {
        let load_bias = process.load_bias(program.binary.elf().entry_vaddr)?;
        let described = describe(&process, &program)?;
        Ok(Self { process, program, id, load_bias, described })
    }

    /// How the eBPF programs know it.
    pub(super) fn id(&self) -> TargetId {
        self.id
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn program(&self) -> &GoProgram {
        &self.program
    }

    /// What is added to an address of the executable's file to get one in memory.
    pub(super) fn load_bias(&self) -> u64 {
        self.load_bias
    }

    pub(super) fn has_exited(&self) -> bool {
        self.process.has_exited()
    }

    /// Device and inode of its executable.
    pub(super) fn executable_file(&self) -> Option<(u64, u64)> {
        self.process.executable_file()
    }

    /// What reports say of it: as it was when it was attached to, because it may have ended.
    pub(super) fn described(&self) -> &Target {
        &self.described
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.pid(), self.described.comm)
    }

    /// The netpoller's epoll fd, once the program has used the network.
    pub(super) fn epoll_fd(&self) -> Option<i32> {
        let address = self.load_bias.checked_add(self.program.epfd?)?;
        let bytes = self.process.memory().read(address..address.checked_add(4)?).ok()??;
        let fd = i32::from_le_bytes(u32_at(&bytes, 0)?.to_le_bytes());
        (fd > 0).then_some(fd)
    }

    /// Whether an fd of it is an epoll instance.
    pub(super) fn is_epoll(&self, fd: i32) -> bool {
        matches!(self.process.fd(fd), Some(FdTarget::AnonInode { kind }) if kind == "eventpoll")
    }

    /// The goroutines that wait in the poller now. `None`: they cannot be read, which is no reason to stop.
    pub(super) fn waiting(&self) -> Option<Vec<Goroutine>> {
        let memory = self.process.memory();
        let source = Source {
            memory: &memory,
            frames: &self.program.frames,
            layout: &self.program.layout,
            load_bias: self.load_bias,
            allgs: self.program.allgs?,
            poll_desc: self.program.poll_desc,
        };
        source.snapshot(Wanted::IoWaits).ok().map(|snapshot| snapshot.goroutines)
    }
}

fn describe(process: &Process, program: &GoProgram) -> Result<Target, Failure> {
    let inside = process.namespace_pids()?.last().copied();
    Ok(Target {
        pid: process.pid(),
        namespace_pid: inside.filter(|pid| *pid != process.pid()),
        comm: process.comm()?,
        executable: process.executable_path().display().to_string(),
        go_version: program.go_version().to_owned(),
        module: program.module(),
    })
}
