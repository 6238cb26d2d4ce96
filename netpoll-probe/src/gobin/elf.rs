//! The ELF file around a Go program: segments, sections, notes, and the way from an address to a file offset.
//!
//! Sections are optional (they can be stripped, or be nonsense); everything needed for attaching comes from the program
//! headers. Structures come from `object`, reads are positioned and bounded.

use std::ops::ControlFlow;

use object::{
    LittleEndian, elf,
    pod::{from_bytes, slice_from_all_bytes},
    read::elf::NoteIterator,
};

use super::{
    bytes::{u8_at, u64_at},
    error::Error,
    source::{FileRange, Source},
};

type FileHeader = elf::FileHeader64<LittleEndian>;
type ProgramHeader = elf::ProgramHeader64<LittleEndian>;
type SectionHeader = elf::SectionHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// Most program headers accepted; Go and C linkers write 7 to 15.
const MAX_PROGRAM_HEADERS: u16 = 128;
/// Most section headers looked at; Go and C linkers write 13 to 45.
const MAX_SECTION_HEADERS: u16 = 1024;
/// Most bytes read of the section name table and of one note segment.
const MAX_NAME_TABLE_BYTES: u64 = 1 << 20;

/// The processor the code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// x86-64, Go's amd64.
    Amd64,
    /// aarch64, Go's arm64.
    Arm64,
}

/// One `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address as linked.
    pub vaddr: u64,
    /// Offset in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_size_bytes: u64,
    /// Bytes in memory; those beyond `file_size_bytes` are zero.
    pub memory_size_bytes: u64,
    /// Mapped executable.
    pub executable: bool,
    /// Mapped writable.
    pub writable: bool,
}

impl Segment {
    /// The part of the segment that is in the file.
    pub(super) fn file_range(&self) -> FileRange {
        FileRange {
            start: self.file_offset,
            end: self.file_offset.saturating_add(self.file_size_bytes.min(self.memory_size_bytes)),
        }
    }
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name, such as `.gopclntab`.
    pub name: String,
    /// Address as linked, 0 when it is not loaded.
    pub vaddr: u64,
    /// Offset in the file.
    pub file_offset: u64,
    /// Size in bytes, in memory and (unless `no_bits`) in the file.
    pub size_bytes: u64,
    /// It takes no room in the file (`.bss`).
    pub no_bits: bool,
    /// Its contents are compressed and start with a compression header (`SHF_COMPRESSED`).
    pub compressed: bool,
}

impl Section {
    /// Where its bytes are, if it has any.
    pub(super) fn file_range(&self) -> Option<FileRange> {
        let end = self.file_offset.checked_add(self.size_bytes)?;
        (!self.no_bits).then_some(FileRange { start: self.file_offset, end })
    }
}

/// The thread-local storage template, `PT_TLS`. Its size and alignment place `runtime.tlsg` relative to the thread pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Address of the template as linked.
    pub vaddr: u64,
    /// Bytes of thread-local storage in memory.
    pub memory_size_bytes: u64,
    /// Alignment in bytes.
    pub align_bytes: u64,
}

/// What the headers of an ELF executable say.
#[derive(Clone, Debug)]
pub struct Elf {
    /// The processor.
    pub machine: Machine,
    /// Position independent: `ET_DYN`, loaded at an address chosen by the kernel.
    pub pie: bool,
    /// The entry point as linked.
    pub entry_vaddr: u64,
    /// The `PT_LOAD` segments in the file's order. Never empty.
    pub segments: Vec<Segment>,
    /// The sections; empty when there are none or when they cannot be read.
    pub sections: Vec<Section>,
    /// The thread-local storage template, if any.
    pub tls: Option<Tls>,
    /// The program interpreter's presence tells a dynamically linked executable.
    pub has_interpreter: bool,
    /// The build id of the system linker (`NT_GNU_BUILD_ID`), raw bytes. Go's own linker writes one since Go 1.24.
    pub gnu_build_id: Option<Vec<u8>>,
    /// Go's build id (note `Go`, type 4): action id, slashes, content id.
    pub go_build_id: Option<String>,
    /// `PT_DYNAMIC`, for relocations.
    dynamic: Option<FileRange>,
}

