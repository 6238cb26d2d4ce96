//! The target as a Go program: its process, its binary, and what is known of the Go runtime in it.

use netpoll_probe_common::config::{Config, labels};

use crate::{
    bpf::plan::{Site, TargetFacts},
    error::Failure,
    gobin::{Error as GobinError, GoBinary, Machine},
    goruntime::{
        binary::{Error as RuntimeError, GoRuntime},
        epoll_data::EpollData,
        globals::Global,
        layout::Layout,
        sites,
    },
    model::profile::Target,
    snapshot::{
        frames::BinaryFrames,
        goroutine::Goroutine,
        scan::{Source, Wanted},
        unwind::FrameWord,
    },
    symbolize::Symbolizer,
    target::{
        memory::{ReadMemory as _, u32_at},
        process::Process,
    },
};

/// From this minor version on, a goroutine's labels are a slice and no map (`runtime/pprof/label.go`).
const LABELS_ARE_A_SLICE: u16 = 24;

/// A running Go program.
#[derive(Debug)]
pub(super) struct GoTarget<'b> {
    process: Process,
    binary: &'b GoBinary,
    version: String,
    layout: Layout,
    load_bias: u64,
    facts: TargetFacts,
    pd_home: u32,
    /// Where `runtime_pollWait` keeps its pollDesc.
    poll_desc: FrameWord,
    frames: BinaryFrames<'b>,
    /// Where `runtime.allgs` is, as linked; without it, waits that were open before are not found.
    allgs: Option<u64>,
    /// Where `runtime.epfd` is, as linked.
    epfd: Option<u64>,
}

/// Reads a process's executable, which may have been deleted or replaced, or be in another mount namespace.
pub(super) fn read_binary(process: &Process) -> Result<GoBinary, Failure> {
    let path = process.executable_path().to_owned();
    let file =
        process.executable().try_clone().map_err(|source| GobinError::Open { path: path.clone(), source })?;
    Ok(GoBinary::from_file(file, path.display().to_string())?)
}

impl<'b> GoTarget<'b> {
    /// Finds out all that the probe must know, before anything is attached.
    ///
    /// # Errors
    /// When the binary is none that can be probed.
    ///
    /// `runtime_hooks`: also whether the runtime's own functions can be hooked, which takes a pass over the inline trees
    /// of the whole binary.
    pub(super) fn of(process: Process, binary: &'b GoBinary, runtime_hooks: bool) -> Result<Self, Failure> {
        let runtime = GoRuntime::of(binary)?;
        let layout = runtime.layout()?;
        let poll_wait = runtime.poll_wait_sites()?;
        let site = |site: &sites::Site| Site {
            name: format!("{}+{}", site.function, site.offset),
            file_offset: site.file_offset,
            instruction: site.text.clone(),
        };
        let optional = |find: fn(&GoRuntime<'b>) -> Result<sites::Site, RuntimeError>| {
            if !runtime_hooks {
                return Err("it was not asked for".to_owned());
            }
            find(&runtime).as_ref().map(site).map_err(ToString::to_string)
        };
        let facts = TargetFacts {
            wait_start: site(&poll_wait.start),
            wait_end: site(&poll_wait.end),
            netpollblock: optional(GoRuntime::netpollblock_site),
            netpollready: optional(GoRuntime::netpollready_site),
        };
        Ok(Self {
            load_bias: process.load_bias(binary.elf().entry_vaddr)?,
            process,
            binary,
            version: runtime.version().to_string(),
            layout,
            facts,
            pd_home: poll_wait.end_pd_from_sp_bytes,
            poll_desc: FrameWord {
                function: runtime.poll_wait()?.entry_vaddr,
                from_cfa_bytes: poll_wait.pd_from_cfa_bytes,
            },
            frames: BinaryFrames::new(&runtime),
            allgs: runtime.global(Global::Allgs).ok(),
            epfd: runtime.global(Global::Epfd).ok(),
        })
    }

