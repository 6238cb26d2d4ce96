//! The kernel's facts of a file → an endpoint: kind, addresses, who connected to whom.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use foldhash::HashSet;
use netpoll_probe_common::{limit::UNIX_NAMES, record::UnixNameRecord, slot::FileFacts};

use super::recent::Recent;
use crate::model::wait::{Address, Direction, Endpoint, Kind};

/// `include/net/tcp_states.h`; unix sockets use the same numbers.
pub(super) const TCP_LISTEN: u32 = 10;
/// `include/linux/socket.h`
pub(super) const AF_INET: u16 = 2;
/// See [`AF_INET`].
pub(super) const AF_INET6: u16 = 10;
const AF_UNIX: u16 = 1;
/// `include/linux/net.h`, `enum sock_type`
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;
const SOCK_SEQPACKET: u16 = 5;
/// `include/uapi/linux/in.h`
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
/// MPTCP is TCP to who waits on it.
const IPPROTO_MPTCP_LOW_BITS: u16 = 262;
/// `include/uapi/linux/stat.h`
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;

/// How many endpoints are kept to be shared; others are made anew. Connections come without end.
const KEPT: usize = 1 << 14;

/// Names of a unix socket: its own, its peer's.
type Names = (Option<Arc<str>>, Option<Arc<str>>);

/// Makes endpoints, and shares equal ones.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// By inode.
    known: Recent<u64, (FileFacts, Rc<Endpoint>)>,
    /// By inode; as many as the programs believe are here.
    unix_names: Recent<u64, Names>,
    /// Local ports of this process's listeners. A port serves one purpose, so the address does not matter.
    listeners: HashSet<u16>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            known: Recent::new(KEPT),
            unix_names: Recent::new(UNIX_NAMES as usize),
            listeners: HashSet::default(),
        }
    }
}

impl Endpoints {
    /// Learns from a file that is no wait.
    pub(super) fn learn(&mut self, file: &FileFacts, socket_state: u32) {
        if kind_of(file) == Kind::Tcp && socket_state == TCP_LISTEN && self.listeners.insert(file.local_port)
        {
            self.known.clear();
        }
    }

    /// Learns a unix socket's names.
    pub(super) fn name(&mut self, record: &UnixNameRecord) {
        let names = (path(&record.local, record.local_length), path(&record.remote, record.remote_length));
        self.unix_names.insert(record.inode, names);
        self.known.remove(record.inode);
    }

    /// The endpoint of a file.
    pub(super) fn of(&mut self, file: &FileFacts, socket_state: u32) -> Rc<Endpoint> {
        self.learn(file, socket_state);
        if file.family == AF_UNIX {
            // Used here too, or it would be forgotten while the programs believe that it is known.
            self.unix_names.get(file.inode, |_| ());
        }
        let known =
            self.known.get(file.inode, |(facts, endpoint)| (facts == file).then(|| Rc::clone(endpoint)));
        if let Some(endpoint) = known.flatten() {
            return endpoint;
        }
        let endpoint = Rc::new(self.make(file));
        self.known.insert(file.inode, (*file, Rc::clone(&endpoint)));
        endpoint
    }

    fn make(&mut self, file: &FileFacts) -> Endpoint {
        let kind = kind_of(file);
        let (local, remote, direction) = match kind {
            Kind::Tcp | Kind::Udp | Kind::Ip => {
                let local = ip(file.family, file.local_address, file.local_port);
                let remote = ip(file.family, file.remote_address, file.remote_port)
                    .filter(|address| address.port() != 0 || kind == Kind::Ip);
                let direction = match remote {
                    Some(_) if kind == Kind::Tcp && self.listeners.contains(&file.local_port) => {
                        Direction::Inbound
                    }
                    Some(_) if kind == Kind::Tcp => Direction::Outbound,
                    _ => Direction::Unknown,
                };
                (local.map(Address::Ip), remote.map(Address::Ip), direction)
            }
            Kind::Unix | Kind::Unixgram | Kind::Unixpacket => {
                let (local, remote) = self.unix_names.get(file.inode, Names::clone).unwrap_or_default();
                // A stream's accepted end has its listener's name; the dialling end sees that name at its peer.
                let direction = match (kind, &local, &remote) {
                    (Kind::Unixgram, _, _) => Direction::Unknown,
                    (_, _, Some(_)) => Direction::Outbound,
                    (_, Some(_), None) => Direction::Inbound,
                    (_, None, None) => Direction::Unknown,
                };
                (local.map(Address::Path), remote.map(Address::Path), direction)
            }
            _ => (None, None, Direction::Unknown),
        };
        Endpoint { kind, local, remote, direction }
    }
}

fn kind_of(file: &FileFacts) -> Kind {
    if file.known != 1 {
        return Kind::Unknown;
    }
    match file.mode & S_IFMT {
        S_IFIFO => Kind::Pipe,
        S_IFCHR => Kind::Tty,
        S_IFSOCK => match (file.family, file.socket_type, file.protocol) {
            (AF_UNIX, SOCK_STREAM, _) => Kind::Unix,
            (AF_UNIX, SOCK_DGRAM, _) => Kind::Unixgram,
            (AF_UNIX, SOCK_SEQPACKET, _) => Kind::Unixpacket,
            (AF_INET | AF_INET6, SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP_LOW_BITS) => Kind::Tcp,
            (AF_INET | AF_INET6, SOCK_DGRAM, IPPROTO_UDP) => Kind::Udp,
            (AF_INET | AF_INET6, _, _) => Kind::Ip,
            _ => Kind::Socket,
        },
        _ => Kind::Other,
    }
}

/// A v4-mapped IPv6 address is shown as what it is, IPv4.
fn ip(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let address = if family == AF_INET {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    };
    Some(SocketAddr::new(address, port))
}

/// A path as people write it: an abstract name begins with `@` instead of NUL, a file's ends before its NUL.
fn path(bytes: &[u8], length: u32) -> Option<Arc<str>> {
    let bytes = bytes.get(..length as usize)?;
    let text = match bytes.split_first()? {
        (0, []) => return None,
        (0, name) => format!("@{}", String::from_utf8_lossy(name).trim_end_matches('\0')),
        _ => {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        }
    };
    Some(text.into())
}
