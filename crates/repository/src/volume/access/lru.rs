//! A map with a bound on the weight of what is in it; what was used longest ago goes first. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, K>,
    clock: u64,
    weight: u64,
    most: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// Holds up to `most` in weight.
    pub(super) fn new(most: u64) -> Self {
        Self { entries: HashMap::new(), by_use: BTreeMap::new(), clock: 0, weight: 0, most }
    }

    /// The value of a key, which counts as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        self.by_use.remove(&entry.used);
        self.by_use.insert(self.clock, key.clone());
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Whether a key is there; it does not count as used.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Puts a value in, and gives the keys that had to go for it: its own, if it alone is too heavy.
    pub(super) fn insert(&mut self, key: K, value: V, weight: u64) -> Vec<K> {
        self.remove(&key);
        if weight > self.most {
            return vec![key];
        }
        let mut gone = Vec::new();
        while self.weight + weight > self.most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.remove(&oldest);
            gone.push(oldest);
        }
        self.clock += 1;
        self.weight += weight;
        self.by_use.insert(self.clock, key.clone());
        self.entries.insert(key, Entry { value, weight, used: self.clock });
        gone
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(10);
        for key in ["a", "b", "c"] {
            assert_eq!(lru.insert(key, (), 3), [""; 0]);
        }
        assert_eq!(lru.get(&"a"), Some(()));
        assert_eq!(lru.insert("d", (), 6), ["b", "c"]);
        assert!(lru.contains(&"a") && lru.contains(&"d"));
        assert_eq!(lru.insert("e", (), 11), ["e"], "it alone is too heavy");
        assert_eq!(lru.insert("a", (), 4), [""; 0], "it takes its own place");
        assert_eq!(lru.weight, 10);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_nothing_else_is_lost(uses in proptest::collection::vec((0_u8..20, 0_u64..8), 0..200)) {
            let (mut lru, mut there) = (Lru::new(20), std::collections::HashSet::new());
            for (key, weight) in uses {
                there.insert(key);
                for gone in lru.insert(key, key, weight) {
                    there.remove(&gone);
                }
                prop_assert!(lru.weight <= 20 && lru.by_use.len() == lru.entries.len());
                prop_assert_eq!(lru.weight, lru.entries.values().map(|entry| entry.weight).sum::<u64>());
                prop_assert!(there.iter().all(|key| lru.contains(key)) && there.len() == lru.entries.len());
            }
        }
    }
}
