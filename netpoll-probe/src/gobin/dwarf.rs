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
use gimli::{AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitOffset, constants as dw};
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

type Slice<'d> = EndianSlice<'d, LittleEndian>;
type UnitHeader<'d> = gimli::UnitHeader<Slice<'d>>;
type Entry<'d> = gimli::DebuggingInformationEntry<Slice<'d>>;

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
    let debug_abbrev = DebugAbbrev::new(&abbrev_bytes, LittleEndian);

    let mut stream = open(source, info, INFO)?;
    let mut start = 0;
    let mut bytes = Vec::new();
    while start < MAX_INFO_BYTES && next_unit(&mut *stream, start, &mut bytes)? {
        let decode = |source| Error::Dwarf { section: INFO, offset: start, source };
        let debug_info = DebugInfo::new(&bytes, LittleEndian);
        if let Some(header) = debug_info.units().next().map_err(decode)? {
            let abbreviations = header.abbreviations(&debug_abbrev).map_err(decode)?;
            let root = header.entry(&abbreviations, header.root_offset()).map_err(decode)?;
            if name(&root) == Some(b"runtime".as_slice())
                && !visit(&RuntimeUnit { header, abbreviations: &abbreviations, start })?
            {
                break;
            }
        }
        start += bytes.len() as u64;
    }
    Ok(true)
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

/// `DW_AT_name` written in place.
fn name<'d>(entry: &Entry<'d>) -> Option<&'d [u8]> {
    match entry.attr_value(dw::DW_AT_name)? {
        AttributeValue::String(text) => Some(text.slice()),
        _ => None,
    }
}

impl RuntimeUnit<'_> {
    fn error(&self, source: gimli::Error) -> Error {
        Error::Dwarf { section: INFO, offset: self.start, source }
    }

    fn structs(&self, names: &[&str], found: &mut BTreeMap<String, StructLayout>) -> Result<(), Error> {
        let mut entries =
            self.header.entries_raw(self.abbreviations, None).map_err(|error| self.error(error))?;
        let mut entry = Entry::null();
        // The structure that members belong to, and its depth.
        let mut current: Option<(String, StructLayout, isize)> = None;
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let present = entries.read_entry(&mut entry).map_err(|error| self.error(error))?;
            if let Some((name, layout, _)) = current.take_if(|(_, _, at)| depth <= *at) {
                found.entry(name).or_insert(layout);
                if found.len() == names.len() {
                    return Ok(());
                }
            }
            if !present {
                continue;
            }
            match (entry.tag(), &mut current) {
                (dw::DW_TAG_member, Some((_, layout, at))) if depth == *at + 1 => {
                    let member = name(&entry).zip(udata(&entry, dw::DW_AT_data_member_location));
                    if let Some((name, offset_bytes)) = member {
                        let size_bytes = self.type_size(&entry);
                        let name = String::from_utf8_lossy(name).into_owned();
                        layout.members.insert(name, Member { offset_bytes, size_bytes });
                    }
                }
                (dw::DW_TAG_structure_type, None) => {
                    let wanted =
                        name(&entry).and_then(|name| names.iter().find(|wanted| wanted.as_bytes() == name));
                    if let (Some(wanted), Some(size_bytes)) = (wanted, udata(&entry, dw::DW_AT_byte_size)) {
                        let layout = StructLayout { size_bytes, members: BTreeMap::new() };
                        current = Some(((*wanted).to_owned(), layout, depth));
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
        let mut entries =
            self.header.entries_raw(self.abbreviations, None).map_err(|error| self.error(error))?;
        let mut entry = Entry::null();
        while !entries.is_empty() {
            let present = entries.read_entry(&mut entry).map_err(|error| self.error(error))?;
            if !present || entry.tag() != dw::DW_TAG_constant {
                continue;
            }
            let wanted = name(&entry).and_then(|name| names.iter().find(|wanted| wanted.as_bytes() == name));
            let value = entry.attr(dw::DW_AT_const_value).and_then(gimli::Attribute::sdata_value);
            if let (Some(wanted), Some(value)) = (wanted, value) {
                found.insert((*wanted).to_owned(), value);
                if found.len() == names.len() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The size of the type that an entry refers to.
    fn type_size(&self, entry: &Entry<'_>) -> Option<u64> {
        let mut at = self.type_offset(entry)?;
        for _ in 0..MAX_TYPE_CHAIN {
            let target = self.header.entry(self.abbreviations, at).ok()?;
            if let Some(size) = udata(&target, dw::DW_AT_byte_size) {
                return Some(size);
            }
            match target.tag() {
                // A func value is a pointer to its closure.
                dw::DW_TAG_pointer_type | dw::DW_TAG_subroutine_type => {
                    return Some(u64::from(self.header.address_size()));
                }
                dw::DW_TAG_typedef => at = self.type_offset(&target)?,
                _ => return None,
            }
        }
        None
    }

    fn type_offset(&self, entry: &Entry<'_>) -> Option<UnitOffset<usize>> {
        match entry.attr_value(dw::DW_AT_type)? {
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

fn udata(entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<u64> {
    entry.attr(attribute).and_then(gimli::Attribute::udata_value)
}
