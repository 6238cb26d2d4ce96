//! pclntab: the table that Go's runtime prints its own stack traces from. It is in every Go binary, stripped or not.
//!
//! - `types`: the raw structures,
//! - `locate`: where the table is in the file,
//! - `functab`: functions by address, and by name in one streaming pass,
//! - `pcvalue`: the delta-coded tables,
//! - `inline`: what was inlined where,
//! - `location`: an address to function, file and line.
//!
//! Nothing of it is kept in memory but the header; the tables are read where a question leads to, through the block cache.

mod functab;
mod inline;
mod locate;
mod location;
mod pcvalue;
mod types;

pub use functab::Function;
pub use inline::{InlinedInstance, PcRange};
pub use location::Location;
pub use types::FuncFlags;

pub(super) use locate::{Located, locate, magic_before_118};

use std::sync::OnceLock;

use super::{
    error::Error,
    moduledata::ModuleData,
    source::{FileRange, Source},
};
use inline::TreeExtent;
use types::{FuncOffset, FuncRecord, NameOffset, PcHeader, PcTabOffset, TextOffset};

/// Longest function or file name read. Names of instantiated generic functions reach some KiB.
const MAX_NAME_BYTES: usize = 64 << 10;

/// The tables of one binary: header, file ranges, and the addresses from moduledata that they count from.
#[derive(Clone, Debug)]
pub(super) struct Pclntab {
    header: PcHeader,
    /// Start of Go's text (`moduledata.text`), which is not always the start of `.text`.
    text_vaddr: u64,
    /// What the runtime holds a pc against first (`moduledata.minpc`, `maxpc`).
    min_pc: u64,
    max_pc: u64,
    funcname: FileRange,
    cutab: FileRange,
    filetab: FileRange,
    pctab: FileRange,
    /// The function table and, behind it, the `_func` records.
    pclntable: FileRange,
    /// Funcdata; `None` when `moduledata.gofunc` could not be told, which leaves inlined calls unexpanded.
    gofunc: Option<FileRange>,
    /// `FuncIDWrapper` of this version; `None` when the version is unknown.
    wrapper_func_id: Option<u8>,
    /// Where the inline trees lie, once it was asked for.
    trees: OnceLock<TreeExtent>,
}

impl Pclntab {
    pub(super) fn new(
        located: &Located,
        module: &ModuleData,
        gofunc: Option<FileRange>,
        go_minor: Option<u32>,
    ) -> Result<Self, Error> {
        let (header, range) = (located.header, located.range);
        let part = |from: u64, to: u64| {
            let part =
                FileRange { start: range.start.saturating_add(from), end: range.start.saturating_add(to) };
            (part.end <= range.end).then_some(part).ok_or_else(|| {
                Error::broken("pclntab header", range.start, format!("offset {to:#x} beyond its segment"))
            })
        };
        Ok(Self {
            header,
            text_vaddr: module.text_vaddr,
            min_pc: module.min_pc,
            max_pc: module.max_pc,
            funcname: part(header.funcname, header.cu)?,
            cutab: part(header.cu, header.filetab)?,
            filetab: part(header.filetab, header.pctab)?,
            pctab: part(header.pctab, header.pclntable)?,
            pclntable: part(header.pclntable, range.end.saturating_sub(range.start))?,
            gofunc,
            wrapper_func_id: go_minor.map(types::wrapper_func_id),
            trees: OnceLock::new(),
        })
    }

    /// How many functions the table has.
    pub(super) fn func_count(&self) -> u64 {
        self.header.func_count
    }

    /// Whether inlined calls can be expanded.
    pub(super) fn knows_inlining(&self) -> bool {
        self.gofunc.is_some()
    }

    fn record(&self, source: &Source, func: FuncOffset) -> Result<FuncRecord, Error> {
        let mut buf = [0; 44];
        let len = self.header.layout.func_bytes();
        let buf = buf.get_mut(..len).unwrap_or_default();
        let offset = self.func_offset(func, len as u64)?;
        source.read(offset, buf)?;
        FuncRecord::decode(buf, self.header.layout).ok_or_else(|| Error::broken("_func", offset, "too short"))
    }

    fn func_offset(&self, func: FuncOffset, len: u64) -> Result<u64, Error> {
        self.pclntable.at(u64::from(func.0), len).ok_or_else(|| {
            Error::broken(
                "function table",
                self.pclntable.start,
                format!("record at {:#x} beyond its end", func.0),
            )
        })
    }

    /// The offset of pcdata table `index`; `None` when the function has none.
    fn pcdata(
        &self,
        source: &Source,
        func: FuncOffset,
        record: &FuncRecord,
        index: u32,
    ) -> Result<Option<PcTabOffset>, Error> {
        if index >= record.pcdata_count {
            return Ok(None);
        }
        let relative = self.header.layout.func_bytes() as u64 + 4 * u64::from(index);
        let offset = self.func_offset(func, relative + 4)? + relative;
        Ok(Some(PcTabOffset(source.read_u32(offset)?)))
    }

    /// The start of funcdata object `index`; `None` when the function has none.
    fn funcdata(
        &self,
        source: &Source,
        func: FuncOffset,
        record: &FuncRecord,
        index: u32,
    ) -> Result<Option<types::GoFuncOffset>, Error> {
        if index >= u32::from(record.funcdata_count) {
            return Ok(None);
        }
        let relative =
            self.header.layout.func_bytes() as u64 + 4 * (u64::from(record.pcdata_count) + u64::from(index));
        let offset = self.func_offset(func, relative + 4)? + relative;
        let value = source.read_u32(offset)?;
        Ok((value != types::NO_FUNCDATA).then_some(types::GoFuncOffset(value)))
    }

    /// A name as it stands in the table.
    fn raw_name(&self, source: &Source, name: NameOffset) -> Result<Vec<u8>, Error> {
        let offset = self.funcname.at(u64::from(name.0), 1).ok_or_else(|| {
            Error::broken(
                "function names",
                self.funcname.start,
                format!("name at {:#x} beyond their end", name.0),
            )
        })?;
        source.read_c_string(offset, self.funcname.end, MAX_NAME_BYTES)
    }

    /// A name as Go prints it.
    fn name(&self, source: &Source, name: NameOffset) -> Result<String, Error> {
        Ok(name_for_print(&String::from_utf8_lossy(&self.raw_name(source, name)?)))
    }

    fn text_offset(&self, pc: u64) -> Option<TextOffset> {
        u32::try_from(pc.checked_sub(self.text_vaddr)?).ok().map(TextOffset)
    }

    fn vaddr(&self, text: TextOffset) -> u64 {
        self.text_vaddr.saturating_add(u64::from(text.0))
    }
}

/// The name with the type arguments of a generic function as `[...]`. The linker writes it so up to Go 1.20; since then the
/// runtime does it when it prints (`src/runtime/traceback.go: funcNamePiecesForPrint`).
fn name_for_print(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (name.get(..open), name.get(close + 1..));
            format!("{}[...]{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::name_for_print;

    #[test]
    fn generic_names_are_printed_as_go_does() {
        for (raw, printed) in [
            ("main.F[go.shape.int]", "main.F[...]"),
            ("main.(*T[go.shape.[]int]).m.func1", "main.(*T[...]).m.func1"),
            ("main.F[...]", "main.F[...]"),
            ("main.f", "main.f"),
            ("odd]name[", "odd]name["),
        ] {
            assert_eq!(name_for_print(raw), printed);
        }
    }
}
