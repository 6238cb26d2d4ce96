//! The kernel makes an fd ready.
//!
//! A stamp counts when somebody waits in that direction, nothing was stamped yet, and nothing was collected yet: the
//! first one after the start of the wait. What was stamped is dropped when the item is collected for the other
//! direction ([`crate::poll`]), or when the wait does not end as ready (user space).

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use netpoll_probe_common::{
    counter::Counter,
    record::source,
    slot::{PollDescSlot, WaitSlot, slot_key},
};

use crate::{
    config::config,
    emit, now,
    poll::{self, READ_EVENTS, WRITE_EVENTS},
    poller, read, regs, slots, sockets, target,
};

/// `include/net/tcp_states.h`
const TCP_ESTABLISHED: i32 = 1;
const TCP_CLOSE: i32 = 7;
const TCP_CLOSE_WAIT: i32 = 8;

/// `ep_poll_callback`: `wait` is the `wait` of an `eppoll_entry`, whose `base` is the item; `flags` are the poll flags (its argument `key`), 0
/// for a wake-up that names none, which may be anything (connect done, FIN, reset, the other end of a pipe closed).
#[inline(always)]
pub fn callback(wait: u64, flags: u64) {
    let entry = wait - config!(eppoll_entry_wait);
    let Some(item) = read::kernel::<u64>(entry + config!(eppoll_entry_base)) else {
        emit::count(Counter::ReadEpollItem);
        return;
    };
    let Some(target) = read::kernel::<u64>(item + config!(epitem_ep)).and_then(target::of_eventpoll) else {
        return;
    };
    let Some(data) = read::kernel::<u64>(item + config!(epitem_event_data)) else {
        emit::count(Counter::ReadEpollItem);
        return;
    };
    let (pd, tag) = poll::decode(data);
    let key = if config!(follow_syscalls) == 1 {
        let Some(fd) = read::kernel::<i32>(item + config!(epitem_fd)) else {
            emit::count(Counter::ReadEpollItem);
            return;
        };
        slot_key(fd as u64, target)
    } else {
        slot_key(pd, target)
    };
    let Some(slot) = slots::find(key) else { return };
    // SAFETY: a map value; see wait::begin_wait for who else writes it.
    let slot = unsafe { &mut *slot };
    if slot.pd != pd {
        return;
    }
    let events = flags as u32;
    if slot.read.tag == tag && (events == 0 || events & READ_EVENTS != 0) {
        stamp(&mut slot.read, source::CALLBACK);
    }
    if slot.write.tag == tag && (events == 0 || events & WRITE_EVENTS != 0) {
        stamp(&mut slot.write, source::CALLBACK);
    }
}

/// `sock_def_readable` and its like: data, a connection to accept, the FIN of a peer.
#[inline(always)]
pub fn data_ready(sk: *const c_void) {
    if let Some(slot) = slot_of(sk) {
        stamp(&mut slot.read, source::DATA_READY);
    }
}

/// A TCP socket changes its state.
#[inline(always)]
pub fn state_change(sk: *const c_void, new_state: i32) {
    let Some(slot) = slot_of(sk) else { return };
    match new_state {
        TCP_ESTABLISHED => stamp(&mut slot.write, source::STATE_CHANGE),
        TCP_CLOSE_WAIT => stamp(&mut slot.read, source::STATE_CHANGE),
        TCP_CLOSE => {
            stamp(&mut slot.read, source::STATE_CHANGE);
            stamp(&mut slot.write, source::STATE_CHANGE);
        }
        _ => {}
    }
}

/// A RST arrives.
#[inline(always)]
pub fn reset(sk: *const c_void) {
    if let Some(slot) = slot_of(sk) {
        stamp(&mut slot.read, source::RESET);
        stamp(&mut slot.write, source::RESET);
    }
}

/// A segment arrives at an established socket. The last one before the poll made it writable, or came soon after.
#[inline(always)]
pub fn segment(sk: *const c_void) {
    if !lacks_space(sk) {
        return;
    }
    let Some(slot) = slot_of(sk) else { return };
    let wait = &mut slot.write;
    if wait.kernel_ready_source == source::WRITE_ESTIMATE && wait.start_ns != 0 && wait.poll_ns == 0 {
        wait.kernel_ready_ns = 0;
    }
    stamp(wait, source::WRITE_ESTIMATE);
}

/// Whether somebody was told that the socket takes no more, and it still does not: `SOCK_NOSPACE` is set then (`tcp_sendmsg_locked`), and
/// cleared when it does (`sk_stream_write_space`).
#[inline(always)]
fn lacks_space(sk: *const c_void) -> bool {
    /// `include/linux/net.h`
    const SOCK_NOSPACE: u64 = 1 << 2;
    // SAFETY: a BTF pointer; a load through it, or through one that is found there, cannot fault.
    unsafe {
        let socket = sk.cast::<u8>().add(config!(sock_socket) as usize).cast::<*const u8>().read();
        !socket.is_null()
            && socket.add(config!(socket_flags) as usize).cast::<u64>().read() & SOCK_NOSPACE != 0
    }
}

/// A thread is woken. Of interest: one of the target that sleeps in `epoll_pwait`.
#[inline(always)]
pub fn waking(task: *const task_struct) {
    let task = task.cast::<u8>();
    // SAFETY: a BTF pointer; a load through it cannot fault, and the offsets are the kernel's own.
    let (tgid, pid) = unsafe {
        (
            task.add(config!(task_tgid) as usize).cast::<u32>().read(),
            task.add(config!(task_pid) as usize).cast::<u32>().read(),
        )
    };
    if target::index_of(tgid).is_none() || !regs::sleeps_in_poll(task.cast()) {
        return;
    }
    let waking_ns = now();
    // Made if it has none: it sleeps there since before the programs came.
    let Some(thread) = poller::thread_slot(pid) else { return };
    // The last waking counts: woken for an event that another thread collected first, it goes back to sleep.
    // SAFETY: a map value of a thread that sleeps; of two wakers at once either time will do.
    unsafe { (*thread).waking_ns = waking_ns };
}

/// The slot of the pollDesc that waits on a socket. `struct sock` addresses are recycled: it must be the one that the
/// wait is on now.
#[inline(always)]
fn slot_of(sk: *const c_void) -> Option<&'static mut PollDescSlot> {
    let key = sockets::find(sk)?;
    let slot = slots::find(key)?;
    // SAFETY: a map value; see wait::begin_wait for who else writes it.
    let slot = unsafe { &mut *slot };
    (slot.file.sk == sk as u64).then_some(slot)
}

#[inline(always)]
fn stamp(wait: &mut WaitSlot, from: u8) {
    if wait.start_ns == 0 || wait.kernel_ready_ns != 0 || wait.poll_ns != 0 {
        return;
    }
    wait.kernel_ready_ns = now();
    wait.kernel_ready_source = from;
}
