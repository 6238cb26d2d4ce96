//! Holds the committed eBPF object to `ebpf/ebpf.lock`: the build fails when the object, or the sources that it was
//! made from, are others. It builds nothing itself: the programs need another compiler, which a user of the probe does
//! not have to install.

#[path = "ebpf/lock.rs"]
mod lock;

use std::{env, error::Error, fs, path::Path};

use lock::Lock;

const OBJECT: &str = "ebpf/netpoll-probe.bpf.o";
const LOCK: &str = "ebpf/ebpf.lock";
const MEND: &str = "run `cargo xtask ebpf build`";

fn main() -> Result<(), Box<dyn Error>> {
    let package = env::var("CARGO_MANIFEST_DIR")?;
    match check(Path::new(&package)) {
        Ok(object_sha256) => println!("cargo::rustc-env=NETPOLL_PROBE_EBPF_SHA256={object_sha256}"),
        Err(cause) => println!("cargo::error={cause}"),
    }
    Ok(())
}

/// The SHA-256 of the object, when all is as the lock says; else one line with the command to run.
fn check(package: &Path) -> Result<String, String> {
    for file in ["build.rs", "ebpf/lock.rs", OBJECT, LOCK] {
        println!("cargo::rerun-if-changed={file}");
    }
    let text = fs::read_to_string(package.join(LOCK))
        .map_err(|error| format!("cannot read netpoll-probe/{LOCK}: {error}: {MEND}"))?;
    let lock = Lock::parse(&text).map_err(|cause| format!("netpoll-probe/{LOCK}: {cause}: {MEND}"))?;

    let object = fs::read(package.join(OBJECT))
        .map_err(|error| format!("cannot read netpoll-probe/{OBJECT}: {error}: {MEND}"))?;
    if lock::sha256(&object) != lock.object_sha256 {
        return Err(format!("netpoll-probe/{OBJECT} is not the one of netpoll-probe/{LOCK}: {MEND}"));
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
    Ok(lock.object_sha256)
}
