//! Reads of user and kernel memory. By the helpers themselves: aya's wrappers clear the value before, byte by byte where it is large.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

/// A value of the target's memory; `None`: not mapped, or not resident.
#[inline(always)]
pub fn user<T>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address, and fills the value unless it fails; T is an integer or an array of integers in every call.
    unsafe {
        let failed = bpf_probe_read_user(
            value.as_mut_ptr().cast::<c_void>(),
            size_of::<T>() as u32,
            address as *const _,
        );
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}

/// A value of kernel memory; `None`: not a readable address.
#[inline(always)]
pub fn kernel<T>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as above.
    unsafe {
        let failed = bpf_probe_read_kernel(
            value.as_mut_ptr().cast::<c_void>(),
            size_of::<T>() as u32,
            address as *const _,
        );
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}
