//! Leaving DWARF out of the object: nine tenths of its bytes, which no loader reads. BTF and BTF.ext stay.

use anyhow::Result;
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The object without `.debug_*` and the relocations of those.
pub(super) fn strip_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            section.delete = true;
        }
    }
    // Symbols that stood for a removed section go with it; relocations of what stays name none of those.
    builder.delete_orphan_symbols();
    builder.delete_orphan_relocations();
    // LLVM keeps the names of sections and symbols in one `.strtab`; the builder wants a table for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = b".shstrtab".as_slice().into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}
