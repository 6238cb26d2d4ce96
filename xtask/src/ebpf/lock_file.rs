//! Writing the committed objects and `ebpf.lock`.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use super::{
    build::Built,
    lock::{Lock, MACHINES},
    lock_path, object_path,
};

/// Writes them.
pub(super) fn write(built: &Built) -> Result<()> {
    let objects = MACHINES.into_iter().zip(&built.objects);
    let lock = render(&built.lock);
    for (path, bytes) in objects
        .map(|(machine, object)| (object_path(machine), object.as_slice()))
        .chain([(lock_path(), lock.as_bytes())])
    {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The text of a lock, which [`Lock::parse`] reads.
fn render(lock: &Lock) -> String {
    let mut text = String::from(
        "# Written by `cargo xtask ebpf build`; held by netpoll-probe/build.rs and `cargo xtask ebpf verify`.\n",
    );
    let objects = MACHINES
        .iter()
        .zip(&lock.objects_sha256)
        .map(|(machine, sha256)| (format!("{machine}_sha256"), sha256));
    let sources = [("sources_sha256".to_owned(), &lock.sources_sha256)];
    let toolchain = lock.toolchain.iter().map(|(name, version)| (name.clone(), version));
    for (key, value) in objects.chain(sources).chain(toolchain) {
        let _ = writeln!(text, "{key} = \"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock {
            objects_sha256: ["aa".to_owned(), "cc".to_owned()],
            sources_sha256: "bb".to_owned(),
            toolchain: vec![("rustc-web".to_owned(), "1.96.0+dfsg1-1~deb12u2".to_owned())],
        }
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Lock::parse(&render(&lock())), Ok(lock()));
    }

    #[test]
    fn names_what_is_wrong() {
        let x86_64 = "x86_64_sha256 = \"aa\"";
        assert_eq!(Lock::parse(x86_64), Err("no aarch64_sha256".to_owned()));
        let both = format!("{x86_64}\naarch64_sha256 = \"bb\"");
        assert_eq!(Lock::parse(&both), Err("no sources_sha256".to_owned()));
        assert!(Lock::parse("sources_sha256: aa").is_err_and(|cause| cause.ends_with("sources_sha256: aa")));
    }
}
