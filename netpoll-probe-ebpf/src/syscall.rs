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
    slot::{PollDescSlot, of_slot_key, slot_key},
};

use crate::{
    config::config,
    emit, fd_slot, file,
    goroutine::{self, Goroutine},
    hint::seldom,
    labels, maps, now, poll,
    polldesc::{PollDesc, READ, WRITE},
    regs::{Syscall, number},
    slots, stack,
    target::{self, Target},
    ticks,
    wait::{self, Parking},
};

/// `include/uapi/asm-generic/errno-base.h` and `errno.h`
const EAGAIN: i64 = 11;
const EINPROGRESS: i64 = 115;
/// `EPOLL_CTL_ADD`, `include/uapi/linux/eventpoll.h`
const EPOLL_CTL_ADD: u64 = 1;

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
    /// An fd is no more.
    pub const CLOSE: u8 = 5;
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
    table[number::CLOSE] = kind::CLOSE;
    table
}

/// What a system call was about.
#[repr(C)]
struct Request {
    /// Its fd's slot.
    key: u64,
    /// The `runtime.g` that made it.
    g: u64,
    /// The direction.
    mode: u32,
    /// Not 0: the goroutine will wait.
    again: u32,
    /// How many waits the one that begins stands for; 0: none begins that is followed.
    stands_for: u32,
    /// Not 0: it has registered the fd, and said nothing of a wait before.
    registers: u32,
}

impl Request {
    #[inline(always)]
    fn mode(&self) -> u64 {
        u64::from(self.mode)
    }

    #[inline(always)]
    fn fd(&self) -> i32 {
        of_slot_key(self.key).0 as i32
    }

    /// The target's number.
    #[inline(always)]
    fn target(&self) -> u32 {
        of_slot_key(self.key).1
    }
}

/// A system call of any thread of the machine returns.
#[inline(always)]
pub fn exit(call: Syscall) {
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
        kind::CLOSE => fd_slot::was_closed(slot_key(u64::from(call.argument::<0>() as u32), target.index)),
        _ if concerns_nobody(call, target, kind) => {}
        _ => follow(call, target, kind),
    }
}

/// Most of a server's writes: nobody is in a wait that it may end, and it begins none. Asked before anything is called.
#[inline(always)]
fn concerns_nobody(call: Syscall, target: Target, kind: u8) -> bool {
    let is_plain = kind != kind::SPLICE && kind != kind::REGISTER;
    let key = slot_key(u64::from(call.argument::<0>() as u32), target.index);
    is_plain && call.result() != -EAGAIN && slots::has_nobody(key, u64::from(kind))
}

/// One that may begin or end a wait. A function of its own, so that those that do not need no stack.
#[inline(never)]
fn follow(call: Syscall, target: Target, kind: u8) {
    let (mut fd, mut mode) = (call.argument::<0>() as i32, u64::from(kind));
    let (mut again, mut registers) = (u32::from(call.result() == -EAGAIN), 0);
    if kind == kind::SPLICE {
        seldom();
        // The pipe is not in the netpoller.
        if fd_slot::find_event_data(fd as u64, u64::from(target.index)) != 0 {
            mode = READ;
        } else {
            (fd, mode) = (call.argument::<2>() as i32, WRITE);
        }
    } else if kind == kind::REGISTER {
        seldom();
        let Some(registered) = registered(call, target) else { return };
        (fd, mode, again, registers) = (registered, WRITE, 1, 1);
    }
    let key = slot_key(fd as u64, target.index);
    let mut request = Request { key, g: call.g(), mode: mode as u32, again, stands_for: 0, registers };
    if again == 0 || begins(&mut request) {
        look_up(call, &request);
    }
}

/// The goroutine will wait. Whether that is followed, or another wait may end; and how many it stands for.
#[inline(always)]
fn begins(request: &mut Request) -> bool {
    if config!(may_leave_out) == 1 {
        return is_of_interest(request) != 0;
    }
    request.stands_for = 1;
    true
}

/// The same where waits may be left out. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_of_interest(request: *mut Request) -> u64 {
    if request.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let request = unsafe { &mut *request };
    request.stands_for = match slots::find(request.key) {
        // SAFETY: see wait::begin_wait for who else writes it.
        Some(slot) => wait::choose(wait::of(unsafe { &mut *slot }, request.mode())),
        None => 1,
    };
    u64::from(request.stands_for != 0 || !slots::has_nobody(request.key, request.mode()))
}

/// What a system call meant for a wait.
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
fn look_up(call: Syscall, request: &Request) {
    let slot = slots::find(request.key);
    let then = match slot {
        Some(slot) if request.registers == 0 => end_if_over(slot, request),
        _ => then::NOBODY,
    };
    if request.stands_for != 0 {
        begin(call, request, slot.unwrap_or(core::ptr::null_mut()));
    } else if then == then::NOBODY {
        slots::know_nobody(request.key, slot, request.mode());
    }
}

