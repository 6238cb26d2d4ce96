//! A running process: identity, executable, threads, namespaces.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    error::Error,
    fds::FdTarget,
    maps::{self, Mapping},
    memory::{ProcessMemory, u64_at},
};

/// `AT_ENTRY` of the auxiliary vector, getauxval(3): the program's entry point.
const AT_ENTRY: u64 = 9;

/// A running process. The pidfd keeps its identity: once the process has exited, every read says so, whoever has the
/// pid then.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    executable: File,
    executable_path: PathBuf,
    start_time_ticks: u64,
}

impl Process {
    /// Opens the process with this pid, in this tool's PID namespace.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`], [`Error::Thread`] when it is a thread's id, [`Error::NoExecutable`] for kernel threads
    /// and zombies, [`Error::Permission`].
    pub fn open(pid: u32) -> Result<Self, Error> {
        let no_such_process = || Error::NoSuchProcess { pid };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(no_such_process)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => no_such_process(),
            // pidfd_open(2): a thread that is no thread-group leader is EINVAL, ENOENT from 6.9.
            Errno::INVAL | Errno::NOENT => thread_group_of(pid)
                .filter(|leader| *leader != pid)
                .map_or_else(no_such_process, |leader| Error::Thread { tid: pid, pid: leader }),
            errno => Error::Io { path: format!("pidfd of {pid}").into(), source: errno.into() },
        })?;
        let pidfd = Arc::new(pidfd);
        let executable_link = proc_path(pid, "exe");
        let executable_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound if pidfd_has_exited(&pidfd) => Error::Exited { pid },
            io::ErrorKind::NotFound => Error::NoExecutable { pid },
            _ => proc_error(pid, "executable", &executable_link, source),
        };
        // Opening the link itself, not the path it shows, reaches a deleted or replaced file, and other mount namespaces.
        let executable = File::open(&executable_link).map_err(executable_error)?;
        let executable_path = fs::read_link(&executable_link).map_err(executable_error)?;
        let mut process = Self { pid, pidfd, executable, executable_path, start_time_ticks: 0 };
        process.start_time_ticks = process.read_start_time_ticks()?;
        Ok(process)
    }

    /// Its pid, in this tool's PID namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its executable, open for reading.
    #[must_use]
    pub fn executable(&self) -> &File {
        &self.executable
    }

    /// Device and inode of its executable.
    #[must_use]
    pub fn executable_file(&self) -> Option<(u64, u64)> {
        let metadata = self.executable.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    /// The path of its executable in its own mount namespace, as the kernel shows it; ends in ` (deleted)` when the file
    /// was removed or replaced.
    #[must_use]
    pub fn executable_path(&self) -> &Path {
        &self.executable_path
    }

    /// When it was started, clock ticks since boot (proc(5), `/proc/PID/stat` field 22). With the pid, an identity.
    #[must_use]
    pub fn start_time_ticks(&self) -> u64 {
        self.start_time_ticks
    }

    /// A pidfd of it, readable once it has exited.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has exited.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        pidfd_has_exited(&self.pidfd)
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> ProcessMemory {
        ProcessMemory::new(self.pid, Arc::clone(&self.pidfd))
    }

    /// The command name, at most 15 bytes.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::Io`], as every method here that reads `/proc`.
    pub fn comm(&self) -> Result<String, Error> {
        Ok(comm_text(&self.read_proc("comm")?))
    }

    /// The command line's arguments; empty for a process that erased them.
    ///
    /// # Errors
    /// As [`Self::comm`].
    pub fn command_line(&self) -> Result<Vec<String>, Error> {
        let bytes = self.read_proc("cmdline")?;
        let Some(arguments) = bytes.strip_suffix(b"\0") else { return Ok(Vec::new()) };
        Ok(arguments
            .split(|byte| *byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect())
    }

    /// Its pid in each PID namespace that it is in: the first as this tool sees it, the last as it sees itself.
    ///
    /// # Errors
    /// As [`Self::comm`]; [`Error::Malformed`] when the kernel has no `NSpid`.
    pub fn namespace_pids(&self) -> Result<Vec<u32>, Error> {
        let bytes = self.read_proc("status")?;
        namespace_pids_in(&String::from_utf8_lossy(&bytes))
            .ok_or_else(|| self.malformed("status", "no NSpid line"))
    }

    /// The inode of its network namespace: equal for processes in the same one.
    ///
    /// # Errors
    /// As [`Self::comm`], and [`Error::Permission`].
    pub fn network_namespace(&self) -> Result<u64, Error> {
        let path = proc_path(self.pid, "ns/net");
        let inode =
            fs::metadata(&path).map_err(|source| self.io_error("network namespace", &path, source))?.ino();
        self.still_the_same(inode)
    }

    /// The ids of its threads, in this tool's PID namespace.
    ///
    /// # Errors
    /// As [`Self::comm`].
    pub fn threads(&self) -> Result<Vec<u32>, Error> {
        self.read_numbers("task", "threads")
    }

    /// The ids of its threads as it sees them itself, in its own PID namespace. Those that end meanwhile may be missing.
    ///
    /// # Errors
    /// As [`Self::comm`].
    pub fn own_threads(&self) -> Result<Vec<u32>, Error> {
        let threads = self.threads()?;
        if self.namespace_pids()?.len() == 1 {
            return Ok(threads);
        }
        Ok(threads.into_iter().filter_map(|thread| namespace_pids_of(thread).last().copied()).collect())
    }

    /// What each of its fds refers to. Fds opened or closed meanwhile may be missing. One readlink an fd.
    ///
    /// # Errors
    /// As [`Self::comm`], and [`Error::Permission`].
    pub fn fds(&self) -> Result<Vec<(u32, FdTarget)>, Error> {
        let mut fds = Vec::new();
        for fd in self.read_numbers::<u32>("fd", "fds")? {
            let path = proc_path(self.pid, &format!("fd/{fd}"));
            match fs::read_link(&path) {
                Ok(link) => fds.push((fd, FdTarget::parse(link))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.io_error("fds", &path, source)),
            }
        }
        self.still_the_same(fds)
    }

    /// What one of its fds refers to; `None`: there is no such fd, or it may not be looked at.
    #[must_use]
    pub fn fd(&self, fd: i32) -> Option<FdTarget> {
        fs::read_link(proc_path(self.pid, &format!("fd/{fd}"))).ok().map(FdTarget::parse)
    }

    /// Whether operations on one of its fds block the thread: its open file is without `O_NONBLOCK`
    /// (`/proc/PID/fdinfo/FD`, proc(5)). `None` for an fd that is closed.
    ///
    /// # Errors
    /// As [`Self::comm`], and [`Error::Permission`].
    pub fn fd_blocks(&self, fd: u32) -> Result<Option<bool>, Error> {
        let path = proc_path(self.pid, &format!("fdinfo/{fd}"));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.still_the_same(None),
            Err(source) => return Err(self.io_error("fds", &path, source)),
        };
        let flags = status_field(&text, "flags").and_then(|flags| u32::from_str_radix(flags, 8).ok());
        let flags = flags.ok_or_else(|| Error::Malformed { path, what: text.clone() })?;
        self.still_the_same(Some(flags & OFlags::NONBLOCK.bits() == 0))
    }

    /// Its mappings.
    ///
    /// # Errors
    /// As [`Self::comm`], and [`Error::Permission`].
    pub fn maps(&self) -> Result<Vec<Mapping>, Error> {
        let bytes = self.read_proc("maps")?;
        maps::parse(&String::from_utf8_lossy(&bytes)).map_err(|line| self.malformed("maps", &line))
    }

    /// What is added to an address in the executable's file to get its address in memory: 0 unless it is a PIE.
    /// `entry` is the file's `e_entry`, an address as the linker gave it.
    ///
    /// The entry point in memory comes from the auxiliary vector and must lie in an executable file mapping. (Device
    /// and inode of the mapping are of no use: on overlayfs and btrfs they differ from those of the file.)
    ///
    /// # Errors
    /// [`Error::EntryMismatch`] or [`Error::NotMapped`] when memory and file do not fit; as [`Self::comm`].
    pub fn load_bias(&self, entry: u64) -> Result<u64, Error> {
        let auxiliary = self.read_proc("auxv")?;
        let found = auxiliary
            .chunks_exact(16)
            .find(|pair| u64_at(pair, 0) == Some(AT_ENTRY))
            .and_then(|pair| u64_at(pair, 8))
            .ok_or_else(|| self.malformed("auxv", "no AT_ENTRY"))?;
        let bias = found
            .checked_sub(entry)
            .filter(|bias| bias % rustix::param::page_size() as u64 == 0)
            .ok_or(Error::EntryMismatch { pid: self.pid, found, expected: entry })?;
        let mapped =
            self.maps()?.iter().any(|map| map.addresses.contains(&found) && map.execute && map.inode != 0);
        if mapped { Ok(bias) } else { Err(Error::NotMapped { pid: self.pid, entry: found }) }
    }

    fn read_start_time_ticks(&self) -> Result<u64, Error> {
        let bytes = self.read_proc("stat")?;
        let text = String::from_utf8_lossy(&bytes);
        // The command name in field 2 may hold spaces and parentheses: fields count from the last `)`.
        text.rsplit_once(')')
            .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(22 - 3))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| self.malformed("stat", &text))
    }

    fn read_numbers<T: std::str::FromStr>(
        &self,
        name: &'static str,
        what: &'static str,
    ) -> Result<Vec<T>, Error> {
        let path = proc_path(self.pid, name);
        let error = |source| self.io_error(what, &path, source);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&path).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<T>().ok()));
        }
        self.still_the_same(numbers)
    }

    fn read_proc(&self, name: &'static str) -> Result<Vec<u8>, Error> {
        let path = proc_path(self.pid, name);
        let bytes = fs::read(&path).map_err(|source| self.io_error(name, &path, source))?;
        self.still_the_same(bytes)
    }

    /// `value`, if the pid was still this process's when it was read.
    fn still_the_same<T>(&self, value: T) -> Result<T, Error> {
        if self.has_exited() { Err(Error::Exited { pid: self.pid }) } else { Ok(value) }
    }

    fn io_error(&self, what: &'static str, path: &Path, source: io::Error) -> Error {
        if self.has_exited() {
            Error::Exited { pid: self.pid }
        } else {
            proc_error(self.pid, what, path, source)
        }
    }

    fn malformed(&self, name: &str, what: &str) -> Error {
        Error::Malformed { path: proc_path(self.pid, name), what: what.to_owned() }
    }
}

