//! A Go executable, read from its file: ELF, build information, pclntab, moduledata, DWARF.
//!
//! No process, no kernel, no root: any file of either architecture can be looked at. The file is read at positions and never
//! mapped, in windows that are dropped again, so that a 100 MB binary costs a few milliseconds and a few MiB. It is never
//! trusted: whatever is in it, the answer is a value or an [`Error`], in bounded time and memory.
//!
//! What it refuses: knowledge of what Go's functions do (`goruntime` has it) and running processes (`target`). Addresses are
//! those of the linker; a caller with a running process takes the load bias off first.
//!
//! Start at [`GoBinary`].
#![forbid(unsafe_code)]

mod binary;
mod buildinfo;
mod bytes;
mod dwarf;
mod elf;
mod error;
mod fuzz;
mod moduledata;
mod outline;
mod pclntab;
mod source;

pub use binary::GoBinary;
pub use buildinfo::BuildInfo;
pub use dwarf::{Member, StructLayout};
pub use elf::{Elf, Machine, Section, Segment, Tls};
pub use error::{Error, NoSymbol};
pub use fuzz::read_everything;
pub use moduledata::{AddressRange, ModuleData};
pub use outline::Outline;
pub use pclntab::{FuncFlags, Function, InlinedInstance, Location, PcRange};
pub use source::ReadAt;

#[cfg(test)]
pub(crate) mod tests;
