//! Per-CPU memory for what is too large for the stack, between its reading and its handing over.
//!
//! A uprobe's program can be preempted by another's on the same CPU, which then takes the same scratch. Each writes its
//! name first, and looks whether it still stands there when it is done. Where system calls show the waits, only the program of their
//! tracepoint uses a scratch, which is not preempted.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};

use netpoll_probe_common::limit::{POLL_SCRATCH_BYTES, RUNTIME_STRUCT_BYTES};

use crate::{config::config, maps, stack::Walked};

/// What is read of a process in the way of a wait.
#[repr(C)]
pub struct ThisCpu {
    /// A stack while it is walked and hashed.
    stack: Scratch<Walked>,
    /// A `runtime.g` or `runtime.m` while its fields are taken.
    runtime_struct: [u64; 2 * RUNTIME_STRUCT_BYTES / 8],
    /// The event array of an `epoll_pwait` while it is decoded.
    poll_events: [u32; POLL_SCRATCH_BYTES / 4],
}

impl ThisCpu {
    #[inline(always)]
    fn get() -> Option<*mut Self> {
        maps::SCRATCH.get_ptr_mut(0)
    }

    /// Room for a stack.
    #[inline(always)]
    pub fn stack() -> Option<*mut Scratch<Walked>> {
        // SAFETY: a part of a map value, which nobody looks at here.
        Some(unsafe { &raw mut (*Self::get()?).stack })
    }

    /// Room for twice [`RUNTIME_STRUCT_BYTES`], in words.
    #[inline(always)]
    pub fn runtime_struct() -> Option<*mut u64> {
        // SAFETY: as above.
        Some(unsafe { (&raw mut (*Self::get()?).runtime_struct).cast() })
    }

    /// Room for [`POLL_SCRATCH_BYTES`].
    #[inline(always)]
    pub fn poll_events() -> Option<*mut u32> {
        // SAFETY: as above.
        Some(unsafe { (&raw mut (*Self::get()?).poll_events).cast() })
    }
}

/// A value that belongs to who used it last.
#[repr(C)]
pub struct Scratch<T> {
    user: u64,
    /// What is read, hashed and handed over.
    pub value: T,
}

/// The name of one use of a scratch.
#[derive(Clone, Copy)]
pub struct User(u64);

impl User {
    /// As a number, which a global function can be given.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// From that.
    #[inline(always)]
    pub const fn of(number: u64) -> Self {
        Self(number)
    }
}

impl<T> Scratch<T> {
    /// Takes a scratch. `scratch` is a value of a per-CPU map.
    #[inline(always)]
    pub fn take(scratch: *mut Self) -> User {
        if config!(follow_syscalls) == 1 {
            return User(0);
        }
        // SAFETY: the helper has no preconditions. The time makes the name unique among the users of this CPU's scratch.
        let user = bpf_get_current_pid_tgid() ^ unsafe { bpf_ktime_get_ns() }.rotate_left(32);
        // SAFETY: a value of a map that lives as long as the program.
        unsafe { (&raw mut (*scratch).user).write_volatile(user) };
        User(user)
    }

    /// Whether nobody else took it since, so that what stands in it is whole.
    #[inline(always)]
    pub fn is_still_of(scratch: *mut Self, user: User) -> bool {
        if config!(follow_syscalls) == 1 {
            return true;
        }
        // SAFETY: as above.
        unsafe { (&raw const (*scratch).user).read_volatile() == user.0 }
    }
}

/// Where [`fnv`] begins: for each target elsewhere, because user space keeps what it was told by process.
#[inline(always)]
pub fn basis(target: u32) -> u64 {
    0xcbf2_9ce4_8422_2325 ^ u64::from(target)
}

/// FNV-1a by words: what is hashed here has few distinct values in one program, and 64 bits keep them apart.
#[inline(always)]
pub fn fnv(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    hash ^ hash >> 29
}
