//! Functions: the one that holds an address, and those that have a name.

use std::{collections::BTreeMap, ffi::CStr};

use super::{
    super::{
        bytes::u32_at,
        error::{Error, NoSymbol},
        source::{FileRange, ForwardReader, Source},
    },
    Pclntab,
    pcvalue::{PcValues, STEP_BUDGET},
    types::{FuncFlags, FuncOffset, FuncRecord, FuncTabEntry, NameOffset, TextOffset},
};

/// Most functions of one name, and copies of one name in the table. Real ones have two of the former and one of the latter.
const MAX_SAME_NAME: usize = 256;

/// A function of a Go binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name as Go prints it, `net/http.(*conn).serve`; type arguments are `[...]`.
    pub name: String,
    /// Address of its first instruction, as linked.
    pub entry_vaddr: u64,
    /// Address of the next function, as linked. Padding (`int3`, zeros) may lie before it.
    pub end_vaddr: u64,
    /// What a stack walk has to know of it.
    pub flags: FuncFlags,
}

/// Offsets in the name table of names that were asked for, with the names: a handful, looked up for every function.
#[derive(Debug, Default)]
pub(super) struct NameOffsets<'n>(Vec<(NameOffset, &'n str)>);

impl<'n> NameOffsets<'n> {
    /// The name at an offset, if it is one that was asked for.
    pub(super) fn get(&self, offset: NameOffset) -> Option<&'n str> {
        let index = self.0.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.0.get(index).map(|(_, name)| *name)
    }

    /// Whether no name was found.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A function with the offsets that lead to its tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) func: FuncOffset,
    pub(super) record: FuncRecord,
    pub(super) entry_vaddr: u64,
    pub(super) end_vaddr: u64,
}

impl Pclntab {
    pub(super) fn functab_entry(&self, source: &Source, index: u64) -> Result<FuncTabEntry, Error> {
        let broken = || Error::broken("function table", self.pclntable.start, format!("no entry {index}"));
        let offset = index
            .checked_mul(FuncTabEntry::BYTES as u64)
            .and_then(|relative| self.pclntable.at(relative, FuncTabEntry::BYTES as u64))
            .ok_or_else(broken)?;
        FuncTabEntry::decode(&source.read_array::<{ FuncTabEntry::BYTES }>(offset)?).ok_or_else(broken)
    }

    /// The start of function `index`; that of the one behind the last is the end of Go's text.
    pub(super) fn function_start(&self, source: &Source, index: u64) -> Result<TextOffset, Error> {
        let relative = index.saturating_mul(FuncTabEntry::BYTES as u64);
        let offset = self.pclntable.at(relative, 4).ok_or_else(|| {
            Error::broken("function table", self.pclntable.start, format!("no entry {index}"))
        })?;
        Ok(TextOffset(source.read_u32(offset)?))
    }

