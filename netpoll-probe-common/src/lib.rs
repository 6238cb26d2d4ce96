//! What the eBPF programs and user space agree on: records, map values, configuration, counters, limits.
//!
//! Both sides are built from the same sources and travel together (user space embeds the object), so there is no
//! compatibility to keep: a field is added, moved or dropped freely. What is kept is the layout rule: every struct
//! is `repr(C)`, has only integers and arrays of them, and no padding but named fields. With the feature `user`
//! zerocopy's derives refuse to compile when that is broken.
#![no_std]

pub mod cell;
pub mod config;
pub mod counter;
pub mod histogram;
pub mod limit;
pub mod record;
pub mod sampling;
pub mod slot;
pub mod wait_buffer;
