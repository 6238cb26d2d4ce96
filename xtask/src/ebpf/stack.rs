//! How much stack the deepest way through an object's functions takes.
//!
//! Linux lets a program and what it calls have 512 bytes together, and counts those of each function in steps of 32 (`kernel/bpf/verifier.c`,
//! `check_max_stack_depth_subprog`, Linux 6.1). Newer kernels count less strictly, so that an object may load here and nowhere older.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

/// `MAX_BPF_STACK`, include/linux/filter.h
const MOST_BYTES: u64 = 512;
/// What the verifier rounds up to.
const STEP_BYTES: u64 = 32;

/// `struct bpf_insn`, include/uapi/linux/bpf.h: opcode, registers, offset, immediate.
const INSTRUCTION_BYTES: usize = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`: the address of something.
const LOAD_ADDRESS: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_CALL`, in the source register of a call.
const OF_FUNCTION: u8 = 1;
/// The frame pointer.
const R10: u8 = 10;

/// Where a function lies.
type Place = (SectionIndex, u64);

/// One function.
#[derive(Debug)]
struct Function {
    name: String,
    stack_bytes: u64,
    /// Those that it calls, or has the kernel call.
    calls: Vec<Place>,
}

/// The deepest way: how much it takes, and through which functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) bytes: u64,
    pub(super) functions: Vec<String>,
}

/// Fails when the deepest way of an object is too deep.
pub(super) fn check(object: &[u8]) -> Result<Way> {
    let deepest = deepest(object)?;
    let Way { bytes, functions } = &deepest;
    let way = functions.join(" → ");
    ensure!(*bytes <= MOST_BYTES, "{way} takes {bytes} bytes of stack; Linux lets it have {MOST_BYTES}");
    Ok(deepest)
}

fn deepest(object: &[u8]) -> Result<Way> {
    let functions = functions(object)?;
    let mut known = HashMap::new();
    let mut deepest = Way::default();
    for place in functions.keys() {
        let way = way_from(*place, &functions, &mut known)?;
        if way.bytes > deepest.bytes {
            deepest = way;
        }
    }
    Ok(deepest)
}

/// The deepest way from a function on. `known` are those that were found already; the verifier allows no recursion.
fn way_from(
    place: Place,
    functions: &HashMap<Place, Function>,
    known: &mut HashMap<Place, Way>,
) -> Result<Way> {
    if let Some(way) = known.get(&place) {
        return Ok(way.clone());
    }
    let function = functions.get(&place).with_context(|| format!("no function at {place:?}"))?;
    let mut rest = Way::default();
    for called in &function.calls {
        let way = way_from(*called, functions, known)?;
        if way.bytes > rest.bytes {
            rest = way;
        }
    }
    rest.bytes += function.stack_bytes.max(1).next_multiple_of(STEP_BYTES);
    rest.functions.insert(0, function.name.clone());
    known.insert(place, rest.clone());
    Ok(rest)
}

fn functions(object: &[u8]) -> Result<HashMap<Place, Function>> {
    let file = object::File::parse(object)?;
    let mut functions = HashMap::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data()?;
        let targets: HashMap<u64, Place> = section
            .relocations()
            .filter_map(|(at, relocation)| {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
                let symbol = file.symbol_by_index(symbol).ok()?;
                let of = symbol.section_index()?;
                let is_code = file.section_by_index(of).is_ok_and(|of| of.kind() == SectionKind::Text);
                is_code.then_some((at, (of, symbol.address())))
            })
            .collect();
        for symbol in file.symbols().filter(|symbol| {
            symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(section.index())
        }) {
            let (begin, bytes) = (symbol.address(), symbol.size());
            let body = usize::try_from(begin)
                .ok()
                .zip(usize::try_from(begin + bytes).ok())
                .and_then(|(begin, end)| code.get(begin..end))
                .context("a function lies outside of its section")?;
            let name = rustc_name(symbol.name()?);
            functions
                .insert((section.index(), begin), function(name, body, begin, section.index(), &targets));
        }
    }
    Ok(functions)
}

