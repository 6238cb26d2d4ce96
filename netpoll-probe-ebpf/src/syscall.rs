//! Waits as the system calls of their goroutines show them (`--hooks syscalls`): no trap on the way of a wait.
//!
//! A goroutine asks the kernel first and parks when it says EAGAIN; when it runs again it asks once more. So a wait begins at the exit of
//! the system call that said EAGAIN, and ends at that of the same goroutine's next one on that fd. The goroutine stands in the g register,
//! and the pollDesc in the epoll item of the file. One that is not made ready but broken off (deadline, close) makes no further system
//! call; it passes the way of `runtime_pollWait` that only such waits take, where a uprobe is.
//!
//! Not every EAGAIN is followed by a park: database drivers read to see whether a connection is still there. Whoever waits when the poller
//! collects an event stands in the pollDesc ([`crate::poll`]); a wait that nobody was found in is none.

use netpoll_probe_common::{
    counter::Counter,
    record::{flag, outcome},
    slot::{fd_key, of_slot_key, slot_key},
};

use crate::{
    config::config,
    emit, file, maps, now,
    poll::{self, decode},
    polldesc::{self, PollDesc, READ, WRITE},
    read,
    regs::{Syscall, number},
    stack,
    target::{self, Target},
    wait::{self, Parking},
};

/// `include/uapi/asm-generic/errno-base.h` and `errno.h`
const EAGAIN: i64 = 11;
const EINPROGRESS: i64 = 115;
/// `EPOLL_CTL_ADD`, `include/uapi/linux/eventpoll.h`
const EPOLL_CTL_ADD: u64 = 1;
/// Epoll instances that one file is looked for in: Go's, and a few of the program's own.
const EPOLL_ITEMS: u32 = 8;

/// What a system call was about.
struct Request {
    target: Target,
    fd: i32,
    /// The direction.
    mode: u64,
}

/// A system call of any thread of the machine returns.
#[inline(always)]
pub fn exit(call: &Syscall) {
    let Some(target) = target::current() else { return };
    if call.number() == number::EPOLL_PWAIT {
        poll::exit(call, target);
    } else if config!(follow_syscalls) == 1 {
        follow(call, target);
    }
}

/// One that may begin or end a wait.
#[inline(always)]
fn follow(call: &Syscall, target: Target) {
    match call.number() {
        number::READ
        | number::READV
        | number::PREADV
        | number::RECVFROM
        | number::RECVMSG
        | number::RECVMMSG
        | number::ACCEPT
        | number::ACCEPT4 => input_output(call, &Request { target, fd: call.argument_0() as i32, mode: READ }),
        number::WRITE
        | number::WRITEV
        | number::PWRITEV
        | number::SENDTO
        | number::SENDMSG
        | number::SENDMMSG
        | number::SENDFILE
        // After a connect, Go asks for SO_ERROR.
        | number::GETSOCKOPT => input_output(call, &Request { target, fd: call.argument_0() as i32, mode: WRITE }),
        // From a socket to a pipe, and from a pipe to a socket; the pipe is not in the netpoller.
        number::SPLICE => {
            input_output(call, &Request { target, fd: call.argument_0() as i32, mode: READ });
            input_output(call, &Request { target, fd: call.argument_2() as i32, mode: WRITE });
        }
        number::CONNECT if call.result() == -EINPROGRESS => connecting(call, target),
        number::EPOLL_CTL if call.result() == 0 && call.argument_1() == EPOLL_CTL_ADD => registered(call, target),
        _ => {}
    }
}

/// One that reads or writes. A function of its own, like the next ones, so that the program has it once.
#[inline(never)]
fn input_output(call: &Syscall, request: &Request) {
    let again = call.result() == -EAGAIN;
    // SAFETY: the value is copied at once.
    let known = unsafe { maps::FDS.get(&fd_key(request.fd as u32, request.target.index)) }.copied().unwrap_or(0);
    if known != 0 {
        end(call, request, known, again);
    }
    if again {
        begin(call, request, known);
    }
}

/// Ends the wait that this goroutine was in, if it was in one.
#[inline(always)]
fn end(call: &Syscall, request: &Request, key: u64, again: bool) {
    let &Request { target, mode, .. } = request;
    let Some(slot) = maps::SLOTS.get_ptr_mut(&key) else { return };
    // SAFETY: see wait::begin for who else writes it.
    let slot = unsafe { &mut *slot };
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    if wait.start_ns == 0 || wait.g != call.g() {
        return;
    }
    let has_parked = if wait.flags & flag::RAN_THEN != 0 {
        // Told EAGAIN once more, it rather tried again by itself; and if the event still stands in the pollDesc, it never waited for it.
        !again && !wait::has_run_on(wait) && !polldesc::is_ready(of_slot_key(key).0, mode)
    } else {
        wait.poll_ns != 0 || wait.flags & flag::STARTED_BEFORE != 0
    };
    if !has_parked {
        wait::set_start(wait, 0);
        return;
    }
    if again {
        wait.flags |= flag::SPURIOUS;
    }
    let now_ns = now();
    let (stack_hash, labels_hash) = (wait.stack_hash, wait.labels_hash);
    wait::end(slot, key, wait::End { mode, outcome: outcome::READY, now_ns, stack_hash, labels_hash }, target);
}

