//! The raw structures of pclntab, one decoder per type. Following their offsets is the other modules' work; each base has a
//! type of its own, so that an offset cannot be added to the wrong table.
//!
//! Sources: `src/runtime/symtab.go` (pcHeader, moduledata), `src/runtime/runtime2.go` (_func), `src/runtime/symtabinl.go`
//! (inlinedCall) and `src/internal/abi/symtab.go` (magic, flags, table numbers) of Go 1.18 to 1.27, checked against the
//! DWARF of binaries of each version.

use super::super::bytes::{i32_at, u8_at, u32_at, u64_at};

/// Offset of a string in funcnametab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameOffset(pub(super) u32);

/// Offset of a table in pctab; 0 means that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PcTabOffset(pub(super) u32);

/// Index of a compilation unit's first entry in cutab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CuIndex(pub(super) u32);

/// Offset from the start of Go's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextOffset(pub(super) u32);

/// Offset of a `_func` in pclntable (which starts with the function table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FuncOffset(pub(super) u32);

/// Offset of a funcdata object from `moduledata.gofunc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoFuncOffset(pub(super) u32);

/// Which of the two layouts since Go 1.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Layout {
    /// Go 1.18 and 1.19.
    Go118,
    /// Go 1.20 and later: `_func.startLine`, smaller inline tree entries.
    Go120,
}

impl Layout {
    /// By the header's magic: `internal/abi.Go118PCLnTabMagic`, `Go120PCLnTabMagic`.
    pub(super) fn of_magic(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    /// Size of `_func` without the pcdata and funcdata offsets that follow it.
    pub(super) const fn func_bytes(self) -> usize {
        match self {
            Self::Go118 => 40,
            Self::Go120 => 44,
        }
    }

    /// Size of an inline tree entry.
    pub(super) const fn inlined_call_bytes(self) -> usize {
        match self {
            Self::Go118 => 20,
            Self::Go120 => 16,
        }
    }
}

/// `internal/abi.PCDATA_InlTreeIndex`.
pub(super) const PCDATA_INLINE_TREE_INDEX: u32 = 2;
/// `internal/abi.FUNCDATA_InlTree`.
pub(super) const FUNCDATA_INLINE_TREE: u32 = 3;
/// Funcdata that a function does not have (`^uint32(0)`).
pub(super) const NO_FUNCDATA: u32 = u32::MAX;

/// `internal/abi.FuncIDWrapper` (`funcID_wrapper` before 1.21) by minor version: method wrappers, deferred-call wrappers,
/// hash and equality functions, which Go leaves out of tracebacks. It is the last of the enumeration, one after
/// `systemstack_switch`, and moved when others were added: `corostart` in 1.22, `runCleanups` in 1.25.
pub(super) fn wrapper_func_id(go_minor: u32) -> u8 {
    match go_minor {
        ..=21 => 21,
        22..=24 => 22,
        25.. => 23,
    }
}

/// The header of pclntab, `runtime.pcHeader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PcHeader {
    pub(super) layout: Layout,
    /// `minLC`: program counters in pctab count in these.
    pub(super) quantum: u8,
    pub(super) func_count: u64,
    pub(super) file_count: u64,
    /// Offsets from the header.
    pub(super) funcname: u64,
    pub(super) cu: u64,
    pub(super) filetab: u64,
    pub(super) pctab: u64,
    pub(super) pclntable: u64,
}

impl PcHeader {
    /// Bytes of the header. 1.26 gave up `textStart`'s use but not its place.
    pub(super) const BYTES: usize = 72;
    /// Most functions accepted; the biggest known programs have about a million.
    const MAX_FUNCS: u64 = 1 << 24;

