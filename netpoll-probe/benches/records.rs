//! How many records a second user space can take, on one core: what the ring has → decoded → waits → added up.
//!
//! `cargo bench -p netpoll-probe`. Needs the go command. The bytes are those of [`synthetic`].
#![expect(clippy::unwrap_used, reason = "what cannot be measured ends it")]

mod synthetic;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netpoll_probe::{
    commands::{filter::Filter, tally::Tally},
    correlate::{Correlated, Correlator},
    event,
    symbolize::Symbolizer,
};

use self::synthetic::{BIAS, Load, Records};

/// Waits of one measurement: those of some seconds.
const WAITS: u32 = 1 << 18;

/// A few clients that ask as fast as they are answered: the same goroutines wait on the same fds, again and again.
const FEW_CLIENTS: Load = Load { waits_per_s: 100_000, fds: 16, goroutines: 16, ..Load::SERVER };

fn benchmark(criterion: &mut Criterion) {
    let binary = synthetic::program();
    for (name, load) in [("records", Load::SERVER), ("records of few clients", FEW_CLIENTS)] {
        let mut records = Records::new(load, &binary);
        let mut stream = Vec::new();
        for _ in 0..WAITS {
            records.wait(&mut stream);
        }
        // As the ring has them: eight bytes aligned.
        let recorded: Vec<&[u8]> = event::split(&stream).collect();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(recorded.len() as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(10));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| recorded.iter().filter(|bytes| black_box(event::decode(bytes)).is_ok()).count());
        });
        group.bench_function("decode, correlate", |bencher| {
            bencher.iter(|| {
                let mut waits = 0;
                correlate(&recorded, |correlated| {
                    black_box(correlated);
                    waits += 1;
                });
                waits
            });
        });
        group.bench_function("decode, correlate, symbolize, add", |bencher| {
            bencher.iter(|| {
                let mut symbolizer = Symbolizer::new(Arc::clone(&binary));
                let mut tally = Tally::new(Filter::new(None, None, Vec::new()));
                correlate(&recorded, |correlated| {
                    tally.name(correlated, &mut symbolizer, BIAS);
                    tally.add(&mut correlated.wait, correlated.sent);
                });
                black_box(tally.builder.counts())
            });
        });
        group.finish();
    }
}

/// Makes waits of records, as they are made where system calls show them.
fn correlate(recorded: &[&[u8]], mut to: impl FnMut(&mut Correlated)) {
    let mut correlator = Correlator::by_syscalls(1);
    for bytes in recorded {
        correlator.push(event::decode(bytes).unwrap());
        if correlator.is_full() {
            correlator.take_ready(&mut to);
        }
    }
    correlator.take_all().for_each(|mut correlated| to(&mut correlated));
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
