//! Facts about Ms and Ps.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, ops::Range};

use super::{
    Target,
    evidence::{Cases, Finding},
    goroutines::{Read, pieces},
};
use crate::{
    goruntime::offsets::Offsets,
    snapshot::{allgs::AllgsError, unwind::FrameTable},
    target::memory::{ReadMemory, u32_at, u64_at},
};

/// Of `runtime.sched` this much is searched for `midle`, the list of idle Ms, which is its fifth field or so (`runtime/runtime2.go`, `schedt`).
const SCHED_BYTES: u64 = 256;

/// No machine has more Ps (`runtime/runtime2.go`: allp grows to GOMAXPROCS).
const MAX_PS: u64 = 4096;

/// `_Prunning` (`runtime/runtime2.go`, 1.18 to 1.27).
const P_RUNNING: u32 = 1;

/// `_Pdead`, the highest status of a P.
const P_DEAD: u32 = 4;

/// In the time of two reads no P schedules as often as this.
const MANY_TICKS: u32 = 1 << 20;

/// An M and the words of it that are used.
#[derive(Clone, Copy, Debug)]
struct M {
    address: u64,
    procid: u64,
    curg: u64,
    p: u64,
    /// `m.g0.m`, which is this M.
    g0_m: Option<u64>,
}

/// A P, and the fields of it that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct P {
    address: u64,
    id: u32,
    status: u32,
    sched_tick: u32,
    syscall_tick: u32,
    m: u64,
}

/// What Ms and Ps say of their offsets, and of `g.m`.
pub(super) fn examine<M_: ReadMemory, F: FrameTable>(
    reads: &[Read],
    offsets: &Offsets,
    target: &Target<'_, M_, F>,
) -> Result<Vec<Finding>, AllgsError> {
    let before = read_ps(offsets, target)?;
    let of_goroutines = reads.iter().filter(|read| read.has_m()).map(|read| read.fields.m);
    let mut addresses: BTreeSet<u64> = of_goroutines.collect();
    addresses.extend(before.iter().map(|p| p.m));
    addresses.remove(&0);
    let known = addresses.clone();
    let start = target.load_bias.wrapping_add(target.sched);
    if let Some(sched) = target.memory.read(start..start.saturating_add(SCHED_BYTES))? {
        let words = (0..sched.len()).step_by(8).filter_map(|at| u64_at(&sched, at));
        addresses.extend(words.filter(|word| *word != 0 && word.is_multiple_of(8)));
    }
    let addresses: Vec<u64> = addresses.into_iter().collect();
    let is_thread = |m: &M| target.threads.iter().any(|thread| u64::from(*thread) == m.procid);
    let ms: Vec<M> = read_ms(&addresses, offsets, target)?
        .into_iter()
        // What was found by searching is an M only if it looks like one.
        .filter(|m| known.contains(&m.address) || m.g0_m == Some(m.address) && is_thread(m))
        .collect();
    let after = read_ps(offsets, target)?;

    let mut findings = of_ms(&ms, reads, offsets, is_thread);
    findings.extend(of_ps(&before, &after, &ms, offsets));
    Ok(findings)
}

fn of_ms(ms: &[M], reads: &[Read], offsets: &Offsets, is_thread: impl Fn(&M) -> bool) -> Vec<Finding> {
    let mut g_m = Cases::required("g.m", offsets.g.m, "an M's g0 points back to it");
    let mut g0 = Cases::required("m.g0", offsets.m.g0, "an M's g0 points back to it");
    let mut procid = Cases::wanted("m.procid", offsets.m.procid, "it is a thread of the process");
    let mut curg = Cases::wanted("m.curg", offsets.m.curg, "it is the goroutine that has the M");
    for m in ms {
        let found = || format!("that of the M at {:#x} points to {:x?}", m.address, m.g0_m);
        g_m.see(m.g0_m == Some(m.address), true, found);
        g0.see(m.g0_m == Some(m.address), true, found);
        procid.see(is_thread(m), true, || format!("the M at {:#x} has {}", m.address, m.procid));
    }
    for read in reads.iter().filter(|read| read.has_m()) {
        if let Some(m) = ms.iter().find(|m| m.address == read.fields.m) {
            curg.see(m.curg == read.g, true, || {
                format!("the M of goroutine {} has {:#x}", read.fields.goid, m.curg)
            });
        }
    }
    [g_m, g0, procid, curg].map(Cases::finding).into()
}

