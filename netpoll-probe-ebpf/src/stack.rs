//! User stacks, by frame pointers: named by a hash, handed over once.
//!
//! A goroutine's stack is short and lies in one piece, so most are walked in one copy of their beginning. The kernel walks those that go
//! on beyond it, which takes 2 µs more for a dozen frames (`wait_end`, Linux 6.18: 3.7 µs a run against 1.5).

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::generated::{bpf_get_stack, bpf_probe_read_kernel, bpf_probe_read_user},
    programs::ProbeContext,
};
use netpoll_probe_common::{
    counter::Counter,
    limit::{STACK_COPY_BYTES, STACK_FRAMES},
    record::{StackRecord, kind},
};

use crate::{
    emit, maps,
    regs::{self, Syscall},
    scratch::{self, Scratch},
    target::Target,
};

/// A stack while it is walked and hashed.
#[repr(C)]
pub struct Walked {
    /// Leaf first.
    pcs: [u64; STACK_FRAMES],
    /// What lies at the frame pointer.
    copy: [u64; STACK_COPY_BYTES / 8],
}

/// What a frame pointer points to: the caller's frame pointer, and the address to return to.
const FRAME_BYTES: u64 = 16;

/// Where a walk begins.
struct Leaf {
    /// The program's context, for the kernel's own walk.
    context: *mut c_void,
    pc: u64,
    /// What is copied begins here.
    base: u64,
    frame_pointer: u64,
}

/// The hash of the stack at a uprobe; 0: not known. The stack is handed over if it is new.
#[inline(always)]
pub fn hash_of_uprobe(ctx: &ProbeContext, target: Target) -> u64 {
    let frame_pointer = regs::frame_pointer(ctx);
    let leaf =
        Leaf { context: ctx.as_ptr(), pc: regs::instruction_pointer(ctx), base: frame_pointer, frame_pointer };
    hash(&leaf, |_| None, target)
}

/// The same at a system call. The function that makes it has no frame, so its caller stands elsewhere.
#[inline(always)]
pub fn hash_of_syscall(call: &Syscall, target: Target) -> u64 {
    let leaf = Leaf {
        context: call.context(),
        pc: call.instruction_pointer(),
        base: call.stack_pointer(),
        frame_pointer: call.frame_pointer(),
    };
    hash(&leaf, |top| Some(call.return_address(top)), target)
}

/// `caller` gives the second address, if it is not in the first frame, from the first word of the copy.
#[inline(always)]
fn hash(leaf: &Leaf, caller: impl Fn(u64) -> Option<u64>, target: Target) -> u64 {
    let Some(scratch) = maps::STACK_SCRATCH.get_ptr_mut(0) else { return 0 };
    let user = Scratch::take(scratch);
    // SAFETY: the scratch is this CPU's, and the program stays on its CPU; who preempts it is noticed below.
    let walked = unsafe { &raw mut (*scratch).value };
    let found =
        walk_copy(leaf, caller, walked, target).or_else(|| walk_by_kernel(leaf.context, walked, target));
    let Some((hash, frames)) = found else {
        emit::count(Counter::StackWalk);
        return 0;
    };
    // SAFETY: a lookup of a value that nobody reads.
    if unsafe { maps::STACKS_SEEN.get(&hash) }.is_some() {
        return if is_whole(scratch, user) { hash } else { 0 };
    }
    let Some(mut entry) = maps::RING.reserve::<StackRecord>(0) else {
        emit::count(Counter::RingFullStack);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a StackRecord's bytes; every field is written.
    unsafe {
        (*record).header = emit::header::<StackRecord>(kind::STACK, target.tgid);
        (*record).hash = hash;
        (*record).frames = frames as u64;
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

/// Follows the frame pointers through a copy of the stack's beginning. Returns hash and number of frames; `None`: it goes on beyond the
/// copy, or cannot be read.
#[inline(always)]
fn walk_copy(
    leaf: &Leaf,
    caller: impl Fn(u64) -> Option<u64>,
    walked: *mut Walked,
    target: Target,
) -> Option<(u64, usize)> {
    let base = leaf.base;
    // SAFETY: the copy has this many bytes; the helper checks the address.
    let failed = unsafe {
        bpf_probe_read_user((&raw mut (*walked).copy).cast(), STACK_COPY_BYTES as u32, base as *const _)
    };
    if failed != 0 {
        return None;
    }
    let copy = walked.cast::<u8>().wrapping_add(core::mem::offset_of!(Walked, copy));
    let pcs = walked.cast::<u64>();
    let mut pc = leaf.pc;
    let mut frame_pointer = leaf.frame_pointer;
    let mut hash = scratch::basis(target);
    let mut frames = 0;
    // SAFETY: the copy's first word.
    if let Some(caller) = caller(unsafe { copy.cast::<u64>().read() }) {
        // SAFETY: there is room for the first.
        unsafe { pcs.write(pc) };
        hash = scratch::fnv(hash, pc);
        frames = 1;
        pc = caller;
    }
    while frames < STACK_FRAMES {
        // SAFETY: `frames` is less than there is room for.
        unsafe { pcs.add(frames).write(pc) };
        hash = scratch::fnv(hash, pc);
        frames += 1;
        if frame_pointer == 0 {
            break;
        }
        // Opaque, or the compiler adds the parts to the pointer one by one, whose bounds the verifier does not see.
        let offset = black_box(frame_pointer.wrapping_sub(base));
        if offset > STACK_COPY_BYTES as u64 - FRAME_BYTES || offset % 8 != 0 {
            return None;
        }
        // SAFETY: a frame fits between the offset and the end of the copy, and both are aligned.
        unsafe {
            let frame = copy.add(offset as usize).cast::<u64>();
            frame_pointer = frame.read();
            pc = frame.add(1).read();
        }
    }
    Some((hash | 1, frames))
}

/// Lets the kernel walk. Returns hash and number of frames; `None`: it cannot.
#[inline(always)]
fn walk_by_kernel(context: *mut c_void, walked: *mut Walked, target: Target) -> Option<(u64, usize)> {
    let pcs = walked.cast::<u64>();
    // SAFETY: there is room for this many bytes at `pcs`.
    let bytes =
        unsafe { bpf_get_stack(context, pcs.cast(), (STACK_FRAMES * 8) as u32, u64::from(BPF_F_USER_STACK)) };
    if bytes <= 0 {
        return None;
    }
    let frames = (bytes as usize) / 8;
    let mut hash = scratch::basis(target);
    let mut frame = 0;
    while frame < STACK_FRAMES {
        if frame >= frames {
            break;
        }
        // SAFETY: `frame` is less than there is room for.
        hash = scratch::fnv(hash, unsafe { pcs.add(frame).read() });
        frame += 1;
    }
    Some((hash | 1, frames))
}
