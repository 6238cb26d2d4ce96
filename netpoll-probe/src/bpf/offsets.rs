//! The programs' configuration, filled from the kernel's BTF and the target's Go layout.

use netpoll_probe_common::config::Config;
use rustix::time::{ClockId, clock_getres};

use super::kernel_btf::{BtfError, KernelBtf};

/// Fills what is the kernel's.
///
/// # Errors
/// When this kernel's BTF lacks one of the members.
pub fn of_kernel(btf: &KernelBtf, config: &mut Config) -> Result<(), BtfError> {
    let wanted: [(&mut u32, &str, &str); 46] = [
        (&mut config.task_files, "task_struct", "files"),
        (&mut config.task_pid, "task_struct", "pid"),
        (&mut config.task_tgid, "task_struct", "tgid"),
        (&mut config.task_thread_pid, "task_struct", "thread_pid"),
        (&mut config.pid_level, "pid", "level"),
        (&mut config.pid_numbers, "pid", "numbers"),
        (&mut config.upid_namespace, "upid", "ns"),
        (&mut config.pid_namespace_inode, "pid_namespace", "ns"),
        (&mut config.files_fdt, "files_struct", "fdt"),
        (&mut config.fdt_max_fds, "fdtable", "max_fds"),
        (&mut config.fdt_fd, "fdtable", "fd"),
        (&mut config.file_private_data, "file", "private_data"),
        (&mut config.file_inode, "file", "f_inode"),
        (&mut config.file_flags, "file", "f_flags"),
        (&mut config.inode_mode, "inode", "i_mode"),
        (&mut config.inode_number, "inode", "i_ino"),
        (&mut config.socket_sk, "socket", "sk"),
        (&mut config.socket_flags, "socket", "flags"),
        (&mut config.sock_socket, "sock", "sk_socket"),
        (&mut config.sock_type, "sock", "sk_type"),
        (&mut config.sock_protocol, "sock", "sk_protocol"),
        (&mut config.sock_receive_queue_length, "sock", "sk_receive_queue"),
        (&mut config.sock_ack_backlog, "sock", "sk_ack_backlog"),
        (&mut config.sock_family, "sock_common", "skc_family"),
        (&mut config.sock_state, "sock_common", "skc_state"),
        (&mut config.sock_daddr, "sock_common", "skc_daddr"),
        (&mut config.sock_rcv_saddr, "sock_common", "skc_rcv_saddr"),
        (&mut config.sock_dport, "sock_common", "skc_dport"),
        (&mut config.sock_num, "sock_common", "skc_num"),
        (&mut config.sock_v6_daddr, "sock_common", "skc_v6_daddr"),
        (&mut config.sock_v6_rcv_saddr, "sock_common", "skc_v6_rcv_saddr"),
        (&mut config.tcp_rcv_nxt, "tcp_sock", "rcv_nxt"),
        (&mut config.tcp_copied_seq, "tcp_sock", "copied_seq"),
        (&mut config.tcp_bytes_sent, "tcp_sock", "bytes_sent"),
        (&mut config.tcp_lsndtime, "tcp_sock", "lsndtime"),
        (&mut config.unix_addr, "unix_sock", "addr"),
        (&mut config.unix_peer, "unix_sock", "peer"),
        (&mut config.unix_address_length, "unix_address", "len"),
        (&mut config.unix_address_name, "unix_address", "name"),
        (&mut config.eppoll_entry_base, "eppoll_entry", "base"),
        (&mut config.eppoll_entry_wait, "eppoll_entry", "wait"),
        (&mut config.epitem_ep, "epitem", "ep"),
        (&mut config.epitem_event_data, "epitem", "event"),
        (&mut config.epitem_link, "epitem", "fllink"),
        (&mut config.epitem_fd, "epitem", "ffd"),
        (&mut config.file_ep, "file", "f_ep"),
    ];
    for (field, name, member) in wanted {
        *field = btf.offset_of(name, member)?;
    }
    // The queue's length stands in its head; epoll_event.data after the 4 bytes of events, packed on amd64.
    config.sock_receive_queue_length += btf.offset_of("sk_buff_head", "qlen")?;
    config.epitem_event_data += btf.offset_of("epoll_event", "data")?;
    config.epitem_fd += btf.offset_of("epoll_filefd", "fd")?;
    config.pid_namespace_inode += btf.offset_of("ns_common", "inum")?;
    config.upid_bytes = btf.size_of("upid")?;
    // KTIME_LOW_RES, a jiffy (kernel/time/posix-timers.c).
    let tick = clock_getres(ClockId::MonotonicCoarse);
    config.tick_ns = u32::try_from(tick.tv_nsec).unwrap_or(0);
    Ok(())
}