impl Elf {
    /// Reads the headers.
    pub(super) fn read(source: &Source) -> Result<Self, Error> {
        let mut start = vec![0; 4.min(usize::try_from(source.size_bytes()).unwrap_or(4))];
        source.read_direct(0, &mut start)?;
        if start != elf::ELFMAG {
            return Err(Error::NotElf { start });
        }
        let ident: [u8; 20] = source.read_array(0)?;
        check_identity(&ident)?;
        let bytes: [u8; size_of::<FileHeader>()] = source.read_array(0)?;
        let (header, _) =
            from_bytes::<FileHeader>(&bytes).map_err(|()| Error::broken("ELF header", 0, "too short"))?;

        let machine = match header.e_machine.get(LE) {
            elf::EM_X86_64 => Machine::Amd64,
            elf::EM_AARCH64 => Machine::Arm64,
            other => return Err(Error::UnsupportedElf { found: format!("machine number {}", other.0) }),
        };
        let pie = match header.e_type.get(LE) {
            elf::ET_EXEC => false,
            elf::ET_DYN => true,
            elf::ET_CORE => return Err(Error::UnsupportedElf { found: "a core dump".to_owned() }),
            other => return Err(Error::UnsupportedElf { found: format!("ELF type {}", other.0) }),
        };

        let mut read = Self {
            machine,
            pie,
            entry_vaddr: header.e_entry.get(LE),
            segments: Vec::new(),
            sections: read_sections(source, header).unwrap_or_default(),
            tls: None,
            has_interpreter: false,
            gnu_build_id: None,
            go_build_id: None,
            dynamic: None,
        };
        read.read_program_headers(source, header)?;
        if read.segments.is_empty() {
            return Err(Error::UnsupportedElf { found: "no PT_LOAD segment".to_owned() });
        }
        Ok(read)
    }

