//! `netpoll-probe doctor`: what this machine allows, and what attach would do to a process.

use std::{sync::Arc, time::Duration};

use super::{go_program, terminal};
use crate::{
    bpf::{
        kernel_btf::KernelBtf,
        machine::{self, MachineFacts},
        plan::{self, Hooks, ReadyHooks, TargetFacts},
    },
    cli::doctor::DoctorArgs,
    diagnosis::{
        binary, machine as machine_rules,
        target::{self, FdFacts, ProcessFacts},
    },
    error::Failure,
    exit::Exit,
    gobin::{Elf, Error as GobinError, Outline, ReadAt},
    goruntime::binary::GoRuntime,
    model::{
        checkup::{Blame, Check, Checkup, Grade, Plan, TargetCheckup},
        inspection::{Finding, Inspection},
    },
    report::{findings, schema},
    snapshot::confirm::{Confirmed, looks},
    target::{error::Error as TargetError, fds::FdTarget, memory::ReadMemory as _, process::Process},
};

/// How long a process of an unknown Go is asked for its offsets.
const PATIENCE: Duration = Duration::from_millis(200);

/// Runs the command; the exit code says whether attach works here.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    if args.json_schema {
        terminal::print(|out| out.write_all(schema::CHECKUP.as_bytes()))?;
        return Ok(Exit::Good);
    }
    let btf = KernelBtf::of_running_kernel().map_err(|error| error.to_string());
    let facts = machine::find_out(btf.as_ref().map_err(Clone::clone));
    drop(btf);
    let mut machine = machine_rules::checks(&facts);
    let looked_at = args.pid.map(|pid| look_at(pid).map_err(|failure| (pid, failure)));

    let mut exit = Exit::Good;
    let (target, plan_target) = match looked_at {
        None => (None, Some(TargetFacts::of_any_program())),
        Some(Ok(Looked { pid, process, inspection, confirmed })) => {
            let mut checks = target::checks(&process, &inspection);
            checks.extend(confirmed);
            if checks.iter().any(|check| check.grade == Grade::Problem) {
                exit = Exit::Target;
            }
            (Some(TargetCheckup { pid, checks }), target::facts_for_plan(&inspection))
        }
        Some(Err((pid, failure))) => {
            exit = failure.exit;
            let cause = failure.cause.to_string();
            (Some(TargetCheckup { pid, checks: vec![Check::problem("process", cause, failure.hint)] }), None)
        }
    };
    let plan = plan_of(&facts, plan_target.as_ref(), &mut machine);
    let broken = machine.iter().any(|check| check.grade == Grade::Problem);
    let blame = match (exit, broken) {
        (Exit::Good, false) => None,
        (Exit::Good, true) => {
            exit = Exit::Kernel;
            Some(Blame::Machine)
        }
        (Exit::Kernel, _) => Some(Blame::Machine),
        _ => Some(Blame::Target),
    };
    let checkup = Checkup { works: blame.is_none(), blame, machine, target, plan };
    terminal::print(|out| match args.json {
        true => findings::checkup_json(&checkup, out),
        false => findings::checkup_text(&checkup, &terminal::options(), out),
    })?;
    Ok(exit)
}

/// What attach would choose. That there is no way is a problem of the machine, with words of its own if no other says it.
fn plan_of(facts: &MachineFacts, target: Option<&TargetFacts>, machine: &mut Vec<Check>) -> Option<Plan> {
    let kernel = facts.kernel.as_ref()?;
    match plan::make(Hooks::Auto, ReadyHooks::Auto, kernel, target?) {
        Ok(plan) => Some(target::describe_plan(&plan)),
        Err(error) => {
            if machine.iter().all(|check| check.grade != Grade::Problem) {
                let failure = Failure::from(error);
                machine.push(Check::problem("plan", failure.cause.to_string(), failure.hint));
            }
            None
        }
    }
}

/// A process that was looked at.
#[derive(Debug)]
struct Looked {
    pid: u32,
    process: ProcessFacts,
    inspection: Inspection,
    /// What its memory says when nothing else tells the offsets.
    confirmed: Option<Check>,
}

/// Reads a process as attach does, and attaches nothing.
fn look_at(pid: u32) -> Result<Looked, Failure> {
    let process = Process::open(pid)?;
    let path = process.executable_path().display().to_string();
    let file = process
        .executable()
        .try_clone()
        .map_err(|source| GobinError::Open { path: path.clone().into(), source })?;
    let reader: Arc<dyn ReadAt> = Arc::new(file);
    let inspection = binary::inspect(&path, &reader)?;
    let elf = Outline::of(Box::new(reader))?.elf.ok();
    let facts = process_facts(&process, path, elf.as_ref())?;
    let is_unknown_go = inspection.attach.works && matches!(inspection.offsets, Finding::Not(_));
    let confirmed = is_unknown_go.then(|| offsets(&process, &inspection.file)).transpose()?;
    Ok(Looked { pid, process: facts, inspection, confirmed })
}

/// Whether the process's memory confirms offsets of another Go.
fn offsets(process: &Process, name: &str) -> Result<Check, Failure> {
    let binary = go_program::read_binary(process.executable(), name)?;
    let check = match looks::look(process, &binary, &GoRuntime::of(&binary)?, PATIENCE) {
        Ok(Confirmed { layout, .. }) => target::confirmed(&layout),
        Err(error) if error.may_be_confirmed_later() => {
            let failure = Failure::from(error);
            Check::warning("offsets", failure.cause.to_string(), failure.hint)
        }
        Err(error) => {
            let failure = Failure::from(error);
            Check::problem("offsets", failure.cause.to_string(), failure.hint)
        }
    };
    Ok(check)
}

fn process_facts(process: &Process, executable: String, elf: Option<&Elf>) -> Result<ProcessFacts, Failure> {
    let bias = elf.map(|elf| (elf.entry_vaddr, process.load_bias(elf.entry_vaddr)));
    let (bias_refusal, entry) = match bias {
        Some((entry, Ok(bias))) => (None, entry.checked_add(bias)),
        Some((_, Err(error))) => (Some(error.to_string()), None),
        None => (None, None),
    };
    Ok(ProcessFacts {
        comm: process.comm()?,
        executable,
        namespace_pids: process.namespace_pids()?,
        memory_refusal: entry.and_then(|entry| memory_refusal(process, entry)),
        bias_refusal,
        fds: fds(process).map_err(|error| error.to_string()),
    })
}

/// Reads the first bytes that the program ran.
fn memory_refusal(process: &Process, entry: u64) -> Option<String> {
    let end = entry.checked_add(size_of::<u64>() as u64)?;
    match process.memory().read(entry..end) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("nothing at its entry point {entry:#x}")),
        Err(error) => Some(error.to_string()),
    }
}

fn fds(process: &Process) -> Result<FdFacts, TargetError> {
    let mut facts = FdFacts::default();
    for (fd, refers_to) in process.fds()? {
        match refers_to {
            FdTarget::Socket { .. } => {
                // None: it was closed meanwhile.
                if let Some(blocks) = process.fd_blocks(fd)? {
                    facts.sockets += 1;
                    facts.blocking_sockets += usize::from(blocks);
                }
            }
            FdTarget::AnonInode { kind } if kind == "eventpoll" => facts.epoll_instances += 1,
            _ => {}
        }
    }
    Ok(facts)
}
