//! What user space tells the programs before they load: it writes it into their instructions, so the verifier sees constants and drops the
//! code that they switch off, and the processor finds them where it reads the program.

use crate::limit::{POLL_DESC_BYTES, RUNTIME_STRUCT_BYTES};

/// What a field of [`Config`] is in the programs until it is written there: the constant of a 64-bit load, whose upper half is this, and its
/// lower half the field's offset.
pub const HOLE: u32 = 0x6e70_7072;

/// Forms of a goroutine's pprof labels.
pub mod labels {
    /// `*map[string]string`, Go 1.18–1.23 (`runtime/pprof/label.go`).
    pub const MAP: u32 = 1;
    /// A slice of key-value pairs, sorted by key, from Go 1.24 on.
    pub const SLICE: u32 = 2;
}

/// Offsets, in bytes, and switches. Where they come from: Go's from the target's DWARF or the committed table, the
/// kernel's from its BTF; both are read in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Config {
    /// The target's thread group, in the initial PID namespace; 0: those in the map `TARGETS`.
    pub tgid: u32,
    /// The inode of this tool's PID namespace, for the iterator over tasks.
    pub pid_namespace: u32,
    /// Whether tracepoints stand in for `ep_poll_callback`, so that sockets are found by their `struct sock`, and wakings of the poller kept.
    pub stand_ins: u32,
    /// Whether system calls show the waits.
    pub follow_syscalls: u32,
    /// Records of each CPU's buffer of waits ([`crate::wait_buffer`]), a power of two; 0: there are none, and all go through the ring.
    pub wait_buffer_records: u32,
    /// Whether waits may be added up ([`crate::cell`]).
    pub may_add_up: u32,
    /// Whether waits may be left out ([`crate::sampling`]).
    pub may_leave_out: u32,

    /// `runtime.g.m`
    pub g_m: u32,
    /// `runtime.g.goid`
    pub g_goid: u32,
    /// `runtime.g.atomicstatus`, u32
    pub g_atomic_status: u32,
    /// `runtime.g.waitreason`, u8
    pub g_wait_reason: u32,
    /// `runtime.g.labels`
    pub g_labels: u32,
    /// What that points to: [`labels`].
    pub labels: u32,
    /// `runtime.m.g0`
    pub m_g0: u32,
    /// `runtime.m.p`
    pub m_p: u32,
    /// `runtime.p.schedtick`; `syscalltick` follows it in every version.
    pub p_schedtick: u32,
    /// `runtime.pollDesc.fd`
    pub pd_fd: u32,
    /// Whether `pollDesc.fdseq` exists (Go 1.21).
    pub pd_has_fdseq: u32,
    /// `runtime.pollDesc.fdseq`
    pub pd_fdseq: u32,
    /// `runtime.pollDesc.atomicInfo`
    pub pd_atomic_info: u32,
    /// `runtime.pollDesc.rg`
    pub pd_rg: u32,
    /// `runtime.pollDesc.wg`
    pub pd_wg: u32,
    /// Where `runtime_pollWait` keeps its argument `pd` at the end site, from the stack pointer there.
    pub pd_home: u32,
    /// Low bits of an epoll event's data word that hold `fdseq`; 0: the word is the pollDesc's address.
    pub tag_bits: u32,
    /// How far the word, without those bits, is shifted left to give the address.
    pub pd_align_bits: u32,

    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdt_max_fds: u32,
    /// `fdtable.fd`
    pub fdt_fd: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `file.f_flags`
    pub file_flags: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `socket.flags`
    pub socket_flags: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_receive_queue.qlen`
    pub sock_receive_queue_length: u32,
    /// `sock.sk_ack_backlog`
    pub sock_ack_backlog: u32,
    /// `sock_common.skc_family`
    pub sock_family: u32,
    /// `sock_common.skc_state`
    pub sock_state: u32,
    /// `sock_common.skc_daddr`; `skc_rcv_saddr` follows it.
    pub sock_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub sock_rcv_saddr: u32,
    /// `sock_common.skc_dport`, big endian
    pub sock_dport: u32,
    /// `sock_common.skc_num`, host order
    pub sock_num: u32,
    /// `sock_common.skc_v6_daddr`
    pub sock_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub sock_v6_rcv_saddr: u32,
    /// `tcp_sock.rcv_nxt`
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.copied_seq`
    pub tcp_copied_seq: u32,
    /// `tcp_sock.bytes_sent`
    pub tcp_bytes_sent: u32,
    /// `tcp_sock.lsndtime`, in jiffies
    pub tcp_lsndtime: u32,
    /// A jiffy, ns.
    pub tick_ns: u32,
    /// `unix_sock.addr`
    pub unix_addr: u32,
    /// `unix_sock.peer`
    pub unix_peer: u32,
    /// `unix_address.len`
    pub unix_address_length: u32,
    /// `unix_address.name`
    pub unix_address_name: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`, an array of `struct upid`
    pub pid_numbers: u32,
    /// `sizeof(struct upid)`
    pub upid_bytes: u32,
    /// `upid.ns`
    pub upid_namespace: u32,
    /// `pid_namespace.ns.inum`
    pub pid_namespace_inode: u32,
    /// `eppoll_entry.base`
    pub eppoll_entry_base: u32,
    /// `eppoll_entry.wait`
    pub eppoll_entry_wait: u32,
    /// `epitem.ep`
    pub epitem_ep: u32,
    /// `epitem.event.data`
    pub epitem_event_data: u32,
    /// `epitem.fllink`, by which a file's epoll items are linked.
    pub epitem_link: u32,
    /// `epitem.ffd.fd`
    pub epitem_fd: u32,
    /// `file.f_ep`: the list of its epoll items.
    pub file_ep: u32,
}

impl Config {
    /// Whether slots stand in the array `FD_SLOTS`: where they are found by fd, of one process.
    #[must_use]
    pub const fn has_fd_slots(&self) -> bool {
        self.follow_syscalls != 0 && self.tgid != 0
    }

    /// A field that lies beyond what the programs read of its struct at once, and where; `None`: there is none.
    #[must_use]
    pub fn beyond_reach(&self) -> Option<(&'static str, u32)> {
        let poll_desc = [
            ("runtime.pollDesc.fd", self.pd_fd),
            ("runtime.pollDesc.fdseq", self.pd_fdseq),
            ("runtime.pollDesc.atomicInfo", self.pd_atomic_info),
            ("runtime.pollDesc.rg", self.pd_rg),
            ("runtime.pollDesc.wg", self.pd_wg),
        ];
        // The last ones are where the reads end.
        let [g, m] = [self.g_labels, self.m_p].map(|last| last.min(RUNTIME_STRUCT_BYTES as u32 - 8));
        let of_runtime = [
            ("runtime.g.goid", self.g_goid, g),
            ("runtime.g.labels", self.g_labels, g),
            ("runtime.m.g0", self.m_g0, m),
            ("runtime.m.p", self.m_p, m),
        ];
        poll_desc
            .into_iter()
            .map(|(field, offset)| (field, offset, POLL_DESC_BYTES as u32 - 8))
            .chain(of_runtime)
            .find(|(_, offset, last)| offset > last || offset % 8 != 0)
            .map(|(field, offset, _)| (field, offset))
    }
}
