//! Sizes that both sides rely on, each with its reason.

/// Frames of a user stack that are kept. The kernel walks at most `kernel.perf_event_max_stack` (127) of them.
pub const STACK_FRAMES: usize = 127;

/// Bytes of a stack that are copied at most to walk it there, from the frame pointer on. Of the waits of the demo's shop, HTTP handlers that
/// call a database, 99.6 % are no further from the stack's end.
pub const STACK_COPY_BYTES: usize = 4096;

/// Bytes of a `runtime.pollDesc` that are read at once: its fd, `fdseq`, `atomicInfo`, `rg` and `wg` lie in them in every version.
pub const POLL_DESC_BYTES: usize = 64;

/// Bytes of a `runtime.g` or `runtime.m` that are read at once at most: the fields that are taken lie in them in every version. A power of
/// two.
pub const RUNTIME_STRUCT_BYTES: usize = 512;

/// Events that Go's netpoller takes from one `epoll_pwait` (`runtime/netpoll_epoll.go`, `var events [128]`; the same
/// in Go 1.18–1.27).
pub const POLL_EVENTS: usize = 128;

/// Room for them, at 12 (amd64) or 16 bytes each: twice what is needed, a power of two, so that a masked length is
/// inside it for the verifier to see.
pub const POLL_SCRATCH_BYTES: usize = POLL_EVENTS * 16 * 2;

/// `sizeof(sockaddr_un.sun_path)`, `include/uapi/linux/un.h`.
pub const UNIX_PATH_BYTES: usize = 108;

/// Room for one: a power of two, so that a masked length is inside it for the verifier to see.
pub const UNIX_PATH_ROOM: usize = 128;

/// Bytes of the ring buffer: at 50,000 waits/s and 128 bytes a wait it holds 0.6 s, while user space drains it every
/// 20 ms.
pub const RING_BYTES: u32 = 4 << 20;

/// Waits that do not fit into their CPU's buffer ([`crate::wait_buffer`]) go into the ring while less than this is waiting there.
pub const RING_OF_MANY_BYTES: u64 = RING_BYTES as u64 / 4 * 3;

/// The ring wakes its reader when this much is waiting; below it the reader's timer collects.
pub const RING_WAKEUP_BYTES: u64 = 1 << 20;

/// PollDescs that can have a slot. Entries are allocated when used; this is the bound. A pollDesc is reused and never
/// freed, so the target's peak number of open pollable fds is what counts.
pub const SLOTS: u32 = 1 << 18;

/// Fds of one process whose slots stand in an array, where system calls show the waits: 6 MiB. Those of higher fds are found by a hash.
pub const FD_SLOTS: u32 = 1 << 14;

/// Sockets that the tracepoint plan finds a slot for by one load, 1 MiB; and as many of those that would have the same place (least
/// recently used ones go first). A power of two.
pub const SOCKETS: u32 = 1 << 16;

/// PollDescs whose fd is remembered (least recently used ones go first).
pub const FDS: u32 = 1 << 16;

/// Stacks whose addresses were already handed to user space (least recently used ones are handed over again).
pub const STACKS: u32 = 1 << 14;

/// Entries of the map that says which waits are added up in the kernel, and where: combinations of fd and stack. When it is full user space
/// empties it, and those that are used are opened again.
pub const CELL_ENTRIES: u32 = 1 << 16;

/// Unix sockets whose names were already handed to user space.
pub const UNIX_NAMES: u32 = 1 << 12;

/// Label sets whose text was already handed to user space.
pub const LABEL_SETS: u32 = 1 << 12;

/// pprof labels of a goroutine that are read: what one bucket of the map of Go 1.18–1.23 holds.
pub const LABELS: usize = 8;

/// Bytes of a label's key that are kept; a power of two.
pub const LABEL_KEY_BYTES: usize = 32;

/// Bytes of a label's value that are kept; a power of two.
pub const LABEL_VALUE_BYTES: usize = 64;

/// Threads of the targets whose last `epoll_pwait` or waking is found by one load, 1 MiB. A power of two: as many as there are thread ids, where
/// `kernel.pid_max` is not raised.
pub const THREADS: u32 = 1 << 15;

/// Threads of the targets of which that is remembered although another thread has their place.
pub const CROWDED_THREADS: u32 = 1 << 12;

/// Goroutines that are in the C library's resolver at once. Go lets 500 threads be there (`net/net.go`, `concurrentThreadsLimit`).
pub const RESOLVES: u32 = 1 << 12;

/// Goroutines that are between a connect and its registration at once; a few microseconds each.
pub const CONNECTS: u32 = 1 << 10;

/// Processes that one session can have as targets; their index has to fit above an address of 48 bits.
pub const TARGETS: u32 = 1 << 12;

/// PID namespaces that can lie inside each other (`MAX_PID_NS_LEVEL`, `kernel/pid_namespace.c`), and the initial one.
pub const PID_NAMESPACES: u32 = 33;
