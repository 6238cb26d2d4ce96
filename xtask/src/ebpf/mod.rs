//! `cargo xtask ebpf`: the eBPF objects, one for each machine, and their lock.

mod build;
mod insns;
#[path = "../../../netpoll-probe/ebpf/lock.rs"]
mod lock;
mod lock_file;
mod stack;
mod strip;
mod toolchain;
mod verify;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace;

/// The eBPF programs: build the committed objects, hold them to their sources, count their instructions.
#[derive(Debug, Subcommand)]
pub(crate) enum Ebpf {
    /// Build the programs; write netpoll-probe/ebpf/netpoll-probe.MACHINE.bpf.o for each machine, and their lock.
    ///
    /// Installs the toolchain first where it is missing: Debian's rustc-web and rust-web-src by apt-get, and bpf-linker
    /// by `cargo install` into target/ebpf/tools. The bytes do not depend on where the tree, the target folder or
    /// cargo's home lie.
    Build,
    /// Build the programs again, in a folder of their own, and compare with the committed objects.
    ///
    /// With the toolchain of the lock the bytes must be equal. With another one they may differ, which is said loudly:
    /// then the sources must be those of the lock, the committed objects must be the lock's, and those built must have the
    /// same programs, maps and globals.
    Verify,
    /// Print the number of instructions of each program of the committed objects, and the stack of the deepest way.
    Insns,
}

impl Ebpf {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Build => {
                let built = build::build(&workspace::target()?.join("ebpf/build"))?;
                lock_file::write(&built)?;
                for (machine, object) in lock::MACHINES.into_iter().zip(&built.objects) {
                    println!("{} {}", lock::sha256(object), object_path(machine).display());
                    insns::print(object)?;
                }
                Ok(())
            }
            Self::Verify => verify::run(),
            Self::Insns => insns::run(),
        }
    }
}

/// The committed object of a machine.
fn object_path(machine: &str) -> PathBuf {
    workspace::root().join("netpoll-probe/ebpf").join(lock::object_name(machine))
}

/// The committed lock.
fn lock_path() -> PathBuf {
    workspace::root().join("netpoll-probe/ebpf/ebpf.lock")
}
