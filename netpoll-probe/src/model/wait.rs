//! One wait: a goroutine parked in Go's network poller, with its clocks, phases, outcome, socket and stack.

use std::{fmt, net::SocketAddr, rc::Rc, sync::Arc};

use enum_map::Enum;
use serde::{Deserialize, Serialize};

use super::stack::StackId;

/// Which direction the goroutine waited for (`runtime_pollWait`'s `mode`, `'r'` or `'w'`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Until the fd can be read, or a connection accepted.
    Read,
    /// Until the fd can be written, or a connect is done.
    Write,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The fd became ready.
    Ready,
    /// The deadline passed (`os.ErrDeadlineExceeded`).
    Timeout,
    /// The fd was closed locally, by another goroutine.
    Closed,
    /// The poller reported an event error (`ErrNotPollable`).
    Error,
    /// The deadline fired and was moved before the goroutine ran: it waits again.
    Rearmed,
    /// Still waiting when the recording ended; `end_ns` is that moment.
    Open,
}

/// How the moment in which the kernel made the fd ready is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Enum)]
#[serde(rename_all = "snake_case")]
pub enum KernelReadySource {
    /// `ep_poll_callback` of the epoll item: exact, every kind of fd.
    Callback,
    /// Tracepoint `sk_data_ready` of the socket: just before its callback.
    DataReady,
    /// Tracepoint `inet_sock_set_state`: connect done, FIN.
    StateChange,
    /// Tracepoint `tcp_receive_reset`.
    Reset,
    /// The last segment that the socket received before it was polled writable: an estimate.
    WriteEstimate,
    /// The waking of the thread that slept in `epoll_pwait` and returned this one event: an estimate.
    PollerWakeup,
    /// It was ready before the goroutine parked; the clock is `start_ns`.
    BeforePark,
    /// Not known.
    None,
}

/// Which call of the runtime's poller collected the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Enum)]
#[serde(rename_all = "lowercase")]
pub enum Poller {
    /// An idle M that slept in `epoll_pwait`.
    Blocking,
    /// A working M's `netpoll(0)`: `findRunnable`, `pollWork`, `startTheWorld`.
    Nonblocking,
    /// `sysmon`, because nobody had polled for 10 ms.
    Sysmon,
    /// Not known.
    Unknown,
}

/// The kind of file that was waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// A unix stream socket.
    Unix,
    /// A unix datagram socket.
    Unixgram,
    /// A unix sequenced-packet socket.
    Unixpacket,
    /// A raw IP socket.
    Ip,
    /// A pipe or FIFO.
    Pipe,
    /// A socket of another family (vsock, netlink, …).
    Socket,
    /// A character device, such as a terminal.
    Tty,
    /// Another pollable file (eventfd, inotify, …).
    Other,
    /// Not known.
    Unknown,
}

/// What the goroutine was about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accept a connection.
    Accept,
    /// Finish a connect.
    Connect,
    /// Read.
    Read,
    /// Write.
    Write,
}

/// Who opened the connection, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer connected to a listener of this process.
    Inbound,
    /// This process connected to the peer.
    Outbound,
    /// Not known, or there are no connections (UDP, pipes).
    Unknown,
}

/// One end of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Address {
    /// An IP address and port; a v4-mapped IPv6 address is shown as IPv4.
    Ip(SocketAddr),
    /// A unix socket's path; an abstract name starts with `@`.
    Path(Arc<str>),
}

/// A goroutine's pprof labels, sorted by key.
pub type Labels = Rc<[(Arc<str>, Arc<str>)]>;

/// The file waited on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// What kind of file it is.
    pub kind: Kind,
    /// Its own address, if it has one.
    pub local: Option<Address>,
    /// Its peer's address, if it has one.
    pub remote: Option<Address>,
    /// Who opened the connection.
    pub direction: Direction,
}

/// The clocks of a wait, CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The goroutine is about to park. For a wait with [`Wait::started_before`], the moment of attaching.
    pub start_ns: u64,
    /// The kernel made the fd ready.
    pub kernel_ready_ns: Option<u64>,
    /// How `kernel_ready_ns` is known.
    pub kernel_ready_source: KernelReadySource,
    /// When `kernel_ready_ns` is not known: it was not before this.
    pub kernel_ready_after_ns: Option<u64>,
    /// The runtime's poller collected the event.
    pub poll_ns: Option<u64>,
    /// The goroutine runs again; for [`Outcome::Open`] the end of the recording.
    pub end_ns: u64,
}

/// A wait's duration, split; the parts that are known and `unknown_ns` add up to it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Nothing had come yet.
    pub peer_ns: Option<u64>,
    /// It had come, and nobody polled.
    pub pickup_ns: Option<u64>,
    /// Runnable, and no P ran it.
    pub queue_ns: Option<u64>,
    /// Between two clocks with an unseen one in between.
    pub unknown_ns: u64,
}

/// One phase of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Enum)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing had come yet.
    Peer,
    /// It had come, and nobody polled.
    Pickup,
    /// Runnable, and no P ran it.
    Queue,
    /// Between two clocks with an unseen one in between.
    Unknown,
}

