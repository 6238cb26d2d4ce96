//! The processes that a command line selects.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use anyhow::anyhow;

use crate::{
    cli::targets::TargetArgs,
    error::Failure,
    exit::Exit,
    target::{cgroup::Cgroup, process},
};

/// Which processes are wanted.
#[derive(Debug)]
pub(super) struct Selection {
    wanted: Wanted,
    /// Processes that were found and cannot be attached to, with the executables that they ran then: a shell may become a
    /// server.
    refused: HashMap<u32, Option<(u64, u64)>>,
}

#[derive(Debug)]
enum Wanted {
    /// These.
    Pids(Vec<u32>),
    /// Those of this name.
    Comm(String),
    /// Those in this group; if any ids are given, those with one of them in any of their PID namespaces.
    Cgroup { cgroup: Cgroup, inside: Vec<u32> },
}

impl Selection {
    /// What the arguments say.
    ///
    /// # Errors
    /// When a control group or container is not there.
    pub(super) fn of(args: &TargetArgs) -> Result<Self, Failure> {
        let TargetArgs { pid, comm, cgroup, container } = args;
        let cgroup = match (cgroup, container) {
            (Some(path), _) => Some(Cgroup::open(path)?),
            (None, Some(id)) => Some(Cgroup::of_container(id)?),
            (None, None) => None,
        };
        let wanted = match (cgroup, comm) {
            (Some(cgroup), _) => Wanted::Cgroup { cgroup, inside: pid.clone() },
            (None, Some(comm)) => Wanted::Comm(comm.clone()),
            (None, None) => {
                let mut seen = HashSet::new();
                Wanted::Pids(pid.iter().copied().filter(|pid| seen.insert(*pid)).collect())
            }
        };
        Ok(Self { wanted, refused: HashMap::new() })
    }

    /// The process that `run` has started.
    pub(super) fn launched(pid: u32) -> Self {
        Self { wanted: Wanted::Pids(vec![pid]), refused: HashMap::new() }
    }

    /// The one process that is wanted, if there will never be another.
    pub(super) fn only_pid(&self) -> Option<u32> {
        match &self.wanted {
            Wanted::Pids(pids) => match pids.as_slice() {
                [pid] => Some(*pid),
                _ => None,
            },
            Wanted::Comm(_) | Wanted::Cgroup { .. } => None,
        }
    }

    /// Whether each process was asked for by its id, so that none may be missing.
    pub(super) fn names_each(&self) -> bool {
        matches!(self.wanted, Wanted::Pids(_))
    }

    /// Whether processes that come later are wanted too.
    pub(super) fn grows(&self) -> bool {
        matches!(self.wanted, Wanted::Cgroup { .. })
    }

    /// The processes that are there now and not `known`. One that was refused comes again when it runs another executable.
    ///
    /// # Errors
    /// When the control group is gone.
    pub(super) fn find(&mut self, known: &HashSet<u32>) -> Result<Vec<u32>, Failure> {
        let mut pids: Vec<u32> = match &self.wanted {
            Wanted::Pids(pids) => pids.clone(),
            Wanted::Comm(comm) => {
                process::all().filter(|pid| process::comm_of(*pid).as_deref() == Some(comm)).collect()
            }
            // A group that is gone has no processes.
            Wanted::Cgroup { cgroup, inside } => {
                let is_wanted = |pid: &u32| {
                    inside.is_empty()
                        || process::namespace_pids_of(*pid).iter().any(|pid| inside.contains(pid))
                };
                cgroup.processes().unwrap_or_default().into_iter().filter(is_wanted).collect()
            }
        };
        let own_pid = std::process::id();
        pids.retain(|pid| !known.contains(pid) && (self.names_each() || *pid != own_pid));
        self.refused.retain(|pid, _| pids.contains(pid));
        if !self.names_each() {
            pids.retain(|pid| {
                self.refused.get(pid).is_none_or(|executable| *executable != process::executable_of(*pid))
            });
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// This process is not to be tried again, unless it runs another executable.
    pub(super) fn refuse(&mut self, pid: u32) {
        self.refused.insert(pid, process::executable_of(pid));
    }

    /// What is wrong when there is nothing to attach to.
    pub(super) fn nothing_found(&self) -> Failure {
        let refused = self.refused.len();
        let (cause, hint) = match &self.wanted {
            Wanted::Comm(comm) if refused == 0 => (
                anyhow!("no process is named {comm:?}"),
                "list the names: ps -e -o pid,comm (the kernel keeps 15 characters of one)".to_owned(),
            ),
            _ => (
                anyhow!("none of {refused} processes of {self} is a Go program"),
                "see what they are: ps -e -o pid,comm,args".to_owned(),
            ),
        };
        Failure::new(Exit::Target, cause, hint)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Pids(pids) => {
                let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
                write!(f, "pid {}", pids.join(", "))
            }
            Wanted::Comm(comm) => write!(f, "the name {comm}"),
            Wanted::Cgroup { cgroup, .. } => write!(f, "what comes to {}", cgroup.path().display()),
        }
    }
}
