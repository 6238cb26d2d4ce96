//! Facts → findings: what a binary, a machine and a process allow, each fact by itself, with what mends it.
//!
//! - [`binary`]: a Go executable; [`build`]: how it was built; [`offsets`]: the offsets that are used, by name.
//! - [`machine`]: the kernel and this process's rights. [`target`]: a running process.
//!
//! Facts come from `gobin`, `goruntime` and `bpf`; `report` renders the findings. Nothing here reads a file by its name,
//! loads a program, or prints.
#![forbid(unsafe_code)]

pub mod binary;
pub mod build;
pub mod machine;
pub mod offsets;
pub mod target;
#[cfg(test)]
mod tests;
