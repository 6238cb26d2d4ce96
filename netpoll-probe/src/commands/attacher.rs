//! Attaching to one more executable: facts of the kernel and the executable → plan → loaded programs.

use std::{
    rc::Rc,
    thread::{self, JoinHandle},
};

use super::{
    attached::Attached,
    go_program::{GoProgram, Identity},
    tell,
};
use crate::{
    bpf::{
        cells,
        kernel_btf::{BtfError, KernelBtf},
        loader::Room,
        offsets,
        plan::{self, Hooks, Plan, ReadyHooks},
        session::Session,
        support::{self, KernelFacts},
        wait_buffers,
    },
    cli::record::{HooksArg, ReadyArg, RecordArgs},
    error::Failure,
    target::process::fd_table_size,
};

/// What `-v` counts to.
const PLAN: u8 = 1;
const LOG: u8 = 2;

/// Attaches as the command line asks.
#[derive(Debug)]
pub(super) struct Attacher {
    hooks: Hooks,
    ready_hooks: ReadyHooks,
    verbose: u8,
    /// How many cells there are for waits that are added up in the kernel; 0: none is.
    cells: u32,
    /// Whether waits may be left out to save time.
    may_leave_out: bool,
    /// The thread group, when there will never be another: the programs then compare with a constant.
    only: Option<u32>,
    /// What the kernel allows, while it is needed often.
    kernel: Option<Kernel>,
    /// The same, which is found out while the first executable is read.
    coming: Option<JoinHandle<Result<Kernel, BtfError>>>,
}

/// The kernel's types, and what it allows.
type Kernel = (KernelBtf, KernelFacts);

fn find_out() -> Result<Kernel, BtfError> {
    let btf = KernelBtf::of_running_kernel()?;
    let facts = support::find_out(&btf);
    Ok((btf, facts))
}

impl Attacher {
    /// For these arguments. `only_pid`: the one process, when there will never be another. Begins to find out what the
    /// kernel allows. `may_add_up`: waits may be added up in the kernel.
    pub(super) fn new(args: &RecordArgs, only_pid: Option<u32>, may_add_up: bool) -> Self {
        Self {
            hooks: match args.hooks {
                HooksArg::Auto => Hooks::Auto,
                HooksArg::Pollwait => Hooks::Pollwait,
                HooksArg::Syscalls => Hooks::Syscalls,
                HooksArg::Runtime => Hooks::Runtime,
            },
            ready_hooks: match args.kernel_ready {
                ReadyArg::Auto => ReadyHooks::Auto,
                ReadyArg::Fentry => ReadyHooks::Fentry,
                ReadyArg::Kprobe => ReadyHooks::Kprobe,
                ReadyArg::Tracepoints => ReadyHooks::Tracepoints,
            },
            verbose: args.verbose,
            cells: if may_add_up { cells::room() } else { 0 },
            may_leave_out: args.max_overhead.is_some(),
            only: only_pid.filter(|_| support::in_initial_pid_namespace()),
            kernel: None,
            // Where no thread can be had, it is found out when it is needed.
            coming: thread::Builder::new().name("kernel".to_owned()).spawn(find_out).ok(),
        }
    }

    /// Whether the runtime's own functions will be hooked.
    pub(super) fn wants_runtime_hooks(&self) -> bool {
        self.hooks == Hooks::Runtime
    }

    /// Whether the programs log what they see.
    pub(super) fn logs(&self) -> bool {
        self.verbose >= LOG
    }

    /// Loads the programs for an executable. None of its processes is attached to yet.
    pub(super) fn attach(&mut self, program: Rc<GoProgram>, identity: Identity) -> Result<Attached, Failure> {
        let coming = self.coming.take().and_then(|coming| coming.join().ok());
        let (btf, facts) = match (self.kernel.take(), coming) {
            (Some(known), _) => known,
            (None, Some(found)) => found?,
            (None, None) => find_out()?,
        };
        let plan = plan::make(self.hooks, self.ready_hooks, &facts, program.facts())?;
        if self.verbose >= PLAN {
            tell_plan(&program, &plan);
        }
        let mut config = program.config();
        offsets::of_kernel(&btf, &mut config)?;
        config.tgid = self.only.unwrap_or(0);
        config.pid_namespace = support::own_pid_namespace().unwrap_or(support::INITIAL_PID_NAMESPACE);
        config.stand_ins = u32::from(plan.has_stand_ins());
        config.follow_syscalls = u32::from(plan.follows_syscalls());
        config.wait_buffer_records = if plan.follows_syscalls() { wait_buffers::records() } else { 0 };
        config.may_add_up = u32::from(self.cells > 0);
        config.may_leave_out = u32::from(self.may_leave_out);
        let fds = self.only.map_or(0, fd_table_size);
        let room = Room { cells: self.cells, fds, log: self.logs() };
        let session = Session::load(&config, &plan, &btf, &room)?;
        self.kernel = Some((btf, facts));
        Attached::new(identity, program, plan, session, self.cells)
    }

    /// Gives back the memory that is needed for attaching only.
    pub(super) fn rest(&mut self) {
        self.kernel = None;
        self.coming = None;
    }
}

fn tell_plan(program: &GoProgram, plan: &Plan) {
    tell(&format!("{}: plan {}: {}", program.binary.name(), plan.name, plan.why));
    for choice in &plan.choices {
        let hooks: Vec<String> = choice.hooks.iter().map(ToString::to_string).collect();
        tell(&format!("  {}: {} ({})", choice.clock.name(), hooks.join(", "), choice.why));
    }
}
