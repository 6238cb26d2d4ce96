//! arm64 code, disassembled with yaxpeax-arm.
#![forbid(unsafe_code)]

use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Instruction as Raw, Opcode, Operand, SIMDSizeCode, SizeCode};

use super::code::{
    Abi, CodeError, Condition, Effect, Emulated, Flow, FunctionCode, Instruction, Register, Registers, Shift,
    Store,
};

/// R0, R1, R2, …; g in R28. A call leaves the return address in R30; the callee saves it at the low end of its frame, and the
/// frame pointer below that.
pub(super) const ABI: Abi = Abi {
    arguments: [Register(0), Register(1), Register(2)],
    g: Register(28),
    loads_guard: true,
    call_pushes_bytes: 0,
    frame_low_bytes: 8,
    frame_high_bytes: 0,
};

/// Every instruction is as long.
const LENGTH: usize = 4;
/// The stack pointer, where an instruction means it and not the zero register.
const SP: u16 = 31;
/// R16 and R17, which a stack check uses (cmd/internal/obj/arm64/obj7.go, `stacksplit`, from 1.18 on).
const GUARD: u16 = 16;
const STACK_POINTER: u16 = 17;
/// R28.
const G: u16 = 28;
/// `g.stackguard0` (`runtime/runtime2.go`).
const STACKGUARD0: i32 = 16;
/// The condition "lower or same" of `b.ls` (Arm ARM, C1.2.4).
const LS: u8 = 9;
/// "equal".
const EQ: u8 = 0;
/// "not equal".
const NE: u8 = 1;
/// A page as `adrp` has it.
const PAGE_BYTES: u64 = 4096;

/// Up to the padding, which is zeros (`udf #0`), or to the first constant that is loaded from behind the code
/// (cmd/internal/obj/arm64/asm7.go, `addpool`).
pub(super) fn instructions(code: &FunctionCode) -> Result<Vec<Instruction>, CodeError> {
    let raw = raw(code)?;
    Ok(raw.iter().map(|(address, word, raw)| instruction(*address, *word, raw)).collect())
}

/// `adrp` and the instruction right behind it that adds the rest of the address or accesses data there; the assembler always
/// writes the two together (cmd/internal/obj/arm64/asm7.go, `R_ADDRARM64` and its kin). When a pair of words is accessed
/// behind them, also these.
pub(super) fn data_references(code: &FunctionCode) -> Result<Vec<u64>, CodeError> {
    let raw = raw(code)?;
    let mut references = Vec::new();
    for (index, (address, _, page)) in raw.iter().enumerate() {
        let (Opcode::ADRP, [Operand::Register(_, base), Operand::PCOffset(offset), ..]) =
            (page.opcode, page.operands)
        else {
            continue;
        };
        let page = (address & !(PAGE_BYTES - 1)).wrapping_add_signed(offset);
        let Some((_, _, low)) = raw.get(index + 1) else { continue };
        match (low.opcode, low.operands) {
            (
                Opcode::ADD,
                [
                    Operand::RegisterOrSP(SizeCode::X, to),
                    Operand::RegisterOrSP(SizeCode::X, from),
                    Operand::Immediate(low),
                    ..,
                ],
            ) if from == base => {
                let address = page.wrapping_add(low.into());
                references.push(address);
                references.extend(raw.get(index + 2).and_then(|(_, _, pair)| second_word(pair, to, address)));
            }
            (_, [_, Operand::RegPreIndex(from, low, false), ..]) if from == base => {
                references.push(page.wrapping_add_signed(low.into()));
            }
            (_, [_, _, Operand::RegPreIndex(from, low, false), ..]) if from == base => {
                let address = page.wrapping_add_signed(low.into());
                references.extend([address, address.wrapping_add(8)]);
            }
            _ => {}
        }
    }
    Ok(references)
}

