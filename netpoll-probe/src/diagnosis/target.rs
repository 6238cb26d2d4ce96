//! A running process: what was read of it → checks, and what the hook plan needs to know of it.

use super::offsets;
use crate::{
    bpf::plan::{Choice, Plan, Site, TargetFacts},
    goruntime::layout::Layout,
    model::{
        checkup::{Check, Cost, Plan as PlanFindings, PlanClock},
        inspection::{Finding, Inspection, Site as SiteFinding},
    },
};

/// What was read of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its name as the kernel has it.
    pub comm: String,
    /// Its executable's path.
    pub executable: String,
    /// Its pid in each PID namespace that it is in, the outermost first.
    pub namespace_pids: Vec<u32>,
    /// Why its memory cannot be read.
    pub memory_refusal: Option<String>,
    /// Why its executable is not where its entry point says.
    pub bias_refusal: Option<String>,
    /// Why its fds cannot be listed; how many there are of each kind.
    pub fds: Result<FdFacts, String>,
}

/// A process's fds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdFacts {
    /// Sockets.
    pub sockets: usize,
    /// Of these, without `O_NONBLOCK`.
    pub blocking_sockets: usize,
    /// epoll instances.
    pub epoll_instances: usize,
}

/// The checks of a process that runs the inspected executable.
#[must_use]
pub fn checks(process: &ProcessFacts, inspection: &Inspection) -> Vec<Check> {
    let mut checks = vec![Check::good("process", format!("{}, {}", process.comm, process.executable))];
    if process.namespace_pids.len() > 1 {
        let pids: Vec<String> = process.namespace_pids.iter().map(ToString::to_string).collect();
        checks.push(Check::good(
            "PID namespace",
            format!("one of its own; its pids from here inwards: {}", pids.join(", ")),
        ));
    }
    checks.push(executable(inspection));
    if !inspection.attach.works {
        return checks;
    }
    checks.push(mapped(process));
    checks.push(memory(process));
    checks.extend(inspection.limits.iter().map(|limit| {
        Check::warning("limit", limit.as_str(), format!("netpoll-probe inspect {}", process.executable))
    }));
    checks.extend(fds(process));
    checks
}

fn executable(inspection: &Inspection) -> Check {
    let name = "executable";
    let version = inspection.build.go_version.as_deref().unwrap_or("Go of an unknown version");
    match (&inspection.attach.reason, &inspection.attach.hint) {
        (None, _) => Check::good(name, format!("{version}; attach works on it")),
        (Some(reason), hint) => Check::problem(
            name,
            reason.as_str(),
            hint.clone().unwrap_or_else(|| "attach to another process".to_owned()),
        ),
    }
}

/// That the process's memory confirmed offsets that nothing else tells.
#[must_use]
pub fn confirmed(layout: &Layout) -> Check {
    Check::good("offsets", offsets::describe(layout).source)
}

fn mapped(process: &ProcessFacts) -> Check {
    let name = "load address";
    match &process.bias_refusal {
        None => Check::good(name, "found"),
        Some(reason) => Check::problem(
            name,
            reason.as_str(),
            "start the program directly, not by a loader or an emulator",
        ),
    }
}

fn memory(process: &ProcessFacts) -> Check {
    let name = "memory";
    match &process.memory_refusal {
        None => Check::good(name, "readable"),
        Some(reason) => Check::warning(
            name,
            format!("not readable, so waits that are open when the recording begins are not found: {reason}"),
            "sudo sysctl kernel.yama.ptrace_scope=1, or run it as root",
        ),
    }
}

fn fds(process: &ProcessFacts) -> Vec<Check> {
    let facts = match &process.fds {
        Ok(facts) => facts,
        Err(reason) => {
            return vec![Check::warning("fds", format!("not readable: {reason}"), "run it as root")];
        }
    };
    let mut checks = Vec::new();
    let nonblocking = facts.sockets - facts.blocking_sockets.min(facts.sockets);
    if facts.epoll_instances == 0 {
        checks.push(Check::warning(
            "netpoller",
            "not used yet: the process has no epoll instance, so there is no wait to see",
            "nothing to mend: what it waits for once it uses the network is recorded",
        ));
    } else {
        checks.push(Check::good(
            "netpoller",
            format!("in use; {nonblocking} of {} sockets non-blocking", facts.sockets),
        ));
    }
    if facts.blocking_sockets > 0 {
        checks.push(Check::warning(
            "blocking sockets",
            format!(
                "{} of {} sockets block a thread (net.Conn.File, package syscall, C code): waits on them are not seen",
                facts.blocking_sockets, facts.sockets
            ),
            "in the program: avoid File().Fd() on connections, or set them non-blocking again",
        ));
    }
    if facts.epoll_instances > 1 {
        checks.push(Check::warning(
            "epoll instances",
            format!(
                "{}: Go's own is one, waits in the others (gnet, nbio, C libraries) are not seen",
                facts.epoll_instances
            ),
            "nothing to type: the library does its own polling",
        ));
    }
    checks
}

/// What the hook plan needs to know of an executable that attach works on; `None` when it does not.
#[must_use]
pub fn facts_for_plan(inspection: &Inspection) -> Option<TargetFacts> {
    let site = |site: &SiteFinding| match &site.instruction {
        Finding::Found(found) => Ok(Site {
            name: format!("{}+{}", found.function, found.offset),
            file_offset: found.file_offset,
            instruction: found.text.clone(),
        }),
        Finding::Not(reason) => Err(reason.clone()),
    };
    let [start, end, broken_off, netpollblock, netpollready, resolver @ ..] = inspection.sites.as_slice()
    else {
        return None;
    };
    inspection.attach.works.then_some(())?;
    Some(TargetFacts {
        wait_start: site(start).ok()?,
        wait_end: site(end).ok()?,
        broken_off: site(broken_off),
        netpollblock: site(netpollblock),
        netpollready: site(netpollready),
        resolver: resolver
            .chunks_exact(2)
            .filter_map(|call| Some((site(call.first()?).ok()?, site(call.last()?).ok()?)))
            .collect(),
    })
}

/// A plan as findings.
#[must_use]
pub fn describe_plan(plan: &Plan) -> PlanFindings {
    let clock = |choice: &Choice| PlanClock {
        clock: choice.clock.name().to_owned(),
        hooks: choice.hooks.iter().map(ToString::to_string).collect(),
        why: choice.why.clone(),
        lost: choice.lost.clone(),
        cost: Cost {
            least_ns: choice.cost.least_ns,
            most_ns: choice.cost.most_ns,
            per: choice.cost.per,
            machine_wide: choice.cost.machine_wide,
        },
    };
    PlanFindings {
        name: plan.name.to_owned(),
        why: plan.why.clone(),
        clocks: plan.choices.iter().map(clock).collect(),
    }
}
