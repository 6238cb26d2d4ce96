//! What the recording costs, measured while it runs.
//!
//! The CPU time of this process is known at any time. That of the eBPF programs is known only where the kernel is asked to measure it, which
//! makes each of their runs some 50 to 100 ns dearer: it is asked for the first moments and for 20 ms in every second, or all the time
//! (`--stats`). It takes CAP_SYS_ADMIN to ask (`bpf_enable_stats`, `kernel/bpf/syscall.c`), which is given up once attached where nothing else needs
//! it; then the first moments are all that is known, and who must stay within a budget measures all the time.

use std::os::fd::OwnedFd;

use super::own::cpu_ns;
use crate::bpf::session::{self, RunTime, SessionError};

/// From one look to the next.
const EVERY_NS: u64 = 1_000_000_000;
/// The first takes this long, from the beginning on: most recordings are short.
const FIRST_NS: u64 = 200_000_000;
/// How long the kernel measures for one look.
const WINDOW_NS: u64 = 20_000_000;
/// Millionths.
const PPM: u64 = 1_000_000;

/// Measures one recording.
#[derive(Debug)]
pub(super) struct Meter {
    /// Holds the kernel to measuring.
    measuring: Option<OwnedFd>,
    /// `--stats`, or there is no other way.
    always: bool,
    /// The cost has to be known.
    must: bool,
    /// What the programs had run when the present look began, and when that was; `None`: there is none.
    window: Option<(u64, RunTime)>,
    /// When it ends, or the next one begins.
    next_ns: u64,
    /// What was known at the end of the last one: when it was, and this process's CPU time.
    last: (u64, Option<u64>),
    /// What the programs ran in the last one, and how long it was.
    last_window: Option<(u64, RunTime)>,
    /// Of the recording until the last look.
    sum: RunTime,
    measured_ns: u64,
}

/// What the eBPF programs cost in the whole recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BpfCost {
    /// What was measured is taken for the whole.
    pub(super) run_time: RunTime,
    /// For how long it was, ns.
    pub(super) measured_ns: u64,
}

impl Meter {
    /// For a recording to come. `always`: the kernel measures all along. `must`: the cost has to be known.
    ///
    /// # Errors
    /// When the kernel refuses to measure, and it was asked for.
    pub(super) fn new(always: bool, must: bool) -> Result<Self, SessionError> {
        let measuring = match session::measure_run_time() {
            Err(error) if always || must => return Err(error),
            measuring => measuring.ok(),
        };
        Ok(Self {
            measuring,
            always,
            must,
            window: None,
            next_ns: u64::MAX,
            last: (0, None),
            last_window: None,
            sum: RunTime::default(),
            measured_ns: 0,
        })
    }

    /// The recording begins.
    pub(super) fn begin(&mut self, now_ns: u64, run_time: RunTime) {
        self.last = (now_ns, cpu_ns());
        self.next_ns = now_ns + FIRST_NS;
        self.window = self.measuring.is_some().then_some((now_ns, run_time));
    }

    /// To be called every few milliseconds; `run_time` asks the programs. Returns what the recording has cost since the last look, in
    /// millionths of one core, when there was one.
    pub(super) fn tick(&mut self, now_ns: u64, run_time: impl FnOnce() -> RunTime) -> Option<u64> {
        if now_ns < self.next_ns {
            return None;
        }
        let Some((since_ns, before)) = self.window else {
            self.measuring = session::measure_run_time().ok();
            self.next_ns = now_ns + if self.measuring.is_some() { WINDOW_NS } else { EVERY_NS };
            self.window = self.measuring.is_some().then(|| (now_ns, run_time()));
            return None;
        };
        let window_ns = now_ns.saturating_sub(since_ns);
        let now = run_time();
        let ran = since(before, now);
        self.next_ns = now_ns + EVERY_NS;
        // What is let go now may not be had again.
        self.always |= self.must && session::measure_run_time().is_err();
        if self.always {
            self.window = Some((now_ns, now));
        } else {
            (self.window, self.measuring) = (None, None);
        }
        Some(self.looked(now_ns, cpu_ns(), (window_ns, ran)))
    }

