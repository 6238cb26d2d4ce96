//! Facts about pollDescs: those that goroutines wait at.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{
    Target,
    evidence::{Cases, Finding},
    goroutines::Read,
};
use crate::{
    goruntime::{
        constants::{POLL_DESC_READY, POLL_DESC_WAIT, POLL_INFO_CLOSING},
        epoll_data::EpollData,
        offsets::Offsets,
    },
    target::{
        fds::FdTarget,
        memory::{u32_at, u64_at},
    },
};

/// The low 16 bits of `pollDesc.fdseq` are the high ones of `atomicInfo` (`runtime/netpoll.go`, `publishInfo`: shifted by `pollFDSeq`, which is
/// 1 << 4; seen in running programs from 1.24 to 1.27).
const FDSEQ_SHIFT: u32 = 16;
/// See [`FDSEQ_SHIFT`].
const FDSEQ_MASK: u64 = (1 << 16) - 1;

/// The bits of `atomicInfo` that mean something by themselves are below this one.
const INFO_BITS: u32 = 4;

/// Between `fd` and `rg` there is room for `fdseq` and `atomicInfo` and nothing else: 8 bytes, and 4 with padding.
const FDSEQ_AND_INFO_BYTES: u32 = 16;

/// A deadline further ahead than this is none, ns: a hundred years.
const FAR_NS: u64 = 100 * 365 * 86_400 * 1_000_000_000;

/// What pollDescs say of the offsets in `runtime.pollDesc`.
pub(super) fn examine<M, F>(
    reads: &[Read],
    offsets: &Offsets,
    epoll_data: EpollData,
    target: &Target<'_, M, F>,
) -> Vec<Finding> {
    let waits: Vec<(&Read, usize, u64, &[u8])> = reads
        .iter()
        .filter_map(|read| {
            let (address, bytes) = read.poll_desc.as_ref()?;
            Some((read, read.slot()?, *address, bytes.as_slice()))
        })
        .collect();
    let mut findings = slots(&waits, reads, offsets).to_vec();
    findings.extend(files(&waits, offsets, target));
    findings.extend(sequences(&waits, offsets));
    findings.extend(deadlines(&waits, offsets, target.now_ns));
    findings.extend(places(&waits, offsets, epoll_data));
    findings
}

/// A goroutine that waits, where in the pollDesc it is named, the pollDesc's address and bytes.
type Wait<'a> = (&'a Read, usize, u64, &'a [u8]);

