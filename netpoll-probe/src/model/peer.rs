//! Whom a wait waited for, in a form that many connections share.

use std::fmt;

use super::wait::{Address, Direction, Kind, Role, Wait};

/// Whom a goroutine waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// The other end of a connection that this process opened, or of which it is not known who did.
    Remote {
        /// The kind of socket.
        kind: Kind,
        /// Its address.
        address: Address,
    },
    /// Those who connected to a listener: all of them together, for their own ports say nothing.
    ClientsOf {
        /// The kind of socket.
        kind: Kind,
        /// The listener's address.
        local: Address,
    },
    /// Whoever connects next.
    NewConnections {
        /// The kind of socket.
        kind: Kind,
        /// The listener's address.
        local: Address,
    },
    /// Whoever sends to, or is sent to from, a socket without a fixed peer.
    Anyone {
        /// The kind of socket.
        kind: Kind,
        /// The socket's own address.
        local: Address,
    },
    /// The other end of a file without addresses, such as a pipe.
    File {
        /// The kind of file.
        kind: Kind,
        /// Its descriptor.
        fd: i32,
    },
    /// Not known.
    Unknown {
        /// The kind of file, as far as it is known.
        kind: Kind,
    },
    /// All peers beyond the number that a profile tells apart.
    Other,
}

impl Peer {
    /// Whom this wait waited for.
    #[must_use]
    pub fn of(wait: &Wait) -> Self {
        let endpoint = &*wait.endpoint;
        let kind = endpoint.kind;
        match (wait.role, endpoint.direction, &endpoint.local, &endpoint.remote) {
            (Role::Accept, _, Some(local), _) => Self::NewConnections { kind, local: local.clone() },
            (_, Direction::Inbound, Some(local), _) => Self::ClientsOf { kind, local: local.clone() },
            (_, Direction::Outbound | Direction::Unknown, _, Some(address)) => {
                Self::Remote { kind, address: address.clone() }
            }
            (_, _, Some(local), None) if matches!(kind, Kind::Udp | Kind::Unixgram | Kind::Ip) => {
                Self::Anyone { kind, local: local.clone() }
            }
            _ => match kind {
                Kind::Pipe | Kind::Tty | Kind::Other | Kind::Socket | Kind::Unixgram => {
                    Self::File { kind, fd: wait.fd }
                }
                _ => Self::Unknown { kind },
            },
        }
    }

    /// The kind of file behind it; `None` for [`Peer::Other`].
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Remote { kind, .. }
            | Self::ClientsOf { kind, .. }
            | Self::NewConnections { kind, .. }
            | Self::Anyone { kind, .. }
            | Self::File { kind, .. }
            | Self::Unknown { kind } => Some(*kind),
            Self::Other => None,
        }
    }
}

/// A kind is named where the address does not show it: TCP is what one expects of `address:port`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = |kind: &Kind| match kind {
            Kind::Udp => "udp ",
            Kind::Ip => "raw ip ",
            Kind::Unixgram => "unixgram ",
            Kind::Unixpacket => "unixpacket ",
            _ => "",
        };
        match self {
            Self::Remote { kind, address } => write!(f, "{}{address}", over(kind)),
            Self::ClientsOf { kind, local } => write!(f, "clients of {}{local}", over(kind)),
            Self::NewConnections { kind, local } => write!(f, "new connections on {}{local}", over(kind)),
            Self::Anyone { kind, local } => write!(f, "anyone on {}{local}", over(kind)),
            Self::File { kind: Kind::Other, fd } => write!(f, "file fd {fd}"),
            Self::File { kind, fd } => write!(f, "{kind} fd {fd}"),
            Self::Unknown { kind: Kind::Unknown } => f.write_str("unknown peer"),
            Self::Unknown { kind } => write!(f, "unknown {kind} peer"),
            Self::Other => f.write_str("other peers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{testing::wait, wait::Endpoint};

    fn named(
        role: Role,
        kind: Kind,
        direction: Direction,
        local: Option<&str>,
        remote: Option<&str>,
    ) -> String {
        let address = |text: &str| text.parse().map_or_else(|_| Address::Path(text.into()), Address::Ip);
        let endpoint = Endpoint { kind, local: local.map(address), remote: remote.map(address), direction };
        Peer::of(&Wait { fd: 7, role, endpoint: endpoint.into(), ..wait(0, 1) }).to_string()
    }

    #[test]
    fn a_backend_is_its_address() {
        let name =
            named(Role::Read, Kind::Tcp, Direction::Outbound, Some("10.0.0.1:41234"), Some("10.0.0.5:5432"));
        assert_eq!(name, "10.0.0.5:5432");
        let name = named(Role::Connect, Kind::Tcp, Direction::Unknown, None, Some("[fd00::5]:5432"));
        assert_eq!(name, "[fd00::5]:5432");
        let name = named(Role::Read, Kind::Udp, Direction::Unknown, Some("10.0.0.1:5"), Some("10.0.0.2:53"));
        assert_eq!(name, "udp 10.0.0.2:53");
        assert_eq!(
            named(Role::Read, Kind::Unix, Direction::Outbound, None, Some("/run/db.sock")),
            "/run/db.sock"
        );
    }

    #[test]
    fn clients_are_one_peer_whatever_their_port() {
        for port in ["10.0.0.9:40001", "10.0.0.9:40002"] {
            let name = named(Role::Read, Kind::Tcp, Direction::Inbound, Some("0.0.0.0:8080"), Some(port));
            assert_eq!(name, "clients of 0.0.0.0:8080");
        }
        let name = named(Role::Read, Kind::Unix, Direction::Inbound, Some("/run/me.sock"), None);
        assert_eq!(name, "clients of /run/me.sock");
    }

    #[test]
    fn sockets_and_files_without_a_peer_say_what_they_are() {
        let name = named(Role::Accept, Kind::Tcp, Direction::Unknown, Some("0.0.0.0:8080"), None);
        assert_eq!(name, "new connections on 0.0.0.0:8080");
        let name = named(Role::Read, Kind::Udp, Direction::Unknown, Some("0.0.0.0:53"), None);
        assert_eq!(name, "anyone on udp 0.0.0.0:53");
        assert_eq!(named(Role::Read, Kind::Pipe, Direction::Unknown, None, None), "pipe fd 7");
        assert_eq!(named(Role::Read, Kind::Other, Direction::Unknown, None, None), "file fd 7");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(named(Role::Read, Kind::Unknown, Direction::Unknown, None, None), "unknown peer");
        assert_eq!(
            named(Role::Read, Kind::Tcp, Direction::Inbound, None, Some("1.2.3.4:5")),
            "unknown tcp peer"
        );
        assert_eq!(named(Role::Read, Kind::Unix, Direction::Unknown, None, None), "unknown unix peer");
    }
}
