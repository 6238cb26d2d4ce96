//! A target runs another program.

use netpoll_probe_common::{
    counter::Counter,
    record::{ExecRecord, kind},
};

use crate::{
    emit, maps, now,
    target::{self, Target},
};

/// The current process has replaced its program. It is a thread group of one thread now, whose id was `old_pid` before.
#[inline(always)]
pub fn exec(old_pid: i32) {
    let Some(target) = target::current() else { return };
    let at_ns = now();
    forget_eventpoll(target);
    let header = emit::header::<ExecRecord>(kind::EXEC, target::tgid());
    let by_first_thread = u64::from(old_pid as u32 == target::tgid());
    emit::record_now(ExecRecord { header, at_ns, by_first_thread }, Counter::RingFullExec);
}

/// The new program makes a netpoller of its own.
#[inline(always)]
fn forget_eventpoll(target: Target) {
    let Some(known) = maps::EVENTPOLL.get_ptr_mut(target.index) else { return };
    // SAFETY: a map value; the process has one thread now.
    unsafe {
        if *known != 0 {
            let _ = maps::EVENTPOLLS.remove(&*known);
            *known = 0;
        }
    }
}
