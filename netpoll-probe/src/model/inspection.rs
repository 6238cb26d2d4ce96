//! What a binary allows: every fact that attaching rests on, found or not, each by itself.

use serde::Serialize;

/// Something that was looked for in a binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding<T> {
    /// It is there.
    Found(T),
    /// Why it is not known.
    Not(String),
}

impl<T> Finding<T> {
    /// What was found.
    #[must_use]
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(value) => Some(value),
            Self::Not(_) => None,
        }
    }

    /// A finding out of a result; an error's text is the reason.
    pub fn of(result: Result<T, impl ToString>) -> Self {
        match result {
            Ok(value) => Self::Found(value),
            Err(error) => Self::Not(error.to_string()),
        }
    }
}

/// What a file is, and what attaching to a process that runs it can do. Addresses are as linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The file's name, as it was asked for.
    pub file: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether attach works.
    pub attach: Verdict,
    /// What does not work, although attach does.
    pub limits: Vec<String>,
    /// The headers.
    pub executable: Finding<Executable>,
    /// How it was built, as far as it is recorded.
    pub build: Build,
    /// Go's own tables.
    pub tables: Finding<Tables>,
    /// The instructions that uprobes go to.
    pub sites: Vec<Site>,
    /// Offsets in the runtime's structs.
    pub offsets: Finding<Offsets>,
    /// Variables of the runtime.
    pub globals: Vec<Global>,
}

/// Whether attach works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// It does.
    pub works: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
}

/// What the ELF headers say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Executable {
    /// Go's name of the processor: `amd64`, `arm64`.
    pub machine: &'static str,
    /// Position independent.
    pub pie: bool,
    /// It names a program interpreter, so shared libraries are loaded.
    pub dynamic: bool,
    /// Symbol table.
    pub symbols: bool,
    /// DWARF.
    pub dwarf: bool,
    /// Section headers.
    pub section_headers: bool,
    /// Linked by the system's linker (`external`) or Go's own (`internal`); null: no section headers to tell by.
    pub linker: Option<&'static str>,
    /// `NT_GNU_BUILD_ID`, hexadecimal.
    pub gnu_build_id: Option<String>,
    /// Go's build id.
    pub go_build_id: Option<String>,
}

/// What the go command recorded. Null: not recorded, which is not the same as no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The toolchain as it names itself.
    pub go_version: Option<String>,
    /// What its vendor added to the number, or the commit of a development build.
    pub vendor: Option<String>,
    /// GOEXPERIMENT, as far as it is not the default.
    pub experiments: Vec<String>,
    /// The main package.
    pub package: Option<String>,
    /// The main module.
    pub module: Option<String>,
    /// Its version.
    pub module_version: Option<String>,
    /// `-buildmode`
    pub mode: Option<String>,
    /// `-compiler`
    pub compiler: Option<String>,
    /// C code could be linked in (`CGO_ENABLED`).
    pub cgo_enabled: Option<bool>,
    /// C code is linked in, by the functions that call it.
    pub cgo: Option<bool>,
    /// `-race`
    pub race: Option<bool>,
    /// `-msan`, `-asan`
    pub sanitizer: Option<&'static str>,
    /// `-trimpath`
    pub trimpath: Option<bool>,
    /// The profile that it was optimized by (`-pgo`).
    pub pgo: Option<String>,
    /// `GOAMD64`, `GOARM64`: the processors that it is for.
    pub processor_level: Option<String>,
    /// `GOFIPS140`: the FIPS 140 module.
    pub fips: Option<String>,
    /// `-ldflags`
    pub ldflags: Option<String>,
    /// `-tags`
    pub tags: Option<String>,
    /// The commit.
    pub revision: Option<Revision>,
}

/// The commit that a binary was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// `git`
    pub system: Option<String>,
    /// Its name.
    pub id: String,
    /// When it was made.
    pub time: Option<String>,
    /// Files were changed since.
    pub modified: Option<bool>,
}

/// Where Go's own tables are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// `runtime.pclntab`, which names functions.
    pub pclntab: Place,
    /// `runtime.firstmoduledata`, which has addresses.
    pub moduledata: Place,
    /// How many functions there are.
    pub functions: u64,
    /// Where Go's text starts.
    pub text: u64,
    /// Calls that were inlined can be told.
    pub inlining: bool,
}

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// The section that it is in; null: in none, or there are no section headers.
    pub section: Option<String>,
}

/// A place for a uprobe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// What it is for.
    pub purpose: &'static str,
    /// Attach cannot do without it.
    pub needed: bool,
    /// The instruction.
    pub instruction: Finding<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Its function.
    pub function: String,
    /// Bytes from the function's start.
    pub offset: u64,
    /// Its address.
    pub address: u64,
    /// Where it is in the file, which the kernel places uprobes by.
    pub file_offset: u64,
    /// Its bytes, hexadecimal.
    pub bytes: String,
    /// For people.
    pub text: String,
    /// How the kernel emulates it; null: it single-steps a copy, many times dearer.
    pub emulated: Option<&'static str>,
}

/// Offsets in the runtime's structs, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offsets {
    /// Where they come from.
    pub source: String,
    /// How the data word of an epoll event holds a pollDesc.
    pub epoll_data: String,
    /// By struct.
    pub structs: Vec<Struct>,
}

/// The members of a struct that are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Struct {
    /// `runtime.g`
    pub name: &'static str,
    /// Its size, where that is used.
    pub size: Option<u32>,
    /// By name, in Go's spelling.
    pub members: Vec<Member>,
}

/// A member of a struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// `sched.sp`
    pub name: &'static str,
    /// From the struct's start.
    pub offset: u32,
}

/// A variable of the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Global {
    /// `runtime.allgs`
    pub name: &'static str,
    /// Its address.
    pub address: Finding<u64>,
}