    /// The function that holds `pc`, by binary search (`src/runtime/symtab.go: findfunc`, without its bucket index).
    pub(super) fn find(&self, source: &Source, pc: u64) -> Result<Found, NoSymbol> {
        if pc < self.min_pc || pc >= self.max_pc {
            return Err(NoSymbol::NotInText);
        }
        let target = self.text_offset(pc).ok_or(NoSymbol::NotInText)?;
        if target >= self.function_start(source, self.header.func_count)? {
            return Err(NoSymbol::NotInText);
        }
        let (mut low, mut high) = (0, self.header.func_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.function_start(source, middle)? <= target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let index = low.checked_sub(1).ok_or(NoSymbol::NoFunction)?;
        let entry = self.functab_entry(source, index)?;
        let end = self.function_start(source, low)?;
        let record = self.record(source, entry.func)?;
        if record.entry != entry.entry {
            let why = format!("entry {:#x} in the table, {:#x} in the record", entry.entry.0, record.entry.0);
            return Err(Error::broken("_func", u64::from(entry.func.0), why).into());
        }
        Ok(Found {
            func: entry.func,
            record,
            entry_vaddr: self.vaddr(entry.entry),
            end_vaddr: self.vaddr(end),
        })
    }

    /// The function that holds `pc`.
    pub(in super::super) fn function_at(&self, source: &Source, pc: u64) -> Result<Function, NoSymbol> {
        let found = self.find(source, pc)?;
        Ok(Function {
            name: self.name(source, found.record.name)?,
            entry_vaddr: found.entry_vaddr,
            end_vaddr: found.end_vaddr,
            flags: found.record.flags,
        })
    }

    /// How far the stack pointer is below its value at the function's entry, in bytes, when `pc` is reached.
    pub(in super::super) fn sp_delta_bytes(&self, source: &Source, pc: u64) -> Result<Option<i32>, NoSymbol> {
        let found = self.find(source, pc)?;
        let mut budget = STEP_BUDGET;
        let table = PcValues::new(source, self.pctab, found.record.pcsp, self.header.quantum, &mut budget);
        Ok(table.find(pc - found.entry_vaddr)?.filter(|value| *value >= 0))
    }

    /// The offsets in the name table of each of `names`, by streaming it once. A name that no function has and that was
    /// never inlined has none.
    pub(super) fn name_offsets<'n>(
        &self,
        source: &Source,
        names: &[&'n str],
    ) -> Result<NameOffsets<'n>, Error> {
        /// Of every length below this one it is known whether any name has it.
        const LENGTHS: usize = 128;
        // Nearly every name in the table is turned away by its length.
        let length_bit = |length: usize| 1u128 << length.min(LENGTHS - 1);
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name.len()));
        // The table is read from front to back, so the offsets come in order.
        let mut offsets = Vec::new();
        let mut reader = ForwardReader::new(source, self.funcname);
        let mut at = self.funcname.start;
        let end = self.funcname.end.min(source.size_bytes());
        // A name longer than a window is none of `names`: skipped over until its end.
        let mut skipping = false;
        while at < end {
            let window = reader.window(at)?;
            let mut rest = window;
            while let Ok(text) = CStr::from_bytes_until_nul(rest) {
                let text = text.to_bytes();
                if !skipping
                    && lengths & length_bit(text.len()) != 0
                    && let Some(name) = names.iter().find(|name| name.as_bytes() == text)
                {
                    let offset = (at - self.funcname.start) + (window.len() - rest.len()) as u64;
                    offsets.push((NameOffset(u32::try_from(offset).unwrap_or(u32::MAX)), *name));
                    if offsets.len() > names.len().saturating_mul(MAX_SAME_NAME) {
                        return Err(Error::broken(
                            "function names",
                            self.funcname.start,
                            "one name many times",
                        ));
                    }
                }
                skipping = false;
                rest = rest.get(text.len() + 1..).unwrap_or_default();
            }
            let consumed = window.len() - rest.len();
            let last = at + window.len() as u64 >= end;
            if consumed == 0 || last {
                skipping = true;
                at += window.len() as u64;
            } else {
                at += consumed as u64;
            }
        }
        Ok(NameOffsets(offsets))
    }

    /// Streams all functions in the order of their addresses: table entry, end, and the bytes of the record from its
    /// start (at least `record_bytes`; what follows them in the file as far as it is in memory).
    pub(super) fn for_each_function(
        &self,
        source: &Source,
        record_bytes: usize,
        mut visit: impl FnMut(FuncTabEntry, TextOffset, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let table_end = self
            .pclntable
            .at(self.header.func_count * FuncTabEntry::BYTES as u64 + 4, 0)
            .ok_or_else(|| Error::broken("function table", self.pclntable.start, "beyond its segment"))?;
        let mut table = ForwardReader::new(source, FileRange { start: self.pclntable.start, end: table_end });
        let mut records = ForwardReader::new(source, self.pclntable);
        for index in 0..self.header.func_count {
            let at = self.pclntable.start + index * FuncTabEntry::BYTES as u64;
            let bytes = table.bytes(at, FuncTabEntry::BYTES + 4)?;
            let (Some(entry), Some(end)) = (FuncTabEntry::decode(bytes), u32_at(bytes, FuncTabEntry::BYTES))
            else {
                return Err(Error::broken("function table", at, "too short"));
            };
            let offset = self.func_offset(entry.func, record_bytes as u64)?;
            visit(entry, TextOffset(end), records.at_least(offset, record_bytes)?)?;
        }
        Ok(())
    }

    /// All functions with one of `names` (as they stand in the table), in one pass over the names and one over the functions.
    pub(in super::super) fn functions_by_names(
        &self,
        source: &Source,
        names: &[&str],
    ) -> Result<BTreeMap<String, Vec<Function>>, Error> {
        let mut found: BTreeMap<String, Vec<Function>> = BTreeMap::new();
        let offsets = self.name_offsets(source, names)?;
        if offsets.is_empty() {
            return Ok(found);
        }
        let layout = self.header.layout;
        self.for_each_function(source, layout.func_bytes(), |entry, end, bytes| {
            let Some(name) = u32_at(bytes, 4).and_then(|name| offsets.get(NameOffset(name))) else {
                return Ok(());
            };
            let record = FuncRecord::decode(bytes, layout)
                .ok_or_else(|| Error::broken("_func", u64::from(entry.func.0), "too short"))?;
            let functions = found.entry(name.to_owned()).or_default();
            functions.push(Function {
                name: super::name_for_print(name),
                entry_vaddr: self.vaddr(entry.entry),
                end_vaddr: self.vaddr(end),
                flags: record.flags,
            });
            if functions.len() > MAX_SAME_NAME {
                return Err(Error::broken(
                    "function table",
                    self.pclntable.start,
                    "one name for all functions",
                ));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
