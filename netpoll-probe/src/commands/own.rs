//! This process: its clock, its CPU time, its memory.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, ns: the clock of `bpf_ktime_get_ns` and of Go's `nanotime`.
pub(super) fn now_ns() -> u64 {
    ns_of(ClockId::Monotonic).unwrap_or(0)
}

/// The CPU time of this process so far.
pub(super) fn cpu_ns() -> Option<u64> {
    ns_of(ClockId::ProcessCPUTime)
}

fn ns_of(clock: ClockId) -> Option<u64> {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.tv_nsec).ok()?)
}

/// `VmHWM` of proc(5).
pub(super) fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
