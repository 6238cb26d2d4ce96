//! How often eBPF programs ran, as the kernel says of each that a process holds (`/proc/PID/fdinfo`: `bpf_prog_show_fdinfo`,
//! `bpf_link_show_fdinfo`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Runs of programs. The kernel counts them only while it times them (`--stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Runs {
    /// How many.
    pub(super) count: u64,
    /// How long they took, ns, the kernel's reading of its clock included.
    pub(super) ns: u64,
    /// Of them, those by a uprobe: a trap each. `None`: the kernel does not say which they are.
    pub(super) uprobes: Option<u64>,
    /// Events for which none ran, as one ran there already.
    pub(super) missed: u64,
}

impl Runs {
    /// Those since an earlier reading.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            count: self.count.saturating_sub(before.count),
            ns: self.ns.saturating_sub(before.ns),
            uprobes: self.uprobes.zip(before.uprobes).map(|(now, before)| now.saturating_sub(before)),
            missed: self.missed.saturating_sub(before.missed),
        }
    }
}

/// What a process holds of eBPF.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// By a program's id.
    programs: BTreeMap<u64, Runs>,
    /// The programs that uprobes run.
    by_uprobe: BTreeSet<u64>,
    /// There are perf events of which it is not said what they are.
    has_untold: bool,
    /// The tracepoints that programs are on, without their group.
    pub(super) tracepoints: BTreeSet<String>,
}

impl Hooks {
    /// Those of a process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/fdinfo");
        let mut hooks = Self::default();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
            // One that was closed meanwhile is none.
            if let Ok(text) = fs::read_to_string(entry?.path()) {
                hooks.add(&text);
            }
        }
        Ok(hooks)
    }

    /// Adds a file, if it is a program or a link.
    fn add(&mut self, text: &str) {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
        let Some(program) = number("prog_id") else { return };
        let Some(link) = field("link_type") else {
            let count = number("run_cnt").unwrap_or(0);
            let ns = number("run_time_ns").unwrap_or(0);
            let missed = number("recursion_misses").unwrap_or(0);
            // A program may be held by several files.
            self.programs.insert(program, Runs { count, ns, uprobes: None, missed });
            return;
        };
        let event = field("event_type");
        if link == "uprobe_multi" || event == Some("uprobe") {
            self.by_uprobe.insert(program);
        }
        self.has_untold |= link == "perf" && event.is_none();
        self.tracepoints.extend(field("tp_name").map(str::to_owned));
    }

    /// Of all programs.
    pub(super) fn runs(&self) -> Runs {
        let sum = |value: fn(&Runs) -> u64| self.programs.values().map(value).sum();
        let by_uprobe = self.by_uprobe.iter().filter_map(|id| self.programs.get(id));
        let uprobes = by_uprobe.map(|runs| runs.count).sum();
        Runs {
            count: sum(|runs| runs.count),
            ns: sum(|runs| runs.ns),
            uprobes: (!self.has_untold).then_some(uprobes),
            missed: sum(|runs| runs.missed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Linux 6.18.
    const FILES: [&str; 5] = [
        "pos:\t0\nflags:\t02\nprog_type:\t2\nprog_id:\t15\nrun_time_ns:\t900\nrun_cnt:\t3\nrecursion_misses:\t1\n",
        "pos:\t0\nflags:\t02\nprog_type:\t26\nprog_id:\t16\nrun_time_ns:\t100\nrun_cnt:\t5\nrecursion_misses:\t0\n",
        "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t7\nprog_id:\t16\ntp_name:\tsys_exit\ncookie:\t0\n",
        "pos:\t0\nlink_type:\tperf\nlink_id:\t8\nprog_id:\t15\nname:\t/proc/1/exe\nevent_type:\tuprobe\ncookie:\t0\n",
        "pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t12\nmap_type:\t2\nmap_id:\t3\n",
    ];

    #[test]
    fn programs_are_added_up_once() {
        let mut hooks = Hooks::default();
        for file in FILES.iter().chain(&FILES) {
            hooks.add(file);
        }
        assert_eq!(hooks.runs(), Runs { count: 8, ns: 1_000, uprobes: Some(3), missed: 1 });
        assert_eq!(hooks.tracepoints, BTreeSet::from(["sys_exit".to_owned()]));
        // Of Linux 6.1.
        hooks.add("pos:\t0\nlink_type:\tperf\nlink_id:\t8\nprog_id:\t15\n");
        assert_eq!(hooks.runs().uprobes, None);
    }

    #[test]
    fn runs_are_those_since() {
        let runs = |count, ns| Runs { count, ns, uprobes: Some(count), missed: 0 };
        assert_eq!(runs(8, 1_000).since(runs(3, 400)), runs(5, 600));
    }
}