/// The second of the two words at the address in `base` that an `ldp` or `stp` accesses.
fn second_word(pair: &Raw, base: u16, address: u64) -> Option<u64> {
    match (pair.opcode, pair.operands) {
        (
            Opcode::LDP | Opcode::STP,
            [Operand::Register(SizeCode::X, _), _, Operand::RegPreIndex(from, offset, false), ..],
        ) if from == base => Some(address.wrapping_add_signed(i64::from(offset) + 8)),
        _ => None,
    }
}

/// With the addresses of jumps in full.
pub(super) fn text(bytes: &[u8], address: u64) -> String {
    let Some(raw) = decode(bytes) else { return String::new() };
    let text = raw.to_string();
    match (text.find('$'), target(&raw, address)) {
        (Some(at), Some(target)) => format!("{}{target:#x}", text.get(..at).unwrap_or_default()),
        _ => text,
    }
}

fn decode(bytes: &[u8]) -> Option<Raw> {
    InstDecoder::default().decode(&mut U8Reader::new(bytes)).ok()
}

/// Address, word and meaning of each instruction.
fn raw(code: &FunctionCode) -> Result<Vec<(u64, u32, Raw)>, CodeError> {
    let mut instructions = Vec::with_capacity(code.bytes().len() / LENGTH);
    let mut constants = u64::MAX;
    let mut address = code.start();
    for bytes in code.bytes().chunks(LENGTH) {
        if address >= constants || bytes == [0; LENGTH] {
            break;
        }
        let word = <[u8; LENGTH]>::try_from(bytes).map(u32::from_le_bytes);
        let (Ok(word), Some(raw)) = (word, decode(bytes)) else { return Err(code.invalid_at(address)) };
        if let (Opcode::LDR, [_, Operand::PCOffset(offset), ..]) = (raw.opcode, raw.operands)
            && offset > 0
        {
            constants = constants.min(address.wrapping_add_signed(offset));
        }
        instructions.push((address, word, raw));
        address = address.wrapping_add(LENGTH as u64);
    }
    Ok(instructions)
}

fn instruction(address: u64, word: u32, raw: &Raw) -> Instruction {
    Instruction {
        address,
        length: LENGTH,
        flow: flow(raw, address),
        effect: effect(raw),
        writes: writes(raw),
        stores: stores(raw),
        emulated: emulated(word),
    }
}

/// Where a jump or call goes, or what an `adr` means.
fn target(raw: &Raw, address: u64) -> Option<u64> {
    let offset = raw.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(offset) => Some(*offset),
        _ => None,
    })?;
    let from = if raw.opcode == Opcode::ADRP { address & !(PAGE_BYTES - 1) } else { address };
    Some(from.wrapping_add_signed(offset))
}

fn flow(raw: &Raw, address: u64) -> Flow {
    let jump =
        |condition| target(raw, address).map_or(Flow::Elsewhere, |target| Flow::Jump { target, condition });
    match (raw.opcode, raw.operands) {
        (Opcode::B, _) => jump(Condition::Always),
        (Opcode::Bcc(LS), _) => jump(Condition::AtMost),
        (Opcode::Bcc(EQ), _) => jump(Condition::Equal),
        (Opcode::Bcc(NE), _) => jump(Condition::NotEqual),
        // Results are in R0; the compiler tests the one bit of a bool (1.18.4: the register).
        (Opcode::TBZ, [Operand::Register(_, 0), Operand::Imm16(0), ..])
        | (Opcode::CBZ, [Operand::Register(_, 0), ..]) => jump(Condition::ResultFalse),
        (Opcode::TBNZ, [Operand::Register(_, 0), Operand::Imm16(0), ..])
        | (Opcode::CBNZ, [Operand::Register(_, 0), ..]) => jump(Condition::ResultTrue),
        (Opcode::Bcc(_) | Opcode::TBZ | Opcode::TBNZ | Opcode::CBZ | Opcode::CBNZ, _) => {
            jump(Condition::Other)
        }
        (Opcode::BL, _) => target(raw, address).map_or(Flow::Elsewhere, |target| Flow::Call { target }),
        (opcode, _) if falls_through(opcode) => Flow::Next,
        _ => Flow::Elsewhere,
    }
}

