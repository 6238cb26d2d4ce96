//! amd64 code, disassembled with iced-x86.
#![forbid(unsafe_code)]

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction as Raw, InstructionInfoFactory,
    Mnemonic, NasmFormatter, OpAccess, OpKind, Register as Name,
};

use super::code::{
    Abi, CodeError, Condition, Effect, Emulated, Flow, FunctionCode, Instruction, Register, Registers, Shift,
    Store,
};

/// RAX, RBX, RCX, …; g in R14. A call pushes the return address; the caller's RBP is saved above the variables.
pub(super) const ABI: Abi = Abi {
    arguments: [Register(0), Register(3), Register(1)],
    g: Register(14),
    loads_guard: false,
    call_pushes_bytes: 8,
    frame_low_bytes: 0,
    frame_high_bytes: 8,
};

/// Up to the padding: cmd/link fills gaps in amd64 code with `int3`, and the compiler never emits it. Go puts no data among amd64
/// code.
pub(super) fn instructions(code: &FunctionCode) -> Result<Vec<Instruction>, CodeError> {
    let mut factory = InstructionInfoFactory::new();
    Ok(raw(code)?.iter().map(|raw| instruction(code, raw, &mut factory)).collect())
}

/// Operands relative to RIP.
pub(super) fn data_references(code: &FunctionCode) -> Result<Vec<u64>, CodeError> {
    let relative = raw(code)?;
    let relative = relative.iter().filter(|raw| raw.is_ip_rel_memory_operand());
    Ok(relative.map(Raw::ip_rel_memory_address).collect())
}

/// In Intel syntax.
pub(super) fn text(bytes: &[u8], address: u64) -> String {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_rip_relative_addresses(true);
    let mut text = String::new();
    formatter.format(&Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode(), &mut text);
    text
}

fn raw(code: &FunctionCode) -> Result<Vec<Raw>, CodeError> {
    let mut decoder = Decoder::with_ip(64, code.bytes(), code.start(), DecoderOptions::NONE);
    let mut instructions = Vec::with_capacity(code.bytes().len() / 4);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(code.invalid_at(instruction.ip()));
        }
        if instruction.mnemonic() == Mnemonic::Int3 {
            break;
        }
        instructions.push(instruction);
    }
    Ok(instructions)
}

fn instruction(code: &FunctionCode, raw: &Raw, factory: &mut InstructionInfoFactory) -> Instruction {
    let mut writes = Registers::default();
    for used in factory.info(raw).used_registers() {
        let written = matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        if let (true, Some(register)) = (written, register(used.register())) {
            writes.insert(register);
        }
    }
    Instruction {
        address: raw.ip(),
        length: raw.len(),
        flow: flow(raw),
        effect: effect(raw),
        writes,
        stores: [store(raw), None],
        emulated: emulated(raw, code.bytes_at(raw.ip(), raw.len())),
    }
}

/// The 64-bit register that a name is a part of.
fn register(name: Name) -> Option<Register> {
    let full = name.full_register();
    full.is_gpr64().then(|| u8::try_from(full.number()).ok().map(Register)).flatten()
}

fn flow(raw: &Raw) -> Flow {
    let target = raw.near_branch_target();
    let is_near = raw.op0_kind() == OpKind::NearBranch64;
    match raw.flow_control() {
        FlowControl::Next => Flow::Next,
        FlowControl::ConditionalBranch if is_near => {
            let condition = match raw.mnemonic() {
                Mnemonic::Jbe => Condition::AtMost,
                Mnemonic::Je => Condition::Equal,
                Mnemonic::Jne => Condition::NotEqual,
                _ => Condition::Other,
            };
            Flow::Jump { target, condition }
        }
        FlowControl::UnconditionalBranch if is_near => Flow::Jump { target, condition: Condition::Always },
        FlowControl::Call if is_near => Flow::Call { target },
        _ => Flow::Elsewhere,
    }
}

fn effect(raw: &Raw) -> Effect {
    match raw.mnemonic() {
        Mnemonic::Nop => Effect::Nothing,
        // `cmp rsp, [r14+0x10]` (cmd/internal/obj/x86/obj6.go, `stacksplit`).
        Mnemonic::Cmp
            if matches!(raw.op0_register(), Name::RSP | Name::R12)
                && raw.op1_kind() == OpKind::Memory
                && raw.memory_base() == Name::R14 =>
        {
            Effect::ComparesGuard
        }
        // `lea r12, [rsp-N]` comes before it when the frame is large.
        Mnemonic::Lea if raw.op0_register() == Name::R12 && raw.memory_base() == Name::RSP => {
            Effect::TakesStackPointer
        }
        Mnemonic::Test if raw.op0_register() == Name::AL && raw.op1_register() == Name::AL => {
            Effect::TestsResult
        }
        Mnemonic::Sar => shift(raw, Shift::RightSigned),
        Mnemonic::Shr => shift(raw, Shift::Right),
        Mnemonic::Shl => shift(raw, Shift::Left),
        _ => Effect::Other,
    }
}

