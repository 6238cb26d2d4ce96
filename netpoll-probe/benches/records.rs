//! How many records a second user space can take, on one core: what the ring has → decoded → waits → added up.
//!
//! `cargo bench -p netpoll-probe`. Needs the go command. The bytes are those of [`synthetic`].
#![expect(clippy::unwrap_used, reason = "what cannot be measured ends it")]

mod synthetic;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netpoll_probe::{
    commands::{filter::Filter, tally::Tally},
    correlate::Correlator,
    event,
    symbolize::Symbolizer,
};

use self::synthetic::{BIAS, Load, Records};

/// Waits of one measurement: those of four seconds.
const WAITS: u32 = 1 << 18;
/// Waits between two looks at the ring: those of 20 ms.
const WAITS_AT_ONCE: usize = 1400;

fn benchmark(criterion: &mut Criterion) {
    let binary = synthetic::program();
    let mut records = Records::new(Load::SERVER, &binary);
    let mut stream = Vec::new();
    for _ in 0..WAITS {
        records.wait(&mut stream);
    }
    // As the ring has them: eight bytes aligned.
    let recorded: Vec<&[u8]> = event::split(&stream).collect();

    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(recorded.len() as u64));
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| recorded.iter().filter(|bytes| black_box(event::decode(bytes)).is_ok()).count());
    });
    group.bench_function("decode, correlate", |bencher| {
        bencher.iter(|| {
            let mut correlator = Correlator::new(1);
            let mut waits = 0;
            for drained in recorded.chunks(WAITS_AT_ONCE) {
                for bytes in drained {
                    correlator.push(event::decode(bytes).unwrap());
                }
                waits += correlator.take_ready().map(black_box).count();
            }
            waits + correlator.take_all().map(black_box).count()
        });
    });
    group.bench_function("decode, correlate, symbolize, add", |bencher| {
        bencher.iter(|| {
            let mut correlator = Correlator::new(1);
            let mut symbolizer = Symbolizer::new(Arc::clone(&binary));
            let mut tally = Tally::new(Filter::new(None, None, Vec::new()));
            for drained in recorded.chunks(WAITS_AT_ONCE) {
                for bytes in drained {
                    correlator.push(event::decode(bytes).unwrap());
                }
                for mut correlated in correlator.take_ready() {
                    tally.name(&mut correlated, &mut symbolizer, BIAS);
                    tally.add(&mut correlated.wait, correlated.sent);
                }
            }
            black_box(tally.builder.counts())
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
