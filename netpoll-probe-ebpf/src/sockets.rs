//! From a `struct sock` to the slot of whoever waits on it, for the socket tracepoints. They run for every socket of the machine, so what is
//! none of the target's is told by one load.

use core::{arch::asm, ffi::c_void};

use netpoll_probe_common::slot::{SocketEntry, socket_entry};

use crate::{hint::seldom, maps};

/// The lower half of an address, as a number. By assembler: to the verifier the result of a subtraction of 32 bits is one, of whatever it is
/// (`kernel/bpf/verifier.c`, `adjust_ptr_min_max_vals`); no other arithmetic with a typed pointer is allowed.
#[inline(always)]
fn lower_half(sk: *const c_void) -> u64 {
    let half: u64;
    // SAFETY: it changes this register and nothing else.
    unsafe {
        asm!("w0 -= 0", inlateout("r0") sk as u64 => half, options(pure, nomem, nostack));
    }
    half
}

/// The key of the slot that was last waited on with this socket, or with one that had its address.
#[inline(always)]
pub fn find(sk: *const c_void) -> Option<u64> {
    let entry = maps::SOCKETS.get_ptr(socket_entry(lower_half(sk)))?;
    let sk = sk as u64;
    // SAFETY: a map value. Another CPU may write it: whose key this is the slot tells.
    let SocketEntry { sk: owner, key } = unsafe { *entry };
    if owner == sk {
        return Some(key);
    }
    if owner == 0 {
        return None;
    }
    seldom();
    // SAFETY: the value is copied at once.
    unsafe { maps::CROWDED_SOCKETS.get(&sk) }.copied()
}

/// Lets it be found.
#[inline(always)]
pub fn index(sk: u64, key: u64) {
    let Some(entry) = maps::SOCKETS.get_ptr_mut(socket_entry(sk)) else { return };
    // SAFETY: a map value. Of two CPUs that write at once one socket may be lost: its next wait finds that, and indexes it again.
    let SocketEntry { sk: owner, key: of } = unsafe { *entry };
    if owner == sk && of == key {
        return;
    }
    seldom();
    if owner != sk && owner != 0 {
        // Who was here may still be waited on.
        let _ = maps::CROWDED_SOCKETS.insert(&owner, &of, 0);
    }
    // SAFETY: as above.
    unsafe { *entry = SocketEntry { sk, key } };
}
