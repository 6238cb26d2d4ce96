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
    slot::{PollDescSlot, slot_key},
};

use crate::{
    config::config,
    emit,
    fds::FdState,
    file,
    goroutine::Goroutine,
    labels, maps, now,
    poll::{self, decode},
    polldesc::{self, PollDesc, READ, WRITE},
    read,
    regs::{Syscall, number},
    sampling, stack,
    target::{self, Target},
    wait::{self, Parking},
};

/// `include/uapi/asm-generic/errno-base.h` and `errno.h`
const EAGAIN: i64 = 11;
const EINPROGRESS: i64 = 115;
/// `EPOLL_CTL_ADD`, `include/uapi/linux/eventpoll.h`
const EPOLL_CTL_ADD: u64 = 1;
/// Epoll instances that one file is looked for in: Go's, and a few of the program's own.
const EPOLL_ITEMS: u32 = 4;

/// What a system call of a number means here; besides these, the direction in which it reads or writes its first argument.
mod kind {
    /// Nothing.
    pub const OTHER: u8 = 0;
    /// The poller collects events.
    pub const POLL: u8 = 1;
    /// A connect begins.
    pub const CONNECT: u8 = 2;
    /// An fd comes into the netpoller.
    pub const REGISTER: u8 = 3;
    /// From a socket to a pipe, or from a pipe to a socket.
    pub const SPLICE: u8 = 4;
}

/// By number: a table is quicker than comparisons, and the verifier goes through what follows once, not once for each number.
static KINDS: [u8; number::BOUND] = kinds();

const fn kinds() -> [u8; number::BOUND] {
    let mut table = [kind::OTHER; number::BOUND];
    let mut at = 0;
    while at < number::READS.len() {
        table[number::READS[at]] = READ as u8;
        at += 1;
    }
    at = 0;
    while at < number::WRITES.len() {
        table[number::WRITES[at]] = WRITE as u8;
        at += 1;
    }
    table[number::EPOLL_PWAIT] = kind::POLL;
    table[number::CONNECT] = kind::CONNECT;
    table[number::EPOLL_CTL] = kind::REGISTER;
    table[number::SPLICE] = kind::SPLICE;
    table
}

/// What a system call was about. The numbers are veiled ([`Syscall::nothing`]), so that the verifier goes through what follows once, and not
/// once for each kind of call.
struct Request {
    target: Target,
    fd: i32,
    /// How many waits the one that begins stands for; 0: none begins that is followed.
    stands_for: u32,
    /// The direction.
    mode: u64,
    /// Not 0: the goroutine will wait.
    again: u64,
    /// Not 0: it has registered the fd, and said nothing of a wait before.
    registers: u64,
}

impl Request {
    /// The fd's slot.
    #[inline(always)]
    fn key(&self) -> u64 {
        slot_key(self.fd as u64, self.target.index)
    }
}

/// A system call of any thread of the machine returns.
#[inline(always)]
pub fn exit(call: &Syscall) {
    let number = call.number() as usize;
    if number >= number::BOUND {
        return;
    }
    // SAFETY: inside the table. Volatile, or the compiler makes comparisons of it again.
    let kind = unsafe { (&raw const KINDS).cast::<u8>().add(number).read_volatile() };
    // Before the target, which of several takes a lookup.
    if kind == kind::OTHER {
        return;
    }
    let Some(target) = target::current() else { return };
    match kind {
        kind::POLL => poll::exit(call, target),
        _ if config!(follow_syscalls) == 0 => {}
        kind::CONNECT => connecting(call, target),
        _ => follow(call, target, kind),
    }
}

/// One that may begin or end a wait.
#[inline(always)]
fn follow(call: &Syscall, target: Target, kind: u8) {
    let nothing = call.nothing();
    let again = u64::from(call.result() == -EAGAIN) ^ nothing;
    let (fd, mode) = (call.argument::<0>() as i32, u64::from(kind) ^ nothing);
    let mut request = Request { target, fd, stands_for: 0, mode, again, registers: nothing };
    if kind == kind::SPLICE {
        // The pipe is not in the netpoller.
        (request.fd, request.mode) = if find(fd, target.index).is_some() {
            (fd, READ ^ nothing)
        } else {
            (call.argument::<2>() as i32, WRITE ^ nothing)
        };
    } else if kind == kind::REGISTER {
        let Some(fd) = registered(call, target) else { return };
        (request.fd, request.mode, request.again, request.registers) =
            (fd, WRITE ^ nothing, 1 ^ nothing, 1 ^ nothing);
    }
    if is_of_interest(&mut request, nothing) {
        look_up(call, &request);
    }
}

