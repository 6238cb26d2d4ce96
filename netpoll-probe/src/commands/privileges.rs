//! The privileges of this process: which it needs, and giving up the others once it is attached.

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

use crate::bpf::session::SessionError;

/// What attaching and recording need (capabilities(7)): the capability, its name, and what for.
const NEEDED: [(CapabilitySet, &str); 4] = [
    // To load programs.
    (CapabilitySet::BPF, "CAP_BPF"),
    // To let them read memory, and to attach them.
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    // To look at another user's process.
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    // To read another user's `/proc/PID`.
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
];

/// What uprobes of perf need besides, from Linux 6.16 on and where older ones got that change (CVE-2025-38466, "perf: Revert to requiring
/// CAP_SYS_ADMIN for uprobes": `perf_uprobe_event_init`, `kernel/events/core.c`; they can be placed inside an instruction).
const FOR_UPROBES: (CapabilitySet, &str) = (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN");

/// The privileges that this recording turned out to need.
#[derive(Debug, Default)]
pub(super) struct Privileges {
    uprobes_need_more: bool,
}

impl Privileges {
    /// Places probes with the least privileges that the kernel allows it with.
    ///
    /// # Errors
    /// As `place`.
    pub(super) fn place<T>(
        &mut self,
        mut place: impl FnMut() -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let all = capabilities(None).ok();
        let less = all
            .filter(|_| !self.uprobes_need_more)
            .map(|all| CapabilitySets { effective: all.effective - FOR_UPROBES.0, ..all });
        let (Some(all), Some(less)) = (all, less) else { return place() };
        if set_capabilities(None, less).is_err() {
            return place();
        }
        let placed = place();
        // What is in the permitted set can always be taken back.
        let _ = set_capabilities(None, all);
        match placed {
            Err(error) if matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) => {
                self.uprobes_need_more = true;
                place()
            }
            placed => placed,
        }
    }

    /// Gives up what is not needed for going on: for reading the process, for a process that joins, for one that runs another
    /// program.
    pub(super) fn drop_others(&self) {
        let kept = self.kept();
        let Ok(now) = capabilities(None) else { return };
        if now.effective.contains(CapabilitySet::SETPCAP) {
            for capability in CapabilitySet::all() - kept {
                // It may not exist in this kernel.
                let _ = remove_capability_from_bounding_set(capability);
            }
        }
        let less = CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        };
        // To have fewer is always allowed, and so is this promise.
        let _ = set_capabilities(None, less);
        let _ = set_no_new_privs(true);
    }

    fn kept(&self) -> CapabilitySet {
        let needed = NEEDED.iter().fold(CapabilitySet::empty(), |all, (capability, _)| all | *capability);
        if self.uprobes_need_more { needed | FOR_UPROBES.0 } else { needed }
    }
}

/// The capabilities that attaching needs, or may need, and this process does not have, by their names.
pub(super) fn missing() -> Vec<&'static str> {
    let Ok(CapabilitySets { effective, .. }) = capabilities(None) else { return Vec::new() };
    let is_missing = |(capability, _): &&(CapabilitySet, &str)| !effective.contains(*capability);
    NEEDED.iter().chain([&FOR_UPROBES]).filter(is_missing).map(|(_, name)| *name).collect()
}
