//! Addresses of the runtime's globals, found in the code that uses them.
//!
//! Stripped binaries have no symbols for data, but a few functions refer to one global in a fixed way. Each rule was checked
//! against the symbol table of every build of Go 1.18 to 1.27 for amd64 (default, PIE, cgo, external linking, profile-guided) and for
//! arm64 (default, PIE).
#![forbid(unsafe_code)]

use super::code::{CodeError, FunctionCode};

/// Why a global's address is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobalError {
    /// The code could not be disassembled.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The function does not refer to it in the known way.
    #[error("{function} does not refer to {global} in a known way")]
    NoReference {
        /// The function.
        function: &'static str,
        /// The global.
        global: &'static str,
    },
}

/// A global that [`address`] can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `runtime.allgs`, `[]*g`: every g there ever was.
    Allgs,
    /// `runtime.allp`, `[]*p`: every P, by id.
    Allp,
    /// `runtime.sched`, `schedt`: the scheduler's state.
    Sched,
    /// `runtime.epfd`, i32: the epoll instance.
    Epfd,
}

impl Global {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allgs, Self::Allp, Self::Sched, Self::Epfd];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allgs => "runtime.allgs",
            Self::Allp => "runtime.allp",
            Self::Sched => "runtime.sched",
            Self::Epfd => "runtime.epfd",
        }
    }

    /// The function whose code gives it away.
    #[must_use]
    pub const fn function(self) -> &'static str {
        match self {
            Self::Allgs => "runtime.allgadd",
            Self::Allp => "runtime.procresize",
            Self::Sched => "runtime.wakeNetPoller",
            Self::Epfd => "runtime.netpoll",
        }
    }
}

/// The address of `global`, as the linker gave it, from the code of [`Global::function`].
///
/// # Errors
/// When the code does not refer to it in the known way.
pub fn address(global: Global, code: &FunctionCode) -> Result<u64, GlobalError> {
    let references = code.data_references()?;
    let found = match global {
        // A slice header is the one thing that the function reads in all three words: pointer, length, capacity.
        Global::Allgs | Global::Allp => references.iter().copied().find(|address| {
            [8, 16]
                .iter()
                .all(|word| address.checked_add(*word).is_some_and(|word| references.contains(&word)))
        }),
        // `wakeNetPoller` begins with sched.lastpoll, the second word (runtime2.go, `schedt`).
        Global::Sched => references.first().and_then(|lastpoll| lastpoll.checked_sub(8)),
        // `netpoll` begins with `if epfd == -1`.
        Global::Epfd => references.first().copied(),
    };
    found.ok_or(GlobalError::NoReference { function: global.function(), global: global.name() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gobin::Machine;

    fn code(bytes: Vec<u8>) -> FunctionCode {
        FunctionCode::new("f", Machine::Amd64, 0x1000, 0x400, bytes)
    }

    /// `mov rax, [rip+distance]` at `at`, so that it refers to `to`.
    fn load(code: &mut Vec<u8>, start: u64, to: u64) {
        let next = start + code.len() as u64 + 7;
        code.extend([0x48, 0x8b, 0x05]);
        code.extend(u32::try_from(to - next).unwrap().to_le_bytes());
    }

    #[test]
    fn finds_the_slice_among_other_globals() {
        let mut bytes = Vec::new();
        // The lock, one word of a neighbour, then capacity, length and pointer.
        for to in [0x9000, 0x8ff8, 0x9110, 0x9108, 0x9100] {
            load(&mut bytes, 0x1000, to);
        }
        let code = code(bytes);
        assert_eq!(address(Global::Allgs, &code), Ok(0x9100));
        assert_eq!(address(Global::Epfd, &code), Ok(0x9000));
        assert_eq!(address(Global::Sched, &code), Ok(0x8ff8));
    }

    #[test]
    fn does_not_guess() {
        let mut bytes = Vec::new();
        for to in [0x9000, 0x9008, 0x9020] {
            load(&mut bytes, 0x1000, to);
        }
        assert!(matches!(address(Global::Allgs, &code(bytes)), Err(GlobalError::NoReference { .. })));
        assert!(matches!(address(Global::Epfd, &code(vec![0xc3])), Err(GlobalError::NoReference { .. })));
    }
}
