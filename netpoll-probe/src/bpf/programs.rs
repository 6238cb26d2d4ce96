//! Loading the programs of a plan, and attaching those of the whole machine.

use std::thread;

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, Iter, KProbe, Program, ProgramError},
};

use super::{
    links::Link,
    plan::Hook,
    session::{SessionError, program_of},
};

/// The verifier takes longer for this one than for all others together.
const SLOWEST: &str = "syscall_exit";

/// Loads the hooks' programs, the slowest one at the same time as the others. A program of several hooks is loaded once.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf, hooks: &[&Hook]) -> Result<(), SessionError> {
    let hook_of = |name: &str| hooks.iter().copied().find(|hook| hook.program() == name);
    let (mut slowest, mut others) = (None, Vec::new());
    for (name, program) in ebpf.programs_mut() {
        match hook_of(name) {
            Some(hook) if name == SLOWEST => slowest = Some((program, hook)),
            Some(hook) => others.push((program, hook)),
            None => {}
        }
    }
    thread::scope(|scope| {
        let thread = slowest.map(|(program, hook)| {
            let named = thread::Builder::new().name("verifier".to_owned());
            named.spawn_scoped(scope, move || load_one(program, hook, btf))
        });
        others.into_iter().try_for_each(|(program, hook)| load_one(program, hook, btf))?;
        match thread {
            Some(Ok(thread)) => thread.join().unwrap_or(Ok(())),
            // Where no thread is to be had it is loaded below.
            None | Some(Err(_)) => Ok(()),
        }
    })?;
    for hook in hooks {
        let program = ebpf.program_mut(hook.program()).ok_or(SessionError::Missing(hook.program()))?;
        if program.fd().is_err() {
            load_one(program, hook, btf)?;
        }
    }
    Ok(())
}

fn load_one(program: &mut Program, hook: &Hook, btf: &Btf) -> Result<(), SessionError> {
    let loaded = match (program, hook) {
        (Program::UProbe(program), Hook::Uprobe { .. }) => program.load(),
        (Program::BtfTracePoint(program), Hook::Tracepoint { tracepoint, .. }) => {
            program.load(tracepoint, btf)
        }
        (Program::FEntry(program), Hook::Fentry { function, .. }) => program.load(function, btf),
        (Program::KProbe(program), Hook::Kprobe { .. }) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|source| failed(hook, source))
}

/// Loads the program of an iterator.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn load_iterator(
    ebpf: &mut Ebpf,
    btf: &Btf,
    program: &'static str,
    iterator: &str,
) -> Result<(), SessionError> {
    let failed = |source| SessionError::Attach { hook: format!("iterator {iterator}"), source };
    let program: &mut Iter = program_of(ebpf, program)?.map_err(failed)?;
    program.load(iterator, btf).map_err(failed)
}

/// Attaches a loaded program of the plan, if it is of the whole machine.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn attach(ebpf: &mut Ebpf, hook: &Hook) -> Result<Option<Link>, SessionError> {
    let failed = |source| failed(hook, source);
    let link: Link = match hook {
        // They are of a process.
        Hook::Uprobe { .. } => return Ok(None),
        Hook::Tracepoint { program, .. } => {
            let program: &mut BtfTracePoint = program_of(ebpf, program)?.map_err(failed)?;
            Box::new(program.attach().and_then(|id| program.take_link(id)).map_err(failed)?)
        }
        Hook::Fentry { program, .. } => {
            let program: &mut FEntry = program_of(ebpf, program)?.map_err(failed)?;
            Box::new(program.attach().and_then(|id| program.take_link(id)).map_err(failed)?)
        }
        Hook::Kprobe { program, function } => {
            let program: &mut KProbe = program_of(ebpf, program)?.map_err(failed)?;
            Box::new(program.attach(*function, 0).and_then(|id| program.take_link(id)).map_err(failed)?)
        }
    };
    Ok(Some(link))
}

/// A hook that could not be placed.
pub(super) fn failed(hook: &Hook, source: ProgramError) -> SessionError {
    SessionError::Attach { hook: hook.to_string(), source }
}