/// The ids of all processes that this tool's PID namespace shows.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The name of a process, as the kernel has it; `None`: it has ended.
#[must_use]
pub fn comm_of(pid: u32) -> Option<String> {
    Some(comm_text(&fs::read(proc_path(pid, "comm")).ok()?))
}

/// Device and inode of the executable that a process runs now; `None`: it has ended, or may not be looked at.
#[must_use]
pub fn executable_of(pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(proc_path(pid, "exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Its id in each PID namespace that it is in, as [`Process::namespace_pids`]; empty: it has ended.
#[must_use]
pub fn namespace_pids_of(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(proc_path(pid, "status")).unwrap_or_default();
    namespace_pids_in(&status).unwrap_or_default()
}

/// Whether the process of a pidfd has exited (pidfd_open(2): it then polls readable).
pub(super) fn pidfd_has_exited(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}

fn proc_path(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn proc_error(pid: u32, what: &'static str, path: &Path, source: io::Error) -> Error {
    match Errno::from_io_error(&source) {
        Some(Errno::SRCH) => Error::Exited { pid },
        Some(Errno::ACCESS | Errno::PERM) => Error::Permission { pid, what },
        _ => Error::Io { path: path.to_owned(), source },
    }
}

fn thread_group_of(tid: u32) -> Option<u32> {
    status_number(tid, "Tgid")
}

/// How many fds a process may have before its table grows (`FDSize` in `/proc/PID/status`); 0: not known.
#[must_use]
pub fn fd_table_size(pid: u32) -> u32 {
    status_number(pid, "FDSize").unwrap_or(0)
}

/// A number in `/proc/PID/status`.
fn status_number(pid: u32, name: &str) -> Option<u32> {
    status_field(&fs::read_to_string(proc_path(pid, "status")).ok()?, name)?.parse().ok()
}

/// What `/proc/PID/comm` holds.
fn comm_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
}

/// The pids in the `NSpid` line of `/proc/PID/status`.
fn namespace_pids_in(status: &str) -> Option<Vec<u32>> {
    status_field(status, "NSpid")?.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect()
}

/// A field of `/proc/PID/status`: `name:<tab>value`.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A child that is killed when the test ends.
    struct Sleeper(Child);

    impl Sleeper {
        fn start(program: &Path) -> Self {
            Self(Command::new(program).arg("60").stdin(Stdio::null()).spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn describes_itself() {
        let process = Process::open(std::process::id()).unwrap();
        assert!(!process.has_exited());
        assert!(process.threads().unwrap().contains(&std::process::id()));
        assert_eq!(process.namespace_pids().unwrap().first(), Some(&std::process::id()));
        assert_eq!(process.executable_path(), std::env::current_exe().unwrap());
        assert_eq!(process.network_namespace().unwrap(), fs::metadata("/proc/self/ns/net").unwrap().ino());
        assert_eq!(process.command_line().unwrap(), std::env::args().collect::<Vec<_>>());
        assert!(process.start_time_ticks() > 0);
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&socket)).unwrap();
        let fds = process.fds().unwrap();
        assert!(matches!(fds.iter().find(|(number, _)| *number == fd), Some((_, FdTarget::Socket { .. }))));
    }

    #[test]
    fn says_what_is_no_process() {
        assert!(matches!(Process::open(0), Err(Error::NoSuchProcess { pid: 0 })));
        assert!(matches!(Process::open(u32::MAX), Err(Error::NoSuchProcess { .. })));
        // Above the largest pid_max there is, 2^22 (proc(5)).
        assert!(matches!(Process::open(1 << 23), Err(Error::NoSuchProcess { .. })));
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid()).unwrap();
            let _ = stopped.recv();
        });
        let tid = u32::try_from(receive.recv().unwrap().as_raw_nonzero().get()).unwrap();
        match Process::open(tid) {
            Err(Error::Thread { tid: found, pid }) => assert_eq!((found, pid), (tid, std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn opens_a_deleted_executable() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sleep");
        fs::copy("/bin/sleep", &program).unwrap();
        let child = Sleeper::start(&program);
        fs::remove_file(&program).unwrap();
        let process = Process::open(child.0.id()).unwrap();
        assert!(process.executable_path().to_str().unwrap().ends_with("sleep (deleted)"));
        assert_eq!(process.executable().metadata().unwrap().len(), fs::metadata("/bin/sleep").unwrap().len());
        assert_eq!(process.comm().unwrap(), "sleep");
    }

    #[test]
    fn finds_the_load_bias() {
        let process = Process::open(std::process::id()).unwrap();
        let executable = fs::read(std::env::current_exe().unwrap()).unwrap();
        // e_entry of ELF64.
        let entry = u64_at(&executable, 24).unwrap();
        let bias = process.load_bias(entry).unwrap();
        let lowest = process
            .maps()
            .unwrap()
            .into_iter()
            .find(|map| Path::new(&map.path) == process.executable_path())
            .unwrap();
        assert_eq!(bias, lowest.addresses.start, "test executables are PIE, linked at 0");
        assert!(matches!(process.load_bias(entry + 1), Err(Error::EntryMismatch { .. })));
    }

    #[test]
    fn notices_the_end() {
        let child = Sleeper::start(Path::new("/bin/sleep"));
        let process = Process::open(child.0.id()).unwrap();
        drop(child);
        assert!(process.has_exited());
        assert!(matches!(process.comm(), Err(Error::Exited { .. })));
        assert!(matches!(process.fds(), Err(Error::Exited { .. })));
    }

    #[test]
    fn says_that_a_zombie_has_no_executable() {
        let mut child = Command::new("true").spawn().unwrap();
        while !fs::read_to_string(proc_path(child.id(), "stat")).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        let found = Process::open(child.id());
        child.wait().unwrap();
        assert!(matches!(found, Err(Error::NoExecutable { .. } | Error::Exited { .. })), "{found:?}");
    }
}
