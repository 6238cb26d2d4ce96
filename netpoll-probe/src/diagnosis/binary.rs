//! A Go executable, fact by fact: what one of them lacks does not hide the others.

use std::sync::Arc;

use super::{build, offsets};
use crate::{
    gobin::{Error as GobinError, GoBinary, Machine, Outline, ReadAt},
    goruntime::{
        binary::{Error as RuntimeError, GoRuntime},
        globals::Global,
        layout::LayoutError,
        resolver::ResolverSites,
        sites::{self, PollWaitSites},
    },
    model::{
        bypass::event_loops,
        inspection::{
            Build, Executable, Finding, Global as GlobalFinding, Inspection, Instruction, Offsets, Place,
            Site, Tables, Verdict,
        },
    },
};

/// The machine that this program runs on.
const HERE: Option<Machine> = if cfg!(target_arch = "x86_64") {
    Some(Machine::Amd64)
} else if cfg!(target_arch = "aarch64") {
    Some(Machine::Arm64)
} else {
    None
};

/// The globals that a recording uses, and what is not known without each.
const GLOBALS: [(Global, &str); 2] = [
    (Global::Allgs, "waits that are open when the recording begins are not found"),
    (Global::Epfd, "events of other epoll instances of the process are not told apart"),
];

/// Looks at a file, whatever it is. `name` is what it was asked for by.
///
/// # Errors
/// [`GobinError::Read`], when the system refuses to read it.
pub fn inspect(name: &str, reader: &Arc<dyn ReadAt>) -> Result<Inspection, GobinError> {
    let outline = Outline::of(Box::new(Arc::clone(reader)))?;
    let executable = match outline.elf {
        Err(error @ GobinError::Read { .. }) => return Err(error),
        elf => Finding::of(elf.map(|elf| build::executable(&elf))),
    };
    let build = outline.build_info.as_ref().map(build::recorded).unwrap_or_default();
    let mut inspection = match GoBinary::from_reader(Box::new(Arc::clone(reader)), name) {
        Ok(binary) => of_go(&binary, executable, build),
        Err(error) => no_go(&error, executable, build),
    };
    name.clone_into(&mut inspection.file);
    inspection.size_bytes = outline.size_bytes;
    Ok(inspection)
}

/// A file that is no Go executable, or none of a supported version.
fn no_go(error: &GobinError, executable: Finding<Executable>, mut build: Build) -> Inspection {
    if let GobinError::UnsupportedGoVersion { found } = error {
        build.go_version.get_or_insert_with(|| found.clone());
    }
    let reason = error.to_string();
    let not = || Finding::Not(reason.clone());
    Inspection {
        file: String::new(),
        size_bytes: 0,
        attach: refused(&reason, hint_of_file(error)),
        limits: Vec::new(),
        executable,
        build,
        tables: Finding::Not(reason.clone()),
        sites: poll_wait_sites(&Err(reason.clone())).into_iter().chain(runtime_sites(not(), not())).collect(),
        offsets: Finding::Not(reason.clone()),
        globals: GLOBALS
            .map(|(global, _)| GlobalFinding { name: global.name(), address: Finding::Not(reason.clone()) })
            .into(),
    }
}

