//! Control groups: which processes are in one, and which one is a container's.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Where hierarchies are mounted (cgroups(7)): the unified one; where version 1 is used, that one beside it, and the one of the
/// controller that every container has a group of.
const MOUNTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"];

/// The fewest digits of a container's id that are taken for one; `docker ps` shows twelve.
const FEWEST_DIGITS: usize = 6;
/// The digits of a whole id.
const DIGITS: usize = 64;

/// What container runtimes put before the id in the name of the group, with systemd as the manager of groups (docker, podman,
/// containerd's CRI plugin, CRI-O); without it the name is the id alone.
const PREFIXES: [&str; 4] = ["docker-", "libpod-", "cri-containerd-", "crio-"];

/// A control group, and those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// Why there is no such group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder is no control group.
    #[error("{path} is no control group: {source}", path = path.display())]
    NotACgroup {
        /// The folder.
        path: PathBuf,
        /// Why its processes cannot be listed.
        source: io::Error,
    },
    /// No process is in a container of that id.
    #[error("no process runs in a container whose id begins with {id}")]
    NoContainer {
        /// What was asked for.
        id: String,
    },
    /// The beginning of several ids.
    #[error("{id} is the beginning of several containers' ids: {ids}", ids = ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// The ids.
        ids: Vec<String>,
    },
    /// Not of the form of an id.
    #[error("{id:?} is no container id: it has {FEWEST_DIGITS} to {DIGITS} hexadecimal digits")]
    NotAnId {
        /// What was asked for.
        id: String,
    },
}

impl Cgroup {
    /// The group of this folder, or of this path below the hierarchy's root, as `/proc/PID/cgroup` has it.
    ///
    /// # Errors
    /// [`Error::NotACgroup`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let below: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let mounted = MOUNTS.map(|mount| Path::new(mount).join(&below));
        let mut failed = None;
        for candidate in [path.to_owned()].into_iter().chain(mounted) {
            match fs::metadata(candidate.join("cgroup.procs")) {
                Ok(_) => return Ok(Self { path: candidate }),
                Err(source) => {
                    failed.get_or_insert(source);
                }
            }
        }
        let source = failed.unwrap_or_else(|| io::ErrorKind::NotFound.into());
        Err(Error::NotACgroup { path: path.to_owned(), source })
    }

    /// The group of the container whose id begins so.
    ///
    /// # Errors
    /// [`Error::NotAnId`], [`Error::NoContainer`], [`Error::Ambiguous`]; [`Error::NotACgroup`] when its group is not below
    /// the hierarchy that this tool sees.
    pub fn of_container(id: &str) -> Result<Self, Error> {
        if !(FEWEST_DIGITS..=DIGITS).contains(&id.len()) || !id.bytes().all(is_digit) {
            return Err(Error::NotAnId { id: id.to_owned() });
        }
        let mut found: Vec<(String, String)> = Vec::new();
        for pid in super::process::all() {
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
            let of_process = text.lines().filter_map(|line| group_of_line(line)).find_map(|group| {
                container_of(group).map(|(container, path)| (container.to_owned(), path.to_owned()))
            });
            found.extend(of_process.filter(|(container, _)| container.starts_with(id)));
        }
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [] => Err(Error::NoContainer { id: id.to_owned() }),
            [(_, path)] => Self::open(Path::new(path)),
            [(first, path), ..] if found.iter().all(|(container, _)| container == first) => {
                Self::open(Path::new(path))
            }
            _ => Err(Error::Ambiguous {
                id: id.to_owned(),
                ids: found.into_iter().map(|(container, _)| container).collect(),
            }),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it and in the groups below it, by their ids in this tool's PID namespace; 0, a process of another
    /// namespace, is left out. Groups that vanish meanwhile are none.
    ///
    /// # Errors
    /// When the group itself is gone.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        let mut folders = vec![self.path.clone()];
        let mut is_first = true;
        while let Some(folder) = folders.pop() {
            match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => {
                    pids.extend(
                        text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 0),
                    );
                }
                Err(error) if is_first => return Err(error),
                // A threaded group says EOPNOTSUPP: its processes are listed above it (cgroups(7)).
                Err(_) => {}
            }
            is_first = false;
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(below.map(|entry| entry.path()));
        }
        Ok(pids)
    }
}

/// The path in a line of `/proc/PID/cgroup`, `hierarchy:controllers:path`: of the unified hierarchy, or of one that every
/// container has a group in.
fn group_of_line(line: &str) -> Option<&str> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_pids = controllers.split(',').any(|controller| controller == "pids");
    (controllers.is_empty() || is_pids).then_some(path)
}

/// The container that a group belongs to: its id, and the path up to its group. A container may have groups below its own.
fn container_of(group: &str) -> Option<(&str, &str)> {
    let mut end = 0;
    for part in group.split('/') {
        end += part.len();
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let id = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        if id.len() == DIGITS && id.bytes().all(is_digit) {
            return Some((id, group.get(..end)?));
        }
        end += 1;
    }
    None
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn knows_the_groups_of_container_runtimes() {
        let groups = [
            // docker: systemd and cgroupfs.
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            // podman: root and rootless, whose processes are one below.
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"),
            // Kubernetes with containerd and CRI-O, and with cgroupfs.
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod3.slice/crio-{ID}.scope"),
            format!("/kubepods/besteffort/pod1b2c/{ID}"),
        ];
        for group in groups {
            let (id, path) = container_of(&group).unwrap();
            assert_eq!(id, ID);
            assert!(group.starts_with(path) && path.contains(ID), "{path}");
            assert_eq!(container_of(path), Some((ID, path)));
        }
        for group in ["/", "/system.slice/nginx.service", &format!("/docker/{}", &ID[1..]), "/init.scope"] {
            assert_eq!(container_of(group), None, "{group}");
        }
    }

    #[test]
    fn reads_both_versions_of_groups() {
        assert_eq!(group_of_line("0::/a/b:c"), Some("/a/b:c"));
        assert_eq!(group_of_line("4:cpuset,pids:/a"), Some("/a"));
        assert_eq!(group_of_line("3:memory:/a"), None);
        assert_eq!(group_of_line("nonsense"), None);
    }

    #[test]
    fn refuses_what_is_no_group_and_no_id() {
        let error = Cgroup::open(Path::new("/no/such/group")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/group is no control group: "), "{error}");
        for id in ["", "abc", "xyzxyzxyz", &format!("{ID}0")] {
            assert!(matches!(Cgroup::of_container(id), Err(Error::NotAnId { .. })), "{id}");
        }
        assert!(matches!(Cgroup::of_container("0000000000000bad"), Err(Error::NoContainer { .. })));
    }

    proptest! {
        #[test]
        fn any_line_is_a_group_or_none(line in ".*") {
            if let Some((id, path)) = group_of_line(&line).and_then(container_of) {
                prop_assert!(path.contains(id));
            }
        }
    }
}
