//! What one binary's Go runtime looks like: version, layouts, probe sites, globals.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{
    candidate::{self, Candidate},
    code::{CodeError, FunctionCode},
    dwarf,
    epoll_data::EpollData,
    globals::{self, Global, GlobalError},
    layout::{self, Layout, LayoutError},
    resolver::{self, CALLS as RESOLVER_CALLS, CGOCALL, ResolverSites},
    sites::{self, NETPOLLBLOCK, NETPOLLREADY, POLL_WAIT, PollWaitSites, Site, SiteError},
    version::{GoVersion, ParseVersionError},
};
use crate::gobin::{self, Function, GoBinary};

/// Entered by signals; the runtime's traceback treats the frame below them apart (`runtime/traceback.go`).
const TRAPS: [&str; 3] = ["runtime.sigpanic", "runtime.asyncPreempt", "runtime.debugCallV2"];

/// Where C calls back into Go; walks go on through it (`runtime/traceback.go`, `resolveInternal`).
const CGOCALLBACK: &str = "runtime.cgocallback";

/// `netpoll`, whose code tells how epoll events hold a pollDesc.
const NETPOLL: &str = "runtime.netpoll";

/// No function that is disassembled is near this size.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;

/// Why something of a binary's runtime is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The binary could not be read.
    #[error(transparent)]
    Binary(#[from] gobin::Error),
    /// The binary does not say by which Go it was built.
    #[error("the binary does not say its Go version (its build information was removed)")]
    NoVersion,
    /// It names a version that cannot be understood.
    #[error(transparent)]
    Version(#[from] ParseVersionError),
    /// The layouts are not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no probe site.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// A global was not found.
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// Code could not be disassembled.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The binary has no such function.
    #[error("the binary has no function {function}")]
    NoFunction {
        /// Its name.
        function: &'static str,
    },
    /// A function was inlined into others, so that a probe on it does not see all calls.
    #[error("{function} is inlined into {caller}")]
    Inlined {
        /// Its name.
        function: &'static str,
        /// One function that it was inlined into.
        caller: String,
    },
    /// It is not known whether a function was inlined into others.
    #[error("the binary does not tell whether {function} is inlined")]
    InliningUnknown {
        /// Its name.
        function: &'static str,
    },
}

impl Error {
    /// As [`LayoutError::is_unknown_go`].
    #[must_use]
    pub fn is_unknown_go(&self) -> bool {
        matches!(self, Self::Layout(error) if error.is_unknown_go())
    }
}

/// The Go runtime in one binary. Everything is looked up when it is asked for; functions were found in one pass.
#[derive(Debug)]
pub struct GoRuntime<'b> {
    binary: &'b GoBinary,
    version: GoVersion,
    functions: BTreeMap<String, Vec<Function>>,
}

impl<'b> GoRuntime<'b> {
    /// Finds the version and the functions.
    ///
    /// # Errors
    /// [`Error::Binary`], [`Error::NoVersion`], [`Error::Version`].
    pub fn of(binary: &'b GoBinary) -> Result<Self, Error> {
        let version = GoVersion::parse(binary.go_version().ok_or(Error::NoVersion)?)?;
        let mut names = vec![POLL_WAIT, NETPOLLBLOCK, NETPOLLREADY, NETPOLL, CGOCALLBACK, CGOCALL];
        names.extend(TRAPS);
        names.extend(RESOLVER_CALLS);
        names.extend(Global::ALL.map(Global::function));
        names.sort_unstable();
        names.dedup();
        let functions = binary.functions_by_names(&names)?;
        Ok(Self { binary, version, functions })
    }

