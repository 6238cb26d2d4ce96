//! Facts about g structs and stacks.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    Target,
    evidence::{Cases, Finding},
};
use crate::{
    goruntime::{
        constants::{GStatus, WAIT_REASON_IO_WAIT},
        offsets::Offsets,
    },
    snapshot::{
        allgs::{self, AllgsError},
        g::GFields,
        unwind::{FrameTable, StackBytes, Walk, WalkEnd, walk},
    },
    target::memory::{Pieces, ReadMemory, u64_at},
};

/// At most so many goroutines are looked at.
const MAX_GOROUTINES: usize = 2048;

/// Of a stack at most so much is read. The average is 570 bytes.
const MAX_STACK_BYTES: u64 = 64 * 1024;

/// A stack is at least this long (`runtime/stack.go`, `stackMin`).
const MIN_STACK_BYTES: u64 = 2048;

/// Ids are counted from 1; no program gets so far.
const MAX_GOID: u64 = 1 << 48;

/// So many goroutines have `trackingSeq`s, random at their beginning (`runtime/proc.go`, `newproc1`), of which at least half differ.
const MIN_FOR_RANDOM: usize = 8;

/// A goroutine that did not change while it was read.
#[derive(Debug)]
pub(super) struct Read {
    /// The address of its g.
    pub(super) g: u64,
    /// The struct.
    pub(super) bytes: Vec<u8>,
    /// Its fields, by the candidate's offsets.
    pub(super) fields: GFields,
    /// Its stack from `sched.sp` on, if that lies in it.
    walk: Option<Walk>,
    /// The pollDesc in the frame of `runtime_pollWait`: its address and bytes.
    pub(super) poll_desc: Option<(u64, Vec<u8>)>,
}

impl Read {
    /// Its address is a word of its pollDesc: where. Then it is parked there, or was just now.
    pub(super) fn slot(&self) -> Option<usize> {
        let (_, bytes) = self.poll_desc.as_ref()?;
        (0..bytes.len()).step_by(8).find(|at| u64_at(bytes, *at) == Some(self.g))
    }

    /// Whether it runs or is in a system call, and so has an M.
    pub(super) fn has_m(&self) -> bool {
        matches!(self.fields.status(), GStatus::Running | GStatus::Syscall)
    }
}

/// The bytes of each range, if they are readable.
pub(super) fn pieces(pieces: &Pieces) -> impl Iterator<Item = Option<Vec<u8>>> {
    (0..pieces.len()).map(|index| pieces.get(index).map(<[u8]>::to_vec))
}

/// Reads goroutines that are not dead, and leaves out those that change meanwhile. Those with an M change all the time.
pub(super) fn read<M: ReadMemory, F: FrameTable>(
    offsets: &Offsets,
    target: &Target<'_, M, F>,
) -> Result<Vec<Read>, AllgsError> {
    let address = target.load_bias.wrapping_add(target.allgs);
    let mut gs = allgs::read(target.memory, address)?;
    if let Some(first) = allgs::first(target.memory, address)?
        && gs.len() > MAX_GOROUTINES
    {
        gs.truncate(MAX_GOROUTINES - 1);
        gs.push(first);
    }
    let range_of = |g: u64| g..g.saturating_add(offsets.g.size.into());
    let ranges: Vec<Range<u64>> = gs.iter().copied().map(range_of).collect();
    let mut reads: Vec<Read> = pieces(&target.memory.read_many(&ranges)?)
        .zip(&gs)
        .filter_map(|(bytes, g)| {
            let bytes = bytes?;
            let fields = GFields::read(&bytes, &offsets.g)?;
            let is_dead = matches!(fields.status(), GStatus::Dead | GStatus::DeadExtra);
            (!is_dead).then_some(Read { g: *g, bytes, fields, walk: None, poll_desc: None })
        })
        .collect();
    walk_stacks(&mut reads, target)?;
    read_poll_descs(&mut reads, offsets, target)?;
    let ranges: Vec<Range<u64>> = reads.iter().map(|read| range_of(read.g)).collect();
    let again = target.memory.read_many(&ranges)?;
    let is_same = pieces(&again).zip(&reads).map(|(bytes, read)| {
        let fields = bytes.as_ref().and_then(|bytes| GFields::read(bytes, &offsets.g));
        bytes.as_ref() == Some(&read.bytes)
            || read.has_m()
                && fields.is_some_and(|fields| {
                    (fields.goid, fields.raw_status, fields.m)
                        == (read.fields.goid, read.fields.raw_status, read.fields.m)
                })
    });
    let is_same: Vec<bool> = is_same.collect();
    let mut is_same = is_same.into_iter();
    reads.retain(|_| is_same.next() == Some(true));
    Ok(reads)
}