impl Phase {
    /// All phases, in the order of time.
    pub const ALL: [Self; 4] = [Self::Peer, Self::Pickup, Self::Queue, Self::Unknown];
}

/// One park of a goroutine in Go's network poller.
#[derive(Clone, Debug)]
pub struct Wait {
    /// The process, in the PID namespace of this tool.
    pub pid: u32,
    /// The goroutine's id.
    pub goid: u64,
    /// The thread on which it ran again (0: unknown).
    pub tid: u32,
    /// The file descriptor.
    pub fd: i32,
    /// Read or write.
    pub mode: Mode,
    /// How it ended.
    pub outcome: Outcome,
    /// Woken as ready, but the next I/O on it said EAGAIN again.
    pub spurious: bool,
    /// It had begun before the recording did.
    pub started_before: bool,
    /// The clocks.
    pub clocks: Clocks,
    /// Who collected the event.
    pub poller: Poller,
    /// Waiting for work, not for an answer: accept loops, keep-alive reads between requests.
    pub idle: bool,
    /// How much of its beginning was idle, ns: nothing had been asked of the peer yet. Known to a jiffy of the kernel.
    pub idle_ns: u64,
    /// What it was about to do.
    pub role: Role,
    /// The file.
    pub endpoint: Rc<Endpoint>,
    /// The user stack, leaf first; `None`: not known.
    pub stack: Option<StackId>,
    /// The goroutine's pprof labels; `None`: it has none.
    pub labels: Option<Labels>,
    /// How many waits it stands for, with itself: more than one where not all were followed, to stay within a budget.
    pub stands_for: u32,
}

impl Clocks {
    /// From start to end, ns.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

impl Wait {
    /// Whether it was open when the recording began and still was when it ended.
    #[must_use]
    pub fn throughout(&self) -> bool {
        self.started_before && self.outcome == Outcome::Open
    }

    /// Splits the duration. A clock that was not seen makes its neighbours one unknown phase, with one
    /// exception: when nothing was ever collected and the wait did not end as ready (deadline, close, still
    /// open), nothing had come, so all of it is the peer's.
    #[must_use]
    pub fn phases(&self) -> Phases {
        let Clocks { start_ns, kernel_ready_ns, poll_ns, end_ns, .. } = self.clocks;
        let span = |from: u64, to: u64| to.saturating_sub(from);
        let all = self.clocks.duration_ns();
        match (kernel_ready_ns, poll_ns) {
            (Some(ready), Some(poll)) => Phases {
                peer_ns: Some(span(start_ns, ready)),
                pickup_ns: Some(span(ready, poll)),
                queue_ns: Some(span(poll, end_ns)),
                unknown_ns: 0,
            },
            (None, Some(poll)) => Phases {
                queue_ns: Some(span(poll, end_ns)),
                unknown_ns: span(start_ns, poll),
                ..Phases::default()
            },
            (Some(ready), None) => Phases {
                peer_ns: Some(span(start_ns, ready)),
                unknown_ns: span(ready, end_ns),
                ..Phases::default()
            },
            (None, None) => match self.outcome {
                Outcome::Timeout | Outcome::Closed | Outcome::Rearmed | Outcome::Open => {
                    Phases { peer_ns: Some(all), ..Phases::default() }
                }
                Outcome::Ready | Outcome::Error => Phases { unknown_ns: all, ..Phases::default() },
            },
        }
    }
}

impl Phases {
    /// The length of one phase, 0 when it is not known.
    #[must_use]
    pub fn get_ns(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Peer => self.peer_ns.unwrap_or(0),
            Phase::Pickup => self.pickup_ns.unwrap_or(0),
            Phase::Queue => self.queue_ns.unwrap_or(0),
            Phase::Unknown => self.unknown_ns,
        }
    }
}

/// The name that records and reports use; the same as serde's.
macro_rules! names {
    ($($type:ident { $($variant:ident = $name:literal),+ $(,)? })+) => {$(
        impl $type {
            /// The name that records and reports use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    )+};
}

names! {
    Mode { Read = "read", Write = "write" }
    Outcome {
        Ready = "ready", Timeout = "timeout", Closed = "closed", Error = "error", Rearmed = "rearmed",
        Open = "open",
    }
    KernelReadySource {
        Callback = "callback", DataReady = "data_ready", StateChange = "state_change", Reset = "reset",
        WriteEstimate = "write_estimate", PollerWakeup = "poller_wakeup", BeforePark = "before_park",
        None = "none",
    }
    Poller { Blocking = "blocking", Nonblocking = "nonblocking", Sysmon = "sysmon", Unknown = "unknown" }
    Kind {
        Tcp = "tcp", Udp = "udp", Unix = "unix", Unixgram = "unixgram", Unixpacket = "unixpacket", Ip = "ip",
        Pipe = "pipe", Socket = "socket", Tty = "tty", Other = "other", Unknown = "unknown",
    }
    Role { Accept = "accept", Connect = "connect", Read = "read", Write = "write" }
    Direction { Inbound = "inbound", Outbound = "outbound", Unknown = "unknown" }
    Phase { Peer = "peer", Pickup = "pickup", Queue = "queue", Unknown = "unknown" }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}