/// All others but returns, indirect jumps and calls, and exceptions (Arm ARM, C4.1.3, "branches, exception generating and system
/// instructions").
fn falls_through(opcode: Opcode) -> bool {
    !matches!(
        opcode,
        Opcode::RET
            | Opcode::BR
            | Opcode::BLR
            | Opcode::ERET
            | Opcode::DRPS
            | Opcode::SVC
            | Opcode::HVC
            | Opcode::SMC
            | Opcode::BRK
            | Opcode::HLT
            | Opcode::UDF
            | Opcode::DCPS1
            | Opcode::DCPS2
            | Opcode::DCPS3
            | Opcode::RETAA
            | Opcode::RETAB
            | Opcode::ERETAA
            | Opcode::ERETAB
            | Opcode::BRAA
            | Opcode::BRAB
            | Opcode::BLRAA
            | Opcode::BLRAB
            | Opcode::BRAAZ
            | Opcode::BRABZ
            | Opcode::BLRAAZ
            | Opcode::BLRABZ
    )
}

fn effect(raw: &Raw) -> Effect {
    use Operand::{Immediate, RegPreIndex, RegShift, Register as Reg, RegisterOrSP};
    let x = SizeCode::X;
    match (raw.opcode, raw.operands) {
        (Opcode::HINT, [Operand::ControlReg(0), Immediate(0), ..]) => Effect::Nothing,
        (Opcode::LDR, [Reg(size, GUARD), RegPreIndex(G, STACKGUARD0, false), ..]) if size == x => {
            Effect::LoadsGuard
        }
        // `mov x17, sp` is an `add` of 0.
        (Opcode::ADD, [RegisterOrSP(size, STACK_POINTER), RegisterOrSP(_, SP), Immediate(0), ..])
        | (Opcode::SUB, [RegisterOrSP(size, STACK_POINTER), RegisterOrSP(_, SP), Immediate(_), ..])
            if size == x =>
        {
            Effect::TakesStackPointer
        }
        // `cmp` is a `subs` to the zero register.
        (
            Opcode::SUBS,
            [
                Reg(size, 31),
                Reg(_, STACK_POINTER) | RegisterOrSP(_, SP),
                RegShift(_, 0, SizeCode::X, GUARD),
                ..,
            ],
        ) if size == x => Effect::ComparesGuard,
        (
            Opcode::UBFM | Opcode::SBFM,
            [Reg(size, to), Reg(_, from), Immediate(rotate), Immediate(top), ..],
        ) if size == x => shift(raw.opcode, to, from, rotate, top),
        _ => Effect::Other,
    }
}

/// `lsr` and `asr` by N are bit field moves from bit N to the top one, and `lsl` by N is one of the 64 − N low bits
/// (Arm ARM, C6.2, LSL (immediate), LSR (immediate), ASR (immediate)).
fn shift(opcode: Opcode, to: u16, from: u16, rotate: u32, top: u32) -> Effect {
    let (shift, bits) = match (opcode, rotate, top) {
        (Opcode::UBFM, bits, 63) => (Shift::Right, bits),
        (Opcode::SBFM, bits, 63) => (Shift::RightSigned, bits),
        (Opcode::UBFM, rotate, top) if top < 63 && rotate == top + 1 => (Shift::Left, 64 - rotate),
        _ => return Effect::Other,
    };
    match (u8::try_from(bits), register(to), register(from)) {
        (Ok(bits), Some(to), Some(from)) => Effect::Shift { shift, from, to, bits },
        _ => Effect::Other,
    }
}

fn register(number: u16) -> Option<Register> {
    u8::try_from(number).ok().filter(|number| *number < 32).map(Register)
}

