//! Structure layouts and constants of package runtime from DWARF, for unstripped binaries.
//!
//! Sections are streamed unit by unit: a unit is decoded when it is called `runtime`, and passed over otherwise. The Go
//! linker puts the types of the whole program into one of these units and the constants of the package into another
//! (`cmd/link/internal/ld/dwarf.go: movetomodule`, `link.go: runtimeCU`), the same in Go 1.18 to 1.27. It writes names in
//! place (`DW_FORM_string`), so that no other section than `.debug_info` and `.debug_abbrev` is touched: DWARF 4 and 5
//! (from 1.25), plain, `.zdebug_*` (1.18) or with a compression header.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use flate2::read::ZlibDecoder;
use gimli::{
    AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfo, EndianSlice, LittleEndian, UnitOffset,
    constants as dw,
};
use object::{LittleEndian as ElfLittleEndian, elf::CompressionHeader64, pod::from_bytes};

use super::{
    elf::{Elf, Section},
    error::Error,
    source::{RangeReader, Source},
};

const INFO: &str = ".debug_info";
const ABBREV: &str = ".debug_abbrev";
/// Most decompressed bytes of `.debug_abbrev` (Go's has 370; C units add some 10 KiB) and of all of `.debug_info`.
const MAX_ABBREV_BYTES: u64 = 16 << 20;
const MAX_INFO_BYTES: u64 = 2 << 30;
/// Biggest unit decoded. The one with the types has 30 MB in the biggest known programs.
const MAX_UNIT_BYTES: u64 = 256 << 20;
/// Longest chain of type definitions followed to a size.
const MAX_TYPE_CHAIN: usize = 16;
/// Biggest abbreviation table decoded, and most bytes of tables decoded in all: Go has one of 370 bytes for all its units,
/// C compilers one of some KiB for each.
const MAX_TABLE_BYTES: usize = 64 << 10;
const TABLE_BUDGET_BYTES: usize = 1 << 30;
/// Most attributes of an entry and members of a structure, several times the biggest real ones. Without these limits a few
/// bytes of a broken file can ask for hours of work.
const MAX_ATTRIBUTES: usize = 64;
const MAX_MEMBERS: usize = 4096;

type Slice<'d> = EndianSlice<'d, LittleEndian>;
type UnitHeader<'d> = gimli::UnitHeader<Slice<'d>>;
type Entries<'d> = gimli::EntriesRaw<'d, Slice<'d>>;

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset from the start of the structure.
    pub offset_bytes: u64,
    /// Size of its type, if DWARF tells.
    pub size_bytes: Option<u64>,
}

/// A structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// Size of the whole.
    pub size_bytes: u64,
    /// Its members by name; of several called `_`, the last.
    pub members: BTreeMap<String, Member>,
}

/// The layouts of structures, as [`super::GoBinary::struct_layouts`].
pub(super) fn struct_layouts(
    source: &Source,
    elf: &Elf,
    names: &[&str],
) -> Result<Option<BTreeMap<String, StructLayout>>, Error> {
    let mut found = BTreeMap::new();
    let any = for_each_runtime_unit(source, elf, |unit| {
        unit.structs(names, &mut found)?;
        Ok(found.len() < names.len())
    })?;
    Ok(any.then_some(found))
}

/// The values of constants, as [`super::GoBinary::constants`].
pub(super) fn constants(
    source: &Source,
    elf: &Elf,
    names: &[&str],
) -> Result<Option<BTreeMap<String, i64>>, Error> {
    let mut found = BTreeMap::new();
    let any = for_each_runtime_unit(source, elf, |unit| {
        unit.constants(names, &mut found)?;
        Ok(found.len() < names.len())
    })?;
    Ok(any.then_some(found))
}

/// One unit called `runtime`.
struct RuntimeUnit<'d> {
    header: UnitHeader<'d>,
    abbreviations: &'d gimli::Abbreviations,
    /// Where it starts in the section; references count from the section's start.
    start: u64,
}

