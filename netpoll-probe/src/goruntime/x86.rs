//! A function's machine code on amd64, disassembled with iced-x86.
#![forbid(unsafe_code)]

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction, InstructionInfoFactory, Mnemonic,
    NasmFormatter, OpAccess, Register,
};

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
    start: u64,
    file_offset: u64,
    bytes: Vec<u8>,
}

impl FunctionCode {
    /// The code `bytes` of the function `name`, whose first instruction the linker put at the address `start`, at `file_offset` in
    /// the file.
    #[must_use]
    pub fn new(name: &str, start: u64, file_offset: u64, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), start, file_offset, bytes }
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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

    /// Its bytes from `address` on, `length` of them; empty when they are not all there.
    #[must_use]
    pub fn bytes_at(&self, address: u64, length: usize) -> &[u8] {
        address
            .checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| self.bytes.get(offset..offset.checked_add(length)?))
            .unwrap_or_default()
    }

    /// All its instructions, in the order of addresses, up to the padding behind it (`int3`; cmd/link fills gaps in amd64 code
    /// with it, and the compiler never emits it).
    ///
    /// # Errors
    /// At the first bytes that are no instruction: Go puts no data among its code, so the rest would be out of step.
    pub fn instructions(&self) -> Result<Vec<Instruction>, CodeError> {
        let mut decoder = Decoder::with_ip(64, &self.bytes, self.start, DecoderOptions::NONE);
        let mut instructions = Vec::with_capacity(self.bytes.len() / 4);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                return Err(CodeError::Invalid { function: self.name.clone(), address: instruction.ip() });
            }
            if instruction.mnemonic() == Mnemonic::Int3 {
                break;
            }
            instructions.push(instruction);
        }
        Ok(instructions)
    }

    /// The addresses of the data that it refers to relative to rip, in the order of its instructions.
    ///
    /// # Errors
    /// As [`Self::instructions`].
    pub fn data_references(&self) -> Result<Vec<u64>, CodeError> {
        let instructions = self.instructions()?;
        Ok(instructions
            .iter()
            .filter(|instruction| instruction.is_ip_rel_memory_operand())
            .map(Instruction::ip_rel_memory_address)
            .collect())
    }
}

/// The instruction in Intel syntax, for people.
#[must_use]
pub fn text(instruction: &Instruction) -> String {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_rip_relative_addresses(true);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

/// The kinds of instruction that an x86 kernel emulates at a uprobe instead of single-stepping a copy, 15 times cheaper
/// (arch/x86/kernel/uprobes.c: `branch_setup_xol_ops` and `push_setup_xol_ops`; each measured on Linux 6.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulated {
    /// `push` of a 64-bit register.
    Push,
    /// The one-byte `nop`. Longer ones only on newer kernels.
    Nop,
    /// A conditional jump.
    ConditionalJump,
    /// `jmp` to a fixed address.
    Jump,
    /// `call` of a fixed address.
    Call,
}

impl Emulated {
    /// How the kernel emulates this instruction, `None` when it single-steps it.
    #[must_use]
    pub fn of(instruction: &Instruction, bytes: &[u8]) -> Option<Self> {
        match instruction.flow_control() {
            FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {
                Some(Self::ConditionalJump)
            }
            FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => Some(Self::Jump),
            FlowControl::Call if instruction.is_call_near() => Some(Self::Call),
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Nop && bytes == [0x90] => {
                Some(Self::Nop)
            }
            FlowControl::Next
                if instruction.mnemonic() == Mnemonic::Push
                    && instruction.op0_register().is_gpr64()
                    // 0x50+r, for r8 to r15 after a REX prefix of 0x41; other encodings are stepped.
                    && matches!(bytes, [0x50..=0x57] | [0x41, 0x50..=0x57]) =>
            {
                Some(Self::Push)
            }
            _ => None,
        }
    }

    /// The name that plans and reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Nop => "nop",
            Self::ConditionalJump => "jcc",
            Self::Jump => "jmp",
            Self::Call => "call",
        }
    }
}

/// Which registers an instruction writes.
pub(super) struct Writes(InstructionInfoFactory);

impl Writes {
    pub(super) fn new() -> Self {
        Self(InstructionInfoFactory::new())
    }

    /// Whether `instruction` writes any part of one of `registers` (64-bit names).
    pub(super) fn any_of(&mut self, instruction: &Instruction, registers: &[Register]) -> bool {
        self.0.info(instruction).used_registers().iter().any(|used| {
            matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            ) && registers.contains(&used.register().full_register())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(bytes: &[u8]) -> Instruction {
        FunctionCode::new("f", 0x1000, 0x400, bytes.to_vec()).instructions().unwrap()[0]
    }

    #[test]
    fn knows_what_the_kernel_emulates() {
        for (bytes, expected) in [
            (&[0x55][..], Some(Emulated::Push)),
            (&[0x41, 0x57], Some(Emulated::Push)),
            (&[0xff, 0x75, 0x00], None),
            (&[0x90], Some(Emulated::Nop)),
            (&[0x66, 0x90], None),
            (&[0x0f, 0x1f, 0x00], None),
            (&[0x75, 0x05], Some(Emulated::ConditionalJump)),
            (&[0x0f, 0x86, 0, 0, 0, 0], Some(Emulated::ConditionalJump)),
            (&[0xe3, 0x00], None),
            (&[0xeb, 0x05], Some(Emulated::Jump)),
            (&[0xff, 0xe0], None),
            (&[0xe8, 0, 0, 0, 0], Some(Emulated::Call)),
            (&[0xff, 0xd0], None),
            (&[0xc3], None),
            (&[0x84, 0xc0], None),
        ] {
            assert_eq!(Emulated::of(&only(bytes), bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn writes_instructions_for_people() {
        assert_eq!(text(&only(&[0x55])), "push rbp");
        assert_eq!(text(&only(&[0x75, 0x05])), "jne 0x1007");
        assert_eq!(text(&only(&[0x49, 0x3b, 0x66, 0x10])), "cmp rsp,[r14+0x10]");
    }

    #[test]
    fn sees_partial_writes() {
        let mut writes = Writes::new();
        // mov al,1; test al,al; push rbp; lea rdx,[rax+8]
        assert!(writes.any_of(&only(&[0xb0, 0x01]), &[Register::RAX]));
        assert!(!writes.any_of(&only(&[0x84, 0xc0]), &[Register::RAX]));
        assert!(!writes.any_of(&only(&[0x55]), &[Register::RAX, Register::RBX, Register::R14]));
        assert!(!writes.any_of(&only(&[0x48, 0x8d, 0x50, 0x08]), &[Register::RAX]));
    }

    #[test]
    fn ends_at_the_padding() {
        let code = FunctionCode::new("f", 0x1000, 0x400, vec![0x90, 0xc3, 0xcc, 0xcc, 0x06]);
        assert_eq!(code.instructions().unwrap().len(), 2);
    }

    #[test]
    fn says_where_code_is_invalid() {
        let code = FunctionCode::new("f", 0x1000, 0x400, vec![0x90, 0x06]);
        assert_eq!(code.instructions(), Err(CodeError::Invalid { function: "f".into(), address: 0x1001 }));
    }
}