fn shift(raw: &Raw, shift: Shift) -> Effect {
    let name = raw.op0_register();
    match register(name) {
        Some(register) if name.size() == 8 && raw.op1_kind() == OpKind::Immediate8 => {
            Effect::Shift { shift, from: register, to: register, bits: raw.immediate8() }
        }
        _ => Effect::Other,
    }
}

/// Reads such as `mov rax, [rsp+slot]` have memory as their second operand and are not meant.
fn store(raw: &Raw) -> Option<Store> {
    let on_stack = raw.op0_kind() == OpKind::Memory
        && raw.memory_base() == Name::RSP
        && raw.memory_index() == Name::None;
    on_stack.then(|| Store {
        slot: raw.memory_displacement64().cast_signed(),
        bytes: u16::try_from(raw.memory_size().size()).unwrap_or(u16::MAX),
        register: (raw.mnemonic() == Mnemonic::Mov).then(|| register(raw.op1_register())).flatten(),
    })
}

/// arch/x86/kernel/uprobes.c: `branch_setup_xol_ops` and `push_setup_xol_ops`; each measured on Linux 6.18.
fn emulated(raw: &Raw, bytes: &[u8]) -> Option<Emulated> {
    match raw.flow_control() {
        FlowControl::ConditionalBranch if raw.is_jcc_short_or_near() => Some(Emulated::ConditionalJump),
        FlowControl::UnconditionalBranch if raw.is_jmp_short_or_near() => Some(Emulated::Jump),
        FlowControl::Call if raw.is_call_near() => Some(Emulated::Call),
        // The one-byte `nop`. Longer ones only on newer kernels.
        FlowControl::Next if raw.mnemonic() == Mnemonic::Nop && bytes == [0x90] => Some(Emulated::Nop),
        FlowControl::Next
            if raw.mnemonic() == Mnemonic::Push
                && raw.op0_register().is_gpr64()
                // 0x50+r, for r8 to r15 after a REX prefix of 0x41; other encodings are stepped.
                && matches!(bytes, [0x50..=0x57] | [0x41, 0x50..=0x57]) =>
        {
            Some(Emulated::Push)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gobin::Machine;

    fn code(bytes: &[u8]) -> FunctionCode {
        FunctionCode::new("f", Machine::Amd64, 0x1000, 0x400, bytes.to_vec())
    }

    fn only(bytes: &[u8]) -> Instruction {
        code(bytes).instructions().unwrap()[0]
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
            assert_eq!(only(bytes).emulated, expected, "{bytes:x?}");
        }
    }

    #[test]
    fn writes_instructions_for_people() {
        assert_eq!(text(&[0x55], 0x1000), "push rbp");
        assert_eq!(text(&[0x75, 0x05], 0x1000), "jne 0x1007");
        assert_eq!(text(&[0x49, 0x3b, 0x66, 0x10], 0x1000), "cmp rsp,[r14+0x10]");
    }

    #[test]
    fn sees_partial_writes() {
        let [rax, rbx, _] = ABI.arguments;
        // mov al,1; mov bh,1; test al,al; push rbp; lea rdx,[rax+8]
        assert!(only(&[0xb0, 0x01]).writes.contains(rax));
        assert!(only(&[0xb7, 0x01]).writes.contains(rbx));
        assert!(only(&[0x84, 0xc0]).writes.is_empty());
        let push = only(&[0x55]).writes;
        assert!(![rax, rbx, ABI.g].into_iter().any(|register| push.contains(register)));
        assert!(!only(&[0x48, 0x8d, 0x50, 0x08]).writes.contains(rax));
    }

    #[test]
    fn sees_stores_to_the_stack() {
        let store = |slot, bytes, register| Some(Store { slot, bytes, register });
        // mov [rsp+20h],rax; mov [rsp+8],al; mov qword [rsp],1; mov rax,[rsp+20h]; mov [rsp+rcx],rax
        assert_eq!(only(&[0x48, 0x89, 0x44, 0x24, 0x20]).stores[0], store(0x20, 8, Some(Register(0))));
        assert_eq!(only(&[0x88, 0x44, 0x24, 0x08]).stores[0], store(8, 1, Some(Register(0))));
        assert_eq!(only(&[0x48, 0xc7, 0x04, 0x24, 1, 0, 0, 0]).stores[0], store(0, 8, None));
        assert_eq!(only(&[0x48, 0x8b, 0x44, 0x24, 0x20]).stores[0], None);
        assert_eq!(only(&[0x48, 0x89, 0x04, 0x0c]).stores[0], None);
    }

    #[test]
    fn ends_at_the_padding() {
        assert_eq!(code(&[0x90, 0xc3, 0xcc, 0xcc, 0x06]).instructions().unwrap().len(), 2);
    }

    #[test]
    fn says_where_code_is_invalid() {
        assert_eq!(
            code(&[0x90, 0x06]).instructions(),
            Err(CodeError::Invalid { function: "f".into(), address: 0x1001 })
        );
    }
}
