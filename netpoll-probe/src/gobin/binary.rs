//! [`GoBinary`]: the one type that the rest of the crate asks.

use std::{collections::BTreeMap, fs::File, path::Path};

use super::{
    buildinfo::BuildInfo,
    dwarf::{self, StructLayout},
    elf::{Elf, Machine},
    error::{Error, NoSymbol},
    moduledata::ModuleData,
    pclntab::{self, Function, InlinedInstance, Location, Pclntab},
    source::{ReadAt, Source},
};

/// Most bytes that [`GoBinary::read_vaddr`] returns at once: more than any function or table it is meant for.
const MAX_READ_BYTES: usize = 16 << 20;

/// A Go executable. Every question takes `&self` and may come from any thread; a mutex guards the small block cache.
///
/// Addresses are as linked (`vaddr`): for a position-independent executable, addresses of the process minus its load bias.
/// The file stays open and unmapped; if someone replaces its contents meanwhile, answers are errors or those of the new contents.
#[derive(Debug)]
pub struct GoBinary {
    name: String,
    source: Source,
    elf: Elf,
    build_info: Option<BuildInfo>,
    module: ModuleData,
    pclntab_vaddr: u64,
    pclntab: Pclntab,
}

impl GoBinary {
    /// Opens a file and reads its headers.
    ///
    /// # Errors
    /// [`Error::Open`], or as [`GoBinary::from_file`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Self::from_file(file, path.display().to_string())
    }

    /// Reads the headers of an open file, such as `/proc/PID/exe`. `display_name` is what [`GoBinary::name`] will say.
    ///
    /// # Errors
    /// [`Error::NotElf`], [`Error::UnsupportedElf`], [`Error::NotGo`] and [`Error::UnsupportedGoVersion`] say what the file
    /// is instead of a Go executable of a supported version; the others that it could not be read or contradicts itself.
    pub fn from_file(file: File, display_name: impl Into<String>) -> Result<Self, Error> {
        Self::from_reader(Box::new(file), display_name)
    }

    /// As [`GoBinary::from_file`], from anything that can be read at a position.
    ///
    /// # Errors
    /// As [`GoBinary::from_file`].
    pub fn from_reader(reader: Box<dyn ReadAt>, display_name: impl Into<String>) -> Result<Self, Error> {
        let source = Source::new(reader)?;
        let elf = Elf::read(&source)?;
        let build_info = BuildInfo::read(&source, &elf)?;
        let Some(located) = pclntab::locate(&source, &elf)? else {
            if let Some(old) = pclntab::magic_before_118(&source, &elf) {
                return Err(Error::UnsupportedGoVersion { found: old.to_owned() });
            }
            let build_info = match &build_info {
                Some(info) => format!("build information of {}", info.go_version),
                None => "no Go build information".to_owned(),
            };
            return Err(Error::NotGo { found: format!("{}, {build_info}, no pclntab", elf.describe()) });
        };
        let module = ModuleData::locate(&source, &elf, &located)?.ok_or_else(|| {
            Error::broken("runtime.moduledata (address of pclntab)", located.vaddr, "nothing refers to it")
        })?;
        let go_minor = build_info.as_ref().and_then(BuildInfo::go_minor);

        let mut pclntab = Pclntab::new(&located, &module, None, go_minor)?;
        for vaddr in module.gofunc_candidates(go_minor) {
            let Some(range) = elf.range_from(vaddr) else { continue };
            let candidate = Pclntab::new(&located, &module, Some(range), go_minor)?;
            // A program without a single inlined call proves nothing; then the version's word counts.
            if candidate.gofunc_fits(&source).unwrap_or(Some(false)).unwrap_or(go_minor.is_some()) {
                pclntab = candidate;
                break;
            }
        }
        let pclntab_vaddr = located.vaddr;
        Ok(Self { name: display_name.into(), source, elf, build_info, module, pclntab_vaddr, pclntab })
    }

    /// The name given when it was opened: its path, or what stands for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Headers, segments, sections, build ids, thread-local storage.
    #[must_use]
    pub fn elf(&self) -> &Elf {
        &self.elf
    }

    /// The processor the code is for.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.elf.machine
    }

    /// What the go command recorded; `None` when it was removed.
    #[must_use]
    pub fn build_info(&self) -> Option<&BuildInfo> {
        self.build_info.as_ref()
    }

    /// The full Go version, `go1.26.8`; `None` when the build information was removed.
    #[must_use]
    pub fn go_version(&self) -> Option<&str> {
        self.build_info.as_ref().map(|info| info.go_version.as_str())
    }

    /// Addresses of text and data.
    #[must_use]
    pub fn module_data(&self) -> &ModuleData {
        &self.module
    }

    /// The address of pclntab, as linked.
    #[must_use]
    pub fn pclntab_vaddr(&self) -> u64 {
        self.pclntab_vaddr
    }

    /// How many functions pclntab lists.
    #[must_use]
    pub fn function_count(&self) -> u64 {
        self.pclntab.func_count()
    }

    /// Whether inlined calls can be expanded. `false` when the inline trees could not be found or did not fit the rest: then
    /// locations name the functions that hold the code only.
    #[must_use]
    pub fn knows_inlining(&self) -> bool {
        self.pclntab.knows_inlining()
    }

    /// The file offset of an address, which a uprobe is placed by.
    #[must_use]
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.elf.file_offset(vaddr)
    }

    /// `len` bytes at an address, as they are in the file: code, read-only data, initial values. In position-independent
    /// executables of some linkers, words that hold addresses are 0 in the file.
    ///
    /// # Errors
    /// [`Error::NotInFile`] for addresses without bytes in the file (such as `.bss`) and for more than 16 MiB;
    /// read errors.
    pub fn read_vaddr(&self, vaddr: u64, len: usize) -> Result<Vec<u8>, Error> {
        let not_in_file = || Error::NotInFile { vaddr, len_bytes: len };
        let range = self.elf.range_from(vaddr).ok_or_else(not_in_file)?;
        let offset = range.at(0, len as u64).filter(|_| len <= MAX_READ_BYTES).ok_or_else(not_in_file)?;
        self.source.read_vec(offset, len)
    }

    /// The function of that name, such as `internal/poll.runtime_pollWait`; the one with the lowest address when there are
    /// several. Generic functions are found by the name in the table, with their type arguments.
    ///
    /// # Errors
    /// Read errors and broken tables.
    pub fn function_by_name(&self, name: &str) -> Result<Option<Function>, Error> {
        Ok(self.functions_by_names(&[name])?.into_values().flatten().next())
    }

    /// The functions of each name, in one pass. A name without function is missing in the result. Several functions share a
    /// name when one is the ABI wrapper of another (`runtime.entersyscall` in Go 1.18); the lowest address comes first.
    ///
    /// # Errors
    /// Read errors and broken tables.
    pub fn functions_by_names(&self, names: &[&str]) -> Result<BTreeMap<String, Vec<Function>>, Error> {
        self.pclntab.functions_by_names(&self.source, names)
    }

    /// The function that holds an address.
    ///
    /// # Errors
    /// Why there is none.
    pub fn function_at(&self, pc: u64) -> Result<Function, NoSymbol> {
        self.pclntab.function_at(&self.source, pc)
    }

    /// The frames at an address, leaf first, inlined calls expanded: what `runtime.CallersFrames` gives, wrappers included
    /// (see [`Location::wrapper`]). For a return address pass it minus 1, so that it lies in the call.
    ///
    /// # Errors
    /// Why there is no symbol.
    pub fn symbolize(&self, pc: u64) -> Result<Vec<Location>, NoSymbol> {
        self.pclntab.symbolize(&self.source, pc)
    }

    /// How many bytes the function that holds `pc` has on the stack before the instruction there, without the return
    /// address. `Ok(None)` when the table does not say.
    ///
    /// # Errors
    /// Why there is no function.
    pub fn sp_delta_bytes(&self, pc: u64) -> Result<Option<i32>, NoSymbol> {
        self.pclntab.sp_delta_bytes(&self.source, pc)
    }

    /// Every place where one of `names` was inlined. Profile-guided optimisation inlines functions that a probe would be
    /// placed on otherwise. Reads all inline trees.
    ///
    /// # Errors
    /// Read errors and broken tables.
    pub fn inlined_instances(&self, names: &[&str]) -> Result<Vec<InlinedInstance>, Error> {
        self.pclntab.inlined_instances(&self.source, names)
    }

    /// Sizes and members of structures of package runtime by their full names (`runtime.g`), from DWARF. `Ok(None)` without
    /// DWARF; a structure that is not described is missing in the result.
    ///
    /// # Errors
    /// Read errors and DWARF that cannot be decoded.
    pub fn struct_layouts(&self, names: &[&str]) -> Result<Option<BTreeMap<String, StructLayout>>, Error> {
        dwarf::struct_layouts(&self.source, &self.elf, names)
    }

    /// Values of constants of package runtime by their full names (`runtime.waitReasonIOWait`), from DWARF. `Ok(None)`
    /// without DWARF; a constant that is not described is missing in the result.
    ///
    /// # Errors
    /// Read errors and DWARF that cannot be decoded.
    pub fn constants(&self, names: &[&str]) -> Result<Option<BTreeMap<String, i64>>, Error> {
        dwarf::constants(&self.source, &self.elf, names)
    }
}
