//! What is needed of a `runtime.g` or `runtime.m`, in one read: each costs 0.1 µs, whatever its size.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use netpoll_probe_common::limit::RUNTIME_STRUCT_BYTES;

use crate::{config::config, read, scratch::ThisCpu};

/// `runtime.g.stack.hi` (`runtime/runtime2.go`: `stack` is the first field of `g`, in every version).
pub const STACK_HI: u64 = 8;

/// A goroutine, as it stands in memory at one moment. Read by programs that are not preempted only: it passes through this CPU's scratch.
pub struct Goroutine {
    /// Its id.
    pub goid: u64,
    /// Where its pprof labels are; 0: it has none.
    pub labels: u64,
    /// One past its stack's highest address.
    pub stack_hi: u64,
}

impl Goroutine {
    /// Its memory is gone for a moment: the end of the wait asks once more. A stack may be as long as it likes.
    pub const UNREADABLE: Self = Self { goid: 0, labels: 0, stack_hi: u64::MAX };

    /// Reads it at `g`.
    #[inline(always)]
    pub fn read(g: u64) -> Option<Self> {
        let words = read_words(g, config!(g_labels) + 8)?;
        Some(Self {
            goid: word(words, config!(g_goid)),
            labels: word(words, config!(g_labels)),
            stack_hi: word(words, STACK_HI),
        })
    }
}

/// The id of a goroutine; `None`: it cannot be read.
#[inline(always)]
pub fn id_of(g: u64) -> Option<u64> {
    read::user(g + config!(g_goid))
}

/// Whether the goroutine of this id, whose `runtime.g` this was, stands in a run queue, and was parked in the netpoller last. One that is new
/// has no reason (`gdestroy`), whatever used the same `g` before.
#[inline(always)]
pub fn was_woken(g: u64, goid: u64) -> bool {
    /// `_Grunnable` and, beside it, `_Gscan`, `runtime/runtime2.go`; the same in every version.
    const RUNNABLE: u32 = 1;
    const SCAN: u32 = 0x1000;
    /// `waitReasonIOWait`, `runtime/runtime2.go`; likewise.
    const IO_WAIT: u8 = 2;
    read::user::<u32>(g + config!(g_atomic_status)).is_some_and(|status| status & !SCAN == RUNNABLE)
        && read::user::<u8>(g + config!(g_wait_reason)) == Some(IO_WAIT)
        && id_of(g) == Some(goid)
}

/// The P that a thread's M holds, 0: none; `None`: not known, or `g` is not that M's `g0`. Read by programs that are not preempted only.
#[inline(always)]
pub fn p_of_scheduler(g: u64) -> Option<u64> {
    let m = read::user::<u64>(g + config!(g_m))?;
    let words = read_words(m, config!(m_p) + 8)?;
    (word(words, config!(m_g0)) == g).then(|| word(words, config!(m_p)))
}

/// The first bytes of a struct, in the scratch.
#[inline(always)]
fn read_words(address: u64, bytes: u64) -> Option<*const u64> {
    let scratch = ThisCpu::runtime_struct()?;
    // The mask changes nothing: user space has checked it. It shows the verifier a bound.
    let bytes = bytes as u32 & (2 * RUNTIME_STRUCT_BYTES as u32 - 1);
    // SAFETY: the scratch has twice the room; the helper checks the address.
    let failed = unsafe { bpf_probe_read_user(scratch.cast::<c_void>(), bytes, address as *const _) };
    (failed == 0).then_some(scratch.cast_const())
}

/// The word at `offset` of what was read.
#[inline(always)]
fn word(words: *const u64, offset: u64) -> u64 {
    let offset = offset as usize & (RUNTIME_STRUCT_BYTES - 8);
    // SAFETY: a multiple of 8 inside the scratch.
    unsafe { words.byte_add(offset).read() }
}
