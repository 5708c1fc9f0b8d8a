//! The nodes that are in memory as they are on disk.

use crate::format::node::Page;
use crate::units::Place;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Places are numbers of our own making, which need no hash that withstands an enemy.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Nodes that are cached however little memory there is: the ways to some blocks.
const LEAST: usize = 16;
/// Nodes that may have changed however little memory there is: the ways to some dozens of leaves.
const LEAST_CHANGED: usize = 64;

#[derive(Debug)]
struct Cached {
    page: Page,
    /// It was asked for since the hand of the clock passed it.
    warm: bool,
}

/// Nodes by their places.
#[derive(Debug)]
pub(crate) struct Nodes {
    cached: Map<Place, Cached>,
    /// The places of what is cached, and some that were: the hand goes around and drops what is cold.
    clock: Vec<Place>,
    hand: usize,
    /// How many nodes are in memory at most, all kinds together but those of the catalog.
    most: usize,
    /// Nodes of a checkpoint that is not durable yet: they may not be on disk.
    writing: Map<Place, Page>,
    /// Those of the catalog, which a checkpoint must not wait for.
    pinned: Map<Place, Page>,
    /// Nodes of all maps that have changed since the last checkpoint was begun.
    pub(crate) changed: usize,
    /// How often one was looked for and was there.
    hits: u64,
}

/// How many nodes are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) cached: usize,
    pub(crate) writing: usize,
    pub(crate) changed: usize,
}

impl Nodes {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            cached: Map::default(),
            clock: Vec::new(),
            hand: 0,
            most: most.max(LEAST),
            writing: Map::default(),
            pinned: Map::default(),
            changed: 0,
            hits: 0,
        }
    }

    /// Changes how many nodes are cached at most, before any is.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = most.max(LEAST);
    }

    pub(crate) fn get(&mut self, place: Place) -> Option<&Page> {
        if let Some(cached) = self.cached.get_mut(&place) {
            cached.warm = true;
            self.hits += 1;
            return Some(&cached.page);
        }
        let found = self.writing.get(&place).or_else(|| self.pinned.get(&place));
        self.hits += u64::from(found.is_some());
        found
    }

    /// Keeps a node that was read.
    pub(crate) fn insert(&mut self, place: Place, page: Page) {
        if let Some(cached) = self.cached.get_mut(&place) {
            cached.page = page;
            return;
        }
        self.shrink_to(self.room() - 1);
        self.clock.push(place);
        // It is warm when it is asked for again: what is only passed over goes first.
        self.cached.insert(place, Cached { page, warm: false });
    }

    /// How many nodes may be cached: what has changed and what a checkpoint writes is in memory, too.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.changed + self.writing.len()).max(LEAST)
    }

    /// How many nodes may have changed before others must wait: as many may be on their way to the disk beside them, and half is left to what is cached.
    pub(crate) fn most_changed(&self) -> usize {
        (self.most / 4).max(LEAST_CHANGED)
    }

    /// Makes room for what has changed since, between steps: what a step has found must be there until its end.
    pub(crate) fn shrink(&mut self) {
        self.shrink_to(self.room());
    }

    fn shrink_to(&mut self, most: usize) {
        while self.clock.len() > most {
            let at = self.coldest();
            self.cached.remove(&self.clock.swap_remove(at));
        }
    }

    /// Where in the clock something can be dropped.
    fn coldest(&mut self) -> usize {
        loop {
            let at = self.hand % self.clock.len();
            self.hand = at + 1;
            match self.cached.get_mut(&self.clock[at]) {
                Some(cached) if cached.warm => cached.warm = false,
                _ => return at,
            }
        }
    }

    pub(crate) fn pin(&mut self, place: Place, page: Page) {
        self.pinned.insert(place, page);
    }

    /// Keeps a node that a checkpoint writes until [`Nodes::written`].
    pub(crate) fn write(&mut self, place: Place, page: Page) {
        self.forget(place);
        self.writing.insert(place, page);
    }

    /// Whether a node may not be on disk yet.
    pub(crate) fn is_being_written(&self, place: Place) -> bool {
        self.writing.contains_key(&place)
    }

    /// All nodes of a checkpoint are on disk; those of the catalog stay.
    pub(crate) fn written(&mut self, pinned: &[Place]) {
        for place in pinned {
            if let Some(page) = self.writing.remove(place) {
                self.pinned.insert(*place, page);
            }
        }
        for (place, page) in std::mem::take(&mut self.writing) {
            self.insert(place, page);
        }
    }

    /// There is no such node any more.
    pub(crate) fn forget(&mut self, place: Place) {
        self.cached.remove(&place);
        self.pinned.remove(&place);
    }

    /// How many nodes are in memory; those of the catalog count as cached.
    pub(crate) fn held(&self) -> Held {
        Held { cached: self.cached.len() + self.pinned.len(), writing: self.writing.len(), changed: self.changed }
    }

    /// How often a node was looked for and was there.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// A page that can be changed without anybody else seeing it.
    pub(crate) fn copy(page: &Page) -> Page {
        Arc::clone(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_to_its_bound_and_what_is_warm() {
        let mut nodes = Nodes::new(32);
        let page: Page = Arc::new([0; 4096]);
        nodes.pin(Place(9), page.clone());
        for place in 100..400 {
            nodes.insert(Place(place), page.clone());
            assert!(nodes.get(Place(100)).is_some(), "it is asked for all the time");
        }
        assert_eq!(nodes.held().cached, 33);
        assert!(nodes.get(Place(9)).is_some() && nodes.get(Place(101)).is_none());
        nodes.write(Place(7), page.clone());
        nodes.write(Place(8), page);
        nodes.written(&[Place(8)]);
        assert!(nodes.pinned.contains_key(&Place(8)) && nodes.get(Place(7)).is_some());
        assert_eq!(nodes.held().cached, 34);
    }

    #[test]
    fn what_is_cached_makes_room_for_what_has_changed_and_what_is_written() {
        let mut nodes = Nodes::new(1024);
        let page: Page = Arc::new([0; 4096]);
        (0..2000).for_each(|place| nodes.insert(Place(place), page.clone()));
        assert_eq!((nodes.held().cached, nodes.most_changed()), (1024, 256));
        for place in 5000..5256 {
            nodes.write(Place(place), page.clone());
            nodes.changed += 1;
            nodes.shrink();
            let Held { cached, writing, changed } = nodes.held();
            assert_eq!(cached + writing + changed, 1024);
        }
        nodes.written(&[]);
        nodes.changed = 0;
        assert_eq!(nodes.held(), Held { cached: 768, writing: 0, changed: 0 });
        // However much has changed, the way to a block can be kept.
        nodes.changed = 5000;
        (9000..9100).for_each(|place| nodes.insert(Place(place), page.clone()));
        assert_eq!(nodes.held().cached, LEAST);
    }
}
