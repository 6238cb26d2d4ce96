//! Records in the ring buffer. Each begins with a [`Header`].

use crate::{
    limit::{LABEL_KEY_BYTES, LABEL_VALUE_BYTES, LABELS, STACK_FRAMES, UNIX_PATH_ROOM},
    slot::FileFacts,
};

/// The kinds of records.
pub mod kind {
    /// [`super::WaitRecord`]
    pub const WAIT: u16 = 1;
    /// [`super::StackRecord`]
    pub const STACK: u16 = 2;
    /// [`super::UnixNameRecord`]
    pub const UNIX_NAME: u16 = 3;
    /// [`super::SpuriousRecord`]
    pub const SPURIOUS: u16 = 4;
    /// [`super::LabelsRecord`]
    pub const LABELS: u16 = 5;
    /// [`super::ExecRecord`]
    pub const EXEC: u16 = 6;
    /// [`super::ResolveRecord`]
    pub const RESOLVE: u16 = 7;
    /// [`super::FirstWaitRecord`]
    pub const FIRST_WAIT: u16 = 8;
}

/// How a wait ended.
pub mod outcome {
    /// `netpollblock` returned true.
    pub const READY: u8 = 1;
    /// A deadline of the waited direction has expired.
    pub const TIMEOUT: u8 = 2;
    /// The pollDesc is closing.
    pub const CLOSED: u8 = 3;
    /// The poller reported an event error.
    pub const ERROR: u8 = 4;
    /// None of these: the deadline was moved, and `runtime_pollWait` blocks again.
    pub const REARMED: u8 = 5;
}

/// Where the kernel-ready clock comes from.
pub mod source {
    /// Not stamped.
    pub const NONE: u8 = 0;
    /// `ep_poll_callback`
    pub const CALLBACK: u8 = 1;
    /// `sk_data_ready`
    pub const DATA_READY: u8 = 2;
    /// `inet_sock_set_state`
    pub const STATE_CHANGE: u8 = 3;
    /// `tcp_receive_reset`
    pub const RESET: u8 = 4;
    /// The last `tcp_probe` before the poll.
    pub const WRITE_ESTIMATE: u8 = 5;
    /// The waking of the thread that slept in `epoll_pwait`.
    pub const POLLER_WAKEUP: u8 = 6;
    /// Ready before the goroutine parked.
    pub const BEFORE_PARK: u8 = 7;
}

/// Who collected the event.
pub mod poller {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// An M that may sleep in `epoll_pwait`.
    pub const BLOCKING: u8 = 1;
    /// `netpoll(0)` of an M that runs goroutines.
    pub const NONBLOCKING: u8 = 2;
    /// `netpoll(0)` of an M that holds no P, and was never seen to.
    pub const SYSMON: u8 = 3;
}

/// Bits of [`WaitRecord::flags`].
pub mod flag {
    /// The goroutine was found parked when the recording began; `start_ns` is that moment.
    pub const STARTED_BEFORE: u16 = 1;
    /// `pd.rg`/`pd.wg` was already ready when the wait began: the event had been collected, and nobody parked.
    pub const READY_AT_START: u16 = 2;
    /// The wait goes on from one whose deadline was moved.
    pub const AFTER_REARM: u16 = 4;
    /// What was collected was the first event of this direction since the fd was opened (Go 1.21, where
    /// `pollDesc.fdseq` tells one fd from the next).
    pub const FIRST_EVENT: u16 = 8;
    /// Something had been sent on the TCP socket since the last wait of a reader ended: an answer may be owed.
    pub const SENT_BEFORE: u16 = 16;
    /// Woken as ready, and the goroutine's next system call on the fd said EAGAIN.
    pub const SPURIOUS: u16 = 32;
    /// In a slot only: `last_p` and `last_ticks` are those of a moment in the wait in which the goroutine ran.
    pub const RAN_THEN: u16 = 64;
    /// In a slot only: when the wait began, user space had been told its file, so that an end of it is later than that.
    pub const TOLD: u16 = 128;
    /// Those of a slot only.
    pub const OF_SLOT: u16 = RAN_THEN | TOLD;
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Header {
    /// [`kind`]
    pub kind: u16,
    /// Bytes of the whole record.
    pub bytes: u16,
    /// The process (thread group), in the initial PID namespace.
    pub tgid: u32,
}

/// A wait that ended, on the file of the last [`FirstWaitRecord`] with its pollDesc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct WaitRecord {
    /// What kind of record.
    pub header: Header,
    /// The pollDesc's address.
    pub pd: u64,
    /// The goroutine's id.
    pub goid: u64,
    /// The goroutine is about to park, CLOCK_MONOTONIC ns; so are the next four.
    pub start_ns: u64,
    /// The kernel made the fd ready, 0: not known.
    pub kernel_ready_ns: u64,
    /// When that is not known: not before this; 0: no bound.
    pub kernel_ready_after_ns: u64,
    /// The poller collected the event, 0: not seen.
    pub poll_ns: u64,
    /// The poller's last event for this direction of the pollDesc, 0: none seen.
    pub last_poll_ns: u64,
    /// The goroutine runs again.
    pub end_ns: u64,
    /// The last time in this wait that this process sent something on the TCP socket, within a jiffy; 0: it did not.
    pub sent_ns: u64,
    /// Which [`StackRecord`], 0: not known.
    pub stack_hash: u64,
    /// Which [`LabelsRecord`], 0: no labels, or not known.
    pub labels_hash: u64,
    /// The file descriptor that the pollDesc names.
    pub fd: i32,
    /// The thread on which the goroutine runs again, in the initial PID namespace.
    pub tid: u32,
    /// The socket's state when the wait began.
    pub socket_state: u32,
    /// [`flag`]
    pub flags: u16,
    /// `b'r'` or `b'w'`
    pub mode: u8,
    /// [`outcome`]
    pub outcome: u8,
    /// [`source`]
    pub kernel_ready_source: u8,
    /// [`poller`]
    pub poller: u8,
    /// Zero.
    pub reserved: u16,
    /// How many waits it stands for ([`crate::sampling`]).
    pub stands_for: u32,
}