fn slots(waits: &[Wait<'_>], reads: &[Read], offsets: &Offsets) -> [Finding; 2] {
    let (rg_at, wg_at) = (offsets.poll_desc.rg, offsets.poll_desc.wg);
    let fact = "it names the goroutine that waits, or is nil, ready or wait";
    let mut rg = Cases::required("pollDesc.rg", rg_at, fact);
    let mut wg = Cases::required("pollDesc.wg", wg_at, fact);
    let is_state = |state: u64| state <= POLL_DESC_WAIT || reads.iter().any(|read| read.g == state);
    for (read, slot, _, bytes) in waits {
        let found = || format!("goroutine {} is named at {slot}", read.fields.goid);
        let is_at = |offset: u32| *slot == offset as usize;
        let is_either = is_at(rg_at) || is_at(wg_at);
        for (cases, own) in [(&mut rg, rg_at), (&mut wg, wg_at)] {
            let state = u64_at(bytes, own as usize).unwrap_or(u64::MAX);
            // A socket that was connected is ready for writing at once, so that even among readers this word is seen.
            let proves = is_at(own) || state == POLL_DESC_READY;
            cases.see(is_either && is_state(state), proves, found);
        }
    }
    [rg.finding(), wg.finding()]
}

fn files<M, F>(waits: &[Wait<'_>], offsets: &Offsets, target: &Target<'_, M, F>) -> [Finding; 1] {
    let at = offsets.poll_desc.fd;
    let mut fd = Cases::required("pollDesc.fd", at, "it is an open fd that can be polled, and no other's");
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    for (read, _, address, bytes) in waits {
        let number = u64_at(bytes, at as usize).unwrap_or(u64::MAX);
        let is_open = target.fds.iter().any(|(fd, refers)| u64::from(*fd) == number && can_be_polled(refers));
        let is_own = *known.entry(number).or_insert(*address) == *address;
        fd.see(is_open && is_own, true, || format!("goroutine {} waits for {number}", read.fields.goid));
    }
    [fd.finding()]
}

/// Whether epoll takes it: not an epoll instance of the runtime's own; files with a path may be FIFOs and devices.
fn can_be_polled(refers: &FdTarget) -> bool {
    !matches!(refers, FdTarget::AnonInode { kind } if kind == "eventpoll")
}

fn sequences(waits: &[Wait<'_>], offsets: &Offsets) -> Vec<Finding> {
    let poll_desc = offsets.poll_desc;
    let mut info = Cases::required(
        "pollDesc.atomicInfo",
        poll_desc.atomic_info,
        "it repeats fdseq, and is not closing while a goroutine waits",
    );
    let mut fdseq = poll_desc
        .fdseq
        .map(|at| Cases::required("pollDesc.fdseq", at, "its low bits are repeated in atomicInfo"));
    // Then even zeros are at the right place, when fd and rg are: there is no other.
    let fills_the_room = match poll_desc.fdseq {
        Some(at) => {
            at == poll_desc.fd + 8
                && poll_desc.atomic_info == at + 8
                && poll_desc.rg == at + FDSEQ_AND_INFO_BYTES
        }
        None => poll_desc.atomic_info == poll_desc.fd + 8 && poll_desc.rg == poll_desc.atomic_info + 8,
    };
    for (read, _, _, bytes) in waits {
        let bits = u32_at(bytes, poll_desc.atomic_info as usize).unwrap_or(u32::MAX);
        let sequence = poll_desc.fdseq.map(|at| u64_at(bytes, at as usize).unwrap_or(u64::MAX));
        let repeated = u64::from(bits >> FDSEQ_SHIFT);
        let is_repeated = repeated == sequence.unwrap_or(0) & FDSEQ_MASK;
        let proves = fills_the_room || repeated != 0;
        let found = || format!("goroutine {} has {bits:#x} and {sequence:?}", read.fields.goid);
        let unused = bits & ((1 << FDSEQ_SHIFT) - 1) & !((1 << INFO_BITS) - 1);
        let is_open = bits & POLL_INFO_CLOSING == 0 && unused == 0;
        info.see(is_repeated && is_open, proves, found);
        if let Some(fdseq) = &mut fdseq {
            fdseq.see(is_repeated, proves, found);
        }
    }
    fdseq.into_iter().chain([info]).map(Cases::finding).collect()
}

fn deadlines(waits: &[Wait<'_>], offsets: &Offsets, now_ns: u64) -> [Finding; 2] {
    let fact = "it is none, passed, or a time within a hundred years";
    [("pollDesc.rd", offsets.poll_desc.rd), ("pollDesc.wd", offsets.poll_desc.wd)].map(|(field, at)| {
        let mut cases = Cases::wanted(field, at, fact);
        for (read, _, _, bytes) in waits {
            let deadline = u64_at(bytes, at as usize).unwrap_or(1);
            let is_time = (now_ns.saturating_sub(FAR_NS)..now_ns.saturating_add(FAR_NS)).contains(&deadline);
            cases.see(deadline == 0 || deadline == u64::MAX || is_time, deadline != 0, || {
                format!("goroutine {} has {deadline}", read.fields.goid)
            });
        }
        cases.finding()
    })
}

fn places(waits: &[Wait<'_>], offsets: &Offsets, epoll_data: EpollData) -> Vec<Finding> {
    let size = offsets.poll_desc.size;
    let mut apart = Cases::wanted("pollDesc.size", size, "two pollDescs do not overlap");
    let mut addresses: Vec<u64> = waits.iter().map(|(_, _, address, _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    for pair in addresses.windows(2) {
        let [low, high] = pair else { continue };
        apart.see(high - low >= u64::from(size), true, || format!("{} bytes lie between two", high - low));
    }
    let mut findings = vec![apart.finding()];
    if let EpollData::Tagged { align_bits, .. } = epoll_data {
        let fact = "so many low bits of a pollDesc's address are zero, as netpoll's code has it";
        let mut aligned = Cases::required("pollDesc.alignment", u32::from(align_bits), fact);
        for address in addresses {
            aligned.see(address.trailing_zeros() >= u32::from(align_bits), true, || {
                format!("one is at {address:#x}")
            });
        }
        findings.push(aligned.finding());
    }
    findings
}
