//! What the maps hold between the start of a wait and its end.

/// The key of something of a target: an address in its memory, or an fd, and above it which of the targets it is in. User addresses have
/// 47 bits (`Documentation/arch/x86/x86_64/mm.rst`; Go asks for no more where there are five page table levels).
#[must_use]
pub const fn slot_key(of: u64, target: u32) -> u64 {
    of & ((1 << 48) - 1) | (target as u64) << 48
}

/// The address or fd, and which target it is in, of a [`slot_key`].
#[must_use]
pub const fn of_slot_key(key: u64) -> (u64, u32) {
    (key & ((1 << 48) - 1), (key >> 48) as u32)
}

/// The state of one pollDesc, the value of the map `SLOTS`. Its key ([`slot_key`]) is the address of the pollDesc, or its fd where system
/// calls show the waits. Entries stay: a pollDesc is
/// reused and never freed, and an insert and a delete for every wait would cost more than the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct PollDescSlot {
    /// The wait of a reader.
    pub read: WaitSlot,
    /// The wait of a writer.
    pub write: WaitSlot,
    /// The pollDesc's address; 0: nobody's.
    pub pd: u64,
    /// 1: where system calls show the waits, the fd has had this pollDesc and this file since a wait last began. Its next registration
    /// with an epoll instance clears it.
    pub is_current: u32,
    /// 1: user space knows the file.
    pub is_told: u32,
    /// The file behind the fd.
    pub file: FileFacts,
    /// Whole cache lines, so that in an array each slot begins with one.
    pub reserved: [u64; 5],
}

impl PollDescSlot {
    /// Nobody's.
    pub const EMPTY: Self = Self {
        read: WaitSlot::NOBODY,
        write: WaitSlot::NOBODY,
        pd: 0,
        is_current: 0,
        is_told: 0,
        file: FileFacts::UNKNOWN,
        reserved: [0; 5],
    };
}

const _: () = assert!(size_of::<PollDescSlot>() == 6 * 64);

/// Of a wait that there never was ([`WaitSlot::g`]): where no `runtime.g` lies.
pub const NO_G: u64 = 1;

/// A connect has begun ([`WaitSlot::socket_state`]); `include/net/tcp_states.h`.
pub const TCP_SYN_SENT: u32 = 2;

/// The wait that a goroutine is in, in one direction. In the first cache line stands what stamps and polls touch, too: the kernel lays the
/// value of an entry of this size at the beginning of one (`kernel/bpf/hashtab.c`, `struct htab_elem`, behind `bpf_mem_alloc`'s link).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct WaitSlot {
    /// When it began, CLOCK_MONOTONIC ns; 0: nobody waits. Written last at the start of a wait, and first at its end.
    pub start_ns: u64,
    /// When the kernel made the fd ready, 0: not stamped.
    pub kernel_ready_ns: u64,
    /// When the poller collected the event, 0: not yet.
    pub poll_ns: u64,
    /// The last time that the poller collected an event of this direction; where nobody waited, the first such time will do.
    pub last_poll_ns: u64,
    /// The goroutine's `runtime.g`; of the last one, if nobody waits; [`NO_G`]: nobody ever did, and nobody waits elsewhere; 0: not known.
    pub g: u64,
    /// The stack that the goroutine parked with, where that is seen; 0: not known.
    pub stack_hash: u64,
    /// `pollDesc.fdseq` at the start, cut to the bits of the epoll tag.
    pub tag: u32,
    /// When one last began, followed or not, in ticks of the kernel (the lower half of `jiffies`); kept where waits may be left out.
    pub began_ticks: u32,
    /// [`crate::record::source`]
    pub kernel_ready_source: u8,
    /// [`crate::record::poller`]
    pub poller: u8,
    /// [`crate::record::flag`]
    pub flags: u16,
    /// The socket's state when the wait began (`enum` in `include/net/tcp_states.h`).
    pub socket_state: u32,

    /// The goroutine's id. From here on, what only a start and an end touch.
    pub goid: u64,
    /// When [`Self::kernel_ready_ns`] is not known: not before this; 0: no bound.
    pub kernel_ready_after_ns: u64,
    /// A TCP socket's `bytes_sent` when a reader's wait began; between waits, when the last one ended.
    pub sent_bytes: u64,
    /// Its labels then; 0: none, or not known.
    pub labels_hash: u64,
    /// The P on which the last wait of this direction ended; with the next two it tells a spurious wake.
    pub last_p: u64,
    /// That P's `schedtick` (low half) and `syscalltick` (high half) then.
    pub last_ticks: u64,
    /// The goroutine of that wait.
    pub last_g: u64,
    /// How many waits this one stands for ([`crate::sampling`]).
    pub stands_for: u32,
    /// The cell that the last wait of this direction was added to ([`crate::cell`]), plus one; 0: it came as a record.
    pub cell: u32,
}