/// A wait that ended, and its file: the first one on it, and each one if the file is not known, or was looked at again (where uprobes show the
/// waits of Go before 1.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FirstWaitRecord {
    /// The wait. Its header is that of the whole.
    pub wait: WaitRecord,
    /// The file.
    pub file: FileFacts,
}

/// The addresses of a user stack, handed over before the first wait that names its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct StackRecord {
    /// What kind of record.
    pub header: Header,
    /// The hash by which waits name it.
    pub hash: u64,
    /// How many of `pcs` are valid.
    pub frames: u64,
    /// Leaf first: the address of the probe, then return addresses.
    pub pcs: [u64; STACK_FRAMES],
}

/// The names of a unix socket, handed over before the first wait on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct UnixNameRecord {
    /// What kind of record.
    pub header: Header,
    /// The socket's inode.
    pub inode: u64,
    /// Bytes of `local`, 0: unnamed.
    pub local_length: u32,
    /// Bytes of `remote`, 0: unnamed or not connected.
    pub remote_length: u32,
    /// Its own path; an abstract name begins with NUL.
    pub local: [u8; UNIX_PATH_ROOM],
    /// Its peer's path.
    pub remote: [u8; UNIX_PATH_ROOM],
}

/// The last wait of this goroutine on this pollDesc and direction was spurious: woken as ready, and the one system
/// call since said EAGAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct SpuriousRecord {
    /// What kind of record.
    pub header: Header,
    /// The pollDesc's address.
    pub pd: u64,
    /// The goroutine's id.
    pub goid: u64,
    /// When the goroutine waits again, ns.
    pub again_ns: u64,
    /// `b'r'` or `b'w'`
    pub mode: u64,
}

/// The pprof labels of a goroutine, handed over before the first wait that names their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct LabelsRecord {
    /// What kind of record.
    pub header: Header,
    /// The hash by which waits name it.
    pub hash: u64,
    /// The labels; those with a key of no bytes do not exist.
    pub labels: [Label; LABELS],
}

/// One label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Label {
    /// Bytes of `key`; 0: no label.
    pub key_length: u32,
    /// Bytes of `value`.
    pub value_length: u32,
    /// The key's beginning.
    pub key: [u8; LABEL_KEY_BYTES],
    /// The value's beginning.
    pub value: [u8; LABEL_VALUE_BYTES],
}

/// A target runs another program now: nothing that was known of its memory holds any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ExecRecord {
    /// What kind of record.
    pub header: Header,
    /// When, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// 1: the thread that did it is the process's first. 0: it was another, which took the first one's id; probes that the
    /// kernel keeps for the first one are gone.
    pub by_first_thread: u64,
}

/// A call into the C library's resolver ended: it blocks a thread, past the netpoller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ResolveRecord {
    /// What kind of record.
    pub header: Header,
    /// The goroutine's id.
    pub goid: u64,
    /// The goroutine enters C, CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// It is back.
    pub end_ns: u64,
}

/// One process, as the iterator over tasks writes it (not a record of the ring).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct TaskRecord {
    /// Its id in the initial PID namespace.
    pub tgid: u32,
    /// Its id in the PID namespace of this tool.
    pub namespace_pid: u32,
}

/// One open file of a target, as the iterator writes it at attach (not a record of the ring).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FileRecord {
    /// `file.private_data`: of an epoll fd, its `struct eventpoll`.
    pub private_data: u64,
    /// The file.
    pub file: FileFacts,
    /// Bytes that were ever sent on it, if it is a TCP connection.
    pub sent_bytes: u64,
    /// When the last of them were, CLOCK_MONOTONIC ns, to a jiffy.
    pub sent_ns: u64,
    /// The socket's state.
    pub socket_state: u32,
    /// The process, in the initial PID namespace.
    pub tgid: u32,
    /// `file.f_flags`, `O_*`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