    fn read_program_headers(&mut self, source: &Source, header: &FileHeader) -> Result<(), Error> {
        let (offset, count) = (header.e_phoff.get(LE), header.e_phnum.get(LE));
        if count > MAX_PROGRAM_HEADERS
            || usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader>()
        {
            let size = header.e_phentsize.get(LE);
            return Err(Error::broken("ELF header", 0, format!("{count} program headers of {size} bytes")));
        }
        let bytes = source.read_vec(offset, usize::from(count) * size_of::<ProgramHeader>())?;
        let headers = slice_from_all_bytes::<ProgramHeader>(&bytes)
            .map_err(|()| Error::broken("program headers", offset, "odd size"))?;
        for header in headers {
            let segment = Segment {
                vaddr: header.p_vaddr.get(LE),
                file_offset: header.p_offset.get(LE),
                file_size_bytes: header.p_filesz.get(LE),
                memory_size_bytes: header.p_memsz.get(LE),
                executable: header.p_flags.get(LE).contains(elf::PF_X),
                writable: header.p_flags.get(LE).contains(elf::PF_W),
            };
            match header.p_type.get(LE) {
                elf::PT_LOAD => self.segments.push(segment),
                elf::PT_TLS => {
                    self.tls = Some(Tls {
                        vaddr: segment.vaddr,
                        memory_size_bytes: segment.memory_size_bytes,
                        align_bytes: header.p_align.get(LE),
                    });
                }
                elf::PT_INTERP => self.has_interpreter = true,
                elf::PT_DYNAMIC => self.dynamic = Some(segment.file_range()),
                elf::PT_NOTE => self.read_notes(source, segment.file_range(), header.p_align.get(LE)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Build ids are a convenience: a broken note leaves them unknown.
    fn read_notes(&mut self, source: &Source, range: FileRange, align: u64) {
        let len = range.end.saturating_sub(range.start).min(MAX_NAME_TABLE_BYTES);
        let Ok(bytes) = usize::try_from(len).map_or(Ok(Vec::new()), |len| source.read_vec(range.start, len))
        else {
            return;
        };
        let Ok(notes) = NoteIterator::<FileHeader>::new(LE, align, &bytes) else { return };
        for note in notes {
            let Ok(note) = note else { return };
            match (note.name(), note.n_type(LE).0) {
                (b"GNU", 3) => self.gnu_build_id = Some(note.desc().to_vec()), // NT_GNU_BUILD_ID
                // cmd/internal/buildid/note.go: elfGoBuildIDTag = 4, name "Go\0\0"
                (b"Go", 4) => self.go_build_id = Some(String::from_utf8_lossy(note.desc()).into_owned()),
                _ => {}
            }
        }
    }

    /// The section of that name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The segment with the lowest address. The kernel maps it first, so that
    /// load bias = start of that mapping in `/proc/PID/maps` − its page-aligned `vaddr`.
    #[must_use]
    pub fn lowest_segment(&self) -> Option<&Segment> {
        self.segments.iter().min_by_key(|segment| segment.vaddr)
    }

    /// Where the bytes from `vaddr` to the end of its segment are in the file.
    pub(super) fn range_from(&self, vaddr: u64) -> Option<FileRange> {
        self.segments.iter().find_map(|segment| {
            let inside = vaddr.checked_sub(segment.vaddr)?;
            let range = segment.file_range();
            let start = range.start.checked_add(inside)?;
            (start < range.end).then_some(FileRange { start, end: range.end })
        })
    }

    /// The file offset of an address as linked, which is what a uprobe is placed by. `None` when no byte of the file is there.
    #[must_use]
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.range_from(vaddr).map(|range| range.start)
    }

    /// The address of a file offset, if a segment loads it.
    pub(super) fn vaddr_of(&self, file_offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let range = segment.file_range();
            let inside = file_offset.checked_sub(range.start)?;
            (file_offset < range.end).then(|| segment.vaddr.checked_add(inside)).flatten()
        })
    }

    /// Streams the relative relocations of a position-independent executable (`DT_RELA`) to `visit` as (address, value).
    ///
    /// Go's linker and GNU ld also write the value in place; linkers that do not (lld, and GNU ld on aarch64) leave zeros
    /// there. Packed relocations (`DT_RELR`) always have the value in place, so they need no reading.
    pub(super) fn relative_relocations(
        &self,
        source: &Source,
        mut visit: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let Some(range) = self.rela_range(source)? else { return Ok(()) };
        let relative = match self.machine {
            Machine::Amd64 => u64::from(elf::R_X86_64_RELATIVE.0),
            Machine::Arm64 => u64::from(elf::R_AARCH64_RELATIVE.0),
        };
        const ENTRY: usize = size_of::<elf::Rela64<LittleEndian>>();
        // The table is cut into pieces that hold whole entries, so windows overlap by nothing.
        let mut start = range.start;
        while start < range.end {
            let piece = FileRange { start, end: range.end.min(start + (ENTRY as u64) * 8192) };
            source.scan(piece, 0, |_, window| {
                for entry in window.chunks_exact(ENTRY) {
                    if u64_at(entry, 8).is_some_and(|info| info & 0xffff_ffff == relative)
                        && let (Some(at), Some(value)) = (u64_at(entry, 0), u64_at(entry, 16))
                    {
                        visit(at, value);
                    }
                }
                ControlFlow::<()>::Continue(())
            })?;
            start = piece.end;
        }
        Ok(())
    }

    fn rela_range(&self, source: &Source) -> Result<Option<FileRange>, Error> {
        let Some(dynamic) = self.dynamic else { return Ok(None) };
        let len = dynamic.end.saturating_sub(dynamic.start).min(MAX_NAME_TABLE_BYTES);
        let bytes = source.read_vec(dynamic.start, usize::try_from(len).unwrap_or(0))?;
        let (mut vaddr, mut size) = (None, None);
        for entry in bytes.chunks_exact(16) {
            match (u64_at(entry, 0), u64_at(entry, 8)) {
                (Some(0), _) => break,             // DT_NULL
                (Some(7), value) => vaddr = value, // DT_RELA
                (Some(8), value) => size = value,  // DT_RELASZ
                _ => {}
            }
        }
        let Some((vaddr, size)) = vaddr.zip(size) else { return Ok(None) };
        Ok(self.range_from(vaddr).map(|range| FileRange {
            start: range.start,
            end: range.end.min(range.start.saturating_add(size)),
        }))
    }

    /// One line for error messages.
    pub(super) fn describe(&self) -> String {
        let machine = match self.machine {
            Machine::Amd64 => "x86-64",
            Machine::Arm64 => "aarch64",
        };
        let kind = match (self.pie, self.has_interpreter) {
            (true, true) => "position-independent executable",
            (true, false) => "shared object or static position-independent executable",
            (false, true) => "dynamically linked executable",
            (false, false) => "static executable",
        };
        let sections = if self.sections.is_empty() { ", without section headers" } else { "" };
        format!("{machine} {kind}{sections}")
    }
}

fn check_identity(ident: &[u8; 20]) -> Result<(), Error> {
    let refuse = |found: &str| Err(Error::UnsupportedElf { found: found.to_owned() });
    match (u8_at(ident, 4), u8_at(ident, 5)) {
        (Some(2), Some(1)) => Ok(()), // ELFCLASS64, ELFDATA2LSB
        (Some(1), _) => refuse("32-bit"),
        (Some(2), Some(2)) => refuse("big-endian"),
        _ => refuse("unknown class or byte order"),
    }
}

fn read_sections(source: &Source, header: &FileHeader) -> Option<Vec<Section>> {
    let (offset, count) = (header.e_shoff.get(LE), header.e_shnum.get(LE));
    if offset == 0
        || count > MAX_SECTION_HEADERS
        || usize::from(header.e_shentsize.get(LE)) != size_of::<SectionHeader>()
    {
        return None;
    }
    let bytes = source.read_vec(offset, usize::from(count) * size_of::<SectionHeader>()).ok()?;
    let headers = slice_from_all_bytes::<SectionHeader>(&bytes).ok()?;
    let names = headers.get(usize::from(header.e_shstrndx.get(LE).0))?;
    let names_len = usize::try_from(names.sh_size.get(LE).min(MAX_NAME_TABLE_BYTES)).ok()?;
    let names = source.read_vec(names.sh_offset.get(LE), names_len).ok()?;
    let name_at = |offset: u32| -> Option<String> {
        let tail = names.get(usize::try_from(offset).ok()?..)?;
        let len = tail.iter().take(256).position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(tail.get(..len)?).into_owned())
    };
    let sections = headers.iter().map(|section| Section {
        name: name_at(section.sh_name.get(LE)).unwrap_or_default(),
        vaddr: section.sh_addr.get(LE),
        file_offset: section.sh_offset.get(LE),
        size_bytes: section.sh_size.get(LE),
        no_bits: section.sh_type.get(LE) == elf::SHT_NOBITS,
        compressed: section.sh_flags.get(LE).contains(elf::SHF_COMPRESSED),
    });
    Some(sections.collect())
}