/// The file behind a pollDesc's fd, as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FileFacts {
    /// The `struct sock`, 0 when it is not a socket. Addresses are recycled: valid only while somebody waits on it.
    pub sk: u64,
    /// `inode.i_ino`
    pub inode: u64,
    /// `pollDesc.fdseq` when this was read.
    pub tag: u32,
    /// The fd that a wait last began on.
    pub fd: i32,
    /// 1 when the rest is valid.
    pub known: u32,
    /// Peer port, host order.
    pub remote_port: u16,
    /// Own port, host order.
    pub local_port: u16,
    /// `inode.i_mode`
    pub mode: u16,
    /// Address family, `AF_*`.
    pub family: u16,
    /// `SOCK_STREAM` …
    pub socket_type: u16,
    /// `IPPROTO_*`
    pub protocol: u16,
    /// Peer address: IPv6, or IPv4 in the first four bytes; network order. It and the next one are what a wait does not touch.
    pub remote_address: [u8; 16],
    /// Own address, likewise.
    pub local_address: [u8; 16],
}

const _: () = assert!(size_of::<WaitSlot>() == 128 && core::mem::offset_of!(WaitSlot, goid) == 64);

impl WaitSlot {
    /// Nobody waits, and nobody ever did.
    pub const NOBODY: Self = Self {
        start_ns: 0,
        kernel_ready_ns: 0,
        poll_ns: 0,
        last_poll_ns: 0,
        g: 0,
        stack_hash: 0,
        tag: 0,
        began_ticks: 0,
        kernel_ready_source: 0,
        poller: 0,
        flags: 0,
        socket_state: 0,
        goid: 0,
        kernel_ready_after_ns: 0,
        sent_bytes: 0,
        labels_hash: 0,
        last_p: 0,
        last_ticks: 0,
        last_g: 0,
        stands_for: 0,
        cell: 0,
    };
}

impl FileFacts {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self {
        sk: 0,
        inode: 0,
        tag: 0,
        fd: 0,
        known: 0,
        remote_port: 0,
        local_port: 0,
        mode: 0,
        family: 0,
        socket_type: 0,
        protocol: 0,
        remote_address: [0; 16],
        local_address: [0; 16],
    };
}

/// A value of the map `SOCKETS`, whose index is its [`socket_entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct SocketEntry {
    /// The `struct sock`; 0: nobody's.
    pub sk: u64,
    /// The [`slot_key`] of who waits on it.
    pub key: u64,
}

/// Where in the map `SOCKETS` a `struct sock` belongs, by the lower half of its address. Each has 1 KiB or more of the memory that it shares with
/// its like (`struct kmem_cache`), so neighbours get places next to each other, on few lines and pages; the highest bits tell such memory
/// from other.
#[must_use]
pub const fn socket_entry(sk: u64) -> u32 {
    let lower_half = sk as u32;
    (lower_half >> 10 ^ lower_half >> 26) & (crate::limit::SOCKETS - 1)
}

/// What is remembered of a thread, the value of the map `THREADS` (key: thread id).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ThreadSlot {
    /// When it last left an `epoll_pwait`, 0: not seen. The next one began later.
    pub left_ns: u64,
    /// When it was last woken in an `epoll_pwait` that it has not left, 0: not yet.
    pub waking_ns: u64,
    /// 1: it runs goroutines, so it is not `sysmon`'s; 0: not known.
    pub runs_goroutines: u32,
    /// The thread's id, 0: nobody's; in the array only.
    pub thread: u32,
}

/// The place of a thread in the map `THREADS`. Threads of a process have numbers that follow each other, and run on CPUs that would take each
/// other a cache line away: each is four places from the next one.
#[must_use]
pub const fn thread_entry(thread: u32) -> u32 {
    const BITS: u32 = crate::limit::THREADS.trailing_zeros();
    (thread << 2 | (thread >> (BITS - 2) & 3)) & (crate::limit::THREADS - 1)
}
