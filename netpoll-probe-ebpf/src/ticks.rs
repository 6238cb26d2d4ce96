//! Whether a goroutine ran on, as the ticks of its P tell: `schedtick` counts the goroutines that the P turned to, `syscalltick` its system
//! calls (`runtime/runtime2.go`, `p`).

use netpoll_probe_common::{record::flag, slot::WaitSlot};

use crate::{config::config, read};

/// A running goroutine's P, with that P's `schedtick` (low half) and `syscalltick` (high half).
#[inline(always)]
pub fn of(g: u64) -> Option<(u64, u64)> {
    let m: u64 = read::user(g + config!(g_m))?;
    let p: u64 = read::user(m + config!(m_p))?;
    if p == 0 {
        return None;
    }
    Some((p, read::user(p + config!(p_schedtick))?))
}

/// Remembers that the goroutine runs at this moment of its wait; [`has_run_on`] tells later whether it parked at all. Returns false when it
/// is not known where it runs: in a system call it has no P.
#[inline(always)]
pub fn ran_then(wait: &mut WaitSlot) -> bool {
    let Some((p, ticks)) = of(wait.g) else { return false };
    wait.last_p = p;
    wait.last_ticks = ticks;
    wait.flags |= flag::RAN_THEN;
    true
}

/// Whether the P that the goroutine ran on at [`ran_then`] has turned to no other since, nor to it again (`schedtick` is unchanged).
#[inline(always)]
pub fn has_run_on(wait: &WaitSlot) -> bool {
    read::user::<u32>(wait.last_p + config!(p_schedtick)) == Some(wait.last_ticks as u32)
}
