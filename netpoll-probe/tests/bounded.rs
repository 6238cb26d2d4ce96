//! Memory is bounded whatever the target does, and for how long: waits of ever new goroutines, connections and stacks go the whole
//! way, and the bytes that live stop growing.
//!
//! Needs a `go` in PATH.

#[path = "../benches/synthetic/mod.rs"]
mod synthetic;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use netpoll_probe::{
    commands::{filter::Filter, tally::Tally},
    correlate::Correlator,
    event,
    model::{
        group::Dimension,
        profile::{Cost, Metadata, Plan},
    },
    symbolize::Symbolizer,
};

use self::synthetic::{BIAS, Load, Records};

/// Counts the bytes that live.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all, and is given what it is asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A goroutine, a connection and a stack are new for every second wait.
const LOAD: Load = Load { new_each: 2, ..Load::SERVER };
/// After so many waits every table is full.
const FULL: u32 = 1_000_000;
const WAITS: u32 = 3_000_000;
/// Waits between two looks at the ring.
const AT_ONCE: u32 = 1400;
/// What one process takes at most.
const MOST_BYTES: usize = 80 << 20;
/// What may still come while it goes on: tables that fill and empty, histograms that get another bucket.
const GROWTH_BYTES: usize = 4 << 20;

#[test]
fn memory_does_not_depend_on_how_long_it_records() {
    let binary = synthetic::program();
    let mut records = Records::new(LOAD, &binary);
    let mut stream = Vec::new();
    let before_bytes = LIVE_BYTES.load(Ordering::Relaxed);

    let mut correlator = Correlator::new(1);
    let mut symbolizer = Symbolizer::new(Arc::clone(&binary));
    let mut tally = Tally::new(Filter::new(None, None, Vec::new()));
    let live_bytes = |stream: &Vec<u8>| LIVE_BYTES.load(Ordering::Relaxed) - before_bytes - stream.capacity();
    let (mut full_bytes, mut most_bytes) = (0, 0);
    for number in 0..WAITS {
        records.wait(&mut stream);
        if number % AT_ONCE == 0 {
            for bytes in event::split(&stream) {
                correlator.push(event::decode(bytes).unwrap());
            }
            stream.clear();
            correlator.take_ready(|correlated| {
                tally.name(correlated, &mut symbolizer, BIAS);
                tally.add(&mut correlated.wait, correlated.sent);
            });
            let now_bytes = live_bytes(&stream);
            let most = if number < FULL { &mut full_bytes } else { &mut most_bytes };
            *most = now_bytes.max(*most);
        }
    }
    println!("{full_bytes} bytes at most for the first {FULL} waits, {most_bytes} for the rest");
    assert!(most_bytes < MOST_BYTES, "{most_bytes} bytes");
    assert!(most_bytes < full_bytes + GROWTH_BYTES, "{full_bytes} bytes, then {most_bytes}");

    // What did not fit is in the sums all the same, under its name.
    let Tally { builder, quality, .. } = tally;
    let profile = builder.finish(Metadata::default(), Plan::default(), Cost::default(), quality);
    let count = profile.totals(true).sums.count();
    assert!(count > u64::from(WAITS - 3 * AT_ONCE), "{count} waits");
    for dimension in Dimension::ALL.into_iter().filter(|dimension| *dimension != Dimension::Phase) {
        let in_groups: u64 = profile.group_by(dimension, true).iter().map(|group| group.sums.count()).sum();
        assert_eq!(in_groups, count, "{}", dimension.name());
    }
    assert!(profile.active.goroutines.other.is_some() && profile.active.fds.other.is_some());
}
