//! An executable as a Go program: its binary, and what is known of the Go runtime in it. Processes of one executable share it.

use std::{fs::File, os::unix::fs::MetadataExt as _, sync::Arc, time::Duration};

use netpoll_probe_common::config::{Config, labels};

use super::{failures, tell};
use crate::{
    bpf::plan::{Site, TargetFacts},
    error::Failure,
    gobin::{Error as GobinError, GoBinary},
    goruntime::{
        binary::{Error as RuntimeError, GoRuntime},
        epoll_data::EpollData,
        globals::Global,
        layout::{Layout, LayoutSource},
        sites,
    },
    snapshot::{
        confirm::{Confirmed, looks},
        frames::BinaryFrames,
        unwind::FrameWord,
    },
    target::process::Process,
};

/// From this minor version on, a goroutine's labels are a slice and no map (`runtime/pprof/label.go`).
const LABELS_ARE_A_SLICE: u16 = 24;

/// What tells one executable from another: two containers of one image have the same file on different devices, so a build
/// id counts for more than device and inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// The Go build id and the file's size in bytes.
    BuildId(String, u64),
    /// Device, inode, size in bytes and time of the last change (seconds, nanoseconds).
    File(u64, u64, u64, (i64, i64)),
}

/// A Go program.
#[derive(Debug)]
pub(super) struct GoProgram {
    pub(super) binary: Arc<GoBinary>,
    pub(super) layout: Layout,
    pub(super) frames: BinaryFrames,
    /// Where `runtime_pollWait` keeps its pollDesc.
    pub(super) poll_desc: FrameWord,
    /// Where `runtime.allgs` is, as linked; without it, waits that were open before are not found.
    pub(super) allgs: Option<u64>,
    /// Where `runtime.epfd` is, as linked.
    pub(super) epfd: Option<u64>,
    version: String,
    facts: TargetFacts,
    pd_home: u32,
}

/// Reads an open executable. `name` is what messages call it.
pub(super) fn read_binary(file: &File, name: &str) -> Result<Arc<GoBinary>, Failure> {
    let file = file.try_clone().map_err(|source| GobinError::Open { path: name.into(), source })?;
    Ok(Arc::new(GoBinary::from_file(file, name)?))
}

/// Offsets of another release of Go that the process's memory confirms.
fn confirmed_layout(
    process: &Process,
    binary: &Arc<GoBinary>,
    runtime: &GoRuntime<'_>,
    patience: Duration,
) -> Result<Layout, Failure> {
    let Confirmed { layout, findings } = looks::look(process, binary, runtime, patience)?;
    if let LayoutSource::Confirmed(like) = layout.source {
        let confirmed = findings.iter().filter(|finding| finding.is_confirmed()).count();
        tell(&format!(
            "the offsets of {} are not known; the memory of process {} confirms those of {like} ({confirmed} of {} facts)",
            runtime.version(),
            process.pid(),
            findings.len()
        ));
    }
    Ok(layout)
}

/// What tells this executable from others.
pub(super) fn identity(binary: &GoBinary, file: &File) -> Result<Identity, Failure> {
    let path = || binary.name().into();
    let metadata = file.metadata().map_err(|source| GobinError::Open { path: path(), source })?;
    let build_id = binary.elf().go_build_id.clone().filter(|id| !id.is_empty());
    Ok(match build_id {
        Some(id) => Identity::BuildId(id, metadata.len()),
        None => Identity::File(
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            (metadata.mtime(), metadata.mtime_nsec()),
        ),
    })
}

impl GoProgram {
    /// Finds out all that the probe must know, before anything is attached.
    ///
    /// `runtime_hooks`: also whether the runtime's own functions can be hooked, which takes a pass over the inline trees
    /// of the whole binary. `running`: a process of it, and for how long its memory may be asked when no table has the
    /// offsets.
    ///
    /// # Errors
    /// When the binary is none that can be probed.
    pub(super) fn of(
        binary: Arc<GoBinary>,
        runtime_hooks: bool,
        running: Option<(&Process, Duration)>,
    ) -> Result<Self, Failure> {
        let runtime = GoRuntime::of(&binary)?;
        let layout = match (runtime.layout(), running) {
            (Err(error), Some((process, patience))) if error.is_unknown_go() => {
                confirmed_layout(process, &binary, &runtime, patience)?
            }
            (layout, _) => layout?,
        };
        let poll_wait = runtime.poll_wait_sites()?;
        let site = |site: &sites::Site| Site {
            name: format!("{}+{}", site.function, site.offset),
            file_offset: site.file_offset,
            instruction: site.text.clone(),
        };
        let optional = |found: Option<Result<sites::Site, RuntimeError>>| match found {
            None => Err("it was not asked for".to_owned()),
            Some(found) => found.as_ref().map(site).map_err(ToString::to_string),
        };
        let facts = TargetFacts {
            wait_start: site(&poll_wait.start),
            wait_end: site(&poll_wait.end),
            broken_off: poll_wait.broken_off.as_ref().map(site).map_err(ToString::to_string),
            netpollblock: optional(runtime_hooks.then(|| runtime.netpollblock_site())),
            netpollready: optional(runtime_hooks.then(|| runtime.netpollready_site())),
            // Without them its calls are not counted; inspect says why.
            resolver: runtime
                .resolver_sites()
                .unwrap_or_default()
                .iter()
                .map(|call| (site(&call.start), site(&call.end)))
                .collect(),
        };
        let program = Self {
            layout,
            frames: BinaryFrames::new(Arc::clone(&binary), &runtime),
            poll_desc: FrameWord {
                function: runtime.poll_wait()?.entry_vaddr,
                from_cfa_bytes: poll_wait.pd_from_cfa_bytes,
            },
            allgs: runtime.global(Global::Allgs).ok(),
            epfd: runtime.global(Global::Epfd).ok(),
            version: runtime.version().to_string(),
            facts,
            pd_home: poll_wait.end_pd_from_sp_bytes,
            binary,
        };
        match program.config().beyond_reach() {
            None => Ok(program),
            Some((field, at)) => Err(failures::beyond_reach(field, at)),
        }
    }

    /// What the hook plan needs to know.
    pub(super) fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    /// The version of Go that built it.
    pub(super) fn go_version(&self) -> &str {
        &self.version
    }

    /// The path of its main module.
    pub(super) fn module(&self) -> Option<String> {
        self.binary.build_info().and_then(|info| info.module_path.clone())
    }

    /// The modules that it was built with: path and version.
    pub(super) fn modules(&self) -> &[(String, String)] {
        self.binary.build_info().map(|info| info.dependencies.as_slice()).unwrap_or_default()
    }

    /// The eBPF programs' configuration, as far as it is the executable's.
    pub(super) fn config(&self) -> Config {
        let offsets = &self.layout.offsets;
        let (tag_bits, pd_align_bits) = match self.layout.epoll_data {
            EpollData::Pointer => (0, 0),
            EpollData::Tagged { tag_bits, align_bits } => (u32::from(tag_bits), u32::from(align_bits)),
        };
        Config {
            g_m: offsets.g.m,
            g_goid: offsets.g.goid,
            g_atomic_status: offsets.g.atomic_status,
            g_wait_reason: offsets.g.wait_reason,
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
            ..Config::default()
        }
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
}