    /// Adds a look up that ends now.
    fn looked(&mut self, now_ns: u64, cpu_ns: Option<u64>, (window_ns, ran): (u64, RunTime)) -> u64 {
        let (last_ns, last_cpu_ns) = self.last;
        let passed_ns = now_ns.saturating_sub(last_ns).max(1);
        self.sum.merge(scaled(ran, passed_ns, window_ns));
        self.measured_ns += window_ns;
        self.last_window = Some((window_ns, ran));
        self.last = (now_ns, cpu_ns);
        let own_ns = cpu_ns.zip(last_cpu_ns).map_or(0, |(now, before)| now.saturating_sub(before));
        share_ppm(own_ns, passed_ns) + share_ppm(ran.run_time_ns, window_ns)
    }

    /// What the programs cost until `end_ns`; `None`: it was not measured. `run_time` is what they say now.
    pub(super) fn finish(mut self, end_ns: u64, run_time: RunTime) -> Option<BpfCost> {
        let (last_ns, _) = self.last;
        let passed_ns = end_ns.saturating_sub(last_ns);
        if let Some((since_ns, before)) = self.window {
            let window_ns = end_ns.saturating_sub(since_ns);
            self.sum.merge(scaled(since(before, run_time), passed_ns, window_ns));
            self.measured_ns += window_ns;
        } else {
            let (window_ns, ran) = self.last_window?;
            self.sum.merge(scaled(ran, passed_ns, window_ns));
        }
        Some(BpfCost { run_time: self.sum, measured_ns: self.measured_ns })
    }
}

/// What was run between.
fn since(before: RunTime, now: RunTime) -> RunTime {
    RunTime {
        runs: now.runs.saturating_sub(before.runs),
        run_time_ns: now.run_time_ns.saturating_sub(before.run_time_ns),
    }
}

/// What runs like this in `window_ns` come to in `all_ns`.
fn scaled(ran: RunTime, all_ns: u64, window_ns: u64) -> RunTime {
    let scale = |value: u64| {
        let scaled = u128::from(value) * u128::from(all_ns) / u128::from(window_ns.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    RunTime { runs: scale(ran.runs), run_time_ns: scale(ran.run_time_ns) }
}

fn share_ppm(part_ns: u64, all_ns: u64) -> u64 {
    let share = u128::from(part_ns) * u128::from(PPM) / u128::from(all_ns.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn meter() -> Meter {
        Meter {
            measuring: None,
            always: false,
            must: false,
            window: None,
            next_ns: u64::MAX,
            last: (1_000 * MS, Some(70 * MS)),
            last_window: None,
            sum: RunTime::default(),
            measured_ns: 0,
        }
    }

    #[test]
    fn a_look_stands_for_the_time_since_the_last_one() {
        let mut meter = meter();
        let ran = |runs, run_time_ns| RunTime { runs, run_time_ns };
        // 2 ms of CPU in 200 ms, and 1 ms of programs in a window of 20.
        assert_eq!(meter.looked(1_200 * MS, Some(72 * MS), (20 * MS, ran(100, MS))), 10_000 + 50_000);
        assert_eq!(meter.looked(2_200 * MS, Some(72 * MS), (20 * MS, ran(0, 0))), 0);
        assert_eq!(meter.looked(3_200 * MS, Some(172 * MS), (40 * MS, ran(10, 4 * MS))), 100_000 + 100_000);
        let cost = meter.finish(3_700 * MS, RunTime::default());
        // 10 ms, then nothing, then 100 ms and half of it again.
        let run_time = ran(1_000 + 250 + 125, (10 + 100 + 50) * MS);
        assert_eq!(cost, Some(BpfCost { run_time, measured_ns: 80 * MS }));
    }

    #[test]
    fn what_was_never_measured_is_not_known() {
        assert_eq!(meter().finish(9_000 * MS, RunTime::default()), None);
    }

    #[test]
    fn measured_all_the_time_it_is_the_difference() {
        let before = RunTime { runs: 5, run_time_ns: 1_000 };
        let meter = Meter { always: true, window: Some((1_000 * MS, before)), ..meter() };
        let cost = meter.finish(1_500 * MS, RunTime { runs: 25, run_time_ns: 4_000 });
        let run_time = RunTime { runs: 20, run_time_ns: 3_000 };
        assert_eq!(cost, Some(BpfCost { run_time, measured_ns: 500 * MS }));
    }
}
