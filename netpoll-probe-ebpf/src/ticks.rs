//! Whether a goroutine ran on, as the ticks of its P tell: `schedtick` counts the goroutines that the P turned to, `syscalltick` its system
//! calls (`runtime/runtime2.go`, `p`).

use netpoll_probe_common::{record::flag, slot::WaitSlot};

use crate::{config::config, read};

/// From `m.p` to `m.oldp` (`runtime/runtime2.go`): `p`, `nextp` and `oldp` follow each other, in every version.
const OLD_P: u64 = 16;

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

/// Whether the goroutine of a wait, which is in a system call, is still on the P that it ran on at [`ran_then`], and that P has turned to no
/// other since, nor to it again (`schedtick` is unchanged). On another P it was off this one, which may have been idle since: it parked,
/// or, seldom, lost its P in a system call or was preempted.
#[inline(always)]
pub fn has_run_on(wait: &WaitSlot) -> bool {
    let is_same_p = in_syscall(wait.g).is_none_or(|p| p == wait.last_p);
    is_same_p && read::user::<u32>(wait.last_p + config!(p_schedtick)) == Some(wait.last_ticks as u32)
}

/// The P that a goroutine entered its system call on: `m.oldp`, or `m.p` where the runtime was told of no system call.
#[inline(always)]
fn in_syscall(g: u64) -> Option<u64> {
    let m: u64 = read::user(g + config!(g_m))?;
    let entered_on: u64 = read::user(m + config!(m_p) + OLD_P)?;
    let p = if entered_on == 0 { read::user(m + config!(m_p))? } else { entered_on };
    (p != 0).then_some(p)
}
