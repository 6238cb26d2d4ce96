//! Links that take long to close.

use std::{
    any::Any,
    thread::{self, JoinHandle},
};

/// A link of any kind: dropped, it is closed.
pub(super) type Link = Box<dyn Any + Send>;

/// At most so many are closed at the same time.
const MOST_THREADS: usize = 32;

/// Links that are being closed, in the background. Dropped, it waits until all of them are.
///
/// For each link of a perf event the kernel waits for some grace periods of RCU, a tenth of a second
/// (`perf_event_detach_bpf_prog`, `perf_trace_event_unreg`). Links that are closed at the same time share the first of them;
/// the others come under one lock.
#[derive(Debug, Default)]
pub struct Closing {
    threads: Vec<JoinHandle<()>>,
}

impl Closing {
    /// Waits for these as well.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.threads.append(&mut other.threads);
    }

    /// Begins to close these.
    pub(super) fn close(&mut self, links: Vec<Link>) {
        self.threads.retain(|thread| !thread.is_finished());
        let mut shares: Vec<Vec<Link>> = Vec::new();
        shares.resize_with(links.len().min(MOST_THREADS), Vec::new);
        for (at, link) in links.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(at % MOST_THREADS) {
                share.push(link);
            }
        }
        for share in shares {
            // Where no thread can be had, they are closed here: the closure owns them.
            self.threads.extend(thread::Builder::new().name("closing".to_owned()).spawn(move || drop(share)));
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            // Closing does not panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    /// As slow to close as a link.
    struct Slow(Arc<AtomicUsize>);

    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(5));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_are_closed_when_it_is_dropped() {
        let closed = Arc::new(AtomicUsize::new(0));
        let links =
            |count| (0..count).map(|_| Box::new(Slow(Arc::clone(&closed))) as Link).collect::<Vec<_>>();
        let (mut first, mut second) = (Closing::default(), Closing::default());
        first.close(links(3));
        second.close(links(2 * MOST_THREADS + 1));
        second.close(Vec::new());
        second.append(&mut first);
        drop(first);
        drop(second);
        assert_eq!(closed.load(Ordering::Relaxed), 3 + 2 * MOST_THREADS + 1);
    }
}
