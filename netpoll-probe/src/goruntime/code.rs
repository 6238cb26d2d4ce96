//! A function's machine code, as far as the rules for probe sites ask, in one form for both machines.
//!
//! `x86.rs` and `arm64.rs` disassemble; the rules in [`super::sites`], [`super::globals`] and [`super::epoll_data`] read what stands
//! here, and know neither.
#![forbid(unsafe_code)]

use super::{arm64, x86};
use crate::gobin::Machine;

/// Why code cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Bytes that are no instruction, or are cut off.
    #[error("no valid instruction at {address:#x} in {function}")]
    Invalid {
        /// The function.
        function: String,
        /// Where, as the linker gave it.
        address: u64,
    },
}

/// A function's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCode {
    name: String,
    machine: Machine,
    start: u64,
    file_offset: u64,
    bytes: Vec<u8>,
}

impl FunctionCode {
    /// The code `bytes` of the function `name`, whose first instruction the linker put at the address `start`, at `file_offset` in
    /// the file.
    #[must_use]
    pub fn new(name: &str, machine: Machine, start: u64, file_offset: u64, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), machine, start, file_offset, bytes }
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs it.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The address of its first instruction, as the linker gave it.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where its first instruction is in the file.
    #[must_use]
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes from `address` on, `length` of them; empty when they are not all there.
    #[must_use]
    pub fn bytes_at(&self, address: u64, length: usize) -> &[u8] {
        address
            .checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| self.bytes.get(offset..offset.checked_add(length)?))
            .unwrap_or_default()
    }

    /// All its instructions, in the order of addresses, up to the padding or the constants behind it.
    ///
    /// # Errors
    /// At the first bytes that are no instruction: the rest would be out of step.
    pub fn instructions(&self) -> Result<Vec<Instruction>, CodeError> {
        match self.machine {
            Machine::Amd64 => x86::instructions(self),
            Machine::Arm64 => arm64::instructions(self),
        }
    }

    /// The addresses of the data that it refers to relative to its own place, in the order of its instructions.
    ///
    /// # Errors
    /// As [`Self::instructions`].
    pub fn data_references(&self) -> Result<Vec<u64>, CodeError> {
        match self.machine {
            Machine::Amd64 => x86::data_references(self),
            Machine::Arm64 => arm64::data_references(self),
        }
    }

    /// One of its instructions in assembly, for people.
    #[must_use]
    pub fn text(&self, instruction: &Instruction) -> String {
        let bytes = self.bytes_at(instruction.address, instruction.length);
        match self.machine {
            Machine::Amd64 => x86::text(bytes, instruction.address),
            Machine::Arm64 => arm64::text(bytes, instruction.address),
        }
    }

    /// How Go uses the machine.
    #[must_use]
    pub fn abi(&self) -> &'static Abi {
        match self.machine {
            Machine::Amd64 => &x86::ABI,
            Machine::Arm64 => &arm64::ABI,
        }
    }

    pub(super) fn invalid_at(&self, address: u64) -> CodeError {
        CodeError::Invalid { function: self.name.clone(), address }
    }
}

/// A general-purpose register, by the number that instructions have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub(super) u8);

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers(u32);

impl Registers {
    /// Whether `register` is among them.
    #[must_use]
    pub const fn contains(self, register: Register) -> bool {
        self.0 >> register.0 & 1 == 1
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn insert(&mut self, register: Register) {
        self.0 |= 1 << register.0;
    }
}

/// Go's register ABI, ABIInternal (`cmd/compile/abi-internal.md`), and its frames (`runtime/stack.go`, "Stack frame layout").
#[derive(Clone, Copy, Debug)]
pub struct Abi {
    /// The first integer arguments of a function; its first result comes back in the first of them.
    pub arguments: [Register; 3],
    /// The current g.
    pub g: Register,
    /// A function with a stack check loads `g.stackguard0` by an instruction of its own before it compares.
    pub loads_guard: bool,
    /// Bytes that a call puts on the stack: the return address, or nothing where it stays in a register.
    pub call_pushes_bytes: u8,
    /// Bytes at a frame's low end that hold no variable: where the return address is saved after the call.
    pub frame_low_bytes: u8,
    /// Bytes at a frame's high end that hold no variable: the saved frame pointer.
    pub frame_high_bytes: u8,
}

/// From a frame's end to the home of the function's first argument, on both machines: over the return address, the caller's own
/// or the one that the call pushed.
pub const FIRST_HOME_BYTES: i64 = 8;

/// An instruction, as far as rules ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its address, as the linker gave it.
    pub address: u64,
    /// Its bytes.
    pub length: usize,
    /// Where the machine goes on.
    pub flow: Flow,
    /// What it does, if that is something that rules know.
    pub effect: Effect,
    /// The registers that it writes, in whole or in part.
    pub writes: Registers,
    /// What it writes to the stack at a fixed distance from the stack pointer.
    pub stores: [Option<Store>; 2],
    /// How a kernel does it at a uprobe; `None`: by single-stepping a copy.
    pub emulated: Option<Emulated>,
}

