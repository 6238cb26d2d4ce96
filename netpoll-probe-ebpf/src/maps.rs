//! Every map: who writes it, who reads it, what happens when it is full.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use netpoll_probe_common::{
    cell::{CellEntry, CellHistograms, CellKey, CellSums},
    counter::Counter,
    limit::{
        CELL_ENTRIES as CELL_ENTRY_COUNT, CONNECTS as CONNECT_COUNT, CROWDED_THREADS as CROWDED_THREAD_COUNT,
        FDS as FD_COUNT, LABEL_SETS, LABELS, RESOLVES as RESOLVE_COUNT, RING_BYTES, SLOTS as SLOT_COUNT,
        SOCKETS as SOCKET_COUNT, STACKS, TARGETS as TARGET_COUNT, THREADS as THREAD_COUNT, UNIX_NAMES,
    },
    record::Label,
    sampling::Sampling,
    slot::{PollDescSlot, SocketEntry, ThreadSlot},
    wait_buffer::{Cursors, Place},
};

use crate::scratch::{Scratch, ThisCpu};

/// Records for user space. When it is full a record is lost and counted.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Each CPU's buffer of waits that have ended, one after the other ([`netpoll_probe_common::wait_buffer`]). User space says how many there
/// are before it loads this, and maps it. When one is full waits go into the ring.
#[map]
pub static WAIT_BUFFERS: Array<Place> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// By CPU: how far its buffer was written, by the program, and read, by user space.
#[map]
pub static WAIT_CURSORS: Array<Cursors> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Thread group → its number: the processes of interest, when they are several. Written by user space.
#[map]
pub static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(TARGET_COUNT, BPF_F_NO_PREALLOC);

/// pollDesc, or fd where system calls show the waits ([`slot_key`](netpoll_probe_common::slot::slot_key)) → its state. Written at the start
/// of a wait, by the stamps and polls, and by user space for waits that it found open at attach, unless they stand in [`OPEN_SLOTS`]. When
/// it is full a wait is lost and counted.
#[map]
pub static SLOTS: HashMap<u64, PollDescSlot> = HashMap::with_max_entries(SLOT_COUNT, BPF_F_NO_PREALLOC);

/// fd → the same, where system calls show the waits of one process ([`crate::slots`]). User space says how many there are before it loads
/// this. Mappable, because such an array begins at a page, and so each slot at a cache line.
#[map]
pub static FD_SLOTS: Array<PollDescSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// fd → the same, of a wait that was open before the programs were there, until the fd has another pollDesc. Only user space makes one: an
/// array cannot be told to leave alone what the programs have written. It says how many there are before it loads this, and maps it.
#[map]
pub static OPEN_SLOTS: Array<PollDescSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// By CPU: one more than the highest fd to which it gave a slot there. User space reads no further.
#[map]
pub static FD_SLOTS_END: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// `runtime.g` ([`slot_key`](netpoll_probe_common::slot::slot_key)) → the fd that it is connecting, until that is registered.
#[map]
pub static CONNECTS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(CONNECT_COUNT, 0);

/// `struct sock` address → key in [`SLOTS`], for the socket tracepoints, by [`socket_entry`](netpoll_probe_common::slot::socket_entry).
#[map]
pub static SOCKETS: Array<SocketEntry> = Array::with_max_entries(SOCKET_COUNT, 0);

/// The same of sockets whose entry another one took. The least recently used one makes room.
#[map]
pub static CROWDED_SOCKETS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(SOCKET_COUNT, 0);

/// Hashes of stacks that user space has.
#[map]
pub static STACKS_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(STACKS, 0);

/// Hashes of label sets that user space has.
#[map]
pub static LABELS_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(LABEL_SETS, 0);

/// Labels while they are read and hashed.
#[map]
pub static LABELS_SCRATCH: PerCpuArray<Scratch<[Label; LABELS]>> = PerCpuArray::with_max_entries(1, 0);

/// Inodes of unix sockets whose names user space has.
#[map]
pub static UNIX_NAMES_SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(UNIX_NAMES, 0);

/// Thread id → its `epoll_pwait`, and whether it runs goroutines, by [`thread_entry`](netpoll_probe_common::slot::thread_entry). Threads of the
/// target only.
#[map]
pub static THREADS: Array<ThreadSlot> = Array::with_max_entries(THREAD_COUNT, 0);

/// The same of threads whose entry is another one's. The least recently used one makes room.
#[map]
pub static CROWDED_THREADS: LruHashMap<u32, ThreadSlot> =
    LruHashMap::with_max_entries(CROWDED_THREAD_COUNT, 0);

/// `runtime.g` ([`slot_key`](netpoll_probe_common::slot::slot_key)) → when it entered the C library's resolver, ns.
#[map]
pub static RESOLVES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(RESOLVE_COUNT, 0);

/// By target: when, in ns, its last `epoll_pwait` that slept and returned all that was ready had not yet looked.
#[map]
pub static LAST_POLL: Array<u64> = Array::with_max_entries(TARGET_COUNT, 0);

/// By target: the `struct eventpoll` of its netpoller, 0 until it is known.
#[map]
pub static EVENTPOLL: Array<u64> = Array::with_max_entries(TARGET_COUNT, 0);

/// The other way round: `struct eventpoll` → target.
#[map]
pub static EVENTPOLLS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(TARGET_COUNT, 0);

/// Which waits are followed. Written by user space.
#[map]
pub static SAMPLING: Array<Sampling> = Array::with_max_entries(1, 0);

/// Which waits are added up, and in which cell. Written by user space.
#[map]
pub static CELLS: HashMap<CellKey, CellEntry> =
    HashMap::with_max_entries(CELL_ENTRY_COUNT, BPF_F_NO_PREALLOC);

/// The cells. User space says how many there are before it loads this, and reads them.
#[map]
pub static CELL_SUMS: PerCpuArray<CellSums> = PerCpuArray::with_max_entries(1, 0);

/// Their histograms, likewise.
#[map]
pub static CELL_HISTOGRAMS: PerCpuArray<CellHistograms> = PerCpuArray::with_max_entries(1, 0);

/// What could not be done, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// The pollDesc ([`slot_key`](netpoll_probe_common::slot::slot_key)) → its fd, where that is the key of its slot: for a pollDesc that cannot
/// be read.
#[map]
pub static FDS: LruHashMap<u64, i32> = LruHashMap::with_max_entries(FD_COUNT, 0);

/// This CPU's memory for what is read of a process ([`crate::scratch`]). One map: what leads to its value is on one line then.
#[map]
pub static SCRATCH: PerCpuArray<ThisCpu> = PerCpuArray::with_max_entries(1, 0);
