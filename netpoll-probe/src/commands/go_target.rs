//! The target as a Go program: its process, binary, layout and probe sites.

use netpoll_probe_common::config::{Config, labels};

use crate::{
    bpf::plan::{Site, TargetFacts},
    error::Failure,
    exit::Exit,
    gobin::GoBinary,
    goruntime::{
        epoll_data::EpollData,
        globals::{self, Global},
        layout,
        offsets::Offsets,
        sites,
        version::GoVersion,
        x86::FunctionCode,
    },
    model::profile::Target,
    snapshot::{
        scan::{Goroutine, Source, Wanted},
        unwind::{FrameLayout, FrameTable},
    },
    symbolize::Symbolizer,
    target::{memory::ReadMemory as _, process::Process},
};
#[derive(Debug)]
pub(super) struct GoTarget {
    process: Process,
    binary: GoBinary,
    bias: u64,
    layout: layout::Layout,
    version: GoVersion,
    facts: TargetFacts,
    pd_home: u32,
    poll_wait: u64,
    allgs: Option<u64>,
    epfd: Option<u64>,
}
struct Frames<'a>(&'a GoBinary);
impl FrameTable for Frames<'_> {
    fn frame(&self, pc: u64) -> Option<FrameLayout> {
        let (e, _) = self.0.at(pc)?;
        let name = self.0.symbolize(e).ok()?.pop()?.func;
        Some(FrameLayout {
            function: e,
            size_bytes: self.0.sp_delta(pc)? as u32,
            is_top: name == "runtime.goexit" || name == "runtime.mcall",
            writes_sp: false,
            is_trap: name == "runtime.sigpanic",
        })
    }
}
impl GoTarget {
    pub(super) fn open(process: Process) -> Result<Self, Failure> {
        let fail = |m: &str| Failure::new(Exit::Target, anyhow::anyhow!("{m}"), "attach to a Go program");
        let binary = GoBinary::open(process.executable().try_clone().map_err(|e| fail(&e.to_string()))?)
            .ok_or_else(|| fail("not a Go program"))?;
        let version = GoVersion::parse(&binary.version).map_err(|e| fail(&e.to_string()))?;
        let offsets: Offsets = layout::from_table(&version).map_err(|e| fail(&e.to_string()))?;
        let bias = process.load_bias(binary.entry)?;
        let code = |n: &str| {
            let (s, e) = binary.function(n)?;
            Some(FunctionCode::new(n, s, binary.read(s, (e - s) as usize)?))
        };
        let pw = code("internal/poll.runtime_pollWait").ok_or_else(|| fail("no pollWait"))?;
        let nb = code("runtime.netpollblock").ok_or_else(|| fail("no netpollblock"))?;
        let s =
            sites::poll_wait(&pw, nb.start(), |pc| binary.sp_delta(pc)).map_err(|e| fail(&e.to_string()))?;
        let site = |s: &sites::Site| Site {
            name: format!("{}+{}", s.function, s.offset),
            file_offset: binary.file_offset(s.address).unwrap_or(0),
            instruction: s.text.clone(),
            emulated: true,
        };
        let facts = TargetFacts {
            wait_start: site(&s.start),
            wait_end: site(&s.end),
            netpollblock: sites::netpollblock(&nb).map(|x| site(&x)).map_err(|e| e.to_string()),
            netpollready: code("runtime.netpollready")
                .ok_or("inlined".to_owned())
                .and_then(|c| sites::netpollready(&c).map(|x| site(&x)).map_err(|e| e.to_string())),
        };
        let global = |g: Global| globals::address(g, &code(g.function())?).ok();
        let (allgs, epfd) = (global(Global::Allgs), global(Global::Epfd));
        let release = version.release();
        let layout = layout::Layout {
            offsets,
            epoll_data: EpollData::of_release(release),
            source: layout::LayoutSource::Table(release),
            release,
        };
        Ok(Self {
            pd_home: s.end_pd_from_sp_bytes,
            poll_wait: pw.start(),
            process,
            bias,
            layout,
            version,
            facts,
            allgs,
            epfd,
            binary,
        })
    }
    pub(super) fn facts(&self) -> &TargetFacts {
        &self.facts
    }
    pub(super) fn config(&self) -> Config {
        let o = &self.layout.offsets;
        let (tag_bits, align) = match self.layout.epoll_data {
            EpollData::Pointer => (0, 0),
            EpollData::Tagged { tag_bits, align_bits } => (tag_bits.into(), align_bits.into()),
        };
        Config {
            tgid: self.process.pid(),
            g_m: o.g.m,
            g_goid: o.g.goid,
            g_labels: o.g.labels,
            labels: if self.layout.release.minor >= 24 { labels::SLICE } else { labels::MAP },
            m_g0: 0,
            m_p: o.m.p,
            p_schedtick: o.p.sched_tick,
            pd_fd: o.poll_desc.fd,
            pd_has_fdseq: o.poll_desc.fdseq.is_some().into(),
            pd_fdseq: o.poll_desc.fdseq.unwrap_or(0),
            pd_atomic_info: o.poll_desc.atomic_info,
            pd_rg: o.poll_desc.rg,
            pd_wg: o.poll_desc.wg,
            pd_home: self.pd_home,
            tag_bits,
            pd_align_bits: align,
            epoll_event_bytes: 12,
            epoll_event_data: 4,
            ..Config::default()
        }
    }
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.pid(), self.process.comm().unwrap_or_default())
    }
    pub(super) fn go_version(&self) -> String {
        self.version.to_string()
    }
    pub(super) fn has_exited(&self) -> bool {
        self.process.has_exited()
    }
    pub(super) fn epoll_fd(&self) -> Option<i32> {
        let a = self.bias + self.epfd?;
        let b = self.process.memory().read(a..a + 4).ok()??;
        Some(i32::from_le_bytes(b.try_into().ok()?))
    }
    pub(super) fn tag(&self, s: Option<u64>) -> u32 {
        match self.layout.epoll_data {
            EpollData::Pointer => 0,
            EpollData::Tagged { tag_bits, .. } => (s.unwrap_or(0) & ((1 << tag_bits) - 1)) as u32,
        }
    }
    pub(super) fn waiting(&self) -> Option<Vec<Goroutine>> {
        let memory = self.process.memory();
        let source = Source {
            memory: &memory,
            frames: &Frames(&self.binary),
            layout: &self.layout,
            load_bias: self.bias,
            allgs: self.allgs?,
            poll_wait: self.poll_wait,
        };
        match source.snapshot(Wanted::IoWaits) {
            Ok(s) => Some(s.goroutines),
            Err(e) => {
                super::attach::tell(&e.to_string());
                None
            }
        }
    }
    pub(super) fn symbolizer(&mut self) -> Result<Symbolizer, Failure> {
        Ok(Symbolizer::new(
            GoBinary::open(self.process.executable().try_clone().unwrap()).unwrap(),
            self.bias,
        ))
    }
    pub(super) fn describe(&self) -> Target {
        Target {
            pid: self.pid(),
            comm: self.process.comm().unwrap_or_default(),
            executable: self.process.executable_path().display().to_string(),
            go_version: self.go_version(),
            module: None,
        }
    }
}
