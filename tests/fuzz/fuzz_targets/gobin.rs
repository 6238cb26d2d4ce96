//! Any bytes as a Go executable. Good seeds: small Go programs, and what `gobin`'s handmade fixture builds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    // Refusing a file is a good answer; only panics, hangs and memory count.
    let _: Result<(), _> = netpoll_probe::gobin::read_everything(file.to_vec());
});
