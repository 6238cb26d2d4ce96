//! `runtime.firstmoduledata`: where Go's text, tables and data are.
//!
//! One module is assumed, as every ordinary executable has: a program that loads plugins (`-buildmode=plugin`) has further
//! ones, in other files, whose addresses are then reported as not in Go's text.
//!
//! Offsets: `src/runtime/symtab.go: moduledata`, read from the DWARF of binaries of Go 1.18.4 to 1.27.4 (22 versions, both
//! architectures, all equal but where said otherwise below). To check: `go tool nm` for `runtime.firstmoduledata` and the
//! DWARF of `runtime.moduledata` in any unstripped binary, as the tests do for the installed Go.

use std::ops::ControlFlow;

use super::{
    bytes::u64_at,
    elf::{Elf, Section, Segment},
    error::Error,
    pclntab::Located,
    source::{FileRange, Source},
};

/// Bytes read of the structure: the smallest, that of Go 1.18 and 1.19, has 552, of which nothing beyond 352 is used.
const READ_BYTES: usize = 352;
const PC_HEADER: usize = 0;
/// A slice: pointer, length, capacity.
const FUNCNAMETAB: usize = 8;
/// A slice.
const FTAB: usize = 128;
const MINPC: usize = 160;
const MAXPC: usize = 168;
const TEXT: usize = 176;
const ETEXT: usize = 184;
const NOPTRDATA: usize = 192;
const DATA: usize = 208;
const BSS: usize = 224;
const NOPTRBSS: usize = 240;

/// Addresses from `start_vaddr` up to, not including, `end_vaddr`, as linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub start_vaddr: u64,
    /// One past the last address.
    pub end_vaddr: u64,
}

impl AddressRange {
    /// Whether `vaddr` lies inside.
    #[must_use]
    pub fn contains(&self, vaddr: u64) -> bool {
        (self.start_vaddr..self.end_vaddr).contains(&vaddr)
    }
}

/// The parts of `runtime.moduledata` that this crate uses. Addresses as linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleData {
    /// Address of the structure itself.
    pub vaddr: u64,
    /// Start of Go's text, which the function table counts from.
    pub text_vaddr: u64,
    /// End of Go's text.
    pub text_end_vaddr: u64,
    /// The lowest address with a function.
    pub min_pc: u64,
    /// One past the highest address with a function.
    pub max_pc: u64,
    /// Initialised data without pointers (`.noptrdata`).
    pub noptrdata: AddressRange,
    /// Initialised data (`.data`).
    pub data: AddressRange,
    /// Zeroed data (`.bss`).
    pub bss: AddressRange,
    /// Zeroed data without pointers (`.noptrbss`).
    pub noptrbss: AddressRange,
    /// The words at the offsets where some version has `gofunc`.
    gofunc_words: [(u32, Option<u64>); 3],
}

/// `gofunc` by the first minor version that has it there.
const GOFUNC: [(u32, usize); 3] = [(18, 304), (20, 320), (27, 344)];

impl ModuleData {
    /// Finds the structure: in the section of its own that it has since Go 1.26, else by what it starts with, the address
    /// of pclntab followed by that of the function names.
    pub(super) fn locate(source: &Source, elf: &Elf, pclntab: &Located) -> Result<Option<Self>, Error> {
        if let Some(range) = elf.section(".go.module").and_then(Section::file_range)
            && let Some(found) =
                elf.vaddr_of(range.start).and_then(|vaddr| read(source, elf, pclntab, vaddr, &[]))
        {
            return Ok(Some(found));
        }
        let sections = [".noptrdata", ".data"].into_iter().filter_map(|name| elf.section(name)?.file_range());
        let writable = elf.segments.iter().filter(|segment| segment.writable).map(Segment::file_range);
        for range in sections.chain(writable) {
            if let Some(found) = search(source, elf, pclntab, range)? {
                return Ok(Some(found));
            }
        }
        if elf.pie { Self::locate_by_relocations(source, elf, pclntab) } else { Ok(None) }
    }