/// Calls `visit` with each unit called `runtime` until it answers `false`. `Ok(false)` when there is no DWARF.
fn for_each_runtime_unit(
    source: &Source,
    elf: &Elf,
    mut visit: impl FnMut(&RuntimeUnit<'_>) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let (Some(info), Some(abbrev)) = (find(elf, INFO), find(elf, ABBREV)) else { return Ok(false) };
    let mut abbrev_bytes = Vec::new();
    open(source, abbrev, ABBREV)?
        .take(MAX_ABBREV_BYTES)
        .read_to_end(&mut abbrev_bytes)
        .map_err(|error| io_error(ABBREV, 0, error))?;
    let mut tables = Tables { bytes: &abbrev_bytes, last: None, budget_bytes: TABLE_BUDGET_BYTES };

    let mut stream = open(source, info, INFO)?;
    let mut start = 0;
    let mut bytes = Vec::new();
    while start < MAX_INFO_BYTES && next_unit(&mut *stream, start, &mut bytes)? {
        // A unit that cannot be decoded as far as its name is none of Go's.
        if let Ok(Some(header)) = DebugInfo::new(&bytes, LittleEndian).units().next()
            && let Some(abbreviations) = tables.get(header.debug_abbrev_offset())
        {
            let unit = RuntimeUnit { header, abbreviations, start };
            if unit.is_runtime() && !visit(&unit)? {
                break;
            }
        }
        start += bytes.len() as u64;
    }
    Ok(true)
}

/// The abbreviation tables, of which the last one used is kept.
struct Tables<'d> {
    bytes: &'d [u8],
    last: Option<(usize, gimli::Abbreviations)>,
    budget_bytes: usize,
}

impl Tables<'_> {
    fn get(&mut self, DebugAbbrevOffset(offset): DebugAbbrevOffset<usize>) -> Option<&gimli::Abbreviations> {
        if self.last.as_ref().is_none_or(|(known, _)| *known != offset) {
            let table = self.bytes.get(offset..)?;
            let table = table.get(..MAX_TABLE_BYTES).unwrap_or(table);
            self.budget_bytes = self.budget_bytes.checked_sub(table.len())?;
            let decoded = DebugAbbrev::new(table, LittleEndian).abbreviations(DebugAbbrevOffset(0)).ok()?;
            self.last = Some((offset, decoded));
        }
        self.last.as_ref().map(|(_, table)| table)
    }
}

/// The section of that name, or its old compressed form.
fn find<'e>(elf: &'e Elf, name: &str) -> Option<&'e Section> {
    let old = name.replacen('.', ".z", 1);
    elf.sections.iter().find(|section| section.name == name || section.name == old)
}

fn io_error(section: &'static str, offset: u64, source: io::Error) -> Error {
    Error::Decompress { section, offset, source }
}

/// A section's contents, decompressed on the way.
fn open<'s>(source: &'s Source, section: &Section, name: &'static str) -> Result<Box<dyn Read + 's>, Error> {
    let broken = |why: &str| Error::broken("DWARF section", section.file_offset, format!("{name}: {why}"));
    let mut range = section.file_range().ok_or_else(|| broken("it has no bytes"))?;
    range.end = range.end.min(source.size_bytes());
    let header_bytes = if section.compressed {
        let header = source.read_vec(range.start, size_of::<CompressionHeader64<ElfLittleEndian>>())?;
        let (header, _) = from_bytes::<CompressionHeader64<ElfLittleEndian>>(&header)
            .map_err(|()| broken("no compression header"))?;
        if header.ch_type.get(ElfLittleEndian) != object::elf::ELFCOMPRESS_ZLIB {
            return Err(broken("compressed by something else than zlib"));
        }
        size_of::<CompressionHeader64<ElfLittleEndian>>()
    } else if section.name.starts_with(".z") {
        // cmd/link/internal/ld/dwarf.go of Go 1.18: "ZLIB" and the size, big-endian
        if source.read_vec(range.start, 4)? != b"ZLIB" {
            return Err(broken("no ZLIB header"));
        }
        12
    } else {
        return Ok(Box::new(io::BufReader::with_capacity(64 << 10, RangeReader::new(source, range))));
    };
    range.start = range.start.saturating_add(header_bytes as u64);
    Ok(Box::new(ZlibDecoder::new_with_buf(RangeReader::new(source, range), vec![0; 64 << 10])))
}

