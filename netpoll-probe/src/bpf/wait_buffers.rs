//! The maps `WAIT_BUFFERS` and `WAIT_CURSORS` ([`netpoll_probe_common::wait_buffer`]): each CPU's waits that have ended.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use netpoll_probe_common::{
    record::WaitRecord,
    wait_buffer::{Cursors, Place, records_of_each},
};

use super::{session::SessionError, shared_array::SharedArray};

/// The maps.
pub(super) const BUFFERS: &str = "WAIT_BUFFERS";
pub(super) const CURSORS: &str = "WAIT_CURSORS";

/// The buffers of all CPUs, or none.
#[derive(Debug)]
pub struct WaitBuffers {
    places: SharedArray<Place>,
    cursors: SharedArray<Cursors>,
    /// Of one buffer.
    records: u64,
}

impl WaitBuffers {
    /// Maps those of a loaded object, of so many records each; 0: it has none.
    pub(super) fn map(ebpf: &Ebpf, records: u32) -> Result<Self, SessionError> {
        if records == 0 {
            return Ok(Self { places: SharedArray::NONE, cursors: SharedArray::NONE, records: 0 });
        }
        let (places, cursors) = (SharedArray::map(ebpf, BUFFERS)?, SharedArray::map(ebpf, CURSORS)?);
        Ok(Self { places, cursors, records: u64::from(records) })
    }

    /// Takes the waits that are there, CPU by CPU; of each in the order of their ends.
    pub fn take(&mut self, to: &mut Vec<WaitRecord>) {
        for cpu in 0..self.cursors.count() {
            self.take_of(cpu, to);
        }
    }

    fn take_of(&mut self, cpu: usize, to: &mut Vec<WaitRecord>) {
        let Some(cursors) = self.cursors.at(cpu) else { return };
        // SAFETY: inside the value.
        let (written, read) = (unsafe { &raw mut (*cursors).written }, unsafe { &raw mut (*cursors).read });
        // SAFETY: aligned, and the programs access it in one piece, too.
        let written = unsafe { AtomicU64::from_ptr(written) };
        // SAFETY: likewise.
        let read = unsafe { AtomicU64::from_ptr(read) };
        // After this the records are there.
        let end = written.load(Ordering::Acquire);
        let mut at = read.load(Ordering::Relaxed);
        while at != end {
            let place = usize::try_from(at % self.records)
                .ok()
                .and_then(|place| self.places.at(cpu * usize::try_from(self.records).ok()? + place));
            let Some(place) = place else { break };
            // SAFETY: inside the mapping; any bytes are a record, and the programs leave it alone until it is told to be read.
            let Place { record, .. } = unsafe { place.read() };
            to.push(record);
            at += 1;
        }
        read.store(at, Ordering::Release);
    }
}

/// How many records each buffer of this machine has.
#[must_use]
pub fn records() -> u32 {
    records_of_each(cpus())
}

/// How many CPUs there may be.
pub(super) fn cpus() -> u32 {
    u32::try_from(aya::util::nr_cpus().unwrap_or(1).max(1)).unwrap_or(u32::MAX)
}
