//! User stacks, by frame pointers: walked by the kernel, named by a hash, handed over once.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_get_stack, bpf_probe_read_kernel},
    },
    programs::ProbeContext,
};
use netpoll_probe_common::{
    counter::Counter,
    limit::STACK_FRAMES,
    record::{StackRecord, kind},
};

use crate::{emit, maps};

/// Walks the stack, hands it over if it is new, and returns its hash; 0: not known.
#[inline(always)]
pub fn hash(ctx: &ProbeContext) -> u64 {
    let Some(scratch) = maps::STACK_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the time makes the name unique among the users of this CPU's scratch.
    let user = bpf_get_current_pid_tgid() ^ unsafe { bpf_ktime_get_ns() }.rotate_left(32);
    // SAFETY: the scratch is this CPU's, and the program stays on its CPU; who preempts it is noticed below.
    let (hash, frames) = unsafe {
        (&raw mut (*scratch).user).write_volatile(user);
        let pcs = (&raw mut (*scratch).pcs).cast::<u64>();
        let bytes =
            bpf_get_stack(ctx.as_ptr(), pcs.cast(), (STACK_FRAMES * 8) as u32, u64::from(BPF_F_USER_STACK));
        if bytes <= 0 {
            emit::count(Counter::StackWalk);
            return 0;
        }
        let frames = (bytes as usize) / 8;
        // FNV-1a by words: the stacks of one program are few, and 64 bits keep them apart.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut i = 0;
        while i < STACK_FRAMES {
            if i >= frames {
                break;
            }
            hash = (hash ^ *pcs.add(i)).wrapping_mul(0x0000_0100_0000_01b3);
            hash ^= hash >> 29;
            i += 1;
        }
        (hash | 1, frames)
    };
    // SAFETY: a lookup of a value that nobody reads.
    if unsafe { maps::STACKS_SEEN.get(&hash) }.is_some() {
        return if still_mine(scratch, user) { hash } else { 0 };
    }
    let Some(mut entry) = maps::RING.reserve::<StackRecord>(0) else {
        emit::count(Counter::RingFullStack);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a StackRecord's bytes; every field is written.
    unsafe {
        (*record).header = emit::header::<StackRecord>(kind::STACK);
        (*record).hash = hash;
        (*record).frames = frames as u64;
        // By the helper: the compiler would copy byte by byte, and the verifier would follow each of them.
        bpf_probe_read_kernel(
            (&raw mut (*record).pcs).cast(),
            size_of::<[u64; STACK_FRAMES]>() as u32,
            (&raw const (*scratch).pcs).cast(),
        );
    }
    if !still_mine(scratch, user) {
        entry.discard(0);
        return 0;
    }
    entry.submit(emit::wakeup());
    let _ = maps::STACKS_SEEN.insert(&hash, &1, 0);
    hash
}

#[inline(always)]
fn still_mine(scratch: *mut maps::StackScratch, user: u64) -> bool {
    // SAFETY: a value of a map that lives as long as the program.
    let mine = unsafe { (&raw const (*scratch).user).read_volatile() } == user;
    if !mine {
        emit::count(Counter::StackWalk);
    }
    mine
}
