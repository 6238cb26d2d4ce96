//! The programs' numbers in words.

use netpoll_probe_common::{
    record::{outcome, poller},
    slot::TCP_SYN_SENT,
};

use super::endpoint;
use crate::model::wait::{Mode, Outcome, Poller, Role};

pub(super) fn mode_of(mode: u64) -> Option<Mode> {
    match u8::try_from(mode).ok()? {
        b'r' => Some(Mode::Read),
        b'w' => Some(Mode::Write),
        _ => None,
    }
}

pub(super) fn outcome_of(code: u8) -> Option<Outcome> {
    match code {
        outcome::READY => Some(Outcome::Ready),
        outcome::TIMEOUT => Some(Outcome::Timeout),
        outcome::CLOSED => Some(Outcome::Closed),
        outcome::ERROR => Some(Outcome::Error),
        outcome::REARMED => Some(Outcome::Rearmed),
        _ => None,
    }
}

pub(super) fn poller_of(code: u8) -> Poller {
    match code {
        poller::BLOCKING => Poller::Blocking,
        poller::NONBLOCKING => Poller::Nonblocking,
        poller::SYSMON => Poller::Sysmon,
        _ => Poller::Unknown,
    }
}

/// What the socket alone tells; the stack may tell more ([`super::classify::Told`]).
pub(super) fn role_of(mode: Mode, socket_state: u32) -> Role {
    match (mode, socket_state) {
        (Mode::Read, endpoint::TCP_LISTEN) => Role::Accept,
        (Mode::Write, TCP_SYN_SENT) => Role::Connect,
        (Mode::Read, _) => Role::Read,
        (Mode::Write, _) => Role::Write,
    }
}
