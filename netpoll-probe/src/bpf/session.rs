//! Loads the programs, attaches them as the plan says, and gives access to their maps.

use std::{
    io::Read as _,
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader, Endianness,
    maps::{Array, HashMap, Map, MapError, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, FEntry, Iter, KProbe, ProgramError, TracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use netpoll_probe_common::{config::Config, counter::Counter, record::FileRecord, slot::PollDescSlot};
use rustix::io::Errno;
use thiserror::Error;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    kernel_btf::{KernelBtf, Kind},
    object,
    plan::{Hook, Plan},
    reader::RingReader,
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
    #[error("cannot list the target's files")]
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

/// `[u8; N]` stands in for the map values: aya's `Pod` cannot be implemented for another crate's types.
type SlotBytes = [u8; size_of::<PollDescSlot>()];

/// The attached programs. Dropping it detaches them; so does the end of the process, however it ends.
#[derive(Debug)]
pub struct Session {
    ebpf: Ebpf,
}

impl Session {
    /// Loads the object with `config` frozen into it, and attaches the plan's programs to the process: ends before starts,
    /// so that no wait is seen to begin and not to end.
    ///
    /// # Errors
    /// When the kernel refuses the object, or one of its programs.
    pub fn attach(
        config: &Config,
        plan: &Plan,
        kernel: &KernelBtf,
        executable: &Path,
        pid: u32,
        debug: bool,
    ) -> Result<Self, SessionError> {
        // aya looks up ids by name in it, and has no relocations to do (rustc emits none).
        let btf = Btf::parse(&kernel.only(&names(plan)), Endianness::default())?;
        let log_level: u8 = if debug { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("CONFIG", config.as_bytes(), true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .load(object::BYTES)?;
        for choice in plan.choices.iter().rev() {
            for hook in &choice.hooks {
                attach_one(&mut ebpf, &btf, hook, executable, pid)?;
            }
        }
        let files: &mut Iter = program_of(&mut ebpf, FILES)?.map_err(files_failed)?;
        files.load(FILES_ITERATOR, &btf).map_err(files_failed)?;
        Ok(Self { ebpf })
    }

    /// The ring of records; once.
    ///
    /// # Errors
    /// When it was taken already.
    pub fn take_ring(&mut self) -> Result<RingReader, SessionError> {
        let map = self.ebpf.take_map("RING").ok_or(SessionError::Missing("map RING"))?;
        let ring = RingBuf::try_from(map).map_err(|source| SessionError::Map { name: "RING", source })?;
        Ok(RingReader::new(ring))
    }

    /// The target's open files now, from the kernel's iterator.
    ///
    /// # Errors
    /// When the iterator cannot be run.
    pub fn files(&mut self) -> Result<Vec<FileRecord>, SessionError> {
        let program: &mut Iter = program_of(&mut self.ebpf, FILES)?.map_err(files_failed)?;
        let id = program.attach().map_err(files_failed)?;
        let link = program.take_link(id).map_err(files_failed)?;
        let mut file = link.into_file().map_err(std::io::Error::other)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes
            .chunks_exact(size_of::<FileRecord>())
            .filter_map(|chunk| FileRecord::read_from_bytes(chunk).ok())
            .collect())
    }

    /// Tells the programs the netpoller's `struct eventpoll`.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_eventpoll(&mut self, address: u64) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "EVENTPOLL", source };
        let mut map: Array<_, u64> = map_of(&mut self.ebpf, "EVENTPOLL")?.try_into().map_err(failed)?;
        map.set(0, address, 0).map_err(failed)
    }

    /// Gives a pollDesc that was waited on before the programs were there its slot, unless it has one by now.
    /// Returns whether it was given.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn put_slot(&mut self, pd: u64, slot: &PollDescSlot) -> Result<bool, SessionError> {
        /// `BPF_NOEXIST`, `include/uapi/linux/bpf.h`
        const NO_EXIST: u64 = 1;
        let failed = |source| SessionError::Map { name: "SLOTS", source };
        let mut slots: HashMap<_, u64, SlotBytes> =
            map_of(&mut self.ebpf, "SLOTS")?.try_into().map_err(failed)?;
        let Ok(bytes) = SlotBytes::try_from(slot.as_bytes()) else { return Ok(false) };
        match slots.insert(pd, bytes, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Takes a pollDesc's slot away again.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn remove_slot(&mut self, pd: u64) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "SLOTS", source };
        let mut slots: HashMap<_, u64, SlotBytes> =
            map_of(&mut self.ebpf, "SLOTS")?.try_into().map_err(failed)?;
        match slots.remove(&pd) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// Lets the socket tracepoints find a pollDesc.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn index_socket(&mut self, sk: u64, pd: u64) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "SOCKETS", source };
        let mut sockets: HashMap<_, u64, u64> =
            map_of(&mut self.ebpf, "SOCKETS")?.try_into().map_err(failed)?;
        sockets.insert(sk, pd, 0).map_err(failed)
    }

    /// Every pollDesc that was ever waited on, with its state now.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn slots(&mut self) -> Result<Vec<(u64, PollDescSlot)>, SessionError> {
        let failed = |source| SessionError::Map { name: "SLOTS", source };
        let slots: HashMap<_, u64, SlotBytes> =
            map_of(&mut self.ebpf, "SLOTS")?.try_into().map_err(failed)?;
        let mut all = Vec::new();
        for entry in &slots {
            let (pd, bytes) = entry.map_err(failed)?;
            if let Ok(slot) = PollDescSlot::read_from_bytes(&bytes) {
                all.push((pd, slot));
            }
        }
        Ok(all)
    }

    /// What the programs could not do, so far.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn counters(&mut self) -> Result<Vec<(Counter, u64)>, SessionError> {
        let failed = |source| SessionError::Map { name: "COUNTERS", source };
        let counters: PerCpuArray<_, u64> = map_of(&mut self.ebpf, "COUNTERS")?.try_into().map_err(failed)?;
        Counter::ALL
            .into_iter()
            .map(|counter| {
                let values = counters.get(&(counter as u32), 0).map_err(failed)?;
                Ok((counter, values.iter().sum()))
            })
            .collect()
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

/// What the plan's programs, and that which lists files, attach to by a name in the kernel's BTF, as aya spells them.
fn names(plan: &Plan) -> Vec<(Kind, String)> {
    plan.hooks()
        .filter_map(|hook| match hook {
            Hook::Tracepoint { tracepoint, .. } => Some((Kind::Typedef, format!("btf_trace_{tracepoint}"))),
            Hook::Fentry { function, .. } => Some((Kind::Function, (*function).to_owned())),
            Hook::Uprobe { .. } | Hook::Syscall { .. } | Hook::Kprobe { .. } => None,
        })
        .chain([(Kind::Function, format!("bpf_iter_{FILES_ITERATOR}"))])
        .collect()
}

/// Attaches one program of the plan.
fn attach_one(
    ebpf: &mut Ebpf,
    btf: &Btf,
    hook: &Hook,
    executable: &Path,
    pid: u32,
) -> Result<(), SessionError> {
    let failed = |source| SessionError::Attach { hook: hook.to_string(), source };
    match hook {
        Hook::Uprobe { program, site } => {
            let program: &mut UProbe = program_of(ebpf, program)?.map_err(failed)?;
            program.load().map_err(failed)?;
            let point = UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(site.file_offset),
                cookie: None,
            };
            let scope = NonZeroU32::new(pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
            program.attach(point, executable, scope).map_err(failed)?;
        }
        Hook::Syscall { program, tracepoint } => {
            let program: &mut TracePoint = program_of(ebpf, program)?.map_err(failed)?;
            program.load().map_err(failed)?;
            program.attach("syscalls", tracepoint).map_err(failed)?;
        }
        Hook::Tracepoint { program, tracepoint } => {
            let program: &mut BtfTracePoint = program_of(ebpf, program)?.map_err(failed)?;
            program.load(tracepoint, btf).map_err(failed)?;
            program.attach().map_err(failed)?;
        }
        Hook::Fentry { program, function } => {
            let program: &mut FEntry = program_of(ebpf, program)?.map_err(failed)?;
            program.load(function, btf).map_err(failed)?;
            program.attach().map_err(failed)?;
        }
        Hook::Kprobe { program, function } => {
            let program: &mut KProbe = program_of(ebpf, program)?.map_err(failed)?;
            program.load().map_err(failed)?;
            program.attach(*function, 0).map_err(failed)?;
        }
    }
    Ok(())
}

fn files_failed(source: ProgramError) -> SessionError {
    SessionError::Attach { hook: "iterator task_file".to_owned(), source }
}

fn program_of<'a, T>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<Result<&'a mut T, ProgramError>, SessionError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(SessionError::Missing(name))?;
    Ok(program.try_into())
}

fn map_of<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, SessionError> {
    ebpf.map_mut(name).ok_or(SessionError::Missing(name))
}
