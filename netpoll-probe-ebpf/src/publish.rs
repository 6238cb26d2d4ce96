//! Telling another CPU that what was written before is there.

use core::arch::asm;

/// Adds one to a count that user space reads, and only this CPU writes, after all that was written before. By assembler: rustc believes that
/// this machine has no atomic instructions.
///
/// # Safety
/// An aligned place in a map value.
#[inline(always)]
pub unsafe fn add_one(place: *mut u64) {
    #[cfg(bpf_target_arch = "x86_64")]
    // SAFETY: the caller's. That machine writes in the order of the program; the assembler keeps the compiler from changing it.
    unsafe {
        asm!("{value} = *(u64 *)({place} + 0)", "{value} += 1", "*(u64 *)({place} + 0) = {value}", place = in(reg) place, value = out(reg) _, options(nostack));
    }
    #[cfg(not(bpf_target_arch = "x86_64"))]
    // SAFETY: the caller's. An instruction that returns the old value is fully ordered (Linux, `Documentation/bpf/standardization/
    // instruction-set.rst` and `Documentation/atomic_t.txt`).
    unsafe {
        asm!("{value} = 1", "{value} = atomic_fetch_add((u64 *)({place} + 0), {value})", place = in(reg) place, value = out(reg) _, options(nostack));
    }
}