    /// For executables whose linker left the words that it relocates empty in the file.
    fn locate_by_relocations(source: &Source, elf: &Elf, pclntab: &Located) -> Result<Option<Self>, Error> {
        let mut candidates = Vec::new();
        elf.relative_relocations(source, |at, value| {
            if value == pclntab.vaddr && candidates.len() < 64 {
                candidates.push(at);
            }
        })?;
        for vaddr in candidates {
            let mut words = Vec::new();
            elf.relative_relocations(source, |at, value| {
                if let Some(inside) = at.checked_sub(vaddr).and_then(|inside| usize::try_from(inside).ok())
                    && inside < READ_BYTES
                    && words.len() < READ_BYTES
                {
                    words.push((inside, value));
                }
            })?;
            if let Some(found) = read(source, elf, pclntab, vaddr, &words) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where `gofunc` may be: the one place of that version, or all of them when the version is unknown. Whoever uses it
    /// holds it against the tables first.
    pub(super) fn gofunc_candidates(&self, go_minor: Option<u32>) -> Vec<u64> {
        let of_version = |minor: u32| self.gofunc_words.iter().rev().find(|(since, _)| *since <= minor);
        match go_minor {
            Some(minor) => of_version(minor).and_then(|(_, word)| *word).into_iter().collect(),
            None => self.gofunc_words.iter().filter_map(|(_, word)| *word).collect(),
        }
    }
}

fn search(
    source: &Source,
    elf: &Elf,
    pclntab: &Located,
    range: FileRange,
) -> Result<Option<ModuleData>, Error> {
    let needle = pclntab.vaddr.to_le_bytes();
    source.scan(range, 0, |at, window| {
        let first = usize::try_from(at.next_multiple_of(8) - at).unwrap_or(0);
        let words = window.get(first..).unwrap_or_default().chunks_exact(8);
        for (index, _) in words.enumerate().filter(|(_, word)| *word == needle) {
            let vaddr = elf.vaddr_of(at + (first + index * 8) as u64);
            if let Some(found) = vaddr.and_then(|vaddr| read(source, elf, pclntab, vaddr, &[])) {
                return ControlFlow::Break(found);
            }
        }
        ControlFlow::Continue(())
    })
}

/// Reads the structure at `vaddr` with `relocated` words laid over it; `None` when it is none.
fn read(
    source: &Source,
    elf: &Elf,
    pclntab: &Located,
    vaddr: u64,
    relocated: &[(usize, u64)],
) -> Option<ModuleData> {
    let mut bytes: [u8; READ_BYTES] = source.read_array(elf.file_offset(vaddr)?).ok()?;
    for (at, value) in relocated {
        if let Some(word) = bytes.get_mut(*at..at.checked_add(8)?) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    let word = |at: usize| u64_at(&bytes, at);
    let range = |at: usize| Some(AddressRange { start_vaddr: word(at)?, end_vaddr: word(at + 8)? });
    let module = ModuleData {
        vaddr,
        text_vaddr: word(TEXT)?,
        text_end_vaddr: word(ETEXT)?,
        min_pc: word(MINPC)?,
        max_pc: word(MAXPC)?,
        noptrdata: range(NOPTRDATA)?,
        data: range(DATA)?,
        bss: range(BSS)?,
        noptrbss: range(NOPTRBSS)?,
        gofunc_words: GOFUNC.map(|(since, at)| (since, word(at))),
    };
    let is_one = word(PC_HEADER)? == pclntab.vaddr
        && word(FUNCNAMETAB)? == pclntab.funcname_vaddr()
        && word(FTAB)? == pclntab.functab_vaddr()
        && word(FTAB + 8)? == pclntab.functab_len()
        && module.text_vaddr < module.text_end_vaddr
        && module.min_pc < module.max_pc
        && module.text_vaddr <= module.min_pc;
    is_one.then_some(module)
}
