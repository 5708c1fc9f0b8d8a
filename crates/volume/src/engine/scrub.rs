//! Scrubbing: reading what nobody has asked for, so that damage is found while there is still another copy.
//!
//! Of each volume and snapshot only what is not in the live state before it is read, so a pass over all of them reads every block, and none twice
//! that is not in several clones of a deleted snapshot. The catalog is scrubbed by itself, and so is what lies at fixed places ([`super::scrub_fixed`]); what is
//! damaged there is in memory, and written anew by the next checkpoint.

use super::io::{Fault, Io};
use super::request::{Answer, Scrubbed};
use super::task::{Flow, Task};
use super::{Engine, Notice, Purpose, World};
use crate::format::catalog::Record;
use crate::map::{Missing, NodeAt, Nodes, Tree};
use crate::units::{Epoch, Place, TreeId};

/// Leaves, or what is passed over at once, that a scrub goes through before others get their turn.
const MOST_LEAVES: u32 = 1024;

/// What is to be compared: which block of the volume, where, and its sum.
type Wanted = Vec<(u64, Place, u32)>;

impl<W: World> Engine<W> {
    pub(super) fn scrub(&mut self, id: usize, tag: W::Tag, of: TreeId, left: usize, mut scrubbed: Scrubbed) -> Flow<W> {
        let is_catalog = of == TreeId::CATALOG;
        if is_catalog && self.checkpoint.is_some() {
            // Its pages may not be on the disk yet.
            return Flow::Stall(Task::Scrub { tag, of, left, scrubbed });
        }
        let Some(tree) = self.catalog.trees.get(&of).filter(|tree| is_catalog || tree.record.deleting.is_none()) else {
            self.answer(tag, Err(self.absent(of)));
            return Flow::Done;
        };
        let before = self.scrubbed_before(&tree.record);
        let mut passed = 0;
        while scrubbed.next < tree.record.blocks && left > 0 {
            passed += 1;
            if passed > MOST_LEAVES {
                self.has_yielded = true;
                return Flow::Stall(Task::Scrub { tag, of, left, scrubbed });
            }
            match wanted(tree, &mut self.nodes, scrubbed.next, before) {
                Err(missing) => return Flow::Wait(Task::Scrub { tag, of, left, scrubbed }, missing),
                Ok((end, blocks)) => {
                    scrubbed.next = end.min(tree.record.blocks);
                    if blocks.is_empty() {
                        continue;
                    }
                    scrubbed.read += blocks.len() as u64;
                    let age = self.enter();
                    let io = blocks.iter().map(|(_, place, sum)| (*place, *sum)).collect();
                    self.ask(Purpose::Verify(id, age), Io::Verify { blocks: io });
                    let blocks = blocks.into_iter().map(|(block, place, _)| (block, place)).collect();
                    return Flow::Keep(Task::Scrubbing { tag, of, left: left - 1, scrubbed, blocks });
                }
            }
        }
        self.answer(tag, Ok(Answer::Scrubbed(scrubbed)));
        Flow::Done
    }

    /// The epoch up to which what is in a state is read with another: the last one before it that can be asked for.
    fn scrubbed_before(&self, record: &Record) -> Epoch {
        let mut before = self.catalog.before(record);
        while let Some(tree) = before
            && tree.record.deleting.is_some()
        {
            before = self.catalog.before(&tree.record);
        }
        before.map_or(Epoch(0), |tree| tree.record.epoch)
    }

    pub(super) fn verified(&mut self, id: usize, faults: &[(Place, Fault)]) {
        match self.tasks.take(id) {
            Some(Task::Scrubbing { tag, of, left, mut scrubbed, blocks }) => {
                for (place, fault) in faults {
                    let block = blocks.iter().find(|(_, at)| at == place).map_or(0, |(block, _)| *block);
                    let error = self.fault(of, block, place.0, fault.clone());
                    self.out.notices.push(Notice::Damage(error.clone()));
                    scrubbed.faults.push(error);
                    if of == TreeId::CATALOG {
                        // To other places, with all nodes above.
                        self.catalog.changed_pages.insert(block);
                        self.checkpoint_wanted = true;
                    }
                }
                self.tasks.put_back(id, Task::Scrub { tag, of, left, scrubbed });
                self.step(id);
            }
            Some(other) => self.tasks.put_back(id, other),
            None => {}
        }
    }
}

/// What to read of the leaf of a block, and of the nodes above it; gives up to which block that is all.
fn wanted(tree: &Tree, nodes: &mut Nodes, block: u64, before: Epoch) -> Result<(u64, Wanted), Missing> {
    let mut blocks = Vec::new();
    for level in (0..=tree.record.level).rev() {
        let at = NodeAt::leaf_of(block).above(level);
        let found = tree.at(nodes, at)?;
        let node = found.pointer.node;
        if !found.changed && (!node.place.is_somewhere() || node.birth <= before) {
            return Ok((at.blocks().end(), Vec::new()));
        }
        let is_on_disk = node.place.is_somewhere() && !nodes.is_being_written(node.place);
        if is_on_disk && node.birth > before {
            blocks.push((at.blocks().start, node.place, node.sum));
        }
    }
    let leaf = tree.leaf(nodes, block)?;
    let at = NodeAt::leaf_of(block).blocks();
    for block in at.start..at.end() {
        let entry = leaf.entry(block);
        if entry.place.is_somewhere() && entry.birth > before {
            blocks.push((block, entry.place, entry.sum));
        }
    }
    Ok((at.end(), blocks))
}
