//! tracefs: where the ids of tracepoints stand.
//!
//! On a machine where nobody mounted it (containers, minimal images) it is mounted for this process alone, in a mount
//! namespace of its own, so that nothing of the machine changes.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where it is mounted: the usual place, and where debugfs shows it (`Documentation/trace/ftrace.rst`).
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted, if it is.
#[must_use]
pub fn find() -> Option<PathBuf> {
    PLACES.into_iter().map(Path::new).find(|path| path.join("events").exists()).map(Path::to_owned)
}

/// Makes sure that this thread sees tracefs. Call it before there are other threads: they would not see it.
///
/// # Errors
/// When it is not there and cannot be mounted.
pub fn ensure() -> io::Result<()> {
    if find().is_some() {
        return Ok(());
    }
    // SAFETY: a new mount namespace changes neither memory nor file descriptors, which is what the function warns of.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // Mounts of the namespace that was left must not come here, nor ours go there.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount("nodev", PLACES[0], "tracefs", MountFlags::empty(), None)?;
    Ok(())
}
