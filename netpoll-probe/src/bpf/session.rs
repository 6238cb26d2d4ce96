//! Loads the programs, attaches them as the plan says, and gives access to their maps.

use std::{
    collections::HashMap,
    io::Read as _,
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError,
    maps::{MapError, RingBuf},
    programs::{
        Iter, ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use netpoll_probe_common::{
    config::Config,
    record::{FileRecord, TaskRecord},
};
use rustix::io::Errno;
use thiserror::Error;
use zerocopy::FromBytes;

use super::{
    kernel_btf::KernelBtf,
    links::{Closing, Link},
    loader::{self, Room},
    open_slots::OpenSlots,
    plan::{Hook, Plan, Site},
    programs::{self, failed},
    reader::RingReader,
    support,
    wait_buffers::WaitBuffers,
};

/// What can go wrong between the object and its attached programs.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The kernel shows no BTF, or the object does not load.
    #[error("cannot load the eBPF object")]
    Load(#[from] EbpfError),
    /// The kernel's BTF cannot be parsed.
    #[error("cannot read the kernel's BTF")]
    Btf(#[from] aya::BtfError),
    /// A program does not load or attach.
    #[error("cannot attach {hook}")]
    Attach {
        /// The hook, for people.
        hook: String,
        /// Why.
        source: ProgramError,
    },
    /// A map is missing or refuses.
    #[error("cannot use the map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// The object has no such program or map: it was built from other sources.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// The list of files could not be read.
    #[error("cannot list files or processes")]
    Files(#[from] std::io::Error),
}

impl SessionError {
    /// The errno that the kernel gave, if one is at the root of it.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        let mut error: &(dyn std::error::Error + 'static) = self;
        while let Some(source) = error.source() {
            error = source;
        }
        Errno::from_io_error(error.downcast_ref::<std::io::Error>()?)
    }
}

/// The program that lists files.
const FILES: &str = "files";
/// The kernel's iterator that it runs on.
const FILES_ITERATOR: &str = "task_file";
/// The program that lists processes.
const TASKS: &str = "tasks";
/// The kernel's iterator that it runs on.
const TASKS_ITERATOR: &str = "task";
/// The program that tells when a process runs another program, and its tracepoint.
const EXEC: &str = "exec";
const EXEC_TRACEPOINT: &str = "sched_process_exec";

/// The attached programs. Dropping it detaches them, one after the other; so does the end of the process, however it ends.
#[derive(Debug)]
pub struct Session {
    pub(super) ebpf: Ebpf,
    /// The slots of waits that were open before.
    pub(super) open_slots: OpenSlots,
    /// Until they are taken.
    wait_buffers: Option<WaitBuffers>,
    /// The plan's uprobes, ends before starts, so that no wait is seen to begin and not to end.
    uprobes: Vec<(&'static str, Site)>,
    /// Those that are attached, by process.
    attached: HashMap<u32, Vec<Link>>,
    /// Those of the whole machine.
    whole: Vec<Link>,
    /// Those of processes that have left.
    closing: Closing,
}

/// A process, as the programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId {
    /// Its thread group, in the initial PID namespace.
    pub tgid: u32,
    /// Its number in this session.
    pub index: u32,
}

impl Session {
    /// Loads the object with `config` written into it, and attaches the plan's programs but for its uprobes, which
    /// [`Self::add`] places in each process.
    ///
    /// # Errors
    /// When the kernel refuses the object, or one of its programs.
    pub fn load(config: &Config, plan: &Plan, kernel: &KernelBtf, room: &Room) -> Result<Self, SessionError> {
        let exec = Hook::Tracepoint { program: EXEC, tracepoint: EXEC_TRACEPOINT };
        // Ends before starts, so that no wait is seen to begin and not to end.
        let hooks: Vec<&Hook> = plan.hooks().rev().chain([&exec]).collect();
        let btf = loader::btf(kernel, hooks.iter().copied(), &[FILES_ITERATOR, TASKS_ITERATOR])?;
        let mut ebpf = loader::load(config, &btf, room)?;
        let open_slots = OpenSlots::map(&ebpf, !config.has_fd_slots())?;
        let wait_buffers = Some(WaitBuffers::map(&ebpf, config.wait_buffer_records)?);
        programs::load(&mut ebpf, &btf, &hooks)?;
        programs::load_iterator(&mut ebpf, &btf, FILES, FILES_ITERATOR)?;
        if config.pid_namespace != support::INITIAL_PID_NAMESPACE {
            programs::load_iterator(&mut ebpf, &btf, TASKS, TASKS_ITERATOR)?;
        }
        let (mut uprobes, mut whole) = (Vec::new(), Vec::new());
        for hook in hooks {
            if let Hook::Uprobe { program, site } = hook {
                uprobes.push((*program, site.clone()));
            } else {
                whole.extend(programs::attach(&mut ebpf, hook)?);
            }
        }
        Ok(Self {
            ebpf,
            open_slots,
            wait_buffers,
            uprobes,
            attached: HashMap::new(),
            whole,
            closing: Closing::default(),
        })
    }

    /// Places the uprobes in a process. `pid` is its id in this tool's PID namespace.
    ///
    /// # Errors
    /// When the kernel refuses one; then none is left in that process.
    pub fn add(&mut self, target: TargetId, pid: u32, executable: &Path) -> Result<(), SessionError> {
        self.put_target(target)?;
        for (program, site) in self.uprobes.clone() {
            match self.place(program, &site, pid, executable) {
                Ok(link) => self.attached.entry(target.tgid).or_default().push(link),
                Err(error) => {
                    self.remove(target)?;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        program: &'static str,
        site: &Site,
        pid: u32,
        executable: &Path,
    ) -> Result<Link, SessionError> {
        let failed = |source| failed(&Hook::Uprobe { program, site: site.clone() }, source);
        let probe: &mut UProbe = program_of(&mut self.ebpf, program)?.map_err(failed)?;
        let location = UProbeAttachLocation::AbsoluteOffset(site.file_offset);
        let scope = NonZeroU32::new(pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
        let link = probe.attach(UProbeAttachPoint { location, cookie: None }, executable, scope);
        let link = link.and_then(|id| probe.take_link(id)).map_err(failed)?;
        Ok(Box::new(link))
    }

    /// Takes the uprobes out of a process again, also of one that has ended, in the background.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, target: TargetId) -> Result<(), SessionError> {
        self.closing.close(self.attached.remove(&target.tgid).unwrap_or_default());
        self.remove_target(target)
    }

    /// Places the uprobes anew in a process whose first thread was replaced, and the probes that were its with it. New ones
    /// first, because taking out the old ones takes a while.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn renew(&mut self, target: TargetId, pid: u32, executable: &Path) -> Result<(), SessionError> {
        let old = self.attached.remove(&target.tgid).unwrap_or_default();
        self.add(target, pid, executable)?;
        self.closing.close(old);
        Ok(())
    }

    /// Detaches all programs: a wait that begins or ends later leaves its slot as it is.
    pub fn detach(&mut self, closing: &mut Closing) {
        closing.append(&mut self.closing);
        let of_targets = self.attached.drain().flat_map(|(_, links)| links);
        closing.close(std::mem::take(&mut self.whole).into_iter().chain(of_targets).collect());
    }

    /// The ring of records; once.
    ///
    /// # Errors
    /// When it was taken already.
    pub fn take_ring(&mut self) -> Result<RingReader, SessionError> {
        let map = self.ebpf.take_map("RING").ok_or(SessionError::Missing("map RING"))?;
        let failed = |source| SessionError::Map { name: "RING", source };
        RingReader::new(RingBuf::try_from(map).map_err(failed)?).map_err(failed)
    }

    /// The buffers of waits; once.
    ///
    /// # Errors
    /// When they were taken already.
    pub fn take_wait_buffers(&mut self) -> Result<WaitBuffers, SessionError> {
        self.wait_buffers.take().ok_or(SessionError::Missing("wait buffers"))
    }

    /// The targets' open files now, from the kernel's iterator.
    ///
    /// # Errors
    /// When the iterator cannot be run.
    pub fn files(&mut self) -> Result<Vec<FileRecord>, SessionError> {
        self.iterate(FILES)
    }

    /// Those of one target.
    ///
    /// # Errors
    /// As [`Self::files`].
    pub fn files_of(&mut self, target: TargetId) -> Result<Vec<FileRecord>, SessionError> {
        let mut files = self.files()?;
        files.retain(|file| file.tgid == target.tgid);
        Ok(files)
    }

    /// The processes of this tool's PID namespace. Only for a tool that is not in the initial one, where the ids would be
    /// the same.
    ///
    /// # Errors
    /// When the iterator cannot be run.
    pub fn tasks(&mut self) -> Result<Vec<TaskRecord>, SessionError> {
        self.iterate(TASKS)
    }

    fn iterate<T: FromBytes>(&mut self, name: &'static str) -> Result<Vec<T>, SessionError> {
        let failed = |source| SessionError::Attach { hook: format!("iterator {name}"), source };
        let program: &mut Iter = program_of(&mut self.ebpf, name)?.map_err(failed)?;
        let id = program.attach().map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let mut file = link.into_file().map_err(std::io::Error::other)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes.chunks_exact(size_of::<T>()).filter_map(|chunk| T::read_from_bytes(chunk).ok()).collect())
    }

    /// How often the programs ran and how long, in all; the times are zero unless [`measure_run_time`] is on.
    #[must_use]
    pub fn run_time(&self) -> RunTime {
        let mut sum = RunTime::default();
        for (_, program) in self.ebpf.programs() {
            // A program that the plan does not use is not loaded, and has no information.
            if let Ok(info) = program.info() {
                sum.runs += info.run_count();
                sum.run_time_ns += u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            }
        }
        sum
    }

    /// The programs' log, for `-v`: an object that must be polled for as long as it is wanted.
    ///
    /// # Errors
    /// When the object has no log.
    pub fn take_log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, SessionError> {
        aya_log::EbpfLogger::init(&mut self.ebpf).map_err(|_error| SessionError::Missing("log"))
    }
}

/// What the programs cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// How often they ran.
    pub runs: u64,
    /// How long, ns.
    pub run_time_ns: u64,
}

impl RunTime {
    /// Adds that of another session.
    pub fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.run_time_ns += other.run_time_ns;
    }
}

/// Lets the kernel measure the run time of all eBPF programs of the machine, until the result is dropped
/// (`BPF_ENABLE_STATS`, `kernel/bpf/syscall.c`).
///
/// # Errors
/// When the kernel refuses.
pub fn measure_run_time() -> Result<OwnedFd, SessionError> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| SessionError::Attach { hook: "BPF_ENABLE_STATS".to_owned(), source: error.into() })
}

/// The path by which the kernel finds a process's executable, also when it was deleted or is in another mount
/// namespace.
#[must_use]
pub fn executable_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// A program of the object, as one of its type.
pub(super) fn program_of<'a, T>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<Result<&'a mut T, ProgramError>, SessionError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(SessionError::Missing(name))?;
    Ok(program.try_into())
}
