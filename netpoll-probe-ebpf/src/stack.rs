//! User stacks, by frame pointers: named by a hash, handed over once.
//!
//! A goroutine's stack is short and lies in one piece, so most are walked in one copy of their beginning. The kernel walks those that go
//! on beyond it, which takes 2 µs more for a dozen frames (`wait_end`, Linux 6.18: 3.7 µs a run against 1.5).

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::generated::{bpf_get_stack, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user},
    programs::ProbeContext,
};
use netpoll_probe_common::{
    counter::Counter,
    limit::{STACK_COPY_BYTES, STACK_FRAMES},
    record::{StackRecord, kind},
};

use crate::{
    emit, goroutine,
    hint::{opaque, seldom},
    maps, read,
    regs::{self, Syscall},
    scratch::{self, Scratch, ThisCpu},
    target,
};

/// Room for [`STACK_FRAMES`]: a power of two, so that a masked index is inside it for the verifier to see.
const STACK_ROOM: usize = (STACK_FRAMES + 1).next_power_of_two();

/// A stack while it is walked and hashed.
#[repr(C)]
pub struct Walked {
    /// Leaf first.
    pcs: [u64; STACK_ROOM],
    /// How many there are.
    frames: u64,
    /// What lies at the frame pointer.
    copy: [u64; STACK_COPY_BYTES / 8],
}

/// What a frame pointer points to: the caller's frame pointer, and the address to return to.
const FRAME_BYTES: u64 = 16;

/// Where a walk begins.
#[repr(C)]
struct Leaf {
    pc: u64,
    /// One past the stack's highest address.
    stack_hi: u64,
    /// What is copied begins here.
    base: u64,
    frame_pointer: u64,
    /// Where the leaf returns to, if that is not in its frame: [`IN_FRAME`], [`ON_TOP`], or an address.
    caller: u64,
    /// The target's number.
    target: u64,
}

/// [`Leaf::caller`]: it stands in the leaf's frame.
const IN_FRAME: u64 = 0;
/// [`Leaf::caller`]: it is the first word of what is copied.
pub const ON_TOP: u64 = 1;

/// The hash of the stack at a uprobe; 0: not known. The stack is handed over if it is new.
#[inline(always)]
pub fn hash_of_uprobe(ctx: &ProbeContext, target: u32) -> u64 {
    let frame_pointer = regs::frame_pointer(ctx);
    let leaf = Leaf {
        pc: regs::instruction_pointer(ctx),
        // Where it is not known the kernel walks.
        stack_hi: read::user(regs::g(ctx) + goroutine::STACK_HI).unwrap_or(frame_pointer),
        base: frame_pointer,
        frame_pointer,
        caller: IN_FRAME,
        target: u64::from(target),
    };
    hash(ctx.as_ptr(), &leaf, 0)
}

/// The same at a system call. The function that makes it has no frame, so its caller stands elsewhere. `last` is one that was handed over
/// not long ago. A function of its own for its stack.
#[inline(never)]
pub fn hash_of_syscall(call: Syscall, stack_hi: u64, last: u64, target: u32) -> u64 {
    let leaf = Leaf {
        pc: call.instruction_pointer(),
        stack_hi,
        base: call.stack_pointer(),
        frame_pointer: call.frame_pointer(),
        caller: call.caller(),
        target: u64::from(target),
    };
    hash(call.context(), &leaf, last)
}

#[inline(always)]
fn hash(context: *mut c_void, leaf: &Leaf, last: u64) -> u64 {
    let Some(scratch) = ThisCpu::stack() else { return 0 };
    let user = Scratch::take(scratch);
    // SAFETY: the scratch is this CPU's, and the program stays on its CPU; who preempts it is noticed.
    let walked = unsafe { &raw mut (*scratch).value };
    let mut hash = walk_copy(leaf, walked);
    if hash == 0 {
        seldom();
        hash = walk_by_kernel(context, walked, leaf.target);
    }
    if hash == 0 {
        emit::count(Counter::StackWalk);
        return 0;
    }
    if hash == last {
        return if is_whole(scratch, user) { hash } else { 0 };
    }
    seldom();
    hand_over_stack(hash, user.number())
}

/// Hands the stack in the scratch over, if it is new. Returns its hash, or 0 if that was not possible. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hand_over_stack(hash: u64, user: u64) -> u64 {
    let user = scratch::User::of(user);
    let Some(scratch) = ThisCpu::stack() else { return 0 };
    // SAFETY: a lookup of a value that nobody reads.
    if unsafe { maps::STACKS_SEEN.get(&hash) }.is_some() {
        return if is_whole(scratch, user) { hash } else { 0 };
    }
    let Some(mut entry) = maps::RING.reserve::<StackRecord>(0) else {
        emit::count(Counter::RingFullStack);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a StackRecord's bytes; every field is written. The scratch is this CPU's.
    unsafe {
        let walked = &raw const (*scratch).value;
        (*record).header = emit::header::<StackRecord>(kind::STACK, target::tgid());
        (*record).hash = hash;
        (*record).frames = (*walked).frames;
        // By the helper: the compiler would copy byte by byte, and the verifier would follow each of them.
        bpf_probe_read_kernel(
            (&raw mut (*record).pcs).cast(),
            size_of::<[u64; STACK_FRAMES]>() as u32,
            (&raw const (*walked).pcs).cast(),
        );
    }
    if !is_whole(scratch, user) {
        entry.discard(0);
        return 0;
    }
    entry.submit(emit::wakeup());
    let _ = maps::STACKS_SEEN.insert(&hash, &1, 0);
    hash
}

