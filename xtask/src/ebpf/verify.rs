//! `cargo xtask ebpf verify`: the committed objects are what their sources give.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, anyhow, ensure};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

use super::{build, insns, lock, lock_path, object_path};
use crate::workspace;

/// Said with every difference.
const MEND: &str = "run `cargo xtask ebpf build` and commit what it writes";

/// Rebuilds and compares.
pub(super) fn run() -> Result<()> {
    let lock_path = lock_path();
    let text = fs::read_to_string(&lock_path)
        .with_context(|| format!("cannot read {}: {MEND}", lock_path.display()))?;
    let lock =
        lock::Lock::parse(&text).map_err(|cause| anyhow!("{}: {cause}: {MEND}", lock_path.display()))?;
    let mut committed = Vec::new();
    for (machine, locked) in lock::MACHINES.into_iter().zip(&lock.objects_sha256) {
        let path = object_path(machine);
        let object = fs::read(&path).with_context(|| format!("cannot read {}: {MEND}", path.display()))?;
        ensure!(
            lock::sha256(&object) == *locked,
            "the committed object for {machine} is not the one of the lock: {MEND}"
        );
        committed.push(object);
    }

    let sources = lock::sources_sha256(workspace::root()).context("cannot read the eBPF sources")?;
    ensure!(
        sources == lock.sources_sha256,
        "the sources are not those that the committed objects were built from: {MEND}"
    );

    let folder = workspace::target()?.join("ebpf/verify");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let built = build::build(&folder)?;
    let hashes = lock.objects_sha256.iter().zip(&built.lock.objects_sha256);
    for (machine, (committed, rebuilt)) in lock::MACHINES.into_iter().zip(hashes) {
        println!("{machine}: committed {committed}");
        println!("{machine}: rebuilt   {rebuilt}");
    }
    if built.lock.toolchain == lock.toolchain {
        ensure!(
            built.objects.as_slice() == committed,
            "the same sources and toolchain give other bytes: {MEND}"
        );
        println!("the committed objects are what their sources give");
        return Ok(());
    }

    println!("WARNING: BYTES NOT COMPARED. This toolchain is not the one that built the committed objects:");
    let here: BTreeMap<_, _> = built.lock.toolchain.iter().cloned().collect();
    for (name, locked) in &lock.toolchain {
        let installed = here.get(name).map_or("none", String::as_str);
        if installed != locked {
            println!("WARNING:   {name}: {locked} in the lock, {installed} here");
        }
    }
    for (built, committed) in built.objects.iter().zip(&committed) {
        ensure!(
            interface(built)? == interface(committed)?,
            "a rebuilt object has other programs, maps or globals than the committed one: {MEND}"
        );
    }
    println!("WARNING: sources, programs, maps and globals are the same; {MEND}");
    Ok(())
}

/// What user space sees of an object, whichever compiler made it: names of programs with their hooks, names and sizes
/// of maps and globals.
fn interface(object: &[u8]) -> Result<Vec<String>> {
    let mut names: Vec<String> = insns::functions(object)?
        .into_keys()
        .filter(|(section, _)| section != ".text")
        .map(|(section, function)| format!("{section} {function}"))
        .collect();
    let file = object::File::parse(object)?;
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Data && symbol.is_global()) {
        names.push(format!("{} {}", symbol.name()?, symbol.size()));
    }
    names.sort();
    Ok(names)
}