fn walk_stacks<M: ReadMemory, F: FrameTable>(
    reads: &mut [Read],
    target: &Target<'_, M, F>,
) -> Result<(), AllgsError> {
    let stack_of = |fields: &GFields| {
        let GFields { stack_lo, stack_hi, sched_sp, .. } = *fields;
        let end = stack_hi.min(sched_sp.saturating_add(MAX_STACK_BYTES));
        // An empty range is readable and has no frames.
        if (stack_lo..stack_hi).contains(&sched_sp) { sched_sp..end } else { 0..0 }
    };
    let ranges: Vec<Range<u64>> = reads.iter().map(|read| stack_of(&read.fields)).collect();
    let stacks = target.memory.read_many(&ranges)?;
    for (index, read) in reads.iter_mut().enumerate() {
        let Some(bytes) = stacks.get(index).filter(|bytes| !bytes.is_empty()) else { continue };
        let sp = read.fields.sched_sp;
        let is_whole = sp.checked_add(bytes.len() as u64) == Some(read.fields.stack_hi);
        let stack = StackBytes { sp, bytes, is_whole };
        read.walk =
            Some(walk(target.frames, target.load_bias, read.fields.sched_pc, stack, target.poll_desc));
    }
    Ok(())
}

fn read_poll_descs<M: ReadMemory, F: FrameTable>(
    reads: &mut [Read],
    offsets: &Offsets,
    target: &Target<'_, M, F>,
) -> Result<(), AllgsError> {
    let address = |read: &Read| {
        let (_, poll_desc) = read.walk.as_ref()?.found?;
        (poll_desc != 0 && poll_desc.is_multiple_of(8)).then_some(poll_desc)
    };
    let size = u64::from(offsets.poll_desc.size);
    let ranges: Vec<Range<u64>> = reads
        .iter()
        .map(|read| address(read).map_or(0..0, |address| address..address.saturating_add(size)))
        .collect();
    let found = target.memory.read_many(&ranges)?;
    for (read, bytes) in reads.iter_mut().zip(pieces(&found)) {
        read.poll_desc = address(read).zip(bytes).filter(|(_, bytes)| !bytes.is_empty());
    }
    Ok(())
}

/// What goroutines say of the offsets in `runtime.g`.
pub(super) fn examine<M: ReadMemory, F: FrameTable>(
    reads: &[Read],
    offsets: &Offsets,
    target: &Target<'_, M, F>,
) -> Result<Vec<Finding>, AllgsError> {
    let first = allgs::first(target.memory, target.load_bias.wrapping_add(target.allgs))?;
    let mut findings = identities(reads, first, offsets);
    findings.extend(stacks(reads, offsets));
    findings.extend(functions(reads, offsets, target));
    findings.push(labels(reads, offsets, target)?);
    Ok(findings)
}

