//! A process's open files → how it waits past the netpoller.

use std::rc::Rc;

use netpoll_probe_common::record::FileRecord;

use crate::model::{
    bypass::{Bypass, BypassFd, BypassKind, event_loops},
    wait::Endpoint,
};

/// `include/uapi/linux/stat.h`
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// `include/uapi/asm-generic/fcntl.h`, the same on amd64 and arm64.
const O_NONBLOCK: u32 = 0o4000;
/// Standard input, output and error: they may be sockets of a log daemon, and the program did not make them.
const LAST_STANDARD_FD: i32 = 2;

/// The sockets that are in blocking mode, if any. `endpoint` tells where a file leads to.
pub fn blocking_sockets(
    pid: u32,
    files: &[FileRecord],
    mut endpoint: impl FnMut(&FileRecord) -> Rc<Endpoint>,
) -> Option<Bypass> {
    let blocking = files.iter().filter(|file| {
        file.file.mode & S_IFMT == S_IFSOCK && file.flags & O_NONBLOCK == 0 && file.file.fd > LAST_STANDARD_FD
    });
    let named = blocking.map(|file| BypassFd {
        fd: file.file.fd,
        peer: endpoint(file).remote.as_ref().map(ToString::to_string),
    });
    Bypass::of(pid, BypassKind::BlockingSocket, named)
}

/// The epoll instances that are not the netpoller's, if any. `epolls` are all of the process, `modules` those of its program.
pub fn own_epolls(
    pid: u32,
    epolls: &[i32],
    netpoller: Option<i32>,
    modules: &[(String, String)],
) -> Option<Bypass> {
    // When it is not known which one is the netpoller's, one more than it is another.
    let mut others: Vec<i32> = epolls.iter().copied().filter(|fd| Some(*fd) != netpoller).collect();
    if netpoller.is_none() && !others.is_empty() {
        others.remove(0);
    }
    let others = others.into_iter().map(|fd| BypassFd { fd, peer: None });
    let bypass = Bypass::of(pid, BypassKind::OwnEpoll, others)?;
    Some(Bypass { modules: event_loops(modules), ..bypass })
}

/// The fds of files that have no inode of their own, which epoll instances are among.
pub fn anonymous(files: &[FileRecord]) -> impl Iterator<Item = i32> {
    files.iter().filter(|file| file.file.mode & S_IFMT == 0).map(|file| file.file.fd)
}

#[cfg(test)]
mod tests {
    use netpoll_probe_common::slot::FileFacts;
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::model::wait::{Direction, Kind};

    fn file(fd: i32, mode: u16, flags: u32) -> FileRecord {
        let file = FileFacts { fd, mode, known: 1, ..FileFacts::UNKNOWN };
        FileRecord { file, flags, ..FileRecord::new_zeroed() }
    }

    fn nowhere() -> Rc<Endpoint> {
        let direction = Direction::Unknown;
        Rc::new(Endpoint { kind: Kind::Tcp, local: None, remote: None, direction })
    }

    #[test]
    fn blocking_sockets_are_those_that_the_program_made() {
        let socket = S_IFSOCK | 0o777;
        let files = [
            file(1, socket, 0),
            file(7, socket, 2 | O_NONBLOCK),
            file(8, socket, 2),
            file(9, 0o100_644, 0),
            file(10, socket, 0),
        ];
        let bypass = blocking_sockets(4, &files, |_| nowhere()).unwrap();
        assert_eq!((bypass.pid, bypass.kind, bypass.count), (4, BypassKind::BlockingSocket, 2));
        assert_eq!(bypass.fds.iter().map(|fd| fd.fd).collect::<Vec<_>>(), [8, 10]);
        assert_eq!(blocking_sockets(4, &files[..2], |_| nowhere()), None);
    }

    #[test]
    fn the_netpoller_has_one_epoll_instance() {
        assert_eq!(own_epolls(4, &[3], Some(3), &[]), None);
        assert_eq!(own_epolls(4, &[3], None, &[]), None);
        assert_eq!(own_epolls(4, &[], None, &[]), None);
        assert_eq!(own_epolls(4, &[3, 9, 12], Some(9), &[]).unwrap().count, 2);
        assert_eq!(own_epolls(4, &[3, 9], None, &[]).unwrap().count, 1);
        let many: Vec<i32> = (0..100).collect();
        let bypass = own_epolls(4, &many, Some(0), &[]).unwrap();
        assert_eq!((bypass.count, bypass.fds.len()), (99, 8));
    }
}
