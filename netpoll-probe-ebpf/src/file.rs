//! The file behind an fd, as the kernel knows it: socket, addresses, what is there to read.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_jiffies64, bpf_probe_read_kernel};
use netpoll_probe_common::{
    counter::Counter,
    limit::{UNIX_PATH_BYTES, UNIX_PATH_ROOM},
    record::{UnixNameRecord, kind},
    slot::FileFacts,
};

use crate::{config::config, emit, hint::seldom, maps, read, target};

/// `S_IFMT` and `S_IFSOCK`, `include/uapi/linux/stat.h`.
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// `include/linux/socket.h`
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `include/uapi/linux/in.h`. Go's listeners are MPTCP sockets from 1.24 on, whose `sk` is no `tcp_sock`.
const IPPROTO_TCP: u16 = 6;
/// `include/net/tcp_states.h`
const TCP_LISTEN: u8 = 10;

/// The current task's `struct file` of an fd.
#[inline(always)]
pub fn of_fd(fd: u64) -> Option<u64> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let files: u64 = read::kernel(task + config!(task_files))?;
    let table: u64 = read::kernel(files + config!(files_fdt))?;
    let max: u32 = read::kernel(table + config!(fdt_max_fds))?;
    if fd >= u64::from(max) {
        return None;
    }
    let array: u64 = read::kernel(table + config!(fdt_fd))?;
    let file: u64 = read::kernel(array + fd * 8)?;
    (file != 0).then_some(file)
}

/// The `struct eventpoll` behind an fd of the current task that is an epoll instance.
#[inline(always)]
pub fn eventpoll_of(epfd: u64) -> Option<u64> {
    read::kernel(of_fd(epfd)? + config!(file_private_data))
}

/// Brings `facts` up to date for an fd of the current task, whose pollDesc has this tag. Where `pollDesc.fdseq` exists (Go 1.21) one look is
/// enough for as long as it stays the same; before, every wait looks, unless system calls show when the fd gets another file. Returns
/// whether they were up to date.
#[inline(always)]
pub fn refresh(facts: &mut FileFacts, fd: i32, tag: u32, target: u32) -> bool {
    let is_told_of_changes = config!(pd_has_fdseq) == 1 || config!(follow_syscalls) == 1;
    if facts.known == 1 && facts.fd == fd && facts.tag == tag && is_told_of_changes {
        return true;
    }
    seldom();
    (facts.fd, facts.tag, facts.known) = (fd, tag, 0);
    read_file(facts, u64::from(target));
    false
}

/// Looks at the file of `facts.fd`. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_file(facts: *mut FileFacts, target: u64) -> u64 {
    if facts.is_null() {
        return 0;
    }
    // SAFETY: the caller's, in a slot; see wait::begin_wait for who else writes that.
    let facts = unsafe { &mut *facts };
    let file = of_fd(facts.fd as u64);
    if file.and_then(|file| fill(facts, file, target::tgid(), target as u32)).is_none() {
        emit::count(Counter::ReadFile);
        return 0;
    }
    facts.known = 1;
    1
}

/// What is not known of a file.
static NO_FACTS: FileFacts = FileFacts::UNKNOWN;

/// Fills all but `fd`, `tag` and `known` from a `struct file`.
#[inline(always)]
pub fn fill(facts: &mut FileFacts, file: u64, tgid: u32, target: u32) -> Option<()> {
    let FileFacts { tag, fd, known, .. } = *facts;
    // By the helper: the compiler would call a function that goes byte by byte, and the verifier would follow each of them.
    // SAFETY: as many bytes as facts have.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut *facts).cast(),
            size_of::<FileFacts>() as u32,
            (&raw const NO_FACTS).cast(),
        );
    }
    (facts.tag, facts.fd, facts.known) = (tag, fd, known);
    let inode: u64 = read::kernel(file + config!(file_inode))?;
    facts.mode = read::kernel(inode + config!(inode_mode))?;
    facts.inode = read::kernel(inode + config!(inode_number))?;
    if facts.mode & S_IFMT != S_IFSOCK {
        return Some(());
    }
    let socket: u64 = read::kernel(file + config!(file_private_data))?;
    let sk: u64 = read::kernel(socket + config!(socket_sk))?;
    facts.sk = sk;
    facts.family = read::kernel(sk + config!(sock_family))?;
    facts.socket_type = read::kernel(sk + config!(sock_type))?;
    facts.protocol = read::kernel(sk + config!(sock_protocol))?;
    match facts.family {
        AF_INET => {
            let remote: [u8; 4] = read::kernel(sk + config!(sock_daddr))?;
            let local: [u8; 4] = read::kernel(sk + config!(sock_rcv_saddr))?;
            facts.remote_address = widen(remote);
            facts.local_address = widen(local);
        }
        AF_INET6 => {
            facts.remote_address = read::kernel(sk + config!(sock_v6_daddr))?;
            facts.local_address = read::kernel(sk + config!(sock_v6_rcv_saddr))?;
        }
        AF_UNIX => unix_names(sk, facts.inode, tgid, target),
        _ => {}
    }
    if facts.family == AF_INET || facts.family == AF_INET6 {
        facts.remote_port = u16::from_be(read::kernel(sk + config!(sock_dport))?);
        facts.local_port = read::kernel(sk + config!(sock_num))?;
    }
    Some(())
}

