//! The eBPF object that `cargo xtask ebpf build` makes for this machine, embedded.

use aya::include_bytes_aligned;

/// The ELF file, aligned as aya's parser wants it.
pub static BYTES: &[u8] = include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/ebpf/netpoll-probe.",
    env!("NETPOLL_PROBE_EBPF_MACHINE"),
    ".bpf.o"
));
