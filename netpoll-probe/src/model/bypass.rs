//! Waits that do not go through Go's netpoller, and so are in no record: what shows that there are some.

use serde::Serialize;

/// How a program waits past the netpoller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BypassKind {
    /// Sockets without `O_NONBLOCK`: who reads one blocks a thread. `(*os.File).Fd` makes them so.
    BlockingSocket,
    /// Epoll instances besides the netpoller's: network frameworks with an event loop of their own.
    OwnEpoll,
}

/// One such way of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bypass {
    /// The process.
    pub pid: u32,
    /// How.
    pub kind: BypassKind,
    /// How many fds, at the end of the recording.
    pub count: u64,
    /// The first few of them, and where they lead to.
    pub fds: Vec<BypassFd>,
}

/// An fd that is waited on past the netpoller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BypassFd {
    /// The file descriptor.
    pub fd: i32,
    /// Its peer; `None`: it has none, or it is not known.
    pub peer: Option<String>,
}

/// Fds of a [`Bypass`] that are named.
pub const NAMED_FDS: usize = 8;

impl Bypass {
    /// Of these fds; `None` when there are none.
    #[must_use]
    pub fn of(pid: u32, kind: BypassKind, fds: impl IntoIterator<Item = BypassFd>) -> Option<Self> {
        let mut bypass = Self { pid, kind, count: 0, fds: Vec::new() };
        for fd in fds {
            bypass.count += 1;
            if bypass.fds.len() < NAMED_FDS {
                bypass.fds.push(fd);
            }
        }
        (bypass.count > 0).then_some(bypass)
    }
}
