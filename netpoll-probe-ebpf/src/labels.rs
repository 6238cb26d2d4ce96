//! A goroutine's pprof labels: read whole at each wait of a goroutine that has some, because their memory is reused, and
//! handed over once for each distinct set.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use netpoll_probe_common::{
    config::labels::{MAP, SLICE},
    counter::Counter,
    limit::{LABEL_KEY_BYTES, LABEL_VALUE_BYTES, LABELS},
    record::{Label, LabelsRecord, kind},
};

use crate::{
    config::config,
    emit, maps, read,
    scratch::{self, Scratch},
    target,
};

/// `runtime.hmap` of Go 1.18–1.23 (`runtime/map.go`): `B`, the logarithm of the number of buckets, and `buckets`.
const HMAP_B: u64 = 9;
const HMAP_BUCKETS: u64 = 16;
/// A bucket of `map[string]string`: eight bytes of `tophash`, eight keys, eight values; a string has two words.
const BUCKET_KEYS: u64 = 8;
const BUCKET_VALUES: u64 = 8 + 8 * 16;
/// `minTopHash`: below it a slot is empty.
const MIN_TOP_HASH: u8 = 5;
/// A key and a value of the slice's elements.
const PAIR_BYTES: u64 = 32;

/// A Go string: where it is and how long.
type Text = [u64; 2];

/// What is not written of the scratch.
static NO_LABELS: [Label; LABELS] = [NO_LABEL; LABELS];
const NO_LABEL: Label =
    Label { key_length: 0, value_length: 0, key: [0; LABEL_KEY_BYTES], value: [0; LABEL_VALUE_BYTES] };

/// The way through a goroutine's labels.
struct Walk {
    /// The first pair of a slice, or the bucket of a map.
    at: u64,
    /// Of what was read so far.
    hash: u64,
    /// 1: something could not be read.
    failed: u64,
}

/// Where a goroutine's labels are; 0: it has none, or that is not known.
#[inline(always)]
pub fn of(g: u64) -> u64 {
    read::user(g + config!(g_labels)).unwrap_or(0)
}

/// Hands the labels over if they are new, and returns their hash; 0: there are none, or they are not known.
#[inline(always)]
pub fn hash(labels: u64, target: u32) -> u64 {
    if labels == 0 { 0 } else { hand_over_labels(labels, u64::from(target)) }
}

/// The same of a goroutine that has some. A global function ([`crate`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hand_over_labels(labels: u64, target: u64) -> u64 {
    let Some(scratch) = maps::LABELS_SCRATCH.get_ptr_mut(0) else { return 0 };
    let user = Scratch::take(scratch);
    let Some(hash) = read_all(scratch, labels, target as u32) else {
        emit::count(Counter::ReadLabels);
        return 0;
    };
    // SAFETY: a lookup of a value that nobody reads.
    if unsafe { maps::LABELS_SEEN.get(&hash) }.is_some() {
        return if is_whole(scratch, user) { hash } else { 0 };
    }
    let Some(mut entry) = maps::RING.reserve::<LabelsRecord>(0) else {
        emit::count(Counter::RingFullLabels);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a LabelsRecord's bytes; every field is written.
    unsafe {
        (*record).header = emit::header::<LabelsRecord>(kind::LABELS, target::tgid());
        (*record).hash = hash;
        bpf_probe_read_kernel(
            (&raw mut (*record).labels).cast(),
            size_of::<[Label; LABELS]>() as u32,
            (&raw const (*scratch).value).cast(),
        );
    }
    if !is_whole(scratch, user) {
        entry.discard(0);
        return 0;
    }
    entry.submit(emit::wakeup());
    let _ = maps::LABELS_SEEN.insert(&hash, &1, 0);
    hash
}

#[inline(always)]
fn is_whole(scratch: *mut Scratch<[Label; LABELS]>, user: scratch::User) -> bool {
    let whole = Scratch::is_still_of(scratch, user);
    if !whole {
        emit::count(Counter::ReadLabels);
    }
    whole
}