/// Of the opcodes in the code that rules read the exact registers; of all others every register that they name, so that none is
/// taken for unchanged that is not.
fn writes(raw: &Raw) -> Registers {
    let mut writes = Registers::default();
    let mut add = |number: u16| register(number).into_iter().for_each(|register| writes.insert(register));
    let written = match raw.opcode {
        Opcode::STR
        | Opcode::STRB
        | Opcode::STRH
        | Opcode::STUR
        | Opcode::STURB
        | Opcode::STURH
        | Opcode::STP
        | Opcode::STLR
        | Opcode::STLRB
        | Opcode::HINT
        | Opcode::B
        | Opcode::Bcc(_)
        | Opcode::CBZ
        | Opcode::CBNZ
        | Opcode::TBZ
        | Opcode::TBNZ => 0,
        Opcode::ADD
        | Opcode::ADDS
        | Opcode::SUB
        | Opcode::SUBS
        | Opcode::AND
        | Opcode::ANDS
        | Opcode::ORR
        | Opcode::EOR
        | Opcode::MOVZ
        | Opcode::MOVN
        | Opcode::MOVK
        | Opcode::UBFM
        | Opcode::SBFM
        | Opcode::ADR
        | Opcode::ADRP
        | Opcode::LDR
        | Opcode::LDRB
        | Opcode::LDRH
        | Opcode::LDRSB
        | Opcode::LDRSH
        | Opcode::LDRSW
        | Opcode::LDUR
        | Opcode::LDAR
        | Opcode::LDARB
        | Opcode::LDAXR
        | Opcode::CSEL
        | Opcode::CSINC => 1,
        Opcode::LDP => 2,
        _ => raw.operands.len(),
    };
    for (index, operand) in raw.operands.iter().enumerate() {
        match *operand {
            Operand::Register(_, 31) => {}
            Operand::Register(_, number) | Operand::RegisterOrSP(_, number) if index < written => add(number),
            Operand::RegisterPair(_, number) if index < written => {
                add(number);
                add(number + 1);
            }
            // The base is written too.
            Operand::RegPreIndex(base, _, true)
            | Operand::RegPostIndex(base, _)
            | Operand::RegPostIndexReg(base, _) => add(base),
            _ => {}
        }
    }
    if raw.opcode == Opcode::BL || raw.opcode == Opcode::BLR {
        add(30);
    }
    writes
}

/// Stores to the stack that leave the stack pointer alone.
fn stores(raw: &Raw) -> [Option<Store>; 2] {
    let bytes = |operand: Operand| match (raw.opcode, operand) {
        (Opcode::STRB | Opcode::STURB, _) => Some(1),
        (Opcode::STRH | Opcode::STURH, _) => Some(2),
        (Opcode::STR | Opcode::STUR | Opcode::STP, Operand::Register(SizeCode::W, _)) => Some(4),
        (Opcode::STR | Opcode::STUR | Opcode::STP, Operand::Register(SizeCode::X, _)) => Some(8),
        (Opcode::STR | Opcode::STUR | Opcode::STP, Operand::SIMDRegister(size, _)) => Some(match size {
            SIMDSizeCode::B => 1,
            SIMDSizeCode::H => 2,
            SIMDSizeCode::S => 4,
            SIMDSizeCode::D => 8,
            SIMDSizeCode::Q => 16,
        }),
        _ => None,
    };
    let store = |slot: i64, operand: Operand| {
        let register = match operand {
            // 31 is zero here.
            Operand::Register(_, number) if number < 31 => register(number),
            _ => None,
        };
        bytes(operand).map(|bytes| Store { slot, bytes, register })
    };
    match raw.operands {
        [first, Operand::RegPreIndex(SP, slot, false), ..] => [store(slot.into(), first), None],
        [first, second, Operand::RegPreIndex(SP, slot, false), ..] if raw.opcode == Opcode::STP => {
            let next = i64::from(slot) + bytes(first).map_or(0, i64::from);
            [store(slot.into(), first), store(next, second)]
        }
        _ => [None, None],
    }
}

