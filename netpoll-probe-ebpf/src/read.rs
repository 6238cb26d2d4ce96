//! Reads of user and kernel memory.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};

/// A value of the target's memory; `None`: not mapped, or not resident.
#[inline(always)]
pub fn user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address; T is an integer or an array of integers in every call.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// A value of kernel memory; `None`: not a readable address.
#[inline(always)]
pub fn kernel<T>(address: u64) -> Option<T> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
