//! The volumes and snapshots of a pool, and which of them share what.
//!
//! A *line* is a volume with its snapshots, in the order of their epochs. What is written between two of them is born in the epoch of the
//! later one, so a block that is in a map was put there by the first of the line whose epoch is not below its birth, and all from that one on until
//! it was overwritten share it. Whoever replaces a block needs to know one number: the *floor*, the epoch of the one before in the line. What is
//! born later is nobody else's.

use crate::format::catalog::{Kind, Record, SLOTS};
use crate::format::layout::MOST_CATALOG_PAGES;
use crate::map::Tree;
use crate::units::{Epoch, SnapshotId, TreeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// From which epoch on what is in a map is its own.
///
/// It is the epoch of the one before in the line, except where that one is being deleted and its deletion has passed the block: what only the
/// deleted one and this one had is this one's now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Floor {
    ahead: Epoch,
    passed: u64,
    behind: Epoch,
}

impl Floor {
    pub(crate) fn at(self, block: u64) -> Epoch {
        if block < self.passed { self.behind } else { self.ahead }
    }
}

/// A volume, and its snapshots.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// By their epochs; a volume that is being deleted is the last of them.
    pub(crate) states: BTreeMap<Epoch, TreeId>,
    pub(crate) volume: Option<TreeId>,
    pub(crate) origin: Option<SnapshotId>,
}

/// All of a pool.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) trees: HashMap<TreeId, Tree>,
    pub(crate) lines: HashMap<VolumeId, Line>,
    /// How many lines were cloned from a snapshot.
    clones: HashMap<SnapshotId, usize>,
    names: HashMap<(Option<VolumeId>, String), TreeId>,
    /// What is being deleted, or waits for it.
    deleting: BTreeSet<TreeId>,
    free_slots: BTreeSet<u64>,
    /// What each slot that is in use holds.
    slots: BTreeMap<u64, TreeId>,
    pages: u64,
    pub(crate) changed_pages: BTreeSet<u64>,
}

impl Catalog {
    /// Adds what was read from a slot, or what is new if there is none.
    pub(crate) fn add(&mut self, record: Record, slot: Option<u64>) {
        let slot = slot.unwrap_or_else(|| self.take_slot());
        let id = record.id;
        if !self.lines.contains_key(&record.line)
            && let Some(origin) = record.origin
        {
            *self.clones.entry(origin).or_default() += 1;
        }
        let line = self.lines.entry(record.line).or_default();
        line.origin = record.origin;
        if record.kind == Kind::Volume && record.deleting.is_none() {
            line.volume = Some(id);
        } else {
            line.states.insert(record.epoch, id);
        }
        if record.deleting.is_none() {
            self.names.insert(Self::name_key(&record), id);
        } else {
            self.deleting.insert(id);
        }
        self.slots.insert(slot, id);
        self.changed_pages.insert(slot / SLOTS as u64);
        self.trees.insert(id, Tree::new(record, slot));
    }

    /// Says how many pages there are and, after all slots in use were added, that the others are free.
    pub(crate) fn set_pages(&mut self, pages: u64) {
        self.pages = pages;
        self.free_slots = (0..pages * SLOTS as u64).filter(|slot| !self.slots.contains_key(slot)).collect();
        self.changed_pages.clear();
    }

    fn take_slot(&mut self) -> u64 {
        if self.free_slots.is_empty() {
            let first = self.pages * SLOTS as u64;
            self.free_slots.extend(first..first + SLOTS as u64);
            self.pages += 1;
        }
        self.free_slots.pop_first().unwrap_or(0)
    }

