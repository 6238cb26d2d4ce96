//! The eBPF programs, from their bytes to the records that they send: the only module that imports aya.
//!
//! Facts → rules → action: [`support`] finds out what the kernel allows, [`plan`] decides from facts alone which hook
//! gives which clock (and [`cost`] what that costs), [`session`] loads and attaches what it says, and [`reader`] and [`wait_buffers`]
//! hand out what the programs recorded.

pub mod cells;
pub mod cost;
mod fentry;
pub mod kernel_btf;
pub mod links;
pub mod loader;
pub mod machine;
mod maps;
pub mod object;
pub mod offsets;
mod open_slots;
pub mod plan;
mod programs;
pub mod reader;
pub mod session;
mod shared_array;
mod shared_memory;
mod specialize;
pub mod support;
pub mod trial;
pub mod wait_buffers;