/// Reads all labels into the scratch and returns their hash; `None` when there are more than are kept, or they cannot be
/// read. One label a call, because the verifier would follow a loop through all combinations of their lengths.
#[inline(always)]
fn read_all(scratch: *mut Scratch<[Label; LABELS]>, labels: u64, target: u32) -> Option<u64> {
    // SAFETY: both are of this size.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut (*scratch).value).cast(),
            size_of::<[Label; LABELS]>() as u32,
            (&raw const NO_LABELS).cast(),
        );
    }
    let (at, count) = match config!(labels) as u32 {
        SLICE => {
            let [pairs, count]: [u64; 2] = read::user(labels)?;
            (pairs, count)
        }
        MAP => only_bucket(read::user(labels)?)?,
        _ => return None,
    };
    if count > LABELS as u64 {
        return None;
    }
    let mut walk = Walk { at, hash: scratch::basis(target), failed: 0 };
    // SAFETY: the callback has the signature that the helper wants, and gets a context that outlives the loop.
    unsafe {
        bpf_loop(count as u32, each_label as *mut c_void, (&raw mut walk).cast(), 0);
    }
    (walk.failed == 0).then_some(walk.hash | 1)
}

/// The bucket of a map that has one only, and the number of its slots; of a map that is nil, none.
#[inline(always)]
fn only_bucket(map: u64) -> Option<(u64, u64)> {
    if map == 0 {
        return Some((0, 0));
    }
    if read::user::<u8>(map + HMAP_B)? != 0 {
        return None;
    }
    Some((read::user(map + HMAP_BUCKETS)?, LABELS as u64))
}

/// One label: a callback of `bpf_loop`.
unsafe extern "C" fn each_label(index: u64, walk: *mut c_void) -> i64 {
    // SAFETY: `read_all` passes a Walk.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    // The mask changes nothing; it shows the verifier a bound.
    let index = index & (LABELS as u64 - 1);
    if read_one(walk, index).is_none() {
        walk.failed = 1;
        return 1;
    }
    0
}

#[inline(always)]
fn read_one(walk: &mut Walk, index: u64) -> Option<()> {
    let scratch = maps::LABELS_SCRATCH.get_ptr_mut(0)?;
    let (key_at, value_at) = match config!(labels) as u32 {
        SLICE => {
            let pair = walk.at + index * PAIR_BYTES;
            (pair, pair + size_of::<Text>() as u64)
        }
        _ => {
            if read::user::<u8>(walk.at + index)? < MIN_TOP_HASH {
                return Some(());
            }
            let slot = walk.at + index * size_of::<Text>() as u64;
            (slot + BUCKET_KEYS, slot + BUCKET_VALUES)
        }
    };
    // SAFETY: index is less than LABELS.
    let label = unsafe { (&raw mut (*scratch).value).cast::<Label>().add(index as usize) };
    // SAFETY: a label of a map's value.
    unsafe {
        (*label).key_length = text::<LABEL_KEY_BYTES>(&raw mut (*label).key, read::user(key_at)?)?;
        (*label).value_length = text::<LABEL_VALUE_BYTES>(&raw mut (*label).value, read::user(value_at)?)?;
    }
    const WORDS: usize = size_of::<Label>() / 8;
    for word in 0..WORDS {
        // SAFETY: as above.
        walk.hash = scratch::fnv(walk.hash, unsafe { label.cast::<u64>().add(word).read() });
    }
    Some(())
}

/// Copies the beginning of a text, and returns how much.
#[inline(always)]
fn text<const BYTES: usize>(into: *mut [u8; BYTES], [address, length]: Text) -> Option<u32> {
    // One less than there is room for, so that the mask shows the verifier a bound.
    let kept = if length >= BYTES as u64 { BYTES as u32 - 1 } else { length as u32 } & (BYTES as u32 - 1);
    // SAFETY: `kept` is less than the size of `into`.
    let failed = unsafe { bpf_probe_read_user(into.cast(), kept, address as *const _) };
    (failed == 0).then_some(kept)
}
