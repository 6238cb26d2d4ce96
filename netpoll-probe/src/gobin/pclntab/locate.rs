//! Finds pclntab in the file: by section name, else by its magic in the loaded segments.
//!
//! The section is `.gopclntab`, or `.data.rel.ro.gopclntab` in position-independent executables up to Go 1.25; in externally
//! linked ones the system linker merges it into `.data.rel.ro`, and stripped headers leave no names at all.

use std::ops::ControlFlow;

use super::{
    super::{
        bytes::u32_at,
        elf::{Elf, Segment},
        error::Error,
        source::{FileRange, Source},
    },
    types::PcHeader,
};

const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// The linker aligns pclntab to 32; 8 is all that is relied on.
const ALIGN_BYTES: usize = 8;

/// Where pclntab is.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Located {
    pub(super) header: PcHeader,
    /// Address of the header as linked.
    pub(in super::super) vaddr: u64,
    /// From the header to the end of its segment: tables that belong to it end somewhere before.
    pub(super) range: FileRange,
}

impl Located {
    /// The address of the function name table, which moduledata points to as well.
    pub(in super::super) fn funcname_vaddr(&self) -> u64 {
        self.vaddr.saturating_add(self.header.funcname)
    }

    /// The address of the function table.
    pub(in super::super) fn functab_vaddr(&self) -> u64 {
        self.vaddr.saturating_add(self.header.pclntable)
    }

    /// Entries of the function table with its end mark.
    pub(in super::super) fn functab_len(&self) -> u64 {
        self.header.func_count.saturating_add(1)
    }
}

/// Finds pclntab; `Ok(None)` when there is none.
pub(in super::super) fn locate(source: &Source, elf: &Elf) -> Result<Option<Located>, Error> {
    for name in SECTIONS {
        let Some(range) = elf.section(name).and_then(super::super::elf::Section::file_range) else {
            continue;
        };
        if let Some(located) = header_at(source, elf, range.start) {
            return Ok(Some(located));
        }
    }
    // Go's tables are never in executable segments unless a linker made one segment of everything.
    let mut segments: Vec<_> = elf.segments.iter().collect();
    segments.sort_by_key(|segment| segment.executable);
    for range in segments.into_iter().map(Segment::file_range) {
        let found = search(source, range, |at| header_at(source, elf, at))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The pclntab of a Go version before 1.18, if there is one: only to say so.
pub(in super::super) fn magic_before_118(source: &Source, elf: &Elf) -> Option<&'static str> {
    let start = elf.section(".gopclntab").and_then(super::super::elf::Section::file_range)?.start;
    match source.read_u32(start).ok()? {
        0xffff_fffb => Some("Go 1.2 to 1.15 (pclntab magic 0xfffffffb)"),
        0xffff_fffa => Some("Go 1.16 or 1.17 (pclntab magic 0xfffffffa)"),
        _ => None,
    }
}

fn header_at(source: &Source, elf: &Elf, offset: u64) -> Option<Located> {
    let vaddr = elf.vaddr_of(offset)?;
    let range = elf.range_from(vaddr)?;
    let header = PcHeader::decode(&source.read_array::<{ PcHeader::BYTES }>(offset).ok()?)?;
    // The tables and the function table must fit; a random match will not pass.
    let functab_end = header.pclntable.checked_add((header.func_count * 8).checked_add(4)?)?;
    range.at(functab_end, 0)?;
    Some(Located { header, vaddr, range })
}

/// The first aligned offset in `range` with a known magic that `accept` takes.
fn search<T>(
    source: &Source,
    range: FileRange,
    mut accept: impl FnMut(u64) -> Option<T>,
) -> Result<Option<T>, Error> {
    source.scan(range, 0, |at, window| {
        let first = usize::try_from(at.next_multiple_of(ALIGN_BYTES as u64) - at).unwrap_or(0);
        let aligned = window.get(first..).unwrap_or_default();
        for (index, word) in aligned.chunks_exact(ALIGN_BYTES).enumerate() {
            let magic = u32_at(word, 0);
            if matches!(magic, Some(0xffff_fff0 | 0xffff_fff1))
                && let Some(found) = accept(at + (first + index * ALIGN_BYTES) as u64)
            {
                return ControlFlow::Break(found);
            }
        }
        ControlFlow::Continue(())
    })
}
