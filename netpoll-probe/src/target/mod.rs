//! A running process: its identity, executable, mappings, memory and fds.
//!
//! Knows Linux, and nothing of Go or aya. A [`process::Process`] holds a pidfd, so that a pid that was given to another
//! process is noticed; [`memory::ProcessMemory`] reads memory without stopping anything (`process_vm_readv`).

pub mod cgroup;
pub mod error;
pub mod fds;
pub mod maps;
pub mod memory;
pub mod process;
