//! Writing the committed object and `ebpf.lock`.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use super::{build::Built, lock::Lock, lock_path, object_path};

/// Writes both.
pub(super) fn write(built: &Built) -> Result<()> {
    for (path, bytes) in
        [(object_path(), built.object.as_slice()), (lock_path(), render(&built.lock).as_bytes())]
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
    let own = [("object_sha256", &lock.object_sha256), ("sources_sha256", &lock.sources_sha256)];
    let toolchain = lock.toolchain.iter().map(|(name, version)| (name.as_str(), version));
    for (key, value) in own.into_iter().chain(toolchain) {
        let _ = writeln!(text, "{key} = \"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock {
            object_sha256: "aa".to_owned(),
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
        assert_eq!(Lock::parse("object_sha256 = \"aa\""), Err("no sources_sha256".to_owned()));
        assert!(Lock::parse("object_sha256: aa").is_err_and(|cause| cause.ends_with("object_sha256: aa")));
    }
}
