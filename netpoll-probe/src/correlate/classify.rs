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

/// What the goroutine was about to do, corrected by its stack: a connect that was done before it parked looks like a
/// write to the socket.
#[must_use]
pub fn role(wait: &Wait, stack: &Stack) -> Role {
    if has(stack, "net.(*netFD).connect") && wait.mode == Mode::Write {
        return Role::Connect;
    }
    if has(stack, "internal/poll.(*FD).Accept") {
        return Role::Accept;
    }
    wait.role
}

/// Whether it waited for work. `named` are functions that the user calls idle.
#[must_use]
pub fn idle(wait: &Wait, stack: &Stack, named: &[String]) -> bool {
    wait.role == Role::Accept
        || named.iter().any(|function| has(stack, function))
        || IDLE_STACKS.iter().any(|functions| in_order(stack, functions))
}

/// Background readers of connections on which requests go out one at a time (net/http/transport.go): they wait from
/// the end of one answer on, so the time before the next request is nobody's fault.
const ANSWER_READERS: &[&str] = &["net/http.(*persistConn).readLoop"];

/// Splits what such a reader waited into idle time and an answer's: the peer owes nothing before it is asked.
pub fn split_idle(wait: &mut Wait, sent: Sent, stack: &Stack) {
    if sent.before || !ANSWER_READERS.iter().any(|function| has(stack, function)) {
        return;
    }
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
