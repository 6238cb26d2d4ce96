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
    /// Calls of the C library's resolver, each of which blocks a thread. `GODEBUG=netdns=go` chooses Go's own.
    CResolver,
}

/// One such way of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bypass {
    /// The process.
    pub pid: u32,
    /// How.
    pub kind: BypassKind,
    /// How many fds, at the end of the recording; or how many calls in it.
    pub count: u64,
    /// The first few of the fds, and where they lead to.
    pub fds: Vec<BypassFd>,
    /// Modules of the program that have an event loop of their own, with their versions: perhaps the epoll instances are theirs.
    pub modules: Vec<String>,
    /// How long the calls took, in all, ns; `None` for fds, whose waits are not seen.
    pub blocked_ns: Option<u64>,
    /// How long the longest of them took, ns.
    pub longest_ns: Option<u64>,
}

/// An fd that is waited on past the netpoller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BypassFd {
    /// The file descriptor.
    pub fd: i32,
    /// Its peer; `None`: it has none, or it is not known.
    pub peer: Option<String>,
}

/// Go modules that poll with epoll by themselves, without their `/vN`. fsnotify did so until 1.5.
const EVENT_LOOPS: [&str; 8] = [
    "github.com/Allenxuxu/gev",
    "github.com/cloudwego/netpoll",
    "github.com/containerd/console",
    "github.com/fsnotify/fsnotify",
    "github.com/lesismal/nbio",
    "github.com/panjf2000/gnet",
    "github.com/tidwall/evio",
    "github.com/xtaci/gaio",
];

/// Those of a program's modules, given by path and version, that have an event loop of their own.
pub fn event_loops(modules: &[(String, String)]) -> Vec<String> {
    let is_loop = |path: &str| {
        EVENT_LOOPS.iter().any(|known| {
            path.strip_prefix(known).is_some_and(|major| major.is_empty() || major.starts_with("/v"))
        })
    };
    let loops = modules.iter().filter(|(path, version)| is_loop(path) && !is_newer_fsnotify(path, version));
    loops.map(|(path, version)| format!("{path} {version}")).collect()
}

/// From 1.6 on it reads inotify through Go's netpoller (its `CHANGELOG.md`).
fn is_newer_fsnotify(path: &str, version: &str) -> bool {
    let minor = version.strip_prefix("v1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    path.ends_with("/fsnotify") && minor.is_some_and(|minor| minor >= 6)
}

/// Fds of a [`Bypass`] that are named.
pub const NAMED_FDS: usize = 8;

impl Bypass {
    fn none_yet(pid: u32, kind: BypassKind) -> Self {
        Self { pid, kind, count: 0, fds: Vec::new(), modules: Vec::new(), blocked_ns: None, longest_ns: None }
    }

    /// Of the C library's resolver, which was not called yet.
    #[must_use]
    pub fn of_resolver(pid: u32) -> Self {
        Self { blocked_ns: Some(0), longest_ns: Some(0), ..Self::none_yet(pid, BypassKind::CResolver) }
    }

    /// Adds a call of so many ns.
    pub fn add_call(&mut self, call_ns: u64) {
        self.count += 1;
        self.blocked_ns = self.blocked_ns.map(|blocked_ns| blocked_ns.saturating_add(call_ns));
        self.longest_ns = self.longest_ns.max(Some(call_ns));
    }

    /// Of these fds; `None` when there are none.
    #[must_use]
    pub fn of(pid: u32, kind: BypassKind, fds: impl IntoIterator<Item = BypassFd>) -> Option<Self> {
        let mut bypass = Self::none_yet(pid, kind);
        for fd in fds {
            bypass.count += 1;
            if bypass.fds.len() < NAMED_FDS {
                bypass.fds.push(fd);
            }
        }
        (bypass.count > 0).then_some(bypass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_modules_with_event_loops() {
        let module = |path: &str, version: &str| (path.to_owned(), version.to_owned());
        let modules = [
            module("github.com/panjf2000/gnet/v2", "v2.9.1"),
            module("github.com/panjf2000/gnet-examples", "v1.0.0"),
            module("github.com/cloudwego/netpoll", "v0.7.0"),
            module("github.com/fsnotify/fsnotify", "v1.4.9"),
            module("github.com/fsnotify/fsnotify", "v1.10.1"),
            module("golang.org/x/net", "v0.40.0"),
        ];
        let found = event_loops(&modules);
        assert_eq!(
            found,
            [
                "github.com/panjf2000/gnet/v2 v2.9.1",
                "github.com/cloudwego/netpoll v0.7.0",
                "github.com/fsnotify/fsnotify v1.4.9"
            ]
        );
    }
}
