//! Waits and stacks for tests.

use std::rc::Rc;

use super::{
    stack::{Frame, Stack},
    wait::{
        Address, Clocks, Direction, Endpoint, KernelReadySource, Kind, Mode, Outcome, Poller, Role, Wait,
    },
};

/// A wait of goroutine 1 on fd 3 of which nothing but its ends is known.
pub(crate) fn wait(start_ns: u64, end_ns: u64) -> Wait {
    Wait {
        pid: 4242,
        goid: 1,
        tid: 4242,
        fd: 3,
        mode: Mode::Read,
        outcome: Outcome::Ready,
        spurious: false,
        started_before: false,
        clocks: Clocks {
            start_ns,
            kernel_ready_ns: None,
            kernel_ready_source: KernelReadySource::None,
            kernel_ready_after_ns: None,
            poll_ns: None,
            end_ns,
        },
        poller: Poller::Unknown,
        idle: false,
        idle_ns: 0,
        role: Role::Read,
        endpoint: Rc::new(Endpoint {
            kind: Kind::Unknown,
            local: None,
            remote: None,
            direction: Direction::Unknown,
        }),
        stack: None,
        labels: None,
        stands_for: 1,
    }
}

/// A TCP connection.
pub(crate) fn tcp(local: &str, remote: Option<&str>, direction: Direction) -> Rc<Endpoint> {
    let address = |text: &str| text.parse().map(Address::Ip).expect("an address of a test");
    Rc::new(Endpoint { kind: Kind::Tcp, local: Some(address(local)), remote: remote.map(address), direction })
}

/// A stack, leaf first, of functions with their file and line: `main.main main.go:12`.
pub(crate) fn stack(frames: &[&str]) -> Stack {
    let frame = |text: &&str| {
        let (func, place) = text.rsplit_once(' ').unwrap_or((text, ""));
        let (file, line) = place.rsplit_once(':').unwrap_or((place, "0"));
        let line = line.parse().expect("a line of a test");
        Frame { func: func.into(), file: file.into(), line, inlined: false }
    };
    Stack { frames: frames.iter().map(frame).collect(), truncated: false }
}
