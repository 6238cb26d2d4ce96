//! The configuration, written into the programs' instructions.
//!
//! A frozen map would do for the verifier, but not for the processor: each field is then an address, a load, and a line of memory, and the
//! functions that a wait goes through have some seventy.

use netpoll_probe_common::config::{Config, HOLE};
use object::{Object as _, ObjectSection as _, SectionKind};
use zerocopy::IntoBytes as _;

/// `struct bpf_insn`, `include/uapi/linux/bpf.h`: the code, two registers, an offset, and a constant.
const INSTRUCTION_BYTES: usize = 8;
/// `BPF_LD | BPF_DW | BPF_IMM`: a load of a constant of 64 bits, whose upper half is the constant of a second instruction.
const LOAD_CONSTANT: u8 = 0x18;

/// The object `elf` with `config` in the place of every [`HOLE`]; in words, because aya wants it aligned.
pub(super) fn specialize(elf: &[u8], config: &Config) -> Vec<u64> {
    let mut words = vec![0u64; elf.len().div_ceil(size_of::<u64>())];
    let bytes = words.as_mut_bytes();
    bytes[..elf.len()].copy_from_slice(elf);
    for hole in holes(elf) {
        let field = config.as_bytes().get(hole.field..).and_then(|rest| rest.first_chunk::<4>());
        if let Some(field) = field {
            bytes[hole.lower..][..4].copy_from_slice(field);
            bytes[hole.upper..][..4].fill(0);
        }
    }
    words
}

/// Where a field of the configuration is to stand.
struct Hole {
    /// Its offset in [`Config`].
    field: usize,
    /// Where in the file the lower half of the constant is.
    lower: usize,
    /// And the upper half.
    upper: usize,
}

/// Those of an ELF file; none if it is not one.
fn holes(elf: &[u8]) -> Vec<Hole> {
    let Ok(file) = object::File::parse(elf) else { return Vec::new() };
    let programs = file.sections().filter(|section| section.kind() == SectionKind::Text);
    programs.filter_map(|section| section.file_range()).flat_map(|range| holes_of(elf, range)).collect()
}

/// Those of a section, from its first byte in the file, and as long as it is.
fn holes_of(elf: &[u8], (start, length): (u64, u64)) -> Vec<Hole> {
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else {
        return Vec::new();
    };
    let code = elf.get(start..).unwrap_or_default();
    let code = code.get(..length).unwrap_or_default();
    let mut instructions = code.as_chunks::<INSTRUCTION_BYTES>().0.iter().enumerate();
    let mut holes = Vec::new();
    while let Some((number, &[code, registers, _, _, a, b, c, d])) = instructions.next() {
        if code != LOAD_CONSTANT {
            continue;
        }
        let Some((_, &[_, _, _, _, e, f, g, h])) = instructions.next() else { break };
        // The upper half of the second byte is not 0 where the constant is a map, which a relocation will name.
        if registers >> 4 == 0 && u32::from_le_bytes([e, f, g, h]) == HOLE {
            let lower = start + number * INSTRUCTION_BYTES + 4;
            let field = u32::from_le_bytes([a, b, c, d]) as usize;
            holes.push(Hole { field, lower, upper: lower + INSTRUCTION_BYTES });
        }
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::object;

    #[test]
    fn the_object_has_holes_for_fields_only_and_none_is_left() {
        let found = holes(object::BYTES);
        assert!(found.len() > 100, "{}", found.len());
        let last = size_of::<Config>() - 4;
        assert!(found.iter().all(|hole| hole.field % 4 == 0 && hole.field <= last));
        let words = specialize(object::BYTES, &Config::default());
        let bytes = &words.as_bytes()[..object::BYTES.len()];
        assert!(holes(bytes).is_empty());
        assert!(!bytes.windows(4).any(|four| four == HOLE.to_le_bytes()));
    }

    #[test]
    fn a_field_stands_where_its_hole_was_and_nothing_else_changes() {
        let config = Config { tgid: 0x1234_5678, ..Config::default() };
        let words = specialize(object::BYTES, &config);
        let bytes = words.as_bytes();
        let mut holes = holes(object::BYTES);
        assert!(holes.iter().any(|hole| hole.field == 0));
        for hole in &holes {
            let value = if hole.field == 0 { 0x1234_5678u32 } else { 0 };
            assert_eq!(bytes[hole.lower..][..4], value.to_le_bytes());
            assert_eq!(bytes[hole.upper..][..4], [0; 4]);
        }
        holes.sort_by_key(|hole| hole.lower);
        let changed = holes.iter().flat_map(|hole| [hole.lower, hole.upper]);
        let mut at = 0;
        for change in changed.chain([object::BYTES.len()]) {
            assert_eq!(bytes[at..change], object::BYTES[at..change]);
            at = change + 4;
        }
    }

    #[test]
    fn what_is_no_object_stays_as_it_is() {
        assert_eq!(specialize(b"no ELF!!", &Config::default()).as_bytes(), b"no ELF!!");
    }
}