#[inline(always)]
fn is_whole(scratch: *mut Scratch<Walked>, user: scratch::User) -> bool {
    let whole = Scratch::is_still_of(scratch, user);
    if !whole {
        emit::count(Counter::StackWalk);
    }
    whole
}

/// The way through a copy of a stack. Those that begin as zero do not stand together: the compiler would make a call of it.
struct Walk {
    /// The next address.
    pc: u64,
    /// How many frames there are so far.
    frames: u64,
    frame_pointer: u64,
    /// Where the copy lies in the process.
    base: u64,
    /// 1: it goes on beyond the copy.
    beyond: u64,
    copied_bytes: u64,
    hash: u64,
}

/// Follows the frame pointers through a copy of the stack's beginning, into `walked`. Returns the hash; 0: the stack goes on beyond the
/// copy, or cannot be read. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_copy(leaf: *const Leaf, walked: *mut Walked) -> u64 {
    if leaf.is_null() || walked.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let leaf = unsafe { &*leaf };
    let base = leaf.base;
    let copy = walked.cast::<u8>().wrapping_add(offset_of!(Walked, copy));
    // No more than there is of it: copying costs more than walking.
    let above = leaf.stack_hi.wrapping_sub(base);
    let copied_bytes = if above > STACK_COPY_BYTES as u64 { STACK_COPY_BYTES as u64 } else { above };
    // SAFETY: the copy has as many bytes or more; the helper checks the address.
    if unsafe { bpf_probe_read_user(copy.cast(), copied_bytes as u32, base as *const _) } != 0 {
        return 0;
    }
    let hash = scratch::basis(leaf.target as u32);
    let mut walk = Walk {
        pc: leaf.pc,
        frames: 0,
        frame_pointer: leaf.frame_pointer,
        base,
        beyond: 0,
        copied_bytes,
        hash,
    };
    if leaf.caller != IN_FRAME {
        // SAFETY: there is room for the first address, and the copy has a first word.
        unsafe {
            walked.cast::<u64>().write(walk.pc);
            walk.hash = scratch::fnv(walk.hash, walk.pc);
            walk.frames = 1;
            walk.pc = if leaf.caller == ON_TOP { copy.cast::<u64>().read() } else { leaf.caller };
        }
    }
    // A loop that the verifier goes through frame by frame; by `bpf_loop` it would take a call for each.
    while next_frame(&mut walk, walked.cast()) {}
    // SAFETY: as above.
    unsafe { (*walked).frames = walk.frames };
    if walk.beyond == 0 { walk.hash | 1 } else { 0 }
}

/// The next frame. Returns whether there is one more to follow.
#[inline(always)]
fn next_frame(walk: &mut Walk, walked: *mut u8) -> bool {
    let frame = walk.frames;
    if frame >= STACK_FRAMES as u64 {
        return false;
    }
    // The mask changes nothing; it shows a bound.
    let place = frame as usize & (STACK_ROOM - 1);
    // SAFETY: less than there is room for.
    unsafe { walked.cast::<u64>().add(place).write(walk.pc) };
    walk.hash = scratch::fnv(walk.hash, walk.pc);
    walk.frames = frame + 1;
    if walk.frame_pointer == 0 {
        return false;
    }
    // Opaque, or the compiler adds the parts to the pointer one by one, whose bounds the verifier does not see.
    let offset = opaque(walk.frame_pointer.wrapping_sub(walk.base));
    if offset > STACK_COPY_BYTES as u64 - FRAME_BYTES
        || offset % 8 != 0
        || offset + FRAME_BYTES > walk.copied_bytes
    {
        walk.beyond = 1;
        return false;
    }
    // SAFETY: a frame fits between the offset and the end of the copy, and both are aligned.
    unsafe {
        let frame = walked.add(offset_of!(Walked, copy)).add(offset as usize).cast::<u64>();
        walk.frame_pointer = frame.read();
        walk.pc = frame.add(1).read();
    }
    true
}

/// Lets the kernel walk. Returns the hash; 0: it cannot.
#[inline(always)]
fn walk_by_kernel(context: *mut c_void, walked: *mut Walked, target: u64) -> u64 {
    // SAFETY: there is room for this many bytes.
    let bytes = unsafe {
        bpf_get_stack(context, walked.cast(), (STACK_FRAMES * 8) as u32, u64::from(BPF_F_USER_STACK))
    };
    if bytes <= 0 {
        return 0;
    }
    let frames = bytes as u64 / 8;
    let mut hash = scratch::basis(target as u32);
    // SAFETY: as in `walk_copy`.
    unsafe {
        bpf_loop(frames as u32, each_pc as *mut c_void, (&raw mut hash).cast(), 0);
        (*walked).frames = frames;
    }
    hash | 1
}

/// One address that the kernel found: a callback of `bpf_loop`.
unsafe extern "C" fn each_pc(index: u64, hash: *mut c_void) -> i64 {
    // SAFETY: `walk_by_kernel` passes a u64.
    let hash = unsafe { &mut *hash.cast::<u64>() };
    let Some(scratch) = ThisCpu::stack() else { return 1 };
    // The mask changes nothing; it shows the verifier a bound.
    let frame = index as usize & (STACK_ROOM - 1);
    // SAFETY: less than there is room for.
    *hash = scratch::fnv(*hash, unsafe { (&raw const (*scratch).value).cast::<u64>().add(frame).read() });
    0
}