fn of_go<'b>(binary: &'b GoBinary, executable: Finding<Executable>, mut build: Build) -> Inspection {
    let runtime = GoRuntime::of(binary);
    let layout = ask(&runtime, GoRuntime::layout);
    let poll_wait = ask(&runtime, GoRuntime::poll_wait_sites);
    let site = |find: fn(&GoRuntime<'b>) -> Result<sites::Site, RuntimeError>| {
        Finding::of(ask(&runtime, find).map(|site| instruction(&site)).map_err(|refusal| refusal.reason))
    };
    let globals: Vec<GlobalFinding> = GLOBALS
        .into_iter()
        .map(|(global, _)| GlobalFinding {
            name: global.name(),
            address: Finding::of(ask(&runtime, |runtime| runtime.global(global)).map_err(|r| r.reason)),
        })
        .collect();
    build.cgo = runtime.as_ref().ok().map(|runtime| runtime.cgocallback().is_some());
    // Offsets that nothing tells may be asked of a process.
    let candidates = match (&layout, &runtime) {
        (Err(refusal), Ok(runtime)) if refusal.unknown_go => runtime.layout_candidates().unwrap_or_default(),
        _ => Vec::new(),
    };
    let needed = [layout.as_ref().err().filter(|_| candidates.is_empty()), poll_wait.as_ref().err()];
    let attach = match needed.into_iter().flatten().next() {
        Some(refusal) => refused(&refusal.reason, refusal.hint.clone()),
        None => Verdict { works: true, reason: None, hint: None },
    };
    let runtime_sites = runtime_sites(site(GoRuntime::netpollblock_site), site(GoRuntime::netpollready_site));
    let resolver = ask(&runtime, GoRuntime::resolver_sites);
    let mut limits =
        if attach.works { limits(binary, &runtime_sites, &globals, build.cgo) } else { Vec::new() };
    if let (true, Err(refusal)) = (attach.works, &resolver) {
        limits.push(format!("calls of the C library's resolver are not counted: {}", refusal.reason));
    }
    if let (true, Some(candidate), Err(refusal)) = (attach.works, candidates.first(), &layout) {
        let limit = format!(
            "{}: attach works if a process with some work confirms those of {} by its memory",
            refusal.reason,
            candidate.like()
        );
        limits.insert(0, limit);
    }
    let poll_wait = poll_wait.map_err(|refusal| refusal.reason);
    Inspection {
        file: String::new(),
        size_bytes: 0,
        attach,
        limits,
        executable,
        build,
        tables: Finding::Found(tables(binary)),
        sites: poll_wait_sites(&poll_wait)
            .into_iter()
            .chain(runtime_sites)
            .chain(resolver.unwrap_or_default().iter().flat_map(resolver_sites))
            .collect(),
        offsets: offsets_of(layout),
        globals,
    }
}

/// Why something that attaching needs is not known.
#[derive(Debug)]
struct Refusal {
    reason: String,
    hint: String,
    unknown_go: bool,
}

/// Asks the runtime, if there is one to ask.
fn ask<'b, T>(
    runtime: &Result<GoRuntime<'b>, RuntimeError>,
    question: impl FnOnce(&GoRuntime<'b>) -> Result<T, RuntimeError>,
) -> Result<T, Refusal> {
    let refusal = |error: &RuntimeError| Refusal {
        reason: error.to_string(),
        hint: hint_of_runtime(error),
        unknown_go: error.is_unknown_go(),
    };
    match runtime {
        Ok(runtime) => question(runtime).map_err(|error| refusal(&error)),
        Err(error) => Err(refusal(error)),
    }
}

fn refused(reason: &str, hint: impl Into<String>) -> Verdict {
    Verdict { works: false, reason: Some(reason.to_owned()), hint: Some(hint.into()) }
}

fn hint_of_file(error: &GobinError) -> String {
    match error {
        GobinError::UnsupportedGoVersion { .. } => "build it with Go 1.18 or later",
        GobinError::NotElf { start } if start.is_empty() => "the file is empty: was it copied completely?",
        GobinError::NotElf { .. } | GobinError::NotGo { .. } => {
            "name the executable itself, not a script or a wrapper that starts it"
        }
        GobinError::UnsupportedElf { .. } => "attach works on executables for amd64 and arm64, Linux",
        GobinError::Truncated { .. } => "is the file complete? compare its size with the original's",
        _ => "is the file damaged? compare it with the original: sha256sum FILE",
    }
    .to_owned()
}

fn hint_of_runtime(error: &RuntimeError) -> String {
    match error {
        RuntimeError::NoVersion => "build it with the go command, which records the version",
        RuntimeError::Layout(LayoutError::TooOld { .. }) => "build it with Go 1.18 or later",
        RuntimeError::Layout(_) => {
            "build it without -ldflags=-s, so that its DWARF tells the offsets, or with a released Go"
        }
        RuntimeError::NoFunction { .. } => "a program that never imports net or os has no network waits",
        _ => "please report it, with: go version -m FILE",
    }
    .to_owned()
}