/// Reads the next unit with its length field; `false` at the end of the section.
fn next_unit(stream: &mut dyn Read, start: u64, bytes: &mut Vec<u8>) -> Result<bool, Error> {
    let fail = |error| io_error(INFO, start, error);
    bytes.clear();
    stream.take(4).read_to_end(bytes).map_err(fail)?;
    let length = match super::bytes::u32_at(bytes, 0) {
        None => return Ok(false),
        Some(u32::MAX) => {
            stream.take(8).read_to_end(bytes).map_err(fail)?;
            super::bytes::u64_at(bytes, 4)
        }
        Some(length) => Some(u64::from(length)),
    };
    let length = length
        .filter(|length| *length <= MAX_UNIT_BYTES)
        .ok_or_else(|| Error::broken("DWARF unit (offset in .debug_info)", start, "implausible length"))?;
    let before = bytes.len() as u64;
    stream.take(length).read_to_end(bytes).map_err(fail)?;
    if (bytes.len() as u64) < before + length {
        return Err(Error::broken("DWARF unit (offset in .debug_info)", start, "cut short"));
    }
    Ok(true)
}

/// What is wanted of an entry.
#[derive(Clone, Copy, Debug)]
struct Entry<'d> {
    tag: gimli::DwTag,
    depth: isize,
    /// `DW_AT_name` written in place.
    name: Option<&'d [u8]>,
    byte_size: Option<u64>,
    member_location: Option<u64>,
    const_value: Option<i64>,
    /// The entry of its type, in the same unit.
    type_at: Option<UnitOffset<usize>>,
}