/// What every arm64 kernel with uprobes (4.10 and later) simulates in the breakpoint's exception: arch/arm64/kernel/probes/decode-insn.c,
/// `arm_probe_decode_insn`, by the masks of arch/arm64/include/asm/insn.h. All else is copied and stepped, which costs a second
/// exception. `nop` is simulated from 6.13 on only, so it is not among them, and `ldr` of a constant is refused since 6.12.
fn emulated(word: u32) -> Option<Emulated> {
    let is = |mask: u32, value: u32| word & mask == value;
    // b.cond; cbz, cbnz; tbz, tbnz; b; bl; adr, adrp
    if is(0xff00_0010, 0x5400_0000) || is(0x7e00_0000, 0x3400_0000) || is(0x7e00_0000, 0x3600_0000) {
        Some(Emulated::ConditionalJump)
    } else if is(0xfc00_0000, 0x1400_0000) {
        Some(Emulated::Jump)
    } else if is(0xfc00_0000, 0x9400_0000) {
        Some(Emulated::Call)
    } else if is(0x1f00_0000, 0x1000_0000) {
        Some(Emulated::Address)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gobin::Machine;

    fn code(words: &[u32]) -> FunctionCode {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        FunctionCode::new("f", Machine::Arm64, 0x1000, 0x400, bytes)
    }

    fn only(word: u32) -> Instruction {
        code(&[word]).instructions().unwrap()[0]
    }

    #[test]
    fn knows_what_the_kernel_simulates() {
        for (word, expected) in [
            (0x5400_08e9, Some(Emulated::ConditionalJump)), // b.ls
            (0xb500_00a2, Some(Emulated::ConditionalJump)), // cbnz x2
            (0x3600_0064, Some(Emulated::ConditionalJump)), // tbz w4, #0
            (0x3700_03a0, Some(Emulated::ConditionalJump)), // tbnz w0, #0
            (0x1400_0010, Some(Emulated::Jump)),            // b
            (0x97ff_4dc4, Some(Emulated::Call)),            // bl
            (0x9000_099b, Some(Emulated::Address)),         // adrp x27
            (0x1000_0040, Some(Emulated::Address)),         // adr x0
            (0xd503_201f, None),                            // nop
            (0x5800_0040, None),                            // ldr x0, constant
            (0xf81d_0ffe, None),                            // str x30, [sp, #-48]!
            (0x9100_4003, None),                            // add x3, x0, #16
        ] {
            assert_eq!(only(word).emulated, expected, "{word:x}");
        }
    }

    #[test]
    fn writes_instructions_for_people() {
        let text = |word: u32| text(&word.to_le_bytes(), 0x1010);
        assert_eq!(text(0xf940_0b90), "ldr x16, [x28, #0x10]");
        assert_eq!(text(0x3700_03a0), "tbnz w0, #0x0, 0x1084");
        assert_eq!(text(0x9000_099b), "adrp x27, 0x131000");
    }

    #[test]
    fn knows_the_registers_written() {
        let written = |word| {
            let writes = only(word).writes;
            (0..32).filter(|number| writes.contains(Register(*number))).collect::<Vec<_>>()
        };
        assert_eq!(written(0x9100_4003), [3]); // add x3, x0, #16
        assert_eq!(written(0xf900_1fe0), [0u8; 0]); // str x0, [sp, #56]
        assert_eq!(written(0xf81d_0ffe), [31]); // str x30, [sp, #-48]!
        assert_eq!(written(0xa940_87e0), [0, 1]); // ldp x0, x1, [sp, #8]
        assert_eq!(written(0x97ff_4dc4), [30]); // bl
        assert_eq!(written(0x7101_c83f), [0u8; 0]); // cmp w1, #114
        // Not among the known ones: all that it names.
        assert_eq!(written(0xc8fb_fc65), [5, 27]); // casal x27, x5, [x3]
        assert_eq!(written(0x9ac0_2041), [0, 1, 2]); // lsl x1, x2, x0
    }

    #[test]
    fn sees_stores_to_the_stack() {
        let store =
            |slot, bytes, register: Option<u8>| Some(Store { slot, bytes, register: register.map(Register) });
        assert_eq!(only(0xf900_1fe0).stores, [store(56, 8, Some(0)), None]); // str x0, [sp, #56]
        assert_eq!(only(0xb900_53e1).stores, [store(80, 4, Some(1)), None]); // str w1, [sp, #80]
        assert_eq!(only(0x3901_53e2).stores, [store(84, 1, Some(2)), None]); // strb w2, [sp, #84]
        assert_eq!(only(0xf900_23ff).stores, [store(64, 8, None), None]); // str xzr, [sp, #64]
        assert_eq!(only(0xa900_87e0).stores, [store(8, 8, Some(0)), store(16, 8, Some(1))]); // stp x0, x1, [sp, #8]
        assert_eq!(only(0xad00_07e0).stores, [store(0, 16, None), store(16, 16, None)]); // stp q0, q1, [sp]
        assert_eq!(only(0xf81d_0ffe).stores, [None, None]); // str x30, [sp, #-48]!
        assert_eq!(only(0xa940_87e0).stores, [None, None]); // ldp x0, x1, [sp, #8]
    }

    #[test]
    fn reads_shifts() {
        let shift =
            |shift, to, from, bits| Effect::Shift { shift, to: Register(to), from: Register(from), bits };
        assert_eq!(only(0xd353_fd09).effect, shift(Shift::Right, 9, 8, 19)); // lsr x9, x8, #19
        assert_eq!(only(0x9353_fd09).effect, shift(Shift::RightSigned, 9, 8, 19)); // asr x9, x8, #19
        assert_eq!(only(0xd37d_f129).effect, shift(Shift::Left, 9, 9, 3)); // lsl x9, x9, #3
        assert_eq!(only(0x937c_7c24).effect, Effect::Other); // sbfiz x4, x1, #4, #32
    }

    #[test]
    fn follows_pages() {
        // adrp x27, 0x131000; ldr x2, [x27, #128]
        // adrp x27, 0x131000; add x27, x27, #0x3e8; ldp x0, x1, [x27]
        // adrp x27, 0x131000; nop
        let words =
            [0x9000_099b, 0xf940_4362, 0x9000_099b, 0x910f_a37b, 0xa940_0760, 0x9000_099b, 0xd503_201f];
        assert_eq!(code(&words).data_references(), Ok(vec![0x13_1080, 0x13_13e8, 0x13_13f0]));
    }

    #[test]
    fn ends_at_padding_and_constants() {
        assert_eq!(code(&[0xd65f_03c0, 0, 0xffff_ffff]).instructions().unwrap().len(), 1);
        // ldr x0, +8; ret; the constant
        assert_eq!(code(&[0x5800_0040, 0xd65f_03c0, 0xffff_ffff]).instructions().unwrap().len(), 2);
    }

    #[test]
    fn says_where_code_is_invalid() {
        let invalid = Err(CodeError::Invalid { function: "f".into(), address: 0x1004 });
        assert_eq!(code(&[0xd65f_03c0, 0xffff_ffff]).instructions(), invalid);
        let cut = FunctionCode::new("f", Machine::Arm64, 0x1000, 0, vec![0xc0, 0x03, 0x5f, 0xd6, 0x1f]);
        assert_eq!(cut.instructions(), invalid);
    }

    proptest! {
        #[test]
        fn never_panics(words in prop::collection::vec(any::<u32>(), 0..8), start: u64) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let code = FunctionCode::new("f", Machine::Arm64, start, 0, bytes);
            let _ = code.data_references();
            for instruction in code.instructions().unwrap_or_default() {
                let _ = code.text(&instruction);
            }
        }
    }
}