#[inline(always)]
const fn widen(ip: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = ip;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The socket's `skc_state`.
#[inline(always)]
pub fn state(facts: &FileFacts) -> u8 {
    if facts.sk == 0 { 0 } else { read::kernel(facts.sk + config!(sock_state)).unwrap_or(0) }
}

/// Whether a reader of the socket would find something now: it came between the read that said EAGAIN and now.
#[inline(always)]
pub fn readable(facts: &FileFacts, state: u8) -> bool {
    if facts.sk == 0 {
        return false;
    }
    if state == TCP_LISTEN && facts.protocol == IPPROTO_TCP {
        let backlog: Option<u32> = read::kernel(facts.sk + config!(sock_ack_backlog));
        return backlog.unwrap_or(0) != 0;
    }
    if facts.protocol == IPPROTO_TCP {
        let received: Option<u32> = read::kernel(facts.sk + config!(tcp_rcv_nxt));
        let copied: Option<u32> = read::kernel(facts.sk + config!(tcp_copied_seq));
        return received.is_some() && received != copied;
    }
    let queued: Option<u32> = read::kernel(facts.sk + config!(sock_receive_queue_length));
    queued.unwrap_or(0) != 0
}

/// Bytes that were ever sent on a TCP connection; 0 for other files.
#[inline(always)]
pub fn sent_bytes(facts: &FileFacts, state: u8) -> u64 {
    if facts.protocol != IPPROTO_TCP || state == TCP_LISTEN || facts.sk == 0 {
        return 0;
    }
    read::kernel(facts.sk + config!(tcp_bytes_sent)).unwrap_or(0)
}

/// When something was last sent on a TCP connection, to a jiffy.
#[inline(always)]
pub fn last_sent_ns(facts: &FileFacts, now_ns: u64) -> u64 {
    let sent: Option<u32> = read::kernel(facts.sk + config!(tcp_lsndtime));
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } as u32;
    sent.map_or(now_ns, |sent| now_ns.saturating_sub(u64::from(now.wrapping_sub(sent)) * config!(tick_ns)))
}

/// What is not written of a path.
static NO_PATH: [u8; UNIX_PATH_ROOM] = [0; UNIX_PATH_ROOM];

/// Hands a unix socket's names over, once.
#[inline(always)]
fn unix_names(sk: u64, inode: u64, tgid: u32, target: u32) {
    // For each target apart: user space keeps what it was told by process.
    let seen = inode | u64::from(target) << 48;
    // SAFETY: a lookup of a value that nobody reads.
    if unsafe { maps::UNIX_NAMES_SEEN.get(&seen) }.is_some() {
        return;
    }
    let Some(mut entry) = maps::RING.reserve::<UnixNameRecord>(0) else {
        emit::count(Counter::RingFullUnixName);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a UnixNameRecord's bytes; every field is written.
    unsafe {
        (*record).header = emit::header::<UnixNameRecord>(kind::UNIX_NAME, tgid);
        (*record).inode = inode;
        // By the helper: the compiler would write byte by byte, and the verifier would follow each of them.
        for path in [(&raw mut (*record).local), (&raw mut (*record).remote)] {
            bpf_probe_read_kernel(path.cast(), UNIX_PATH_ROOM as u32, (&raw const NO_PATH).cast());
        }
        (*record).local_length = unix_name(sk, &raw mut (*record).local);
        let peer: u64 = read::kernel(sk + config!(unix_peer)).unwrap_or(0);
        (*record).remote_length = if peer == 0 { 0 } else { unix_name(peer, &raw mut (*record).remote) };
    }
    entry.submit(emit::wakeup());
    let _ = maps::UNIX_NAMES_SEEN.insert(&seen, &1, 0);
}

/// Copies `sun_path` of `unix_sock.addr` and returns its length; 0: unnamed.
///
/// `unix_address.name` is a `sockaddr_un`: the family's two bytes, then the path; `len` counts both
/// (`include/net/af_unix.h`).
#[inline(always)]
fn unix_name(sk: u64, path: *mut [u8; UNIX_PATH_ROOM]) -> u32 {
    let address: u64 = read::kernel(sk + config!(unix_addr)).unwrap_or(0);
    if address == 0 {
        return 0;
    }
    let length: u32 = read::kernel(address + config!(unix_address_length)).unwrap_or(0);
    if length <= 2 || length as usize > UNIX_PATH_BYTES + 2 {
        return 0;
    }
    // Changes nothing, and shows the verifier a bound.
    let bytes = (length - 2) & (UNIX_PATH_ROOM as u32 - 1);
    let name = address + config!(unix_address_name) + 2;
    // SAFETY: `bytes` is less than the size of `path`.
    let failed = unsafe { bpf_probe_read_kernel(path.cast(), bytes, name as *const _) };
    if failed == 0 { bytes } else { 0 }
}
