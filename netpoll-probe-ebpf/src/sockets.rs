//! From a `struct sock` to the slot of whoever waits on it, for the socket tracepoints. They run for every socket of the machine, so what is
//! none of the target's is told by one load.

use core::ffi::c_void;

use netpoll_probe_common::slot::{SocketEntry, socket_entry};

use crate::maps;

/// The address of a socket as a number: the verifier allows no other arithmetic with a typed pointer, so it goes through memory. `None`: an
/// interrupt came in between, with a socket of its own.
#[inline(always)]
pub fn address(sk: *const c_void) -> Option<u64> {
    let place = maps::SOCKET_ADDRESS.get_ptr_mut(0)?;
    // SAFETY: a value of this CPU. Volatile, or the compiler keeps the pointer. Read twice, because it takes what is equal to the pointer for
    // the pointer.
    let (address, again) = unsafe {
        place.write_volatile(sk as u64);
        (place.read_volatile(), place.read_volatile())
    };
    (again == sk as u64).then_some(address)
}

/// The key of the slot that was last waited on with this socket, or with one that had its address.
#[inline(always)]
pub fn find(sk: u64) -> Option<u64> {
    let entry = maps::SOCKETS.get_ptr(socket_entry(sk))?;
    // SAFETY: a map value. Another CPU may write it: whose key this is the slot tells.
    let SocketEntry { sk: owner, key } = unsafe { *entry };
    if owner == sk {
        return Some(key);
    }
    if owner == 0 {
        return None;
    }
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
    if owner != sk && owner != 0 {
        // Who was here may still be waited on.
        let _ = maps::CROWDED_SOCKETS.insert(&owner, &of, 0);
    }
    // SAFETY: as above.
    unsafe { *entry = SocketEntry { sk, key } };
}
