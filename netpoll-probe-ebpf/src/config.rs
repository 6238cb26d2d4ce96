//! The configuration that user space freezes before the programs load.

use aya_ebpf::Global;
use netpoll_probe_common::config::Config;

/// Overwritten by user space, then frozen: the verifier treats its fields as constants.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(ZERO);

const ZERO: Config = {
    // SAFETY: Config has integers only.
    unsafe { core::mem::zeroed() }
};

/// One field of the configuration, as a `u64`.
macro_rules! config {
    ($field:ident) => {
        $crate::config::load(core::mem::offset_of!(netpoll_probe_common::config::Config, $field))
    };
}
pub(crate) use config;

/// Reads the field at `offset`. Only the macro above calls it. Volatile, because the compiler must not believe the
/// zeroes that it sees.
#[inline(always)]
pub fn load(offset: usize) -> u64 {
    let fields = (&raw const CONFIG).cast::<u32>();
    // SAFETY: the offset is that of a u32 field of CONFIG.
    u64::from(unsafe { fields.byte_add(offset).read_volatile() })
}
