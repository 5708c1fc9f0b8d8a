//! Deleting: giving back what only the deleted state has.
//!
//! It is taken apart from its first block to its last, compared with the state after it in the line. What was born after the state *before* it,
//! and is not in the state after it, is nobody else's. How far it has come is in its record, so with each checkpoint that part of the
//! deletion is done for good, and a crash continues there. It changes no map, so it needs no room.
//!
//! Meanwhile the state after it may be the volume itself, and be written to. What a write replaces behind the deletion's position is the
//! volume's to free ([`crate::catalog::Floor`]), and what it replaces ahead of it is found by the deletion.

use super::task::{Flow, Task};
use super::{Engine, Notice, Rule, World};
use crate::error::Error;
use crate::format::node;
use crate::map::{Leaf, Missing, NodeAt};
use crate::units::{Epoch, Place, TreeId};

/// Leaves, or what is skipped at once, that are looked at in one piece of work.
const PIECE: usize = 64;
/// Pieces of freed room that are collected before a checkpoint is made for them.
const MANY_FREED: usize = 32_768;

/// The deletion that is under way.
#[derive(Debug)]
pub(super) struct Deletion {
    of: TreeId,
    task: usize,
    /// The node that it waits for.
    waits: Option<NodeAt>,
}

impl<W: World> Engine<W> {
    /// Whether there is something to delete that waits for nothing.
    pub(super) fn can_delete(&self) -> bool {
        if self.failed.is_some() || self.replayed.is_none() || self.space.freed_pieces() > 2 * MANY_FREED {
            return false;
        }
        match &self.deletion {
            Some(deletion) => deletion.waits.is_none(),
            None => self.next_deletion().is_some(),
        }
    }

    fn next_deletion(&self) -> Option<TreeId> {
        self.catalog.next_deletion(W::keeps(Rule::KeepCloned))
    }

    /// One piece of work, if there is any.
    pub(super) fn delete_some(&mut self) {
        if !self.can_delete() {
            return;
        }
        if self.deletion.is_none() {
            let Some(of) = self.next_deletion() else { return };
            let task = self.tasks.insert(Task::Delete);
            self.deletion = Some(Deletion { of, task, waits: None });
        }
        if let Some(task) = self.deletion.as_ref().map(|deletion| deletion.task) {
            self.step(task);
        }
    }

    pub(super) fn delete_step(&mut self) -> Flow<W> {
        let Some(deletion) = &mut self.deletion else { return Flow::Done };
        deletion.waits = None;
        let of = deletion.of;
        for _ in 0..PIECE {
            match self.delete_piece(of) {
                Ok(false) => {}
                Ok(true) => {
                    self.catalog.remove(of);
                    self.deletion = None;
                    self.checkpoint_wanted = true;
                    self.out.notices.push(Notice::Deleted(of.0));
                    return Flow::Done;
                }
                Err(missing) => {
                    if let Some(deletion) = &mut self.deletion {
                        deletion.waits = Some(missing.at);
                    }
                    return Flow::Wait(Task::Delete, missing);
                }
            }
        }
        self.checkpoint_wanted |= self.space.freed_pieces() > MANY_FREED;
        Flow::Keep(Task::Delete)
    }

    /// Takes one leaf apart, or passes over what is shared as a whole; tells whether that was the last.
    fn delete_piece(&mut self, of: TreeId) -> Result<bool, Missing> {
        let Some(tree) = self.catalog.trees.get(&of) else { return Ok(true) };
        let before = self.catalog.before(&tree.record).map_or(Epoch(0), |tree| tree.record.epoch);
        let before = if W::keeps(Rule::KeepOlder) { before } else { Epoch(0) };
        let after = self.catalog.after(&tree.record).filter(|_| W::keeps(Rule::KeepShared));
        let after = after.and_then(|id| self.catalog.trees.get(&id));
        let size = tree.record.blocks;
        let block = tree.record.deleting.unwrap_or(0);
        if block >= size {
            return Ok(true);
        }
        // The nodes on the way that the state after has not, each with whether it still points to it until its own next checkpoint.
        let mut path: Vec<(NodeAt, Place, bool)> = Vec::new();
        let mut freed: Vec<Place> = Vec::new();
        let mut level = tree.record.level;
        let end = loop {
            let at = NodeAt::leaf_of(block).above(level);
            let node = tree.at(&mut self.nodes, at)?.pointer.node;
            if !node.place.is_somewhere() || node.birth <= before {
                break at.blocks().end();
            }
            let other = after.map(|after| after.at(&mut self.nodes, at)).transpose()?;
            let is_same = other.is_some_and(|other| other.pointer.node.place == node.place);
            if is_same && !other.is_some_and(|other| other.changed) {
                break at.blocks().end();
            }
            path.push((at, node.place, is_same));
            if level == 0 {
                let missing = Missing { tree: of, at, node };
                let page = self.nodes.get(node.place).cloned().ok_or(missing)?;
                let other = after.map(|after| after.leaf(&mut self.nodes, block)).transpose()?;
                let other = other.unwrap_or(Leaf::Hole(Epoch(0)));
                for index in 0..node::LEAF_ENTRIES {
                    let entry = node::entry(&page, index);
                    let is_shared = other.entry(index as u64).place == entry.place;
                    if entry.place.is_somewhere() && entry.birth > before && !is_shared {
                        freed.push(entry.place);
                    }
                }
                break at.blocks().end();
            }
            level -= 1;
        };
        let passed = path.iter().filter(|(at, _, _)| at.blocks().end() <= end || end >= size);
        freed.extend(passed.filter(|(_, _, is_same)| !is_same).map(|(_, place, _)| *place));
        for place in freed {
            self.nodes.forget(place);
            super::write::free::<W>(&mut self.space, place);
        }
        self.set_passed(of, end);
        Ok(end >= size)
    }

    fn set_passed(&mut self, of: TreeId, end: u64) {
        if let Some(tree) = self.catalog.trees.get_mut(&of) {
            tree.record.deleting = Some(end.min(tree.record.blocks));
        }
        self.catalog.touch(of);
    }

    /// A node is lost that says what is to be freed: what is below it stays used until a repair.
    pub(super) fn skip_deletion(&mut self, task: usize, error: Error) {
        let Some(deletion) = &mut self.deletion else { return };
        let (of, lost) = (deletion.of, deletion.waits.take());
        self.out.notices.push(Notice::Leaked(error));
        if let Some(at) = lost {
            self.set_passed(of, at.blocks().end());
        }
        self.step(task);
    }
}
