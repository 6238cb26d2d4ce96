//! The object, loaded into the kernel: its maps, and programs that are loaded one by one later.

use aya::{Btf, BtfError, Ebpf, EbpfError, EbpfLoader, Endianness};
use netpoll_probe_common::{config::Config, limit::FD_SLOTS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zerocopy::IntoBytes as _;

use super::{
    cells,
    kernel_btf::{KernelBtf, Kind},
    maps, object, open_slots,
    plan::Hook,
    specialize::specialize,
    wait_buffers,
};

/// How much room the object has, and whether it talks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Cells in which waits are added up.
    pub cells: u32,
    /// Fds of the one process, of which some are waited on already.
    pub fds: u32,
    /// Whether the programs say what they see.
    pub log: bool,
}

/// What aya needs of the kernel's BTF: the ids by which `hooks` and `iterators` attach, under the names by which it looks them up.
/// There are no relocations to do (rustc emits none).
///
/// # Errors
/// When aya does not understand it.
pub(super) fn btf<'h>(
    kernel: &KernelBtf,
    hooks: impl Iterator<Item = &'h Hook>,
    iterators: &[&str],
) -> Result<Btf, BtfError> {
    let of_hooks = hooks.filter_map(|hook| match hook {
        Hook::Tracepoint { tracepoint, .. } => Some((Kind::Typedef, format!("btf_trace_{tracepoint}"))),
        Hook::Fentry { function, .. } => Some((Kind::Function, (*function).to_owned())),
        Hook::Uprobe { .. } | Hook::Kprobe { .. } => None,
    });
    let of_iterators = iterators.iter().map(|name| (Kind::Function, format!("bpf_iter_{name}")));
    let names: Vec<(Kind, String)> = of_hooks.chain(of_iterators).collect();
    Btf::parse(&kernel.only(&names), Endianness::default())
}

/// Loads the object with `config` written into it, and so much room.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn load(config: &Config, btf: &Btf, room: &Room) -> Result<Ebpf, EbpfError> {
    let &Room { cells, fds, log } = room;
    let log_level: u8 = if log { aya_log::Level::Debug as u8 } else { 0 };
    let (fd_slots, open_slots) = if config.has_fd_slots() { (FD_SLOTS, fds.min(FD_SLOTS)) } else { (0, 0) };
    let cpus = wait_buffers::cpus();
    with_btf(btf)
        .override_global(aya_log::LEVEL, &log_level, true)
        // A map has one entry at least.
        .map_max_entries(wait_buffers::BUFFERS, (config.wait_buffer_records * cpus).max(1))
        .map_max_entries(wait_buffers::CURSORS, cpus)
        .map_max_entries(maps::FD_SLOTS, fd_slots.max(1))
        .map_max_entries(open_slots::OPEN_SLOTS, open_slots.max(1))
        .map_max_entries(cells::SUMS, cells.max(1))
        .map_max_entries(cells::HISTOGRAMS, cells.max(1))
        .load(specialize(object::BYTES, config).as_bytes())
}

/// [`EbpfLoader::new`] reads and parses the whole BTF of the kernel, also for who gives it another one right after: a fifth of
/// the time of attaching, and most of the memory. It does without when it cannot open the file, so for that moment this
/// process can open none.
fn with_btf(btf: &Btf) -> EbpfLoader<'_> {
    let limit = getrlimit(Resource::Nofile);
    let no_more = setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit });
    let mut loader = EbpfLoader::new();
    if no_more.is_ok() {
        // Up to the maximum, which stays as it is, it may always be raised again.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    loader.btf(Some(btf));
    loader
}