    /// The binary.
    #[must_use]
    pub fn binary(&self) -> &'b GoBinary {
        self.binary
    }

    /// Its Go version.
    #[must_use]
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// The layouts of its structs and epoll events.
    ///
    /// # Errors
    /// [`Error::Layout`], or when DWARF or code cannot be read.
    pub fn layout(&self) -> Result<Layout, Error> {
        let unpacks = self.unpacks()?;
        let offsets = dwarf::offsets(self.binary)?;
        if offsets.is_some() && !layout::is_known_minor(self.version.release()) {
            dwarf::check_constants(self.binary)?;
        }
        Ok(layout::of(&self.version, offsets, unpacks)?)
    }

    /// What the layouts may be when [`Self::layout`] does not know the version or an experiment, the likeliest first: for
    /// `snapshot::confirm`.
    ///
    /// # Errors
    /// As [`candidate::candidates`], or when code cannot be read.
    pub fn layout_candidates(&self) -> Result<Vec<Candidate>, Error> {
        Ok(candidate::candidates(&self.version, self.unpacks()?)?)
    }

    /// How `netpoll` unpacks epoll events, if its code tells.
    fn unpacks(&self) -> Result<Option<EpollData>, Error> {
        Ok(EpollData::from_code(&self.code(NETPOLL)?)?)
    }

    /// The function in which goroutines wait, `internal/poll.runtime_pollWait`.
    ///
    /// # Errors
    /// [`Error::NoFunction`]: the program does not use the poller.
    pub fn poll_wait(&self) -> Result<&Function, Error> {
        self.function(POLL_WAIT)
    }

    /// The probe sites in `internal/poll.runtime_pollWait`.
    ///
    /// # Errors
    /// [`Error::Site`] when its code is not as expected; as [`Self::poll_wait`].
    pub fn poll_wait_sites(&self) -> Result<PollWaitSites, Error> {
        let code = self.code(POLL_WAIT)?;
        let netpollblock = self.function(NETPOLLBLOCK)?.entry_vaddr;
        let frame_size = |pc| self.binary.sp_delta_bytes(pc).ok().flatten().map(i64::from);
        Ok(sites::poll_wait(&code, netpollblock, frame_size)?)
    }

    /// The probe site in `runtime.netpollblock`, if all parks go through it.
    ///
    /// # Errors
    /// [`Error::Inlined`] in profile-guided builds; [`Error::Site`].
    pub fn netpollblock_site(&self) -> Result<Site, Error> {
        self.not_inlined(NETPOLLBLOCK)?;
        Ok(sites::netpollblock(&self.code(NETPOLLBLOCK)?)?)
    }

    /// The probe site in `runtime.netpollready`, if all wakeups go through it.
    ///
    /// # Errors
    /// [`Error::Inlined`] in profile-guided builds; [`Error::Site`].
    pub fn netpollready_site(&self) -> Result<Site, Error> {
        self.not_inlined(NETPOLLREADY)?;
        Ok(sites::netpollready(&self.code(NETPOLLREADY)?)?)
    }

    /// The probe sites around each call of the C library's resolver that the program has; none without cgo.
    ///
    /// # Errors
    /// [`Error::Site`] when the code of one is not as expected.
    pub fn resolver_sites(&self) -> Result<Vec<ResolverSites>, Error> {
        let calls = RESOLVER_CALLS.into_iter().filter(|name| self.functions.contains_key(*name));
        calls
            .map(|name| {
                let cgocall = self.function(CGOCALL)?.entry_vaddr;
                Ok(resolver::sites(&self.code(name)?, cgocall)?)
            })
            .collect()
    }

    /// The address of a global, as the linker gave it.
    ///
    /// # Errors
    /// [`Error::Global`] when its code is not as expected; [`Error::NoFunction`].
    pub fn global(&self, global: Global) -> Result<u64, Error> {
        Ok(globals::address(global, &self.code(global.function())?)?)
    }

    /// The first instructions of the functions that are entered by a signal.
    pub fn traps(&self) -> impl Iterator<Item = u64> {
        TRAPS.iter().filter_map(|name| self.function(name).ok()).map(|function| function.entry_vaddr)
    }

    /// The first instruction of `runtime.cgocallback`, if the program has it.
    #[must_use]
    pub fn cgocallback(&self) -> Option<u64> {
        self.function(CGOCALLBACK).ok().map(|function| function.entry_vaddr)
    }

    fn function(&self, name: &'static str) -> Result<&Function, Error> {
        self.functions.get(name).and_then(|found| found.first()).ok_or(Error::NoFunction { function: name })
    }

    fn code(&self, name: &'static str) -> Result<FunctionCode, Error> {
        let function = self.function(name)?;
        let start = function.entry_vaddr;
        let length = function.end_vaddr.saturating_sub(start).min(MAX_FUNCTION_BYTES);
        let bytes = self.binary.read_vaddr(start, usize::try_from(length).unwrap_or(0))?;
        let file_offset = self.binary.file_offset(start).ok_or(Error::NoFunction { function: name })?;
        Ok(FunctionCode::new(name, self.binary.machine(), start, file_offset, bytes))
    }

    fn not_inlined(&self, name: &'static str) -> Result<(), Error> {
        if !self.binary.knows_inlining() {
            return Err(Error::InliningUnknown { function: name });
        }
        match self.binary.inlined_instances(&[name])?.into_iter().next() {
            Some(instance) => Err(Error::Inlined { function: name, caller: instance.into }),
            None => Ok(()),
        }
    }
}
