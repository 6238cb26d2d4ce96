//! What the compiler is told, or kept from knowing.

use core::arch::asm;

/// The same value, of which the compiler knows nothing, where what it makes of knowing more the verifier does not understand. Unlike
/// `core::hint::black_box`, which goes through memory here, it stays in its register.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let same;
    // SAFETY: it changes this register and nothing else.
    unsafe {
        asm!("{same} = {value}", same = lateout(reg) same, value = in(reg) value, options(pure, nomem, nostack));
    }
    same
}

/// Whoever comes here does so seldom: the code goes to the function's end, so that a processor fetches less. What programs cost where their
/// code is in no cache is nearly all that. (`core::hint::cold_path` is lost before rustc looks for it, as it is not `#[cold]` itself.)
#[cold]
#[inline(always)]
pub const fn seldom() {}
