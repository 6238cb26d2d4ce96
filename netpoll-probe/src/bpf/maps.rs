//! The maps of a session, as user space writes and reads them.

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray},
};
use netpoll_probe_common::{counter::Counter, slot::PollDescSlot};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::session::{Session, SessionError, TargetId};

type HashMapOf<'a, K, V> = aya::maps::HashMap<&'a mut MapData, K, V>;

/// `[u8; N]` stands in for the map values: aya's `Pod` cannot be implemented for another crate's types.
type SlotBytes = [u8; size_of::<PollDescSlot>()];

impl Session {
    /// Tells the programs of a target.
    ///
    /// # Errors
    /// When the map refuses.
    pub(super) fn put_target(&mut self, target: TargetId) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "TARGETS", source };
        let mut targets: HashMapOf<u32, u32> =
            map_of(&mut self.ebpf, "TARGETS")?.try_into().map_err(failed)?;
        targets.insert(target.tgid, target.index, 0).map_err(failed)
    }

    /// Lets the programs forget a target.
    ///
    /// # Errors
    /// When the map refuses.
    pub(super) fn remove_target(&mut self, target: TargetId) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "TARGETS", source };
        let mut targets: HashMapOf<u32, u32> =
            map_of(&mut self.ebpf, "TARGETS")?.try_into().map_err(failed)?;
        match targets.remove(&target.tgid) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// Tells the programs the `struct eventpoll` of a target's netpoller.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn set_eventpoll(&mut self, target: TargetId, address: u64) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "EVENTPOLL", source };
        let mut known: Array<_, u64> = map_of(&mut self.ebpf, "EVENTPOLL")?.try_into().map_err(failed)?;
        known.set(target.index, address, 0).map_err(failed)?;
        let failed = |source| SessionError::Map { name: "EVENTPOLLS", source };
        let mut all: HashMapOf<u64, u32> =
            map_of(&mut self.ebpf, "EVENTPOLLS")?.try_into().map_err(failed)?;
        all.insert(address, target.index, 0).map_err(failed)
    }

    /// Gives a pollDesc that was waited on before the programs were there its slot, unless it has one by now.
    /// Returns whether it was given.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn put_slot(&mut self, key: u64, slot: &PollDescSlot) -> Result<bool, SessionError> {
        /// `BPF_NOEXIST`, `include/uapi/linux/bpf.h`
        const NO_EXIST: u64 = 1;
        let Ok(bytes) = SlotBytes::try_from(slot.as_bytes()) else { return Ok(false) };
        match self.slots_map()?.insert(key, bytes, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(source) => Err(slots_failed(source)),
        }
    }

    /// Takes a pollDesc's slot away.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn remove_slot(&mut self, key: u64) -> Result<(), SessionError> {
        match self.slots_map()?.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(slots_failed(source)),
        }
    }

    /// Lets the socket tracepoints find a pollDesc by its key.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn index_socket(&mut self, sk: u64, key: u64) -> Result<(), SessionError> {
        let failed = |source| SessionError::Map { name: "SOCKETS", source };
        let mut sockets: HashMapOf<u64, u64> =
            map_of(&mut self.ebpf, "SOCKETS")?.try_into().map_err(failed)?;
        sockets.insert(sk, key, 0).map_err(failed)
    }

    /// Every pollDesc that was ever waited on, by its key, with its state now.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn slots(&mut self) -> Result<Vec<(u64, PollDescSlot)>, SessionError> {
        let slots = self.slots_map()?;
        let mut all = Vec::new();
        for entry in &slots {
            let (key, bytes) = entry.map_err(slots_failed)?;
            if let Ok(slot) = PollDescSlot::read_from_bytes(&bytes) {
                all.push((key, slot));
            }
        }
        Ok(all)
    }

    fn slots_map(&mut self) -> Result<HashMapOf<'_, u64, SlotBytes>, SessionError> {
        map_of(&mut self.ebpf, "SLOTS")?.try_into().map_err(slots_failed)
    }

    /// What the programs could not do, so far.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn counters(&mut self) -> Result<Vec<(Counter, u64)>, SessionError> {
        let failed = |source| SessionError::Map { name: "COUNTERS", source };
        let counters: PerCpuArray<_, u64> = map_of(&mut self.ebpf, "COUNTERS")?.try_into().map_err(failed)?;
        Counter::ALL
            .into_iter()
            .map(|counter| {
                let values = counters.get(&(counter as u32), 0).map_err(failed)?;
                Ok((counter, values.iter().sum()))
            })
            .collect()
    }
}

fn slots_failed(source: MapError) -> SessionError {
    SessionError::Map { name: "SLOTS", source }
}

fn map_of<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, SessionError> {
    ebpf.map_mut(name).ok_or(SessionError::Missing(name))
}
