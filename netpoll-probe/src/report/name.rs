//! Names of groups, functions and stacks, safe to print.

use super::unit::clean;
use crate::model::{
    function::{Origin, origin, package, telling_frame},
    group::GroupKey,
    profile::{PeerId, Profile, StackKey},
    stack::{Frame, Stack},
    wait::{Kind, Phase},
};

/// How a report calls a stack that is not known.
pub(super) const NO_STACK: &str = "[unknown stack]";
/// How it calls the stacks that a profile does not tell apart.
pub(super) const OTHER_STACKS: &str = "[other stacks]";

/// A function without the folders of its import path: `pgconn.(*PgConn).receiveMessage`. The standard library's paths
/// are known and short, and stay.
pub(super) fn short(func: &str) -> String {
    let path = package(func);
    let keep = if matches!(origin(func, &[]), Origin::Standard | Origin::Unknown) {
        0
    } else {
        let elements: Vec<_> = path.split('/').collect();
        let last = elements.len().saturating_sub(1);
        let is_version = |element: &&str| {
            element
                .strip_prefix('v')
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        // `github.com/jackc/pgx/v5` is called pgx.
        let from = if elements.get(last).is_some_and(is_version) { last.saturating_sub(1) } else { last };
        elements.iter().take(from).map(|element| element.len() + 1).sum()
    };
    unescape(&clean(func.get(keep..).unwrap_or(func)))
}

/// The linker writes dots of a path's last element as `%2e` (`cmd/internal/objabi.PathToPrefix`).
pub(super) fn unescape(func: &str) -> String {
    func.replace("%2e", ".")
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A function with its place: `main.(*Store).User store.go:88`.
pub(super) fn with_place(frame: &Frame) -> String {
    match (&*frame.file, frame.line) {
        ("", _) | (_, 0) => short(&frame.func),
        (file, line) => format!("{} {}:{line}", short(&frame.func), clean(file_name(file))),
    }
}

/// What a goroutine with this stack was doing, in one function.
pub(super) fn doing(profile: &Profile, stack: StackKey) -> String {
    match stack {
        StackKey::Unknown => NO_STACK.to_owned(),
        StackKey::Other => OTHER_STACKS.to_owned(),
        StackKey::Known(_) => profile
            .stack(stack)
            .and_then(|stack| telling_frame(stack, &profile.modules()))
            .map_or_else(|| NO_STACK.to_owned(), |frame| short(&frame.func)),
    }
}

/// The neighbours of a stack's telling frame: what it called, and what called it.
pub(super) fn neighbours(stack: &Stack, modules: &[&str]) -> (Option<String>, Option<String>) {
    let Some(telling) = telling_frame(stack, modules) else { return (None, None) };
    let at = stack.frames.iter().position(|frame| std::ptr::eq(frame, telling)).unwrap_or(0);
    let is_plumbing = |frame: &Frame| matches!(package(&frame.func), "internal/poll" | "runtime");
    let called =
        at.checked_sub(1).and_then(|index| stack.frames.get(index)).filter(|frame| !is_plumbing(frame));
    let caller = stack.frames.get(at + 1).filter(|frame| !is_plumbing(frame));
    (called.map(|frame| short(&frame.func)), caller.map(|frame| short(&frame.func)))
}

/// A peer's name.
pub(super) fn peer(profile: &Profile, id: PeerId) -> String {
    clean(&profile.peer(id).to_string()).into_owned()
}

/// A group's name.
pub(super) fn group(profile: &Profile, key: &GroupKey) -> String {
    match key {
        GroupKey::Peer(peer) => clean(&peer.to_string()).into_owned(),
        GroupKey::Stack(stack) => {
            let telling = profile.stack(*stack).and_then(|stack| telling_frame(stack, &profile.modules()));
            telling.map_or_else(|| NO_STACK.to_owned(), with_place)
        }
        GroupKey::Function(func) => short(func),
        GroupKey::Goroutine(key) => format!("goroutine {}{}", key.goid, process(profile, key.pid)),
        GroupKey::Fd { pid, fd, peer } => {
            let kind = peer.kind().map_or("", Kind::name);
            let peer = peer.to_string();
            // A file without addresses is called by its fd already, "pipe fd 7".
            let what =
                if peer.ends_with(&format!("fd {fd}")) { kind.to_owned() } else { clean(&peer).into_owned() };
            format!("fd {fd}{} {what}", process(profile, *pid))
        }
        GroupKey::Role(role) => role.name().to_owned(),
        GroupKey::Outcome(outcome) => outcome.name().to_owned(),
        GroupKey::Phase(phase) => phase.name().to_owned(),
        GroupKey::NoStack => NO_STACK.to_owned(),
        GroupKey::Other => "others".to_owned(),
    }
}

/// Which process, when there is more than one.
fn process(profile: &Profile, pid: u32) -> String {
    if profile.metadata.targets.len() > 1 { format!(" of pid {pid}") } else { String::new() }
}

/// How a report calls the processes it is about.
pub(super) fn targets(profile: &Profile) -> String {
    match profile.metadata.targets.as_slice() {
        [] => "the program".to_owned(),
        [target] => clean(&target.comm).into_owned(),
        [first, rest @ ..] if rest.iter().all(|target| target.comm == first.comm) => {
            format!("{} processes of {}", 1 + rest.len(), clean(&first.comm))
        }
        [first, rest @ ..] => format!("{} and {} more", clean(&first.comm), rest.len()),
    }
}

/// What a phase means, in a few words.
pub(super) const fn meaning(phase: Phase) -> &'static str {
    match phase {
        Phase::Peer => "nothing had come yet",
        Phase::Pickup => "it had come, nobody polled",
        Phase::Queue => "runnable, no P ran it",
        Phase::Unknown => "a clock was not seen",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_lose_their_folders() {
        let cases = [
            ("main.(*Store).User", "main.(*Store).User"),
            ("net/http.(*conn).serve", "net/http.(*conn).serve"),
            ("github.com/jackc/pgx/v5/pgconn.(*PgConn).receiveMessage", "pgconn.(*PgConn).receiveMessage"),
            ("github.com/jackc/pgx/v5.(*Conn).Query", "pgx/v5.(*Conn).Query"),
            ("gopkg.in/yaml%2ev3.Unmarshal", "yaml.v3.Unmarshal"),
            ("[unknown: not in pclntab]", "[unknown: not in pclntab]"),
            ("evil\u{1b}[2J.f", "evil\\u{1b}[2J.f"),
        ];
        for (func, name) in cases {
            assert_eq!(short(func), name);
        }
    }
}