/// What a recording does without.
fn limits(
    binary: &GoBinary,
    runtime_sites: &[Site],
    globals: &[GlobalFinding],
    cgo: Option<bool>,
) -> Vec<String> {
    let mut limits = Vec::new();
    if HERE != Some(binary.machine()) {
        let name = build::machine_name(binary.machine());
        limits.push(format!("attach works where the program runs, on {name}; this machine is another"));
    }
    let refused = runtime_sites.iter().find_map(|site| match &site.instruction {
        Finding::Found(_) => None,
        Finding::Not(reason) => Some(reason),
    });
    if let Some(reason) = refused {
        limits.push(format!("--hooks runtime, a second opinion, does not work: {reason}"));
    }
    for ((_, lost), global) in GLOBALS.iter().zip(globals) {
        if let Finding::Not(reason) = &global.address {
            limits.push(format!("{lost}: {reason}"));
        }
    }
    if !binary.knows_inlining() {
        limits.push(
            "stacks name the functions that hold the code only, not the calls inlined there".to_owned(),
        );
    }
    let modules = binary.build_info().map(|info| info.dependencies.as_slice()).unwrap_or_default();
    for module in event_loops(modules) {
        limits.push(format!("waits in the event loop of {module} are not seen, if the program uses it"));
    }
    if cgo == Some(true) {
        limits.push(
            "waits inside C code are not seen; calls of the C library's resolver are counted".to_owned(),
        );
    }
    limits
}

fn tables(binary: &GoBinary) -> Tables {
    let place = |address: u64| {
        let holds = |section: &&crate::gobin::Section| {
            section.vaddr != 0 && address.checked_sub(section.vaddr).is_some_and(|at| at < section.size_bytes)
        };
        let section = binary.elf().sections.iter().find(holds).map(|section| section.name.clone());
        Place { address, section }
    };
    Tables {
        pclntab: place(binary.pclntab_vaddr()),
        moduledata: place(binary.module_data().vaddr),
        functions: binary.function_count(),
        text: binary.module_data().text_vaddr,
        inlining: binary.knows_inlining(),
    }
}

fn offsets_of(layout: Result<crate::goruntime::layout::Layout, Refusal>) -> Finding<Offsets> {
    Finding::of(layout.map(|layout| offsets::describe(&layout)).map_err(|refusal| refusal.reason))
}

/// The two that attach cannot do without, and the one that lets it do without a trap in each wait.
fn poll_wait_sites(found: &Result<PollWaitSites, String>) -> [Site; 3] {
    let site = |purpose, site: fn(&PollWaitSites) -> &sites::Site| Site {
        purpose,
        needed: true,
        instruction: Finding::of(found.as_ref().map(|found| instruction(site(found)))),
    };
    let broken_off = match found {
        Ok(sites) => sites.broken_off.as_ref().map_err(ToString::to_string),
        Err(reason) => Err(reason.clone()),
    };
    [
        site("start of a wait", |sites| &sites.start),
        site("end of a wait", |sites| &sites.end),
        Site {
            purpose: "a wait broken off",
            needed: false,
            instruction: match broken_off {
                Ok(site) => Finding::Found(instruction(site)),
                Err(reason) => Finding::Not(reason),
            },
        },
    ]
}

/// Those of the second opinion.
fn runtime_sites(netpollblock: Finding<Instruction>, netpollready: Finding<Instruction>) -> [Site; 2] {
    [
        Site { purpose: "netpollblock, for --hooks runtime", needed: false, instruction: netpollblock },
        Site { purpose: "netpollready, for --hooks runtime", needed: false, instruction: netpollready },
    ]
}

/// Those around a call of the C library's resolver.
fn resolver_sites(call: &ResolverSites) -> [Site; 2] {
    [("C resolver call", &call.start), ("C resolver return", &call.end)].map(|(purpose, site)| Site {
        purpose,
        needed: false,
        instruction: Finding::Found(instruction(site)),
    })
}

fn instruction(site: &sites::Site) -> Instruction {
    Instruction {
        function: site.function.clone(),
        offset: site.offset,
        address: site.address,
        file_offset: site.file_offset,
        bytes: build::hexadecimal(&site.bytes),
        text: site.text.clone(),
        emulated: Some(site.emulated.name()),
    }
}
