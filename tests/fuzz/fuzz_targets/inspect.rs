//! Any bytes inspected, as `netpoll-probe inspect` does. Good seeds: as for `gobin`.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use netpoll_probe::{diagnosis::binary, gobin::ReadAt};

fuzz_target!(|file: &[u8]| {
    // Refusing a file is a good answer; only panics, hangs and memory count.
    let reader: Arc<dyn ReadAt> = Arc::new(file.to_vec());
    let _: Result<_, _> = binary::inspect("fuzz", &reader);
});
