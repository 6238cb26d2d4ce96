//! Which waits are followed ([`netpoll_probe_common::sampling`]).

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use netpoll_probe_common::{
    counter::Counter,
    sampling::{SLOW_AFTER_NS, Sampling},
    slot::WaitSlot,
};

use crate::{emit, maps, now};

/// How many waits the one that begins now stands for; 0: it is not followed. `wait` is what is remembered of the last one there.
#[inline(always)]
pub fn choose(wait: &WaitSlot) -> u32 {
    let Some(sampling) = current() else { return 1 };
    if sampling.busy_one_in <= 1 {
        return 1;
    }
    let is_slow = now() > wait.last_poll_ns + SLOW_AFTER_NS;
    let one_in = if is_slow { sampling.slow_one_in } else { sampling.busy_one_in };
    // SAFETY: the helper has no preconditions.
    if unsafe { bpf_get_prandom_u32() } as u32 & one_in.wrapping_sub(1) == 0 {
        return one_in;
    }
    emit::count(Counter::NotFollowed);
    0
}

/// Counts what should not be, unless the wait may be one that was not followed: a start, an end, or a wait that is not known.
#[inline(always)]
pub fn count_unless_sampled(counter: Counter) {
    // Once there were such waits they may be in the air for as long as they like.
    if current().is_none_or(|sampling| sampling.busy_one_in == 0) {
        emit::count(counter);
    }
}

#[inline(always)]
fn current() -> Option<&'static Sampling> {
    // SAFETY: a map value; user space writes it in one piece, and of two versions either will do.
    maps::SAMPLING.get_ptr(0).map(|sampling| unsafe { &*sampling })
}
