//! `cargo xtask release`: the executables to hand out.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{machine::Machine, probe, workspace};

/// Build the probe for each machine, as one static executable: target/dist/netpoll-probe-MACHINE.
///
/// For another machine than this one, Debian's cross compiler links (installed where it is missing), and Rust's standard library
/// comes with `rustup target add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    /// Only this machine (repeatable)
    #[arg(long, value_name = "MACHINE")]
    machine: Vec<Machine>,
    /// Build nothing, only see that the probe compiles
    #[arg(long)]
    check: bool,
}

impl Release {
    /// Builds them.
    pub(crate) fn run(&self) -> Result<()> {
        let all = [Machine::X86_64, Machine::Aarch64];
        let machines = if self.machine.is_empty() { &all[..] } else { &self.machine };
        if self.check {
            return machines.iter().try_for_each(|machine| probe::check(*machine));
        }
        let folder = workspace::target()?.join("dist");
        fs::create_dir_all(&folder)?;
        for &machine in machines {
            let built = probe::build_static(machine, "netpoll-probe", "netpoll-probe")?;
            let to = folder.join(format!("netpoll-probe-{}", machine.name()));
            let bytes = fs::copy(&built, &to).with_context(|| format!("cannot write {}", to.display()))?;
            println!("{bytes:>10} {}", to.display());
        }
        Ok(())
    }
}