fn of_ps(before: &[P], after: &[P], ms: &[M], offsets: &Offsets) -> Vec<Finding> {
    let p = offsets.p;
    let mut held = Cases::required("m.p", offsets.m.p, "an M and the P that it runs point to each other");
    let mut p_m = Cases::wanted("p.m", p.m, "an M and the P that it runs point to each other");
    let mut id = Cases::wanted("p.id", p.id, "it is the P's place in allp");
    let mut status = Cases::wanted("p.status", p.status, "it is a known one");
    let mut tick = Cases::required("p.schedtick", p.sched_tick, "it grows, by a little");
    let mut syscall_tick = Cases::wanted("p.syscalltick", p.syscall_tick, "it grows, by a little");
    for (index, (one, two)) in before.iter().zip(after).enumerate() {
        let place = u32::try_from(index).unwrap_or(u32::MAX);
        id.see(one.id == place, place > 0, || format!("P {index} has {}", one.id));
        let is_known = one.status <= P_DEAD;
        status.see(is_known, one.status == P_RUNNING, || format!("P {index} has {}", one.status));
        for (cases, first, then) in [
            (&mut tick, one.sched_tick, two.sched_tick),
            (&mut syscall_tick, one.syscall_tick, two.syscall_tick),
        ] {
            cases.see(then.wrapping_sub(first) < MANY_TICKS, then != 0, || {
                format!("P {index} has {first}, then {then}")
            });
        }
        // A P that was handed on in between says nothing.
        if one.status == P_RUNNING && two.status == P_RUNNING && one.m == two.m {
            let its = ms.iter().find(|m| m.address == one.m);
            let points_back = its.is_some_and(|m| m.p == one.address);
            let found = || format!("the M {:#x} of P {index} has {:x?}", one.m, its.map(|m| m.p));
            held.see(points_back, true, found);
            p_m.see(points_back, true, found);
        }
    }
    [held, p_m, id, status, tick, syscall_tick].map(Cases::finding).into()
}

fn read_ms<M_: ReadMemory, F>(
    addresses: &[u64],
    offsets: &Offsets,
    target: &Target<'_, M_, F>,
) -> Result<Vec<M>, AllgsError> {
    let m = offsets.m;
    let end = [m.g0, m.procid, m.curg, m.p].into_iter().max().unwrap_or(0) + 8;
    let range = |address: &u64| *address..address.saturating_add(end.into());
    let ranges: Vec<Range<u64>> = addresses.iter().map(range).collect();
    let structs: Vec<Option<Vec<u8>>> = pieces(&target.memory.read_many(&ranges)?).collect();
    let g0_of = |bytes: &Option<Vec<u8>>| u64_at(bytes.as_ref()?, m.g0 as usize);
    let at = u64::from(offsets.g.m);
    let ranges: Vec<Range<u64>> = structs
        .iter()
        .map(|bytes| {
            let word = g0_of(bytes).unwrap_or(0).saturating_add(at);
            word..word.saturating_add(8)
        })
        .collect();
    let back = target.memory.read_many(&ranges)?;
    let word = |bytes: &Option<Vec<u8>>, at: u32| {
        bytes.as_ref().and_then(|bytes| u64_at(bytes, at as usize)).unwrap_or(0)
    };
    Ok(addresses
        .iter()
        .zip(&structs)
        .enumerate()
        .map(|(index, (address, bytes))| M {
            address: *address,
            procid: word(bytes, m.procid),
            curg: word(bytes, m.curg),
            p: word(bytes, m.p),
            g0_m: back.get(index).and_then(|bytes| u64_at(bytes, 0)),
        })
        .collect())
}

/// The Ps, in the order of `runtime.allp`.
fn read_ps<M_: ReadMemory, F>(offsets: &Offsets, target: &Target<'_, M_, F>) -> Result<Vec<P>, AllgsError> {
    let start = target.load_bias.wrapping_add(target.allp);
    let header = target.memory.read(start..start.saturating_add(16))?;
    let word = |at| header.as_ref().and_then(|header| u64_at(header, at)).unwrap_or(0);
    let (pointer, count) = (word(0), word(8).min(MAX_PS));
    let array = target.memory.read(pointer..pointer.saturating_add(count * 8))?.unwrap_or_default();
    let addresses: Vec<u64> = array.chunks_exact(8).filter_map(|word| u64_at(word, 0)).collect();
    let p = offsets.p;
    let end = [p.id + 4, p.status + 4, p.sched_tick + 4, p.syscall_tick + 4, p.m + 8];
    let end = end.into_iter().max().unwrap_or(0);
    let range = |address: &u64| *address..address.saturating_add(end.into());
    let ranges: Vec<Range<u64>> = addresses.iter().map(range).collect();
    let structs = target.memory.read_many(&ranges)?;
    Ok(pieces(&structs)
        .zip(addresses)
        .filter_map(|(bytes, address)| {
            let bytes = bytes?;
            Some(P {
                address,
                id: u32_at(&bytes, p.id as usize)?,
                status: u32_at(&bytes, p.status as usize)?,
                sched_tick: u32_at(&bytes, p.sched_tick as usize)?,
                syscall_tick: u32_at(&bytes, p.syscall_tick as usize)?,
                m: u64_at(&bytes, p.m as usize)?,
            })
        })
        .collect())
}