fn identities(reads: &[Read], first: Option<u64>, offsets: &Offsets) -> Vec<Finding> {
    let g = offsets.g;
    let mut main = Cases::required("g.goid", g.goid, "allgs[0] is goroutine 1");
    let mut goid = Cases::required("g.goid", g.goid, "no two goroutines have the same id");
    let mut status = Cases::required(
        "g.atomicstatus",
        g.atomic_status,
        "a goroutine that stands in runtime_pollWait waits, and every status is a known one",
    );
    let mut reason =
        Cases::required("g.waitreason", g.wait_reason, "it is IO wait in runtime_pollWait, and nowhere else");
    let mut m = Cases::required("g.m", g.m, "a goroutine that does not run has no M");
    let mut ids = BTreeSet::new();
    let mut sequences = BTreeSet::new();
    for read in reads {
        let fields = &read.fields;
        if Some(read.g) == first {
            main.see(fields.goid == 1, true, || format!("it is {}", fields.goid));
        }
        let is_new = ids.insert(fields.goid);
        goid.see(is_new && (1..MAX_GOID).contains(&fields.goid), ids.len() > 1, || {
            format!("one is {}", fields.goid)
        });
        sequences.insert(fields.tracking_seq);
        let known = fields.status();
        let is_parked = read.slot().is_some();
        let holds = if is_parked {
            known == GStatus::Waiting
        } else {
            !matches!(known, GStatus::Unknown(_) | GStatus::Idle)
        };
        status.see(holds, is_parked, || format!("goroutine {} is {known:?}", fields.goid));
        if known == GStatus::Waiting {
            let is_io_wait = fields.wait_reason == WAIT_REASON_IO_WAIT;
            // Goroutines whose stack could not be walked say nothing.
            if read.walk.is_some() {
                reason.see(is_io_wait == is_parked, is_parked, || {
                    format!("goroutine {} has {}", fields.goid, fields.wait_reason)
                });
            }
            m.see(fields.m == 0, false, || format!("goroutine {} has {:#x}", fields.goid, fields.m));
        }
    }
    if first.is_none_or(|first| reads.iter().all(|read| read.g != first)) {
        main.see(false, false, || "it is dead or changes all the time".to_owned());
    }
    let mut sequence =
        Cases::wanted("g.trackingSeq", g.tracking_seq, "it begins at random and so mostly differs");
    if reads.len() >= MIN_FOR_RANDOM {
        let enough = reads.len().min(64) / 2;
        sequence.see(sequences.len() >= enough, true, || {
            format!("{} goroutines have {} values", reads.len(), sequences.len())
        });
    }
    [main, goid, status, reason, m, sequence].map(Cases::finding).into()
}

fn stacks(reads: &[Read], offsets: &Offsets) -> Vec<Finding> {
    let g = offsets.g;
    let fact = "a stack is a power of two long";
    let mut lo = Cases::required("g.stack.lo", g.stack_lo, fact);
    let mut hi = Cases::required("g.stack.hi", g.stack_hi, fact);
    let mut sp = Cases::required("g.sched.sp", g.sched_sp, "it lies in the stack");
    let mut pc = Cases::required(
        "g.sched.pc",
        g.sched_pc,
        "frame sizes lead from it to the goroutine's first function",
    );
    let mut bp = Cases::wanted("g.sched.bp", g.sched_bp, "it is null or lies in the stack");
    let mut syscall_sp = Cases::wanted(
        "g.syscallsp",
        g.syscall_sp,
        "it lies in the stack in a system call, and is null otherwise",
    );
    let mut apart = Cases::wanted("g.size", g.size, "two g structs do not overlap");
    let mut addresses: Vec<u64> = reads.iter().map(|read| read.g).collect();
    addresses.sort_unstable();
    for pair in addresses.windows(2) {
        let [low, high] = pair else { continue };
        apart.see(high - low >= u64::from(g.size), true, || format!("{} bytes lie between two", high - low));
    }
    for read in reads {
        let GFields { goid, stack_lo, stack_hi, sched_sp, syscall_sp: in_syscall, .. } = read.fields;
        let length = stack_hi.wrapping_sub(stack_lo);
        let is_stack = length.is_power_of_two() && length >= MIN_STACK_BYTES;
        let found = || format!("goroutine {goid} has {stack_lo:#x} to {stack_hi:#x}");
        lo.see(is_stack, true, found);
        hi.see(is_stack, true, found);
        let contains = |address: u64| stack_lo < address && address <= stack_hi;
        if read.fields.status() == GStatus::Syscall {
            syscall_sp.see(contains(in_syscall), true, || format!("goroutine {goid} has {in_syscall:#x}"));
        }
        if read.has_m() {
            continue;
        }
        syscall_sp.see(in_syscall == 0, false, || format!("goroutine {goid} has {in_syscall:#x}"));
        sp.see(contains(sched_sp), true, || format!("goroutine {goid} has {sched_sp:#x}"));
        let end = read.walk.as_ref().map(|walk| walk.stack.end);
        let is_walked = matches!(end, Some(WalkEnd::Complete | WalkEnd::Truncated));
        pc.see(is_walked, end == Some(WalkEnd::Complete), || {
            format!("the walk of goroutine {goid} from {:#x} ended {end:?}", read.fields.sched_pc)
        });
        if let Some(saved_bp) = u64_at(&read.bytes, g.sched_bp as usize) {
            bp.see(saved_bp == 0 || contains(saved_bp), saved_bp != 0, || {
                format!("goroutine {goid} has {saved_bp:#x}")
            });
        }
    }
    [lo, hi, sp, pc, bp, syscall_sp, apart].map(Cases::finding).into()
}

