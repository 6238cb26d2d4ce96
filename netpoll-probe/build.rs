//! Holds the committed eBPF objects to `ebpf/ebpf.lock`: the build fails when one, or the sources that they were made
//! from, are others. It builds nothing itself: the programs need another compiler, which a user of the probe does
//! not have to install.

#[path = "ebpf/lock.rs"]
mod lock;

use std::{env, error::Error, fs, path::Path};

use lock::Lock;

const LOCK: &str = "ebpf/ebpf.lock";
const MEND: &str = "run `cargo xtask ebpf build`";

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var("CARGO_MANIFEST_DIR")?;
    let machine = env::var("CARGO_CFG_TARGET_ARCH")?;
    match check(Path::new(&package), &machine) {
        Ok(object_sha256) => {
            println!("cargo::rustc-env=NETPOLL_PROBE_EBPF_MACHINE={machine}");
            println!("cargo::rustc-env=NETPOLL_PROBE_EBPF_SHA256={object_sha256}");
        }
        Err(cause) => println!("cargo::error={cause}"),
    }
    Ok(())
}

/// The SHA-256 of the machine's object, when all is as the lock says; else one line with the command to run.
fn check(package: &Path, machine: &str) -> Result<String, String> {
    for file in ["build.rs", "ebpf/lock.rs", LOCK] {
        println!("cargo::rerun-if-changed={file}");
    }
    let text = fs::read_to_string(package.join(LOCK))
        .map_err(|error| format!("cannot read netpoll-probe/{LOCK}: {error}: {MEND}"))?;
    let lock = Lock::parse(&text).map_err(|cause| format!("netpoll-probe/{LOCK}: {cause}: {MEND}"))?;

    let mut object_sha256 = None;
    for (known, locked) in lock::MACHINES.into_iter().zip(lock.objects_sha256) {
        let path = format!("ebpf/{}", lock::object_name(known));
        println!("cargo::rerun-if-changed={path}");
        let object = fs::read(package.join(&path))
            .map_err(|error| format!("cannot read netpoll-probe/{path}: {error}: {MEND}"))?;
        if lock::sha256(&object) != locked {
            return Err(format!("netpoll-probe/{path} is not the one of netpoll-probe/{LOCK}: {MEND}"));
        }
        if known == machine {
            object_sha256 = Some(locked);
        }
    }

    // The sources lie beside this package in the workspace, and nowhere when it was taken out of it.
    let root = package.join("..");
    if root.join(lock::PROGRAMS).is_dir() {
        for watched in lock::WATCHED {
            println!("cargo::rerun-if-changed=../{watched}");
        }
        let sources = lock::sources_sha256(&root)
            .map_err(|error| format!("cannot read the sources of the eBPF programs: {error}"))?;
        if sources != lock.sources_sha256 {
            return Err(format!("eBPF sources differ from netpoll-probe/{LOCK}: {MEND}"));
        }
    }
    object_sha256
        .ok_or_else(|| format!("no eBPF object for {machine}, only for {}", lock::MACHINES.join(", ")))
}
