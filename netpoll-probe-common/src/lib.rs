//! What the eBPF programs and user space agree on.
#![no_std]