    /// Decodes a header and holds it against its own rules; `None` when these bytes are none.
    pub(super) fn decode(data: &[u8]) -> Option<Self> {
        let header = Self {
            layout: Layout::of_magic(u32_at(data, 0)?)?,
            quantum: u8_at(data, 6)?,
            func_count: u64_at(data, 8)?,
            file_count: u64_at(data, 16)?,
            // +24 textStart: 0 from Go 1.26, relocated in PIE; moduledata.text is used instead.
            funcname: u64_at(data, 32)?,
            cu: u64_at(data, 40)?,
            filetab: u64_at(data, 48)?,
            pctab: u64_at(data, 56)?,
            pclntable: u64_at(data, 64)?,
        };
        let pads_and_pointer_size = (u8_at(data, 4)?, u8_at(data, 5)?, u8_at(data, 7)?);
        let offsets =
            [Self::BYTES as u64, header.funcname, header.cu, header.filetab, header.pctab, header.pclntable];
        let plausible = pads_and_pointer_size == (0, 0, 8)
            && matches!(header.quantum, 1 | 4)
            && (1..=Self::MAX_FUNCS).contains(&header.func_count)
            && header.funcname <= 128
            && offsets.is_sorted()
            && header.pclntable <= u64::from(u32::MAX);
        plausible.then_some(header)
    }
}

/// One entry of the function table, `runtime.functab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FuncTabEntry {
    pub(super) entry: TextOffset,
    pub(super) func: FuncOffset,
}

impl FuncTabEntry {
    pub(super) const BYTES: usize = 8;

    pub(super) fn decode(data: &[u8]) -> Option<Self> {
        Some(Self { entry: TextOffset(u32_at(data, 0)?), func: FuncOffset(u32_at(data, 4)?) })
    }
}

/// `internal/abi.FuncFlag`: the same bits in all versions since 1.18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FuncFlags(pub u8);

impl FuncFlags {
    /// The outermost function of a stack (`goexit`, `mstart`, `rt0_go`): a walk ends here successfully.
    #[must_use]
    pub fn is_top_frame(self) -> bool {
        self.0 & 1 != 0
    }

    /// Writes an arbitrary value to the stack pointer: no walk can pass it.
    #[must_use]
    pub fn writes_sp(self) -> bool {
        self.0 & 2 != 0
    }

    /// Written in assembly.
    #[must_use]
    pub fn is_assembly(self) -> bool {
        self.0 & 4 != 0
    }
}

/// The fixed part of `runtime._func`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FuncRecord {
    pub(super) entry: TextOffset,
    pub(super) name: NameOffset,
    pub(super) pcsp: PcTabOffset,
    pub(super) pcfile: PcTabOffset,
    pub(super) pcln: PcTabOffset,
    pub(super) pcdata_count: u32,
    pub(super) cu: CuIndex,
    pub(super) func_id: u8,
    pub(super) flags: FuncFlags,
    pub(super) funcdata_count: u8,
}

impl FuncRecord {
    pub(super) fn decode(data: &[u8], layout: Layout) -> Option<Self> {
        let id_at = match layout {
            Layout::Go118 => 36,
            Layout::Go120 => 40, // startLine at 36
        };
        Some(Self {
            entry: TextOffset(u32_at(data, 0)?),
            name: NameOffset(u32_at(data, 4)?),
            pcsp: PcTabOffset(u32_at(data, 16)?),
            pcfile: PcTabOffset(u32_at(data, 20)?),
            pcln: PcTabOffset(u32_at(data, 24)?),
            pcdata_count: u32_at(data, 28)?,
            cu: CuIndex(u32_at(data, 32)?),
            func_id: u8_at(data, id_at)?,
            flags: FuncFlags(u8_at(data, id_at + 1)?),
            funcdata_count: u8_at(data, id_at + 3)?,
        })
    }
}

/// One entry of an inline tree, `runtime.inlinedCall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InlinedCall {
    pub(super) func_id: u8,
    pub(super) name: NameOffset,
    /// An instruction of the call site, from the function's entry; negative when there is none.
    pub(super) parent_pc: i32,
}

impl InlinedCall {
    pub(super) fn decode(data: &[u8], layout: Layout) -> Option<Self> {
        let (id_at, name_at, parent_at) = match layout {
            Layout::Go118 => (2, 12, 16), // parent int16, funcID, pad, file, line, func_, parentPc
            Layout::Go120 => (0, 4, 8),   // funcID, 3 pads, nameOff, parentPc, startLine
        };
        Some(Self {
            func_id: u8_at(data, id_at)?,
            name: NameOffset(u32_at(data, name_at)?),
            parent_pc: i32_at(data, parent_at)?,
        })
    }
}
