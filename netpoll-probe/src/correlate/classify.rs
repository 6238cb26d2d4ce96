//! What a stack tells: what the goroutine was about to do, and whether it waited for work rather than for an answer.

use super::Sent;
use crate::model::{
    stack::Stack,
    wait::{Clocks, Mode, Role, Wait},
};

/// A rule: a wait is idle when each of these functions is on its stack, leaf side first.
///
/// Kept to waits that mean "nothing to do": the peer owes no answer.
const IDLE_STACKS: &[&[&str]] = &[
    // A server waits for the next request on a kept-alive connection (net/http/server.go).
    &["net/http.(*connReader).Read", "bufio.(*Reader).Peek", "net/http.(*conn).serve"],
    &["net/http.(*conn).readRequest", "net/http.(*conn).serve"],
    // It watches for the client's going away while a handler runs.
    &["net/http.(*connReader).backgroundRead"],
    // HTTP/2 servers read frames all the time (net/http/h2_bundle.go, golang.org/x/net/http2).
    &["net/http.(*http2serverConn).readFrames"],
    &["golang.org/x/net/http2.(*serverConn).readFrames"],
    // gRPC's server transport likewise (google.golang.org/grpc/internal/transport/http2_server.go).
    &["google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams"],
];

/// Background readers of connections on which requests go out one at a time (net/http/transport.go): they wait from
/// the end of one answer on, so the time before the next request is nobody's fault.
const ANSWER_READERS: &[&str] = &["net/http.(*persistConn).readLoop"];

/// What a stack tells of each wait that has it: found once, as comparing names takes longer than all the rest of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    connects: bool,
    accepts: bool,
    idle: bool,
    reads_answers: bool,
}

impl Told {
    /// By this stack. `named` are functions that the user calls idle.
    #[must_use]
    pub fn by(stack: &Stack, named: &[String]) -> Self {
        Self {
            connects: has(stack, "net.(*netFD).connect"),
            accepts: has(stack, "internal/poll.(*FD).Accept"),
            idle: named.iter().any(|function| has(stack, function))
                || IDLE_STACKS.iter().any(|functions| in_order(stack, functions)),
            reads_answers: ANSWER_READERS.iter().any(|function| has(stack, function)),
        }
    }

    /// Whether what it waited before it sent something is idle.
    #[must_use]
    pub fn reads_answers(self) -> bool {
        self.reads_answers
    }

    /// Says of a wait what the goroutine was about to do, and whether it waited for work.
    pub fn of(self, wait: &mut Wait, sent: Sent) {
        // A connect that was done before it parked looks like a write to the socket.
        if self.connects && wait.mode == Mode::Write {
            wait.role = Role::Connect;
        } else if self.accepts {
            wait.role = Role::Accept;
        }
        wait.idle = self.idle || wait.role == Role::Accept;
        if self.reads_answers && !sent.before {
            split_idle(wait, sent);
        }
    }
}

/// Splits what a reader of answers waited into idle time and an answer's: the peer owes nothing before it is asked.
fn split_idle(wait: &mut Wait, sent: Sent) {
    let Clocks { start_ns, end_ns, kernel_ready_ns, .. } = wait.clocks;
    match sent.last_ns {
        None => wait.idle = true,
        Some(last_ns) => {
            wait.idle_ns = last_ns.min(kernel_ready_ns.unwrap_or(end_ns)).saturating_sub(start_ns);
        }
    }
}

fn has(stack: &Stack, function: &str) -> bool {
    stack.frames.iter().any(|frame| &*frame.func == function)
}

fn in_order(stack: &Stack, functions: &[&str]) -> bool {
    let mut frames = stack.frames.iter();
    functions.iter().all(|function| frames.any(|frame| &*frame.func == *function))
}
