//! A map that keeps what was used lately, for what the eBPF programs hand over again when they have forgotten it.

use std::hash::Hash;

use foldhash::HashMap;

/// Keeps at least the last so many keys that were used, and at most twice as many.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    kept: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    /// An empty map that keeps so many.
    pub(super) fn new(kept: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), kept }
    }

    /// Puts a value in, or in the place of another.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.kept && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: K) {
        self.young.remove(&key);
        self.old.remove(&key);
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// What `of` makes of the value of a key, which is used by that.
    pub(super) fn get<R>(&mut self, key: K, of: impl FnOnce(&V) -> R) -> Option<R> {
        if let Some(value) = self.young.get(&key) {
            return Some(of(value));
        }
        let value = self.old.remove(&key)?;
        let made = of(&value);
        self.insert(key, value);
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used() {
        let mut recent = Recent::new(10);
        for key in 0..1000 {
            recent.insert(key, key * 2);
            // Of all that are there one is used all the time.
            assert_eq!(recent.get(0, |value| *value), Some(0));
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        let kept = (0..1000).filter(|key| recent.young.contains_key(key) || recent.old.contains_key(key));
        assert!(kept.clone().count() >= 10);
        assert!(kept.clone().all(|key| key == 0 || key >= 980), "{:?}", kept.collect::<Vec<_>>());
        assert_eq!(recent.get(500, |value| *value), None);
    }

    #[test]
    fn a_key_has_one_value() {
        let mut recent = Recent::new(2);
        for key in [1, 2, 3, 1] {
            recent.insert(key, key * 10);
        }
        recent.insert(1, 11);
        assert_eq!(recent.get(1, |value| *value), Some(11));
        assert_eq!(recent.young.keys().chain(recent.old.keys()).filter(|key| **key == 1).count(), 1);
    }
}
