//! What is known of the target's fds without a lookup: whether a wait that is followed is open on one, and when one was last waited on.
//!
//! Most system calls on an fd neither begin nor end a wait: a server's writes, and, where not every wait is followed, most of its reads. They
//! are told by one load. Only the goroutine that reads or writes an fd changes its state, and Go lets one at a time do that
//! (`internal/poll/fd_mutex.go`).

use core::hint::black_box;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use netpoll_probe_common::{limit::FD_STATES, sampling::SLOW_AFTER_NS};

use crate::{config::config, maps};

/// Nobody is in a wait that is followed. The rest of a state is the time of the last EAGAIN, in ticks of the kernel; all zero: unknown.
const NOBODY: u32 = 1;

/// The state of one direction of an fd.
pub struct FdState(*mut u32);

impl FdState {
    /// Of an fd in a direction; `None`: it is not kept for this one, or for several targets.
    #[inline(always)]
    pub fn of(fd: i32, mode: u64) -> Option<Self> {
        if config!(tgid) == 0 || fd as u32 as usize >= FD_STATES / 2 {
            return None;
        }
        let states = maps::FD_STATES.get_ptr_mut(0)?;
        // The mask changes nothing; it shows the verifier a bound. Opaque, or the compiler sees that.
        let at = black_box(fd as usize * 2 + (mode & 1) as usize) & (FD_STATES - 1);
        // SAFETY: inside the value.
        Some(Self(unsafe { states.cast::<u32>().add(at) }))
    }

    /// Whether nobody is in a wait that is followed, for sure.
    #[inline(always)]
    pub fn has_nobody(&self) -> bool {
        self.read() & NOBODY != 0
    }

    /// Whether it was last waited on a while ago, or is not known to have been.
    #[inline(always)]
    pub fn is_slow(&self) -> bool {
        let slow_after = (SLOW_AFTER_NS / config!(tick_ns).max(1)) as u32 + 1;
        ticks().wrapping_sub(self.read() >> 1) & (u32::MAX >> 1) > slow_after
    }

    /// A wait begins; `followed` or not.
    #[inline(always)]
    pub fn begins(&self, followed: bool) {
        self.write(ticks() << 1 | if followed { 0 } else { NOBODY });
    }

    /// No wait is open any longer.
    #[inline(always)]
    pub fn ends(&self) {
        self.write(self.read() | NOBODY);
    }

    #[inline(always)]
    fn read(&self) -> u32 {
        // SAFETY: see `of`.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn write(&self, state: u32) {
        // SAFETY: see `of`.
        unsafe { self.0.write_volatile(state) };
    }
}

#[inline(always)]
fn ticks() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}