/// Whether a wait may end, or one begins that is followed; and how many it stands for.
#[inline(never)]
fn is_of_interest(request: &mut Request, nothing: u64) -> bool {
    let state = FdState::of(request.fd, request.mode);
    let stands_for = if request.again == 0 {
        0
    } else {
        sampling::choose(|| state.as_ref().map_or_else(|| is_slow(request), FdState::is_slow))
    };
    request.stands_for = stands_for ^ nothing as u32;
    let Some(state) = state else { return true };
    let is_of_interest = stands_for != 0 || !state.has_nobody();
    if request.again != 0 {
        state.begins(is_of_interest);
    }
    is_of_interest
}

/// Whether nothing came on the fd for a while, where no state is kept of it.
#[inline(always)]
fn is_slow(request: &Request) -> bool {
    let Some(slot) = maps::SLOTS.get_ptr_mut(&request.key()) else { return true };
    // SAFETY: see wait::begin for who else writes it.
    wait::is_slow(wait::of(unsafe { &mut *slot }, request.mode), now())
}

/// What a system call means for a wait.
mod then {
    /// None is open.
    pub const NOBODY: u64 = 0;
    /// One is open, of another goroutine.
    pub const OPEN: u64 = 1;
    /// It has ended.
    pub const ENDED: u64 = 2;
}

/// A system call that ends a wait, or begins one that is followed.
#[inline(always)]
fn look_up(call: &Syscall, request: &Request) {
    let slot = maps::SLOTS.get_ptr_mut(&request.key());
    let mut then = then::NOBODY;
    if let Some(slot) = slot
        && request.registers == 0
    {
        // SAFETY: see wait::begin for who else writes it.
        let slot = unsafe { &mut *slot };
        then = judge(call, request, slot);
        if then == then::ENDED {
            wait::end(slot, request.mode, outcome::READY, now());
        }
    }
    then ^= call.nothing();
    if request.stands_for != 0 {
        if begin(call, request, slot.unwrap_or(core::ptr::null_mut())).is_none() {
            emit::count(Counter::ReadTarget);
        }
    } else if then != then::OPEN
        && let Some(state) = FdState::of(request.fd, request.mode)
    {
        state.ends();
    }
}

/// Whether the wait ends that this goroutine was in, if it was in one: [`then`]. A function of its own for the verifier, too.
#[inline(never)]
fn judge(call: &Syscall, request: &Request, slot: &mut PollDescSlot) -> u64 {
    let &Request { mode, again, .. } = request;
    let pd = slot.pd;
    let wait = wait::of(slot, mode);
    if wait.start_ns == 0 {
        return then::NOBODY;
    }
    if wait.g != call.g() {
        return then::OPEN;
    }
    let has_parked = if wait.flags & flag::RAN_THEN != 0 {
        // Told EAGAIN once more, it rather tried again by itself; and if the event still stands in the pollDesc, it never waited for it.
        again == 0 && !wait::has_run_on(wait) && PollDesc::read(pd).is_some_and(|desc| !desc.is_ready(mode))
    } else {
        wait.poll_ns != 0 || wait.flags & flag::STARTED_BEFORE != 0
    };
    if !has_parked {
        wait::set_start(wait, 0);
        return then::NOBODY;
    }
    if again != 0 {
        wait.flags |= flag::SPURIOUS;
    }
    then::ENDED
}

/// The goroutine was told to come again: it is about to park. `slot` is null for an fd that has none yet. `None`: the target's memory could
/// not be read.
#[inline(always)]
fn begin(call: &Syscall, request: &Request, slot: *mut PollDescSlot) -> Option<()> {
    let &Request { target, stands_for, mode, registers, .. } = request;
    let mut desc = PollDesc::NONE;
    let slot = slot_for(request, slot, &mut desc);
    if slot.is_null() {
        return Some(());
    }
    // SAFETY: see wait::begin for who else writes it.
    let slot = unsafe { &mut *slot };
    let g = call.g();
    let Goroutine { goid, labels, stack_hi } = Goroutine::read(g)?;
    wait::begin(
        slot,
        &desc,
        &Parking { key: request.key(), g, goid, mode, now_ns: now(), stands_for },
        target,
    );
    let wait = wait::of(slot, mode);
    if registers != 0 && wait.poll_ns == 0 {
        // A connect that was done at once is collected at once, perhaps before its wait was seen to begin.
        wait::ran_then(wait);
    }
    wait.stack_hash = stack_hash(call, stack_hi, wait.stack_hash, target);
    wait.labels_hash = labels::hash(labels, target);
    Some(())
}

