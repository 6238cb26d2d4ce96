//! Which waits are followed ([`netpoll_probe_common::sampling`]).

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use netpoll_probe_common::{counter::Counter, sampling::Sampling};

use crate::{config::config, emit, hint::seldom, maps};

/// How many waits the one that begins now stands for, where some may be left out; 0: it is not followed. `is_slow`: its fd is.
#[inline(always)]
pub fn choose(is_slow: bool) -> u32 {
    let one_in = current().map_or(1, |sampling| sampling.busy_one_in);
    if one_in <= 1 || is_slow {
        return 1;
    }
    seldom();
    // SAFETY: the helper has no preconditions.
    if unsafe { bpf_get_prandom_u32() } as u32 & one_in.wrapping_sub(1) == 0 { one_in } else { 0 }
}

/// Counts what should not be, unless the wait may be one that was not followed: a start, an end, or a wait that is not known.
#[inline(always)]
pub fn count_unless_sampled(counter: Counter) {
    // Once there were such waits they may be in the air for as long as they like.
    if config!(may_leave_out) == 0 || current().is_none_or(|sampling| sampling.busy_one_in == 0) {
        emit::count(counter);
    }
}

/// Whether waits are added up now, where they may be.
#[inline(always)]
pub fn adds_up() -> bool {
    current().is_some_and(|sampling| sampling.adds_up != 0)
}

#[inline(always)]
fn current() -> Option<&'static Sampling> {
    // SAFETY: a map value; user space writes it in one piece, and of two versions either will do.
    maps::SAMPLING.get_ptr(0).map(|sampling| unsafe { &*sampling })
}