/// Ends the wait that this goroutine was in, if it was in one. Returns [`then`]. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_if_over(slot: *mut PollDescSlot, request: *const Request) -> u64 {
    if slot.is_null() || request.is_null() {
        return then::NOBODY;
    }
    // SAFETY: the caller's; of the slot see wait::begin_wait.
    let (slot, request) = unsafe { (&mut *slot, &*request) };
    let &Request { again, g, .. } = request;
    let mode = request.mode();
    let pd = slot.pd;
    let wait = wait::of(slot, mode);
    if wait.start_ns == 0 {
        return then::NOBODY;
    }
    if wait.g != g {
        return then::OPEN;
    }
    let has_parked = if wait.flags & flag::RAN_THEN != 0 {
        seldom();
        // Told EAGAIN once more, it rather tried again by itself; and if the event still stands in the pollDesc, it never waited for it.
        again == 0 && !ticks::has_run_on(wait) && !is_ready(pd, mode)
    } else {
        wait.poll_ns != 0 || wait.flags & flag::STARTED_BEFORE != 0
    };
    if !has_parked {
        seldom();
        wait::set_start(wait, 0);
        return then::NOBODY;
    }
    if again != 0 {
        wait.flags |= flag::SPURIOUS;
    }
    if wait.goid == 0 {
        seldom();
        // It could not be read when the wait began.
        wait.goid = goroutine::id_of(g).unwrap_or(0);
        wait.labels_hash = labels::hash(labels::of(g), request.target());
    }
    wait::end_wait(slot, mode, u64::from(outcome::READY), now());
    then::ENDED
}

/// Whether an event stands in the pollDesc that nobody has taken. A function of its own for its stack.
#[inline(never)]
fn is_ready(pd: u64, mode: u64) -> bool {
    let Some(desc) = PollDesc::read(pd) else {
        emit::count(Counter::ReadAtPoll);
        return false;
    };
    desc.is_ready(mode)
}

/// The goroutine was told to come again: it is about to park. `slot` is what the fd had the last time, or null. A function of its own for
/// its stack.
#[inline(never)]
fn begin(call: Syscall, request: &Request, slot: *mut PollDescSlot) {
    let now_ns = now();
    let &Request { key, g, stands_for, registers, .. } = request;
    let mode = request.mode();
    let Some((slot, tag)) = fd_slot::slot_of(key, slot) else { return };
    // SAFETY: see wait::begin_wait for who else writes it.
    let slot = unsafe { &mut *slot };
    let is_same_file = u32::from(file::refresh(&mut slot.file, request.fd(), tag, request.target()));
    let Goroutine { goid, labels, stack_hi } = Goroutine::read(g).unwrap_or(Goroutine::UNREADABLE);
    let parking = Parking {
        key,
        g,
        goid,
        mode,
        now_ns,
        stands_for,
        registers,
        tag,
        // Then it will not park, and is no wait.
        is_ready: 0,
        is_same_file,
    };
    wait::begin_wait(slot, &parking);
    // Not written again and again: another CPU reads the line when it stamps the wait.
    if slot.is_current != slot.file.known {
        slot.is_current = slot.file.known;
    }
    let wait = wait::of(slot, mode);
    wait.labels_hash = labels::hash(labels, request.target());
    wait.stack_hash = stack::hash_of_syscall(call, stack_hi, wait.stack_hash, request.target());
}

/// A connect may have begun. Go registers the fd afterwards, and then waits.
#[inline(always)]
fn connecting(call: Syscall, target: Target) {
    let fd = call.argument::<0>() as u32;
    if call.result() == -EINPROGRESS
        && maps::CONNECTS.insert(&slot_key(call.g(), target.index), &fd, 0).is_err()
    {
        emit::count(Counter::ConnectsFull);
    }
}

/// An fd was registered. Returns it if the goroutine is connecting it: it waits for it now.
#[inline(always)]
fn registered(call: Syscall, target: Target) -> Option<i32> {
    if call.result() != 0 || call.argument::<1>() != EPOLL_CTL_ADD {
        return None;
    }
    let fd = call.argument::<2>() as u32;
    fd_slot::has_new_file(slot_key(u64::from(fd), target.index), call.argument::<0>());
    let key = slot_key(call.g(), target.index);
    // SAFETY: the value is copied at once.
    let connecting = unsafe { maps::CONNECTS.get(&key) }.copied()?;
    let _ = maps::CONNECTS.remove(&key);
    (connecting == fd).then_some(fd as i32)
}
