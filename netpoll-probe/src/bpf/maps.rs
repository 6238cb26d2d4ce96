//! The maps of a session, as user space writes and reads them.

use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapData, MapError, PerCpuArray},
};
use netpoll_probe_common::{
    counter::Counter,
    sampling::Sampling,
    slot::{PollDescSlot, SocketEntry, slot_key, socket_entry},
};
use zerocopy::{FromBytes as _, transmute};

use super::session::{Session, SessionError, TargetId};

type HashMapOf<'a, K, V> = aya::maps::HashMap<&'a mut MapData, K, V>;
type ArrayOf<'a, V> = Array<&'a mut MapData, V>;
type PerCpuArrayOf<'a, V> = PerCpuArray<&'a mut MapData, V>;

/// The states of pollDescs: by key, and, where system calls show the waits of one process, by fd.
const SLOTS: &str = "SLOTS";
pub(super) const FD_SLOTS: &str = "FD_SLOTS";
const FD_SLOTS_END: &str = "FD_SLOTS_END";

/// The calls of the C library's resolver.
const RESOLVES: &str = "RESOLVES";

/// Who waits on which socket.
const SOCKETS: &str = "SOCKETS";
const CROWDED_SOCKETS: &str = "CROWDED_SOCKETS";

/// Which waits are followed.
const SAMPLING: &str = "SAMPLING";

/// `[u8; N]` stands in for the map values: aya's `Pod` cannot be implemented for another crate's types.
type SlotBytes = [u8; size_of::<PollDescSlot>()];
type SocketBytes = [u8; size_of::<SocketEntry>()];
type SamplingBytes = [u8; size_of::<Sampling>()];

impl Session {
    /// Tells the programs of a target.
    ///
    /// # Errors
    /// When the map refuses.
    pub(super) fn put_target(&mut self, target: TargetId) -> Result<(), SessionError> {
        self.hash_map::<u32, u32>("TARGETS")?.insert(target.tgid, target.index, 0).map_err(failed("TARGETS"))
    }

    /// Lets the programs forget a target.
    ///
    /// # Errors
    /// When the map refuses.
    pub(super) fn remove_target(&mut self, target: TargetId) -> Result<(), SessionError> {
        self.remove_key::<_, u32>("TARGETS", target.tgid)
    }