    fn name_key(record: &Record) -> (Option<VolumeId>, String) {
        ((record.kind == Kind::Snapshot).then_some(record.line), record.name.clone())
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// For how many volumes and snapshots there is room.
    pub(crate) fn room(&self) -> u64 {
        self.free_slots.len() as u64 + MOST_CATALOG_PAGES.saturating_sub(self.pages) * SLOTS as u64
    }

    /// Whether another has its name already.
    pub(crate) fn has_name(&self, record: &Record) -> bool {
        record.deleting.is_none() && self.names.contains_key(&Self::name_key(record))
    }

    /// What is in a page, by the slots of the page.
    pub(crate) fn in_page(&self, page: u64) -> impl Iterator<Item = (usize, &Record)> {
        let first = page * SLOTS as u64;
        let trees = self.slots.range(first..first + SLOTS as u64);
        trees.filter_map(move |(slot, id)| Some((usize::try_from(slot - first).ok()?, &self.trees.get(id)?.record)))
    }

    /// Says that the record of a tree has changed.
    pub(crate) fn touch(&mut self, id: TreeId) {
        if let Some(tree) = self.trees.get(&id) {
            self.changed_pages.insert(tree.slot / SLOTS as u64);
        }
    }

    /// Whether a name is taken, of a volume or of a snapshot of this line.
    pub(crate) fn is_taken(&self, line: Option<VolumeId>, name: &str) -> bool {
        self.names.contains_key(&(line, name.to_owned()))
    }

    #[cfg(test)]
    pub(crate) fn find(&self, line: Option<VolumeId>, name: &str) -> Option<TreeId> {
        self.names.get(&(line, name.to_owned())).copied()
    }

    /// What can be read: neither gone nor being deleted.
    pub(crate) fn live(&self, id: TreeId) -> Option<&Tree> {
        self.trees.get(&id).filter(|tree| tree.record.deleting.is_none() && id != TreeId::CATALOG)
    }

    pub(crate) fn live_volume(&self, id: VolumeId) -> Option<&Tree> {
        self.live(id.into()).filter(|tree| tree.record.kind == Kind::Volume)
    }

    pub(crate) fn live_snapshot(&self, id: SnapshotId) -> Option<&Tree> {
        self.live(id.into()).filter(|tree| tree.record.kind == Kind::Snapshot)
    }

    /// The one before in the line, or the snapshot that the line was cloned from.
    pub(crate) fn before(&self, record: &Record) -> Option<&Tree> {
        let line = self.lines.get(&record.line)?;
        let is_volume = line.volume == Some(record.id);
        let end = if is_volume { Epoch(u64::MAX) } else { record.epoch };
        let before = line.states.range(..end).next_back().map(|(_, id)| *id);
        self.trees.get(&before.or(line.origin.map(TreeId::from))?)
    }

    /// The one after in the line.
    pub(crate) fn after(&self, record: &Record) -> Option<TreeId> {
        let line = self.lines.get(&record.line)?;
        let after = line.states.range(record.epoch..).map(|(_, id)| *id).find(|id| *id != record.id);
        after.or(line.volume.filter(|id| *id != record.id))
    }

    /// What is born after this is the tree's alone until a snapshot is taken of it.
    pub(crate) fn floor(&self, record: &Record) -> Floor {
        let Some(before) = self.before(record) else { return Floor::default() };
        let below = || self.before(&before.record).map_or(Epoch(0), |tree| tree.record.epoch);
        let passed = before.record.deleting.unwrap_or(0);
        Floor { ahead: before.record.epoch, passed, behind: if passed > 0 { below() } else { Epoch(0) } }
    }

    /// Marks something as not wanted any more; a volume becomes the last state of its line.
    pub(crate) fn begin_deletion(&mut self, id: TreeId) {
        let Some(tree) = self.trees.get_mut(&id) else { return };
        let key = Self::name_key(&tree.record);
        tree.record.deleting = Some(0);
        let (line, epoch) = (tree.record.line, tree.record.epoch);
        if let Some(line) = self.lines.get_mut(&line)
            && line.volume == Some(id)
        {
            line.volume = None;
            line.states.insert(epoch, id);
        }
        self.names.remove(&key);
        self.deleting.insert(id);
        self.touch(id);
    }

    /// The next to be taken apart: none that was cloned, since the clones need it.
    pub(crate) fn next_deletion(&self, keep_cloned: bool) -> Option<TreeId> {
        // One at a time: the one that was begun is ended first, whatever else waits.
        let passed = |id: &&TreeId| self.trees.get(id).and_then(|tree| tree.record.deleting);
        let begun = self.deleting.iter().find(|id| passed(id).is_some_and(|passed| passed > 0));
        let is_free = |id: &&TreeId| !keep_cloned || !self.clones.contains_key(&SnapshotId(id.0));
        begun.or_else(|| self.deleting.iter().find(is_free)).copied()
    }

    /// Forgets what was taken apart.
    pub(crate) fn remove(&mut self, id: TreeId) {
        self.touch(id);
        self.deleting.remove(&id);
        let Some(tree) = self.trees.remove(&id) else { return };
        self.slots.remove(&tree.slot);
        self.free_slots.insert(tree.slot);
        let Some(line) = self.lines.get_mut(&tree.record.line) else { return };
        line.states.remove(&tree.record.epoch);
        if line.states.is_empty() && line.volume.is_none() {
            self.lines.remove(&tree.record.line);
            if let Some(origin) = tree.record.origin
                && let Some(count) = self.clones.get_mut(&origin)
            {
                *count -= 1;
                if *count == 0 {
                    self.clones.remove(&origin);
                }
            }
        }
    }

    /// A volume becomes part of the past under this id and name; it goes on in the next epoch.
    pub(crate) fn snapshot(&mut self, volume: TreeId, id: SnapshotId, name: String, next: Epoch) {
        let Some(tree) = self.trees.get_mut(&volume) else { return };
        let record = Record { id: id.into(), kind: Kind::Snapshot, name, ..tree.record.clone() };
        tree.record.epoch = next;
        self.touch(volume);
        self.add(record, None);
    }
}