fn function(
    name: String,
    body: &[u8],
    begin: u64,
    section: SectionIndex,
    targets: &HashMap<u64, Place>,
) -> Function {
    let (mut stack_bytes, mut calls) = (0, Vec::new());
    // Registers that hold the frame pointer, of which addresses on the stack are made by adding to them.
    let mut frame_pointers = 1_u16 << R10;
    let mut at = begin;
    for instruction in body.chunks_exact(INSTRUCTION_BYTES) {
        let [opcode, registers, o1, o2, i1, i2, i3, i4] = *instruction else { continue };
        let (destination, source) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([o1, o2]));
        let immediate = i64::from(i32::from_le_bytes([i1, i2, i3, i4]));
        let mut deep = |bytes: i64| stack_bytes = stack_bytes.max(bytes.max(0).cast_unsigned());
        match opcode {
            // BPF_ALU64 | BPF_MOV | BPF_X
            0xbf if source == R10 => frame_pointers |= 1 << destination,
            // BPF_ALU64 | BPF_ADD | BPF_K
            0x07 if frame_pointers & 1 << destination != 0 => deep(-immediate),
            CALL if source == OF_FUNCTION => calls.push(match targets.get(&at) {
                // A function's symbol, or, with the distance from its section's beginning in instructions, less one, that of the section.
                Some((of, address)) if immediate == -1 => (*of, *address),
                Some((of, address)) => (*of, address.wrapping_add_signed((immediate + 1) * 8)),
                None => (section, (at + 8).wrapping_add_signed(immediate * 8)),
            }),
            LOAD_ADDRESS => {
                calls.extend(
                    targets.get(&at).map(|(of, address)| (*of, address.wrapping_add_signed(immediate))),
                );
            }
            _ => {}
        }
        match opcode & 7 {
            // BPF_LDX, from the stack
            1 if source == R10 => deep(-offset),
            // BPF_ST and BPF_STX, to the stack
            2 | 3 if destination == R10 => deep(-offset),
            _ => {}
        }
        if opcode == 0xbf && source != R10 {
            frame_pointers &= !(1 << destination);
        }
        at += 8;
    }
    Function { name, stack_bytes, calls }
}

/// The last part of a mangled name.
fn rustc_name(name: &str) -> String {
    let digits = name.rfind(|character: char| character.is_ascii_digit());
    match digits {
        Some(at) if name.starts_with("_R") => name.get(at + 1..).unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lock::MACHINES, object_path},
        *,
    };

    #[test]
    fn the_committed_objects_are_not_too_deep() {
        for machine in MACHINES {
            let Way { bytes, functions } = check(&std::fs::read(object_path(machine)).unwrap()).unwrap();
            assert!(bytes > 256 && functions.len() > 2, "{machine}: {bytes} by {functions:?}");
        }
    }

    #[test]
    fn what_is_stored_below_the_frame_pointer_counts() {
        let body = [
            // *(u64 *)(r10 - 40) = r1
            [0x7b, 0x1a, 0xd8, 0xff, 0, 0, 0, 0],
            // r2 = r10; r2 += -72
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xb8, 0xff, 0xff, 0xff],
            // r3 = r1; r3 += -200
            [0xbf, 0x13, 0, 0, 0, 0, 0, 0],
            [0x07, 0x03, 0, 0, 0x38, 0xff, 0xff, 0xff],
            // call pc + 3
            [0x85, 0x10, 0, 0, 3, 0, 0, 0],
        ]
        .concat();
        let Function { stack_bytes, calls, .. } =
            function(String::new(), &body, 0x100, SectionIndex(2), &HashMap::new());
        assert_eq!(stack_bytes, 72);
        assert_eq!(calls, [(SectionIndex(2), 0x100 + 5 * 8 + 8 + 3 * 8)]);
    }
}