fn functions<M: ReadMemory, F: FrameTable>(
    reads: &[Read],
    offsets: &Offsets,
    target: &Target<'_, M, F>,
) -> Vec<Finding> {
    let g = offsets.g;
    let mut start = Cases::wanted("g.startpc", g.start_pc, "it is the first function of the stack");
    let mut gopc = Cases::wanted("g.gopc", g.gopc, "it lies in a Go function");
    let mut syscall_pc =
        Cases::wanted("g.syscallpc", g.syscall_pc, "it lies in a Go function once there was a system call");
    let mut since = Cases::wanted("g.waitsince", g.wait_since, "it is null or in the past");
    let function = |pc: u64| Some(target.frames.frame(pc.checked_sub(target.load_bias)?)?.function);
    for read in reads {
        let GFields { goid, start_pc, syscall_pc: in_syscall, wait_since, .. } = read.fields;
        let found = |what: u64| move || format!("goroutine {goid} has {what:#x}");
        // The outermost frame is goexit's.
        let begun_in =
            read.walk.as_ref().filter(|walk| walk.stack.end == WalkEnd::Complete).and_then(|walk| {
                let frame = walk.stack.frames.len().checked_sub(2)?;
                function(walk.stack.frames.get(frame)?.lookup_pc())
            });
        // The main goroutine is begun by assembly, and goroutines of C threads by nobody.
        if let Some(begun_in) = begun_in
            && goid != 1
            && start_pc != 0
        {
            let is_entry = start_pc.checked_sub(target.load_bias) == Some(begun_in);
            start.see(is_entry, true, found(start_pc));
            let created = read.fields.gopc;
            gopc.see(created != 0 && function(created).is_some(), true, found(created));
        }
        let is_code = function(in_syscall).is_some();
        syscall_pc.see(in_syscall == 0 || is_code, is_code, found(in_syscall));
        if read.fields.status() == GStatus::Waiting {
            since.see(wait_since <= target.now_ns, wait_since != 0, found(wait_since));
        }
    }
    [start, gopc, syscall_pc, since].map(Cases::finding).into()
}

fn labels<M: ReadMemory, F: FrameTable>(
    reads: &[Read],
    offsets: &Offsets,
    target: &Target<'_, M, F>,
) -> Result<Finding, AllgsError> {
    let mut cases = Cases::wanted("g.labels", offsets.g.labels, "they are null or can be read");
    let labels: BTreeMap<u64, u64> =
        reads.iter().map(|read| (read.fields.labels, read.fields.goid)).collect();
    let ranges: Vec<Range<u64>> = labels.keys().map(|labels| *labels..labels.saturating_add(8)).collect();
    for ((labels, goid), bytes) in labels.iter().zip(pieces(&target.memory.read_many(&ranges)?)) {
        let is_readable = labels.is_multiple_of(8) && bytes.is_some();
        cases.see(*labels == 0 || is_readable, *labels != 0, || format!("goroutine {goid} has {labels:#x}"));
    }
    Ok(cases.finding())
}
