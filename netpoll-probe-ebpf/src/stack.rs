//! User stacks, by frame pointers: walked by the kernel, named by a hash, handed over once.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::generated::{bpf_get_stack, bpf_probe_read_kernel},
    programs::ProbeContext,
};
use netpoll_probe_common::{
    counter::Counter,
    limit::STACK_FRAMES,
    record::{StackRecord, kind},
};

use crate::{
    emit, maps,
    scratch::{self, Scratch},
    target::Target,
};

/// Walks the stack, hands it over if it is new, and returns its hash; 0: not known.
#[inline(always)]
pub fn hash(ctx: &ProbeContext, target: Target) -> u64 {
    let Some(scratch) = maps::STACK_SCRATCH.get_ptr_mut(0) else { return 0 };
    let user = Scratch::take(scratch);
    // SAFETY: the scratch is this CPU's, and the program stays on its CPU; who preempts it is noticed below.
    let (hash, frames) = unsafe {
        let pcs = (&raw mut (*scratch).value).cast::<u64>();
        let bytes =
            bpf_get_stack(ctx.as_ptr(), pcs.cast(), (STACK_FRAMES * 8) as u32, u64::from(BPF_F_USER_STACK));
        if bytes <= 0 {
            emit::count(Counter::StackWalk);
            return 0;
        }
        let frames = (bytes as usize) / 8;
        let mut hash = scratch::basis(target);
        let mut frame = 0;
        while frame < STACK_FRAMES {
            if frame >= frames {
                break;
            }
            hash = scratch::fnv(hash, pcs.add(frame).read());
            frame += 1;
        }
        (hash | 1, frames)
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
            (&raw const (*scratch).value).cast(),
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
fn is_whole(scratch: *mut Scratch<[u64; STACK_FRAMES]>, user: scratch::User) -> bool {
    let whole = Scratch::is_still_of(scratch, user);
    if !whole {
        emit::count(Counter::StackWalk);
    }
    whole
}
