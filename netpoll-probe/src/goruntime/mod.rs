//! What is known of Go's runtime, by version, as data; and where probes go in a binary.
//!
//! - [`binary`]: what one binary's runtime looks like; start here.
//! - [`version`]: Go versions. [`layout`]: struct offsets of a binary, from DWARF or by version. [`constants`]: what never moved.
//! - [`candidate`]: offsets for a version that is not known, to be held against a process.
//! - [`sites`]: instructions to probe; [`resolver`]: those around calls of the C library. [`globals`]: addresses of the runtime's variables. [`epoll_data`]: pollDescs in epoll
//!   events. [`code`]: the disassembly behind them, of both machines.
//!
//! Addresses are as the linker gave them; in a PIE a process adds its load bias.
#![forbid(unsafe_code)]

mod arm64;
pub mod binary;
pub mod candidate;
pub mod code;
pub mod constants;
pub mod dwarf;
pub mod epoll_data;
pub mod globals;
pub mod layout;
mod layout_table;
pub mod offsets;
pub mod resolver;
pub mod sites;
#[cfg(test)]
mod testdata;
pub mod version;
mod x86;
