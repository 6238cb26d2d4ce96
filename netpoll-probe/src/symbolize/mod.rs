//! Addresses of a running Go program → frames, cached: a program has few stacks, and each is named once.
#![forbid(unsafe_code)]

use std::sync::Arc;

use foldhash::HashMap;

use crate::{
    gobin::{GoBinary, NoSymbol},
    model::stack::{Frame, Stack, StackId, StackTable},
};

/// The function below all others on a goroutine's stack (`runtime/asm_amd64.s`). It says nothing, so it is left out.
const ROOT: &str = "runtime.goexit";
/// The main goroutine's and the system goroutines' bottom function, and what starts a thread.
const BOTTOMS: [&str; 4] = [ROOT, "runtime.main", "runtime.mstart", "runtime.rt0_go"];

/// Callees whose wrapper is shown: it is what panicked.
const KEEPS_WRAPPERS: [&str; 3] = ["runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap"];

/// Addresses that are kept named, and hashes of stacks: more than a program has, unless its stacks cannot be read right. Beyond it all
/// are named anew.
const KEPT: usize = 1 << 17;

/// A frame, and whether the compiler generated its function.
#[derive(Clone, Debug)]
struct Named {
    frame: Frame,
    wrapper: bool,
}

/// Names the stacks of the processes of one executable.
#[derive(Debug)]
pub struct Symbolizer {
    binary: Arc<GoBinary>,
    /// By address as linked, so that processes share them.
    frames: HashMap<u64, Arc<[Named]>>,
    /// By hash and load bias.
    stacks: HashMap<(u64, u64), StackId>,
    names: HashMap<String, Arc<str>>,
}

/// Addresses of a stack, leaf first: the first one is where the goroutine is, the others where it will return to.
pub fn leaf_first(pcs: &[u64]) -> impl Iterator<Item = (u64, bool)> {
    pcs.iter().enumerate().map(|(depth, pc)| (*pc, depth == 0))
}

/// Packages whose functions make system calls, and no others below them on a stack (Go 1.26 has a package for each system in the first).
const SYSCALLS: [&str; 3] = ["internal/runtime/syscall", "runtime/internal/syscall", "syscall."];
/// The functions in which goroutines wait.
const FD: &str = "internal/poll.(*FD).";
/// Registers an fd: a connect waits after it has returned.
const FD_INIT: &str = "internal/poll.(*FD).Init";

/// A wait that was seen by its system call has a stack that ends there; the goroutine went back to the function of `internal/poll` that
/// made the call, and waited in it. The frames before that one are left out.
fn drop_the_way_to_the_kernel(frames: &mut Vec<Frame>) {
    let in_syscall = |frame: &Frame| SYSCALLS.iter().any(|package| frame.func.starts_with(package));
    if !frames.first().is_some_and(in_syscall) {
        return;
    }
    if let Some(waits) = frames.iter().position(|frame| frame.func.starts_with(FD)) {
        let gone = usize::from(frames.get(waits).is_some_and(|frame| &*frame.func == FD_INIT));
        frames.drain(..waits + gone);
    }
}

impl Symbolizer {
    /// For processes that run `binary`.
    #[must_use]
    pub fn new(binary: Arc<GoBinary>) -> Self {
        Self { binary, frames: HashMap::default(), stacks: HashMap::default(), names: HashMap::default() }
    }

    /// The stack that a hash names, put into `table`; `pcs` are its addresses, leaf first: the first one where the
    /// goroutine is, the others where it will return to. `bias` is what is added to an address of the file to give one of
    /// the process: processes that were loaded alike share their stacks too.
    pub fn stack(&mut self, hash: u64, bias: u64, pcs: &[u64], table: &mut StackTable) -> StackId {
        if let Some(id) = self.stacks.get(&(hash, bias)) {
            return *id;
        }
        let id = self.walked(bias, leaf_first(pcs), table);
        if self.stacks.len() >= KEPT {
            self.stacks.clear();
        }
        self.stacks.insert((hash, bias), id);
        id
    }

