//! Programs loaded to see whether this kernel takes them, and dropped again. Uprobes, which take permissions of their
//! own, are attached for a moment, to a function of this program that nothing calls.

use std::{fs, num::NonZeroU32, path::Path};

use aya::programs::{
    BtfTracePoint, FEntry, Iter, KProbe, ProgramError, UProbe,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
};
use netpoll_probe_common::config::Config;
use rustix::io::Errno;

use super::{kernel_btf::KernelBtf, loader, plan::Hook, session::SessionError};

/// The program that lists files, and the kernel's iterator that it runs on.
const FILES: (&str, &str) = ("files", "task_file");

/// How one program fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What it hooks, or iterates over.
    pub hook: String,
    /// The kind of program.
    pub kind: ProgramKind,
    /// Why it was refused, in the kernel's words.
    pub refusal: Option<Refusal>,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In the kernel's words.
    pub reason: String,
    /// For want of a permission.
    pub denied: bool,
}

/// Kinds of eBPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// For uprobes and kprobes.
    Kprobe,
    /// For tracepoints, by BTF.
    BtfTracepoint,
    /// At the entry of a kernel function.
    Fentry,
    /// Over the kernel's objects.
    Iterator,
}

impl ProgramKind {
    /// The name that people know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "uprobe/kprobe",
            Self::BtfTracepoint => "BTF tracepoint",
            Self::Fentry => "fentry",
            Self::Iterator => "iterator",
        }
    }

    const fn of(hook: &Hook) -> Self {
        match hook {
            Hook::Uprobe { .. } | Hook::Kprobe { .. } => Self::Kprobe,
            Hook::Tracepoint { .. } => Self::BtfTracepoint,
            Hook::Fentry { .. } => Self::Fentry,
        }
    }
}

/// Loads the program of each of `hooks`, and the one that lists files. `config` has the kernel's offsets, without which the
/// programs are others.
///
/// # Errors
/// When the object itself is refused, with its maps: then no program is.
pub fn load(kernel: &KernelBtf, config: &Config, hooks: &[Hook]) -> Result<Vec<Trial>, Refusal> {
    let failed = |error: SessionError| Refusal::of(&error, error.errno());
    let btf = loader::btf(kernel, hooks.iter(), &[FILES.1]).map_err(|error| failed(error.into()))?;
    let mut ebpf =
        loader::load(config, &btf, &loader::Room::default()).map_err(|error| failed(error.into()))?;
    let mut trial =
        |name: &'static str, hook: String, kind, load: &dyn Fn(&mut aya::programs::Program) -> _| {
            let result: Result<(), ProgramError> = match ebpf.program_mut(name) {
                Some(program) => load(program),
                None => return Err(failed(SessionError::Missing(name))),
            };
            let refusal =
                result.err().map(|source| failed(SessionError::Attach { hook: hook.clone(), source }));
            Ok(Trial { hook, kind, refusal })
        };
    let mut trials = hooks
        .iter()
        .map(|hook| {
            let kind = ProgramKind::of(hook);
            match hook {
                Hook::Uprobe { program, .. } => trial(program, hook.to_string(), kind, &|program| {
                    let program = <&mut UProbe>::try_from(program)?;
                    program.load()?;
                    place_uprobe(program)
                }),
                Hook::Kprobe { program, .. } => trial(program, hook.to_string(), kind, &|program| {
                    <&mut KProbe>::try_from(program)?.load()
                }),
                Hook::Fentry { program, function } => trial(program, hook.to_string(), kind, &|program| {
                    <&mut FEntry>::try_from(program)?.load(function, &btf)
                }),
                Hook::Tracepoint { program, tracepoint } => {
                    trial(program, hook.to_string(), kind, &|program| {
                        <&mut BtfTracePoint>::try_from(program)?.load(tracepoint, &btf)
                    })
                }
            }
        })
        .collect::<Result<Vec<Trial>, Refusal>>()?;
    trials.push(trial(FILES.0, format!("iterator {}", FILES.1), ProgramKind::Iterator, &|program| {
        <&mut Iter>::try_from(program)?.load(FILES.1, &btf)
    })?);
    Ok(trials)
}

/// Places a uprobe in this program and takes it away: some kernels want a capability more for it than for the rest.
fn place_uprobe(program: &mut UProbe) -> Result<(), ProgramError> {
    // Without /proc there is nothing to be said of it, and attach fails at other things.
    let Some(file_offset) = own_file_offset(never_called as fn() as usize) else { return Ok(()) };
    let location = UProbeAttachLocation::AbsoluteOffset(file_offset);
    let scope =
        NonZeroU32::new(std::process::id()).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
    let point = UProbeAttachPoint { location, cookie: None };
    let link = program.attach(point, Path::new("/proc/self/exe"), scope)?;
    program.detach(link)
}

/// Where [`place_uprobe`] puts its uprobe.
#[inline(never)]
fn never_called() {
    std::hint::black_box(file!());
}

/// Where an address of this process's code is in its executable (`/proc/self/maps`, proc(5)).
fn own_file_offset(address: usize) -> Option<u64> {
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let address = u64::try_from(address).ok()?;
    fs::read_to_string("/proc/self/maps").ok()?.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let offset = hexadecimal(fields.nth(1)?)?;
        (start..end).contains(&address).then(|| offset + (address - start))
    })
}

impl Refusal {
    /// The innermost cause says what the kernel said; the verifier's log has thousands of lines after it.
    fn of(error: &(dyn std::error::Error + 'static), errno: Option<Errno>) -> Self {
        let mut lines: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().to_owned();
            if !lines.iter().any(|known| known.contains(&line)) {
                lines.push(line);
            }
            next = error.source();
        }
        Self { reason: lines.join(": "), denied: matches!(errno, Some(Errno::PERM | Errno::ACCESS)) }
    }
}