impl Instruction {
    /// The address of the next one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.length as u64)
    }

    /// Where it may jump to, by itself and in the same function or another; not for calls.
    #[must_use]
    pub fn jump_target(&self) -> Option<u64> {
        match self.flow {
            Flow::Jump { target, .. } => Some(target),
            Flow::Next | Flow::Call { .. } | Flow::Elsewhere => None,
        }
    }
}

/// Where the machine goes on after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// At the next.
    Next,
    /// At a fixed address, always or if the condition holds.
    Jump {
        /// The address.
        target: u64,
        /// When.
        condition: Condition,
    },
    /// In a function at a fixed address, then at the next.
    Call {
        /// The address.
        target: u64,
    },
    /// Where a register or the stack says: returns, indirect jumps and calls; and traps.
    Elsewhere,
}

/// When a jump is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// The comparison before it found less or the same, unsigned.
    AtMost,
    /// The comparison before it found the same; the test before it found zero, or false.
    Equal,
    /// It found another; or true.
    NotEqual,
    /// The first result of a call, a bool, is false; tested by the jump itself.
    ResultFalse,
    /// It is true.
    ResultTrue,
    /// Any other.
    Other,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Loads `g.stackguard0`, for a stack check.
    LoadsGuard,
    /// Takes the stack pointer, less the frame's size when that is large, for a stack check.
    TakesStackPointer,
    /// Compares that, or the stack pointer, with the guard.
    ComparesGuard,
    /// Compares the first result of a call, a bool, with false.
    TestsResult,
    /// Shifts 64 bits by a fixed number.
    Shift {
        /// Which way.
        shift: Shift,
        /// From this register.
        from: Register,
        /// To this one.
        to: Register,
        /// The number.
        bits: u8,
    },
    /// Anything else.
    Other,
}

/// A direction to shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// To the left.
    Left,
    /// To the right, filling with zeros.
    Right,
    /// To the right, filling with the sign.
    RightSigned,
}

/// A write to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// From the stack pointer.
    pub slot: i64,
    /// How many.
    pub bytes: u16,
    /// The register whose low bytes are written; `None`: something else.
    pub register: Option<Register>,
}

/// The kinds of instruction that a kernel emulates at a uprobe instead of single-stepping a copy out of line: on amd64 15 times
/// cheaper (measured on Linux 6.18), on arm64 one exception instead of two. Which, is said in `x86.rs` and `arm64.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulated {
    /// `push` of a register.
    Push,
    /// An instruction that does nothing.
    Nop,
    /// A conditional jump.
    ConditionalJump,
    /// A jump to a fixed address.
    Jump,
    /// A call of a fixed address.
    Call,
    /// Forms an address relative to its own.
    Address,
}

impl Emulated {
    /// The name that plans and reports use: the mnemonic, of amd64 where both machines have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Nop => "nop",
            Self::ConditionalJump => "jcc",
            Self::Jump => "jmp",
            Self::Call => "call",
            Self::Address => "adr",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_bytes_only_when_they_are_all_there() {
        let code = FunctionCode::new("f", Machine::Amd64, 0x1000, 0x400, vec![1, 2, 3]);
        assert_eq!(code.bytes_at(0x1001, 2), [2, 3]);
        for (address, length) in [(0x1001, 3), (0xfff, 1), (u64::MAX, 1), (0x1000, usize::MAX)] {
            assert!(code.bytes_at(address, length).is_empty(), "{address:#x} {length}");
        }
    }

    #[test]
    fn registers_are_a_set() {
        let mut registers = Registers::default();
        assert!(registers.is_empty());
        registers.insert(Register(31));
        assert!(registers.contains(Register(31)) && !registers.contains(Register(0)));
    }
}