/// The stack that the goroutine waits with. A function of its own: together, programs and functions have 512 bytes of stack.
#[inline(never)]
fn stack_hash(call: &Syscall, stack_hi: u64, last: u64, target: Target) -> u64 {
    stack::hash_of_syscall(call, stack_hi, last, target)
}

/// The slot of the fd, and what stands in its pollDesc; `slot` is what it had the last time, or null. Null: it is not in the netpoller, so the
/// program polls it itself, or does not poll. A function of its own, so that the verifier goes through what follows once.
#[inline(never)]
fn slot_for(request: &Request, slot: *mut PollDescSlot, desc: &mut PollDesc) -> *mut PollDescSlot {
    if !slot.is_null() && is_still(slot, request.fd, desc) {
        return slot;
    }
    let Some(pd) = find(request.fd, request.target.index) else { return core::ptr::null_mut() };
    let Some(slot) = wait::slot_of(request.key()) else {
        emit::count(Counter::SlotsFull);
        return core::ptr::null_mut();
    };
    take_over(slot, pd, request);
    if !desc.read_into(pd) {
        emit::count(Counter::ReadTarget);
        return core::ptr::null_mut();
    }
    slot
}

/// Whether the fd still has the pollDesc that it had the last time: `fdseq` changes when a pollDesc is freed. Where that does not exist
/// (before Go 1.21), every wait looks anew.
#[inline(always)]
fn is_still(slot: *mut PollDescSlot, fd: i32, desc: &mut PollDesc) -> bool {
    if config!(pd_has_fdseq) == 0 {
        return false;
    }
    // SAFETY: a map value.
    let slot = unsafe { &*slot };
    let is_known = slot.file.known == 1 && slot.file.fd == fd;
    is_known && desc.read_into(slot.pd) && slot.file.tag == desc.tag && desc.fd == fd && !desc.is_closing()
}

/// Makes the slot that of another pollDesc, if it was that of one. Nobody waits on the old one: an fd is closed when nobody uses it.
#[inline(always)]
fn take_over(slot: *mut PollDescSlot, pd: u64, request: &Request) {
    // SAFETY: see wait::begin for who else writes it.
    let slot = unsafe { &mut *slot };
    if slot.pd != pd {
        for wait in [&mut slot.read, &mut slot.write] {
            wait::set_start(wait, 0);
            // No tag is as large, so nothing is taken for that of an earlier wait.
            wait.tag = u32::MAX;
        }
        slot.file.known = 0;
        slot.pd = pd;
        let _ = maps::FDS.insert(&slot_key(pd, request.target.index), &request.fd, 0);
    }
}

/// The address of an fd's pollDesc: the epoll items of its file say what Go registered it with (`fs/eventpoll.c`, `struct epitem`).
#[inline(never)]
pub fn find(fd: i32, target: u32) -> Option<u64> {
    let file = file::of_fd(fd as u64)?;
    let items: u64 = read::kernel(file + config!(file_ep))?;
    if items == 0 {
        return None;
    }
    let eventpoll = maps::EVENTPOLL.get(target).copied().unwrap_or(0);
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
            if polldesc::is_of(pd, fd, tag) {
                return Some(pd);
            }
        }
        link = read::kernel(link)?;
        looked += 1;
    }
    None
}

/// A connect may have begun. Go registers the fd afterwards, and then waits.
#[inline(always)]
fn connecting(call: &Syscall, target: Target) {
    let fd = call.argument::<0>() as u32;
    if call.result() == -EINPROGRESS
        && maps::CONNECTS.insert(&slot_key(call.g(), target.index), &fd, 0).is_err()
    {
        emit::count(Counter::ConnectsFull);
    }
}

/// The fd that was registered, if it is one that the goroutine is connecting: it waits for it now.
#[inline(always)]
fn registered(call: &Syscall, target: Target) -> Option<i32> {
    if call.result() != 0 || call.argument::<1>() != EPOLL_CTL_ADD {
        return None;
    }
    let key = slot_key(call.g(), target.index);
    // SAFETY: the value is copied at once.
    let fd = unsafe { maps::CONNECTS.get(&key) }.copied()?;
    let _ = maps::CONNECTS.remove(&key);
    (u64::from(fd) == call.argument::<2>()).then_some(fd as i32)
}
