//! `cargo xtask ebpf insns`: how long each program is, and how deep.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

use super::{lock::MACHINES, object_path, stack};

/// Bytes of one eBPF instruction (`struct bpf_insn`, include/uapi/linux/bpf.h); a 64-bit load takes two.
const INSTRUCTION_BYTES: u64 = 8;

/// Prints the counts of the committed objects.
pub(super) fn run() -> Result<()> {
    for machine in MACHINES {
        let path = object_path(machine);
        println!("{machine}");
        print(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?)?;
    }
    Ok(())
}

/// Prints the counts of an object.
pub(super) fn print(object: &[u8]) -> Result<()> {
    println!("instructions  {:<28} function", "section");
    for ((section, function), count) in functions(object)? {
        println!("{count:>12}  {section:<28} {function}");
    }
    let stack::Way { bytes, functions } = stack::check(object)?;
    println!("{bytes:>12}  bytes of stack: {}", functions.join(" → "));
    Ok(())
}

/// Section and name of each function with its number of instructions. A program lies in a section that names its
/// hook; what programs call lies in `.text`.
pub(super) fn functions(object: &[u8]) -> Result<BTreeMap<(String, String), u64>> {
    let file = object::File::parse(object)?;
    let mut counts = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        if section.kind() == SectionKind::Text {
            let key = (section.name()?.to_owned(), symbol.name()?.to_owned());
            counts.insert(key, symbol.size() / INSTRUCTION_BYTES);
        }
    }
    Ok(counts)
}