    /// What the hook plan needs to know.
    pub(super) fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    /// The programs' configuration, as far as it is the target's.
    pub(super) fn config(&self) -> Config {
        let offsets = &self.layout.offsets;
        let (tag_bits, pd_align_bits) = match self.layout.epoll_data {
            EpollData::Pointer => (0, 0),
            EpollData::Tagged { tag_bits, align_bits } => (u32::from(tag_bits), u32::from(align_bits)),
        };
        // `struct epoll_event` is packed on amd64 only (`include/uapi/linux/eventpoll.h`).
        let (epoll_event_bytes, epoll_event_data) = match self.binary.machine() {
            Machine::Amd64 => (12, 4),
            Machine::Arm64 => (16, 8),
        };
        Config {
            tgid: self.process.pid(),
            g_m: offsets.g.m,
            g_goid: offsets.g.goid,
            g_labels: offsets.g.labels,
            labels: if self.layout.release.minor >= LABELS_ARE_A_SLICE { labels::SLICE } else { labels::MAP },
            m_g0: offsets.m.g0,
            m_p: offsets.m.p,
            p_schedtick: offsets.p.sched_tick,
            pd_fd: offsets.poll_desc.fd,
            pd_has_fdseq: u32::from(offsets.poll_desc.fdseq.is_some()),
            pd_fdseq: offsets.poll_desc.fdseq.unwrap_or(0),
            pd_atomic_info: offsets.poll_desc.atomic_info,
            pd_rg: offsets.poll_desc.rg,
            pd_wg: offsets.poll_desc.wg,
            pd_home: self.pd_home,
            tag_bits,
            pd_align_bits,
            epoll_event_bytes,
            epoll_event_data,
            ..Config::default()
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn has_exited(&self) -> bool {
        self.process.has_exited()
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.pid(), self.comm())
    }

    pub(super) fn go_version(&self) -> &str {
        &self.version
    }

    fn comm(&self) -> String {
        self.process.comm().unwrap_or_else(|_gone| "?".to_owned())
    }

    /// The netpoller's epoll fd, once the program has used the network.
    pub(super) fn epoll_fd(&self) -> Option<i32> {
        let address = self.load_bias.checked_add(self.epfd?)?;
        let bytes = self.process.memory().read(address..address.checked_add(4)?).ok()??;
        let fd = i32::from_le_bytes(u32_at(&bytes, 0)?.to_le_bytes());
        (fd > 0).then_some(fd)
    }

    /// `pollDesc.fdseq` as the tags of epoll events have it.
    pub(super) fn tag(&self, fdseq: Option<u64>) -> u32 {
        match self.layout.epoll_data {
            EpollData::Pointer => 0,
            EpollData::Tagged { tag_bits, .. } => {
                let tag = fdseq.unwrap_or(0) & ((1 << tag_bits) - 1);
                u32::try_from(tag).unwrap_or(0)
            }
        }
    }

    /// The goroutines that wait in the poller now. `None`: they cannot be read, which is no reason to stop.
    pub(super) fn waiting(&self) -> Option<Vec<Goroutine>> {
        let memory = self.process.memory();
        let source = Source {
            memory: &memory,
            frames: &self.frames,
            layout: &self.layout,
            load_bias: self.load_bias,
            allgs: self.allgs?,
            poll_desc: self.poll_desc,
        };
        source.snapshot(Wanted::IoWaits).ok().map(|snapshot| snapshot.goroutines)
    }

    /// Names the addresses of its stacks.
    pub(super) fn symbolizer(&self) -> Symbolizer<'b> {
        Symbolizer::new(self.binary, self.load_bias)
    }

    /// What reports say of it.
    pub(super) fn describe(&self) -> Target {
        Target {
            pid: self.pid(),
            comm: self.comm(),
            executable: self.process.executable_path().display().to_string(),
            go_version: self.version.clone(),
            module: self.binary.build_info().and_then(|info| info.module_path.clone()),
        }
    }
}
