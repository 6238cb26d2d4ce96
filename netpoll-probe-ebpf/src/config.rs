//! The configuration, which user space writes into the instructions before the programs load.

use core::arch::asm;

use netpoll_probe_common::config::HOLE;

/// One field of the configuration, as a `u64`: a constant to the verifier and to the processor.
macro_rules! config {
    ($field:ident) => {
        $crate::config::load::<{ core::mem::offset_of!(netpoll_probe_common::config::Config, $field) }>()
    };
}
pub(crate) use config;

/// The field at an offset. Only the macro above calls it.
#[inline(always)]
pub fn load<const OFFSET: usize>() -> u64 {
    let value;
    // SAFETY: it changes this register and nothing else.
    unsafe {
        asm!(
            "{value} = {hole} ll",
            value = lateout(reg) value,
            hole = const (HOLE as u64) << 32 | OFFSET as u64,
            options(pure, nomem, nostack),
        );
    }
    value
}
