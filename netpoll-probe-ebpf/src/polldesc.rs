//! `runtime.pollDesc` (`runtime/netpoll.go`), as the target's memory has it: its beginning, in one read.

use netpoll_probe_common::{limit::POLL_DESC_BYTES, record::outcome};

use crate::{config::config, read};

/// `pdReady`: an event was collected, and nobody waits.
const READY: u64 = 1;
/// `pdWait`: a goroutine is about to park.
const WAIT: u64 = 2;
/// Bits of `pollInfo`.
const CLOSING: u32 = 1;
const EVENT_ERR: u32 = 2;
const EXPIRED_READ_DEADLINE: u32 = 4;
const EXPIRED_WRITE_DEADLINE: u32 = 8;

/// The mode of a reader; a writer's is `b'w'`.
pub const READ: u64 = b'r' as u64;
/// The mode of a writer.
pub const WRITE: u64 = b'w' as u64;

/// What stood there at one moment.
#[repr(C)]
pub struct PollDesc {
    /// The file descriptor.
    pub fd: i32,
    /// `fdseq`, cut to the bits that an epoll event's tag has; 0 where it does not exist.
    pub tag: u32,
    /// Bits of `pollInfo`.
    info: u32,
    /// No byte is left unwritten: the verifier of Linux 6.1 lets no function have it then.
    reserved: u32,
    /// Who waits to read: nobody, `pdReady`, `pdWait`, or a `runtime.g`.
    rg: u64,
    /// To write.
    wg: u64,
}

impl PollDesc {
    /// Not read yet.
    pub const NONE: Self = Self { fd: -1, tag: 0, info: 0, reserved: 0, rg: 0, wg: 0 };

    /// Whether it was read.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.fd != Self::NONE.fd
    }

    /// Reads it at `address`.
    #[inline(always)]
    pub fn read(address: u64) -> Option<Self> {
        let mut desc = Self::NONE;
        desc.read_into(address).then_some(desc)
    }

    /// The same for a place that is given. Returns whether it could be read.
    #[inline(always)]
    pub fn read_into(&mut self, address: u64) -> bool {
        read_poll_desc(address, self) != 0
    }

    /// An event was collected that nobody has waited for: `netpollblock` will return at once.
    #[inline(always)]
    pub fn is_ready(&self, mode: u64) -> bool {
        self.semaphore(mode) == READY
    }

    /// A goroutine is parked, or about to be: an event that is collected now ends its wait.
    #[inline(always)]
    pub fn is_waited_on(&self, mode: u64) -> bool {
        self.semaphore(mode) > READY
    }

    /// Whether that may be the goroutine `g`.
    #[inline(always)]
    pub fn is_waited_on_by(&self, g: u64, mode: u64) -> bool {
        may_be(self.semaphore(mode), g)
    }

    #[inline(always)]
    fn semaphore(&self, mode: u64) -> u64 {
        if mode == READ { self.rg } else { self.wg }
    }

    /// The fd was closed, or is being closed.
    #[inline(always)]
    fn is_closing(&self) -> bool {
        self.info & CLOSING != 0
    }

    /// `netpollcheckerr` at the start of `runtime_pollWait` will return at once: no wait, and no end.
    #[inline(always)]
    pub fn ends_at_once(&self, mode: u64) -> bool {
        self.outcome(mode) != outcome::REARMED
    }

    /// How a wait ends that `netpollblock` did not end as ready: `netpollcheckerr`, in its order.
    #[inline(always)]
    pub fn outcome(&self, mode: u64) -> u8 {
        let expired = if mode == READ { EXPIRED_READ_DEADLINE } else { EXPIRED_WRITE_DEADLINE };
        if self.is_closing() {
            outcome::CLOSED
        } else if self.info & expired != 0 {
            outcome::TIMEOUT
        } else if mode == READ && self.info & EVENT_ERR != 0 {
            outcome::ERROR
        } else {
            outcome::REARMED
        }
    }
}

/// Reads one. Returns 0 when it cannot be read. A global function ([`crate`]), also for its stack: together, programs and functions have 512
/// bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_poll_desc(address: u64, into: *mut PollDesc) -> u64 {
    if into.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let desc = unsafe { &mut *into };
    let Some(block) = read::user::<[u64; POLL_DESC_BYTES / 8]>(address) else { return 0 };
    desc.tag = if config!(pd_has_fdseq) == 1 {
        (word(&block, config!(pd_fdseq)) & ((1 << config!(tag_bits)) - 1)) as u32
    } else {
        0
    };
    desc.rg = word(&block, config!(pd_rg));
    desc.wg = word(&block, config!(pd_wg));
    // `atomicInfo` is the lower half of its word on these machines.
    desc.info = word(&block, config!(pd_atomic_info)) as u32;
    desc.fd = word(&block, config!(pd_fd)) as i32;
    1
}

/// Whether the pollDesc at `address` is that of this fd. Seldom asked: by single reads, which need little stack.
#[inline(always)]
pub fn is_of(address: u64, fd: i32, tag: u32) -> bool {
    let tag_mask = (1 << config!(tag_bits)) - 1;
    let has_tag = config!(pd_has_fdseq) == 0
        || read::user::<u64>(address + config!(pd_fdseq))
            .is_some_and(|fdseq| fdseq & tag_mask == u64::from(tag));
    has_tag && read::user::<u64>(address + config!(pd_fd)).is_some_and(|of| of as i32 == fd)
}

/// [`PollDesc::is_waited_on_by`], by a single read.
#[inline(always)]
pub fn waits_now(address: u64, mode: u64, g: u64) -> bool {
    let offset = if mode == READ { config!(pd_rg) } else { config!(pd_wg) };
    read::user::<u64>(address + offset).is_some_and(|semaphore| may_be(semaphore, g))
}

/// Whether it is the goroutine `g` that waits, or one that is not there yet.
#[inline(always)]
fn may_be(semaphore: u64, g: u64) -> bool {
    semaphore == g || semaphore == WAIT
}

/// The word at `offset`, which user space has checked to lie inside.
#[inline(always)]
fn word(block: &[u64; POLL_DESC_BYTES / 8], offset: u64) -> u64 {
    // The mask changes nothing; it shows the compiler a bound.
    let offset = offset as usize & (POLL_DESC_BYTES - 8);
    // SAFETY: a multiple of 8 that leaves room for a word.
    unsafe { block.as_ptr().byte_add(offset).read() }
}