    /// Tells the programs the `struct eventpoll` of a target's netpoller.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn set_eventpoll(&mut self, target: TargetId, address: u64) -> Result<(), SessionError> {
        self.array::<u64>("EVENTPOLL")?.set(target.index, address, 0).map_err(failed("EVENTPOLL"))?;
        self.hash_map::<u64, u32>("EVENTPOLLS")?
            .insert(address, target.index, 0)
            .map_err(failed("EVENTPOLLS"))
    }

    /// Gives pollDescs that were waited on before the programs were there their slots, by key, unless they have one by now. Returns
    /// the keys of those that were given.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn put_slots(&mut self, slots: &HashMap<u64, PollDescSlot>) -> Result<HashSet<u64>, SessionError> {
        let (mut given, mut of_fds) = (HashSet::new(), HashMap::new());
        for (key, slot) in slots {
            if self.slot_of_fd(*key)?.is_some() {
                continue;
            }
            let is_given = match u32::try_from(*key).ok().filter(|fd| self.open_slots.has_room(*fd)) {
                Some(fd) => of_fds.insert(fd, *slot).is_none(),
                None => self.put_slot(*key, slot)?,
            };
            if is_given {
                given.insert(*key);
            }
        }
        self.open_slots.put(&of_fds);
        Ok(given)
    }

    /// Gives one a slot in the hash. Returns whether it was given.
    fn put_slot(&mut self, key: u64, slot: &PollDescSlot) -> Result<bool, SessionError> {
        /// `BPF_NOEXIST`, `include/uapi/linux/bpf.h`
        const NO_EXIST: u64 = 1;
        let bytes: SlotBytes = transmute!(*slot);
        match self.hash_map::<u64, SlotBytes>(SLOTS)?.insert(key, bytes, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::AlreadyExists => {
                Ok(false)
            }
            Err(source) => Err(failed(SLOTS)(source)),
        }
    }

    /// Takes a pollDesc's slot away.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn remove_slot(&mut self, key: u64) -> Result<(), SessionError> {
        if let Ok(fd) = u32::try_from(key) {
            self.open_slots.remove(fd);
        }
        if let Some((fd, _)) = self.slot_of_fd(key)? {
            let bytes: SlotBytes = transmute!(PollDescSlot::EMPTY);
            self.array::<SlotBytes>(FD_SLOTS)?.set(fd, bytes, 0).map_err(failed(FD_SLOTS))?;
        }
        self.remove_key::<_, SlotBytes>(SLOTS, key)
    }

    /// The fd that a key is, and its slot in the array, if that is in use.
    fn slot_of_fd(&mut self, key: u64) -> Result<Option<(u32, PollDescSlot)>, SessionError> {
        let slots = self.array::<SlotBytes>(FD_SLOTS)?;
        let Some(fd) = u32::try_from(key).ok().filter(|fd| *fd < slots.len()) else { return Ok(None) };
        let bytes = slots.get(&fd, 0).map_err(failed(FD_SLOTS))?;
        let slot = PollDescSlot::read_from_bytes(&bytes).ok().filter(|slot| slot.pd != 0);
        Ok(slot.map(|slot| (fd, slot)))
    }

    /// Lets the socket tracepoints find a pollDesc by its key.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn index_socket(&mut self, sk: u64, key: u64) -> Result<(), SessionError> {
        let bytes: SocketBytes = transmute!(SocketEntry { sk, key });
        let mut map = self.array::<SocketBytes>(SOCKETS)?;
        let at = socket_entry(sk);
        let taken = map.get(&at, 0).map_err(failed(SOCKETS))?;
        let owner = SocketEntry::read_from_bytes(&taken).map_or(0, |entry| entry.sk);
        if owner == 0 || owner == sk {
            map.set(at, bytes, 0).map_err(failed(SOCKETS))
        } else {
            self.hash_map::<u64, u64>(CROWDED_SOCKETS)?.insert(sk, key, 0).map_err(failed(CROWDED_SOCKETS))
        }
    }

    /// Which waits are followed from now on.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn follow(&mut self, sampling: Sampling) -> Result<(), SessionError> {
        let bytes: SamplingBytes = transmute!(sampling);
        self.array::<SamplingBytes>(SAMPLING)?.set(0, bytes, 0).map_err(failed(SAMPLING))
    }

    /// Every pollDesc that was ever waited on, by its key, with its state now.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn slots(&mut self) -> Result<Vec<(u64, PollDescSlot)>, SessionError> {
        let mut all = Vec::new();
        let ends = self.per_cpu_array::<u32>(FD_SLOTS_END)?.get(&0, 0).map_err(failed(FD_SLOTS_END))?;
        for fd in 0..ends.iter().copied().max().unwrap_or(0) {
            let key = slot_key(u64::from(fd), 0);
            if let Some((_, slot)) = self.slot_of_fd(key)? {
                all.push((key, slot));
            }
        }
        // Who has a slot in the array is told by that.
        let in_array: HashSet<u64> = all.iter().map(|(key, _)| *key).collect();
        let open = self.open_slots.all().map(|(fd, slot)| (slot_key(u64::from(fd), 0), slot));
        all.extend(open.filter(|(key, _)| !in_array.contains(key)));
        let slots = self.hash_map::<u64, SlotBytes>(SLOTS)?;
        for entry in &slots {
            let (key, bytes) = entry.map_err(failed(SLOTS))?;
            if let Ok(slot) = PollDescSlot::read_from_bytes(&bytes)
                && !in_array.contains(&key)
            {
                all.push((key, slot));
            }
        }
        Ok(all)
    }

    /// The goroutines that are in the C library's resolver: [`slot_key`](netpoll_probe_common::slot::slot_key) of their g, and
    /// since when, CLOCK_MONOTONIC ns.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn resolving(&mut self) -> Result<Vec<(u64, u64)>, SessionError> {
        let resolving = self.hash_map::<u64, u64>(RESOLVES)?;
        resolving.iter().map(|entry| entry.map_err(failed(RESOLVES))).collect()
    }

    pub(super) fn hash_map<K: Pod, V: Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<HashMapOf<'_, K, V>, SessionError> {
        map_of(&mut self.ebpf, name)?.try_into().map_err(failed(name))
    }

    fn array<V: Pod>(&mut self, name: &'static str) -> Result<ArrayOf<'_, V>, SessionError> {
        map_of(&mut self.ebpf, name)?.try_into().map_err(failed(name))
    }

    pub(super) fn per_cpu_array<V: Pod>(
        &mut self,
        name: &'static str,
    ) -> Result<PerCpuArrayOf<'_, V>, SessionError> {
        map_of(&mut self.ebpf, name)?.try_into().map_err(failed(name))
    }

    /// Takes an entry away, if it is there.
    pub(super) fn remove_key<K: Pod, V: Pod>(
        &mut self,
        name: &'static str,
        key: K,
    ) -> Result<(), SessionError> {
        match self.hash_map::<K, V>(name)?.remove(&key) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed(name)),
        }
    }

    /// What the programs could not do, so far.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn counters(&mut self) -> Result<Vec<(Counter, u64)>, SessionError> {
        let counters = self.per_cpu_array::<u64>("COUNTERS")?;
        Counter::ALL
            .into_iter()
            .map(|counter| {
                let values = counters.get(&(counter as u32), 0).map_err(failed("COUNTERS"))?;
                Ok((counter, values.iter().sum()))
            })
            .collect()
    }
}

pub(super) fn failed(name: &'static str) -> impl Fn(MapError) -> SessionError {
    move |source| SessionError::Map { name, source }
}

fn map_of<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, SessionError> {
    ebpf.map_mut(name).ok_or(SessionError::Missing(name))
}