    /// A stack that has no hash: its addresses, leaf first, and for each whether it is the instruction itself and not
    /// a return address.
    pub fn walked(
        &mut self,
        bias: u64,
        pcs: impl IntoIterator<Item = (u64, bool)>,
        table: &mut StackTable,
    ) -> StackId {
        let stack = self.walk(bias, pcs);
        table.intern(stack)
    }

    fn walk(&mut self, bias: u64, pcs: impl IntoIterator<Item = (u64, bool)>) -> Stack {
        let mut frames = Vec::new();
        for (pc, is_exact) in pcs {
            // A return address is after its call, and may be on the next line, or in the next function.
            let called_from = if is_exact { pc } else { pc.saturating_sub(1) };
            for named in self.frames_at(called_from.wrapping_sub(bias)).iter() {
                // What the compiler generated between a caller and its callee is left out, as Go's tracebacks do
                // (runtime/traceback.go, showframe and elideWrapperCalling).
                let kept =
                    frames.last().is_some_and(|callee: &Frame| KEEPS_WRAPPERS.contains(&&*callee.func));
                if !named.wrapper || kept {
                    frames.push(named.frame.clone());
                }
            }
        }
        drop_the_way_to_the_kernel(&mut frames);
        let truncated = frames.last().is_none_or(|frame| !BOTTOMS.contains(&&*frame.func));
        if frames.last().is_some_and(|frame| &*frame.func == ROOT) {
            frames.pop();
        }
        Stack { frames, truncated }
    }

    /// `pc` is as linked.
    fn frames_at(&mut self, pc: u64) -> Arc<[Named]> {
        if let Some(frames) = self.frames.get(&pc) {
            return Arc::clone(frames);
        }
        let frames: Arc<[Named]> = match self.binary.symbolize(pc) {
            Ok(locations) => locations
                .into_iter()
                .map(|location| Named {
                    wrapper: location.wrapper,
                    frame: Frame {
                        func: self.share(location.func),
                        file: self.share(location.file),
                        line: location.line,
                        inlined: location.inlined,
                    },
                })
                .collect(),
            Err(reason) => [self.unknown(&reason)].into(),
        };
        if self.frames.len() >= KEPT {
            self.frames.clear();
            self.names.clear();
        }
        self.frames.insert(pc, Arc::clone(&frames));
        frames
    }

    fn unknown(&mut self, reason: &NoSymbol) -> Named {
        let func = self.share(format!("[unknown: {reason}]"));
        Named { frame: Frame { func, file: Arc::from(""), line: 0, inlined: false }, wrapper: false }
    }

    fn share(&mut self, name: String) -> Arc<str> {
        if let Some(shared) = self.names.get(&name) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = name.as_str().into();
        self.names.insert(name, Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_of(functions: &[&str]) -> Vec<String> {
        let frame = |func: &&str| Frame { func: (*func).into(), file: "".into(), line: 1, inlined: false };
        let mut frames = functions.iter().map(frame).collect();
        drop_the_way_to_the_kernel(&mut frames);
        frames.iter().map(|frame| frame.func.to_string()).collect()
    }

    #[test]
    fn stacks_of_system_calls_begin_where_the_goroutine_waits() {
        const READ: &str = "internal/poll.(*FD).Read";
        let read = [
            "internal/runtime/syscall/linux.Syscall6",
            "syscall.read",
            "internal/poll.ignoringEINTRIO",
            READ,
            "net.(*conn).Read",
        ];
        assert_eq!(left_of(&read), [READ, "net.(*conn).Read"]);
        let connect = [
            "runtime/internal/syscall.Syscall6",
            "internal/poll.runtime_pollOpen",
            "internal/poll.(*FD).Init",
            "net.(*netFD).connect",
        ];
        assert_eq!(left_of(&connect), ["net.(*netFD).connect"]);
        // Others are left alone: nothing is known of where they wait.
        let wait = ["internal/poll.runtime_pollWait", READ, "main.main"];
        assert_eq!(left_of(&wait), wait);
        let own = ["syscall.Syscall", "main.main"];
        assert_eq!(left_of(&own), own);
        assert_eq!(left_of(&[]), [""; 0]);
    }
}