impl RuntimeUnit<'_> {
    fn error(&self, source: gimli::Error) -> Error {
        Error::Dwarf { section: INFO, offset: self.start, source }
    }

    fn broken(&self, why: &str) -> Error {
        Error::broken("DWARF unit (offset in .debug_info)", self.start, why)
    }

    fn entries(&self, at: Option<UnitOffset<usize>>) -> Result<Entries<'_>, Error> {
        self.header.entries_raw(self.abbreviations, at).map_err(|error| self.error(error))
    }

    /// The next entry, with the attributes read if its tag is wanted; `None` at the end of a list of children.
    fn next<'e>(
        &self,
        entries: &mut Entries<'e>,
        wanted: impl Fn(gimli::DwTag) -> bool,
    ) -> Result<Option<Entry<'e>>, Error> {
        let depth = entries.next_depth();
        let abbreviation = entries.read_abbreviation().map_err(|error| self.error(error))?;
        let Some(abbreviation) = abbreviation else { return Ok(None) };
        let attributes = abbreviation.attributes();
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(self.broken("an entry with too many attributes"));
        }
        let mut entry = Entry {
            tag: abbreviation.tag(),
            depth,
            name: None,
            byte_size: None,
            member_location: None,
            const_value: None,
            type_at: None,
        };
        if !wanted(entry.tag) {
            entries.skip_attributes(attributes).map_err(|error| self.error(error))?;
            return Ok(Some(entry));
        }
        for specification in attributes {
            let attribute = entries.read_attribute(*specification).map_err(|error| self.error(error))?;
            match attribute.name() {
                dw::DW_AT_name => {
                    if let AttributeValue::String(text) = attribute.value() {
                        entry.name = Some(text.slice());
                    }
                }
                dw::DW_AT_byte_size => entry.byte_size = attribute.udata_value(),
                dw::DW_AT_data_member_location => entry.member_location = attribute.udata_value(),
                dw::DW_AT_const_value => entry.const_value = attribute.sdata_value(),
                dw::DW_AT_type => entry.type_at = self.in_unit(attribute.value()),
                _ => {}
            }
        }
        Ok(Some(entry))
    }

    fn is_runtime(&self) -> bool {
        let root = self.entries(None).and_then(|mut entries| {
            Ok(self.next(&mut entries, |_| true)?.and_then(|root| root.name) == Some(b"runtime".as_slice()))
        });
        root.unwrap_or(false)
    }

    fn structs(&self, names: &[&str], found: &mut BTreeMap<String, StructLayout>) -> Result<(), Error> {
        let wanted = |tag| matches!(tag, dw::DW_TAG_structure_type | dw::DW_TAG_member);
        let mut entries = self.entries(None)?;
        // The structure that members belong to, and its depth.
        let mut current: Option<(String, StructLayout, isize)> = None;
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let entry = self.next(&mut entries, wanted)?;
            if let Some((name, layout, _)) = current.take_if(|(_, _, at)| depth <= *at) {
                found.entry(name).or_insert(layout);
                if found.len() == names.len() {
                    return Ok(());
                }
            }
            let Some(entry) = entry else { continue };
            match (entry.tag, &mut current) {
                (dw::DW_TAG_member, Some((_, layout, at))) if entry.depth == *at + 1 => {
                    if let (Some(name), Some(offset_bytes)) = (entry.name, entry.member_location) {
                        let member = Member { offset_bytes, size_bytes: self.type_size(entry.type_at)? };
                        layout.members.insert(String::from_utf8_lossy(name).into_owned(), member);
                        if layout.members.len() > MAX_MEMBERS {
                            return Err(self.broken("a structure with too many members"));
                        }
                    }
                }
                (dw::DW_TAG_structure_type, None) => {
                    let name = names.iter().find(|name| Some(name.as_bytes()) == entry.name);
                    if let (Some(name), Some(size_bytes)) = (name, entry.byte_size) {
                        let layout = StructLayout { size_bytes, members: BTreeMap::new() };
                        current = Some(((*name).to_owned(), layout, depth));
                    }
                }
                _ => {}
            }
        }
        if let Some((name, layout, _)) = current {
            found.entry(name).or_insert(layout);
        }
        Ok(())
    }

    fn constants(&self, names: &[&str], found: &mut BTreeMap<String, i64>) -> Result<(), Error> {
        let mut entries = self.entries(None)?;
        while !entries.is_empty() {
            let Some(entry) = self.next(&mut entries, |tag| tag == dw::DW_TAG_constant)? else { continue };
            let name = names.iter().find(|name| Some(name.as_bytes()) == entry.name);
            if let (Some(name), Some(value)) = (name, entry.const_value) {
                found.insert((*name).to_owned(), value);
                if found.len() == names.len() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The size of a type; `None` when its entry does not say.
    fn type_size(&self, type_at: Option<UnitOffset<usize>>) -> Result<Option<u64>, Error> {
        let mut at = type_at;
        for _ in 0..MAX_TYPE_CHAIN {
            let Some(offset) = at else { return Ok(None) };
            let target = self.next(&mut self.entries(Some(offset))?, |_| true)?;
            let Some(target) = target else { return Ok(None) };
            if target.byte_size.is_some() {
                return Ok(target.byte_size);
            }
            match target.tag {
                // A func value is a pointer to its closure.
                dw::DW_TAG_pointer_type | dw::DW_TAG_subroutine_type => {
                    return Ok(Some(u64::from(self.header.address_size())));
                }
                dw::DW_TAG_typedef => at = target.type_at,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn in_unit(&self, reference: AttributeValue<Slice<'_>>) -> Option<UnitOffset<usize>> {
        match reference {
            AttributeValue::UnitRef(offset) => Some(offset),
            // Go refers to types by their place in the section; they are all in this unit.
            AttributeValue::DebugInfoRef(offset) => {
                let inside = (offset.0 as u64).checked_sub(self.start)?;
                Some(UnitOffset(usize::try_from(inside).ok()?))
            }
            _ => None,
        }
    }
}
