//! Calls of the C library's resolver: they block a thread, and the netpoller does not know of them.

use aya_ebpf::programs::ProbeContext;
use netpoll_probe_common::{
    counter::Counter,
    record::{ResolveRecord, kind},
    slot::slot_key,
};

use crate::{emit, goroutine, maps, now, regs, target};

/// A goroutine enters C.
#[inline(always)]
pub fn start(ctx: &ProbeContext) {
    let Some(target) = target::current() else { return };
    let now_ns = now();
    if maps::RESOLVES.insert(&slot_key(regs::g(ctx), target.index), &now_ns, 0).is_err() {
        emit::count(Counter::ResolvesFull);
    }
}

/// It is back. Without a start, it was there when the probe came.
#[inline(always)]
pub fn end(ctx: &ProbeContext) {
    let Some(target) = target::current() else { return };
    let end_ns = now();
    let g = regs::g(ctx);
    let key = slot_key(g, target.index);
    // SAFETY: the value is copied at once.
    let Some(start_ns) = unsafe { maps::RESOLVES.get(&key) }.copied() else {
        emit::count(Counter::ResolveWithoutStart);
        return;
    };
    let _ = maps::RESOLVES.remove(&key);
    let Some(goid) = goroutine::id_of(g) else {
        emit::count(Counter::ReadTarget);
        return;
    };
    let header = emit::header::<ResolveRecord>(kind::RESOLVE, target::tgid());
    emit::record(ResolveRecord { header, goid, start_ns, end_ns }, Counter::RingFullResolve);
}
