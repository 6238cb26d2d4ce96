//! A goroutine's pprof labels: read whole at each wait of a goroutine that has some, because their memory is reused, and
//! handed over once for each distinct set.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
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

const WORDS: usize = size_of::<[Label; LABELS]>() / 8;

/// Hands the goroutine's labels over if they are new, and returns their hash; 0: it has none, or they are not known.
#[inline(always)]
pub fn hash(g: u64) -> u64 {
    let labels = read::user::<u64>(g + config!(g_labels)).unwrap_or(0);
    if labels == 0 {
        return 0;
    }
    let Some(scratch) = maps::LABELS_SCRATCH.get_ptr_mut(0) else { return 0 };
    let user = Scratch::take(scratch);
    // SAFETY: the scratch is this CPU's, and the program stays on its CPU; who preempts it is noticed below.
    let words = unsafe {
        let words = (&raw mut (*scratch).value).cast::<u64>();
        for i in 0..WORDS {
            words.add(i).write_volatile(0);
        }
        words
    };
    // SAFETY: a value of a map that lives as long as the program.
    if fill(unsafe { &mut (*scratch).value }, labels).is_none() {
        emit::count(Counter::ReadLabels);
        return 0;
    }
    // SAFETY: `words` are the scratch's value.
    let hash = unsafe { scratch::hash::<WORDS>(words, WORDS) };
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
        (*record).header = emit::header::<LabelsRecord>(kind::LABELS);
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

/// Reads all labels; `None` when there are more than are kept, or they cannot be read.
#[inline(always)]
fn fill(into: &mut [Label; LABELS], labels: u64) -> Option<()> {
    match config!(labels) as u32 {
        SLICE => fill_from_slice(into, labels),
        MAP => fill_from_map(into, labels),
        _ => None,
    }
}

#[inline(always)]
fn fill_from_slice(into: &mut [Label; LABELS], labels: u64) -> Option<()> {
    let [pairs, count]: [u64; 2] = read::user(labels)?;
    if count > LABELS as u64 {
        return None;
    }
    for (i, label) in into.iter_mut().enumerate() {
        if i as u64 >= count {
            break;
        }
        let pair = pairs + i as u64 * PAIR_BYTES;
        copy(label, read::user(pair)?, read::user(pair + 16)?)?;
    }
    Some(())
}

#[inline(always)]
fn fill_from_map(into: &mut [Label; LABELS], labels: u64) -> Option<()> {
    let map: u64 = read::user(labels)?;
    if map == 0 {
        return Some(());
    }
    if read::user::<u8>(map + HMAP_B)? != 0 {
        return None;
    }
    let bucket: u64 = read::user(map + HMAP_BUCKETS)?;
    let top_hashes: [u8; 8] = read::user(bucket)?;
    for (i, label) in into.iter_mut().enumerate() {
        if top_hashes[i & 7] < MIN_TOP_HASH {
            continue;
        }
        let at = bucket + i as u64 * 16;
        copy(label, read::user(at + BUCKET_KEYS)?, read::user(at + BUCKET_VALUES)?)?;
    }
    Some(())
}

/// Copies the beginnings of a key and a value.
#[inline(always)]
fn copy(label: &mut Label, key: Text, value: Text) -> Option<()> {
    label.key_length = text::<LABEL_KEY_BYTES>(&mut label.key, key)?;
    label.value_length = text::<LABEL_VALUE_BYTES>(&mut label.value, value)?;
    Some(())
}

#[inline(always)]
fn text<const BYTES: usize>(into: &mut [u8; BYTES], [address, length]: Text) -> Option<u32> {
    // One less than there is room for, so that the mask shows the verifier a bound.
    let kept = if length >= BYTES as u64 { BYTES as u32 - 1 } else { length as u32 } & (BYTES as u32 - 1);
    // SAFETY: `kept` is less than the size of `into`.
    let failed = unsafe { bpf_probe_read_user(into.as_mut_ptr().cast(), kept, address as *const _) };
    (failed == 0).then_some(kept)
}
