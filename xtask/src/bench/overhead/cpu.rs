//! CPU time of other processes, by the scheduler's own account, which has no ticks (`/proc/PID/task/TID/schedstat`).

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Of all threads that a process has, ns.
pub(super) fn of_process(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let thread = entry?.path();
        match read(&thread.join("schedstat")) {
            // It has ended since it was listed.
            Err(_) if !thread.exists() => {}
            ns => sum += ns?,
        }
    }
    Ok(sum)
}

/// Of a process's first thread, ns.
pub(super) fn of_first_thread(pid: u32) -> Result<u64> {
    read(Path::new(&format!("/proc/{pid}/schedstat")))
}

fn read(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let first = text.split(' ').next().and_then(|ns| ns.parse().ok());
    first.with_context(|| format!("{}: {text:?}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_had_at_least_what_the_first_had() {
        let pid = std::process::id();
        let first = of_first_thread(pid).unwrap();
        assert!(of_process(pid).unwrap() >= first);
        assert!(read(Path::new("/proc/self/status")).is_err());
    }
}
