//! Building the eBPF programs so that their bytes depend on the sources and the toolchain alone.
//!
//! The sources are first copied into a workspace of their own. That is not only tidiness (nothing but what the lock
//! hashes can get in): cargo hashes the absolute path of a path dependency that lies outside the workspace's root into
//! the names of its symbols, and inside the root its relative path. Paths that rustc writes down are remapped to
//! prefixes that exist on no machine, since LLVM puts the text of source lines into BTF when it can open the file.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{lock, strip::strip_dwarf, toolchain::Toolchain};
use crate::{process::CommandExt as _, workspace};

/// The root manifest of the copied workspace.
const MANIFEST: &str = r#"# Written by `cargo xtask ebpf build`.
[workspace]
resolver = "3"
members = ["netpoll-probe-ebpf"]
# As a member it would bring what user space needs of it into the lock.
exclude = ["netpoll-probe-common"]

[profile.release]
# bpf-linker makes BTF, which the kernel wants, from DWARF.
debug = 2
codegen-units = 1
lto = true
panic = "abort"
opt-level = 3
overflow-checks = false
"#;

/// The built objects and what they were built from.
#[derive(Debug)]
pub(super) struct Built {
    /// Of each machine the object, without DWARF.
    pub(super) objects: [Vec<u8>; lock::MACHINES.len()],
    /// What the lock is to say of them.
    pub(super) lock: lock::Lock,
}

/// Builds the programs under `folder`, which is made and kept for the next time.
pub(super) fn build(folder: &Path) -> Result<Built> {
    let toolchain = Toolchain::install()?;
    let root = workspace::root();
    let sources_sha256 =
        lock::sources_sha256(root).context("cannot read the sources of the eBPF programs")?;
    let stage = folder.join("workspace");
    copy_sources(root, &stage)?;
    let mut objects = lock::MACHINES.map(|_| Vec::new());
    for (machine, object) in lock::MACHINES.into_iter().zip(&mut objects) {
        *object = build_for(machine, &toolchain, &stage, &folder.join("target").join(machine))?;
    }
    let mut versions = toolchain.versions;
    versions.push(("aya-ebpf".to_owned(), locked_version(&stage.join("Cargo.lock"), "aya-ebpf")?));
    let objects_sha256 = objects.each_ref().map(|object| lock::sha256(object));
    let lock = lock::Lock { objects_sha256, sources_sha256, toolchain: versions };
    Ok(Built { objects, lock })
}

/// Builds the programs of the workspace `stage` for one machine.
fn build_for(machine: &str, toolchain: &Toolchain, stage: &Path, target: &Path) -> Result<Vec<u8>> {
    let cargo = |command: &str| {
        let mut cargo = Command::new(workspace::cargo());
        cargo
            .args([command, "--locked"])
            .current_dir(stage)
            .env("RUSTC", &toolchain.rustc)
            // For -Z build-std, and for aya-ebpf, which uses asm_experimental_arch.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_BUILD_TARGET");
        cargo
    };
    // Fetched first, so that the registry's folder is there to be remapped.
    cargo("fetch").arg("--quiet").run()?;
    cargo("build")
        .args(["--release", "--quiet", "--package", lock::PROGRAMS])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .env("CARGO_ENCODED_RUSTFLAGS", flags(machine, toolchain, stage, target)?)
        .run()?;

    let path = target.join("bpfel-unknown-none/release/netpoll-probe");
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    strip_dwarf(&object).with_context(|| format!("cannot strip {}", path.display()))
}

/// Makes `stage` a workspace of exactly the hashed files. Those that are the same are left, so that cargo does not
/// build them again.
fn copy_sources(root: &Path, stage: &Path) -> Result<()> {
    let sources = lock::sources(root)?;
    if stage.is_dir() {
        for old in lock::sources(stage)?.iter().filter(|old| !sources.contains(old)) {
            fs::remove_file(stage.join(old))
                .with_context(|| format!("cannot remove {} from {}", old.display(), stage.display()))?;
        }
    }
    for path in sources {
        write_if_changed(&stage.join(&path), &fs::read(root.join(&path))?)?;
    }
    let lock = fs::read(root.join(lock::PROGRAMS).join("Cargo.lock"))?;
    write_if_changed(&stage.join("Cargo.lock"), &lock)?;
    write_if_changed(&stage.join("Cargo.toml"), MANIFEST.as_bytes())
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// rustc's flags, separated as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn flags(machine: &str, toolchain: &Toolchain, stage: &Path, target: &Path) -> Result<OsString> {
    let mut flags: Vec<OsString> = vec![
        // Which `pt_regs` aya-ebpf takes.
        format!("--cfg=bpf_target_arch=\"{machine}\"").into(),
        "-Cdebuginfo=2".into(),
        joined("-Clinker=", &toolchain.bpf_linker, ""),
        "-Clink-arg=--btf".into(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(joined("--remap-path-prefix=", from, &format!("=/netpoll-probe.src/{to}")));
    };
    // The last that fits counts, so the ones that may lie inside another come after it.
    remap(stage, "workspace");
    remap(target, "target");
    for library in &toolchain.library_sources {
        remap(library, "rust");
    }
    let registries = workspace::cargo_home()?.join("registry/src");
    let entries =
        fs::read_dir(&registries).with_context(|| format!("cannot read {}", registries.display()))?;
    for entry in entries {
        remap(&entry?.path(), "crates");
    }
    Ok(flags.join("\u{1f}".as_ref()))
}

fn joined(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text.push(after);
    text
}

/// The version of a package in a Cargo.lock.
fn locked_version(path: &PathBuf, package: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = format!("name = \"{package}\"");
    let mut lines = text.lines().skip_while(|line| *line != name);
    lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .with_context(|| format!("{} has no {package}", path.display()))
}
