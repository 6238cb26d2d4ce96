//! A loader of the object that does not read the kernel's BTF by itself.

use aya::{Btf, EbpfLoader};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For programs whose ids are in `btf`.
///
/// [`EbpfLoader::new`] reads and parses the whole BTF of the kernel, also for who gives it another one right after: a fifth of
/// the time of attaching, and most of the memory. It does without when it cannot open the file, so for that moment this
/// process can open none.
pub(super) fn with_btf(btf: &Btf) -> EbpfLoader<'_> {
    let limit = getrlimit(Resource::Nofile);
    let no_more = setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit });
    let mut loader = EbpfLoader::new();
    if no_more.is_ok() {
        // Up to the maximum, which stays as it is, it may always be raised again.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    loader.btf(Some(btf));
    loader
}
