//! How many waits are followed, when following all would cost more than it may.
//!
//! Whether a wait is followed is decided by chance when it begins, so it does not depend on how long the wait will be: what it stands for
//! adds up to all of them, the long ones, too. An fd that was last waited on a while ago is where the long waits are, and there are few of
//! them: all its waits are followed.

/// A direction of an fd on which no wait began for this long is slow. There are at most 100 waits a second on it.
pub const SLOW_AFTER_NS: u64 = 10_000_000;

/// The value of the map `SAMPLING`. User space changes it while the programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Sampling {
    /// Of the waits on busy fds one in so many is followed, a power of two; 0: all are, and always were.
    pub busy_one_in: u32,
    /// 1: waits are added up in the kernel, as far as user space has opened cells for them ([`crate::cell`]).
    pub adds_up: u32,
}

impl Sampling {
    /// Every wait is followed.
    pub const ALL: Self = Self { busy_one_in: 1, adds_up: 0 };

    /// How often what is followed may be halved: one wait in 64. To follow fewer saves next to nothing, and the hooks remain.
    pub const LAST_HALVING: u32 = 6;
}