/// The goroutine was told to come again.
#[inline(never)]
fn begin(call: &Syscall, request: &Request, known: u64) {
    if try_begin(call, request, known).is_none() {
        emit::count(Counter::ReadTarget);
    }
}

/// The goroutine was told to come again: it is about to park. `None`: the target's memory could not be read.
#[inline(always)]
fn try_begin(call: &Syscall, request: &Request, known: u64) -> Option<()> {
    let &Request { target, fd, mode } = request;
    let mut key = known;
    let desc = match still(known, fd, mode) {
        Some(desc) => desc,
        None => {
            // Not in the netpoller: the program polls it itself, or does not poll.
            let Some(pd) = find(fd, target) else { return Some(()) };
            key = slot_key(pd, target.index);
            if maps::FDS.insert(&fd_key(fd as u32, target.index), &key, 0).is_err() {
                emit::count(Counter::SlotsFull);
            }
            PollDesc::read(pd, mode)?
        }
    };
    let Some(slot) = wait::slot_of(key) else {
        emit::count(Counter::SlotsFull);
        return Some(());
    };
    // SAFETY: see wait::begin for who else writes it.
    let slot = unsafe { &mut *slot };
    let g = call.g();
    let goid: u64 = read::user(g + config!(g_goid))?;
    let now_ns = now();
    let parking = Parking { key, g, goid, mode, now_ns };
    wait::begin(slot, &desc, &parking, target);
    let (stack_hash, labels_hash) = (stack::hash_of_syscall(call, target), crate::labels::hash(g, target));
    let wait = if mode == READ { &mut slot.read } else { &mut slot.write };
    wait.stack_hash = stack_hash;
    wait.labels_hash = labels_hash;
    Some(())
}

/// The pollDesc that this fd had the last time, if it still has it: `fdseq` changes when a pollDesc is freed. Where that does not exist
/// (before Go 1.21), every wait looks anew.
#[inline(always)]
fn still(key: u64, fd: i32, mode: u64) -> Option<PollDesc> {
    if config!(pd_has_fdseq) == 0 {
        return None;
    }
    let slot = maps::SLOTS.get_ptr_mut(&key)?;
    let desc = PollDesc::read(of_slot_key(key).0, mode)?;
    // SAFETY: a map value.
    let facts = unsafe { &(*slot).file };
    let is_same = facts.known == 1 && facts.fd == fd && facts.tag == desc.tag;
    (is_same && desc.fd == fd && !desc.is_closing()).then_some(desc)
}

/// The address of an fd's pollDesc: the epoll items of its file say what Go registered it with (`fs/eventpoll.c`, `struct epitem`).
#[inline(never)]
fn find(fd: i32, target: Target) -> Option<u64> {
    let file = file::of_fd(fd as u64)?;
    let items: u64 = read::kernel(file + config!(file_ep))?;
    if items == 0 {
        return None;
    }
    let eventpoll = maps::EVENTPOLL.get(target.index).copied().unwrap_or(0);
    let mut link: u64 = read::kernel(items)?;
    let mut looked = 0;
    while looked < EPOLL_ITEMS {
        if link == 0 {
            return None;
        }
        let item = link - config!(epitem_link);
        let item_fd: i32 = read::kernel(item + config!(epitem_fd))?;
        let item_eventpoll: u64 = read::kernel(item + config!(epitem_ep))?;
        if item_fd == fd && (eventpoll == 0 || item_eventpoll == eventpoll) {
            let (pd, tag) = decode(read::kernel(item + config!(epitem_event_data))?);
            // Of an epoll instance that is not Go's, the data is anything.
            if let Some(desc) = PollDesc::read(pd, READ)
                && desc.fd == fd
                && desc.tag == tag
            {
                return Some(pd);
            }
        }
        link = read::kernel(link)?;
        looked += 1;
    }
    None
}

/// A connect has begun. Go registers the fd afterwards, and then waits.
#[inline(always)]
fn connecting(call: &Syscall, target: Target) {
    let fd = call.argument_0() as u32;
    if maps::CONNECTS.insert(&slot_key(call.g(), target.index), &fd, 0).is_err() {
        emit::count(Counter::ConnectsFull);
    }
}

/// An fd was registered. If it is one that the goroutine is connecting, it waits for it now.
#[inline(always)]
fn registered(call: &Syscall, target: Target) {
    let key = slot_key(call.g(), target.index);
    // SAFETY: the value is copied at once.
    let Some(fd) = unsafe { maps::CONNECTS.get(&key) }.copied() else { return };
    let _ = maps::CONNECTS.remove(&key);
    if u64::from(fd) == call.argument_2() {
        let request = Request { target, fd: fd as i32, mode: WRITE };
        begin(call, &request, 0);
        may_be_collected(call, &request);
    }
}

/// A connect that was done at once is collected at once, perhaps before its wait was seen to begin.
#[inline(always)]
fn may_be_collected(call: &Syscall, request: &Request) {
    let key = fd_key(request.fd as u32, request.target.index);
    // SAFETY: the value is copied at once.
    let Some(key) = unsafe { maps::FDS.get(&key) }.copied() else { return };
    let Some(slot) = maps::SLOTS.get_ptr_mut(&key) else { return };
    // SAFETY: see wait::begin for who else writes it.
    let wait = unsafe { &mut (*slot).write };
    if wait.start_ns != 0 && wait.poll_ns == 0 && wait.g == call.g() {
        wait::ran_then(wait);
    }
}
