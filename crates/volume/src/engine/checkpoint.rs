//! Checkpoints: the whole state of the pool becomes durable at once.
//!
//! 1. *Freeze*: at one instant, with no request to the disk under way on its behalf, all changed nodes get places, from the leaves up; what was
//!    asked of the catalog is done; the superblock is made. From here on changes belong to the next checkpoint.
//! 2. *Pages*: nodes, catalog and space map are written, none of them over what the last checkpoint needs.
//! 3. *Flush*, 4. *superblock*, 5. *flush*.
//!
//! After a crash before 4 the last checkpoint is found, and with the log all that was flushed; after 5 the new one. A crash in 4 leaves
//! either. Only after 5 may the log be overwritten up to the freeze, and what the freeze has freed be given out again.

use super::io::Io;
use super::request::{Admin, Answer};
use super::{Engine, Purpose, Retired, Rule, World};
use crate::error::Error;
use crate::format::catalog::{Record, SLOT};
use crate::format::layout::superblocks;
use crate::format::node::{self, Entry, Page};
use crate::format::superblock::Superblock;
use crate::map::{Placed, freeze};
use crate::memory::Buffer;
use crate::space::Use;
use crate::units::{BLOCK, BLOCK_BYTES, Place, Run, TreeId};
use std::collections::VecDeque;

/// Nodes that follow each other and are written at once: 256 KiB.
const MOST_AT_ONCE: usize = 64;
/// So many of such writes are under way: each has a copy of its nodes, and others want the disk, too.
const MOST_WRITES: usize = 8;

/// What a checkpoint has no room for.
struct NoRoom(&'static str);

/// A checkpoint that is not durable yet.
pub(super) struct Checkpoint<W: World> {
    superblock: Superblock,
    /// All changes up to this count are in it.
    applied: u64,
    /// Where a replay begins that starts from it.
    position: u64,
    /// Writes that are under way.
    writes: usize,
    /// Nodes whose writing has not begun.
    left: VecDeque<(Place, Vec<Page>)>,
    freed: Vec<Run>,
    /// Places of the catalog's nodes.
    pinned: Vec<Place>,
    pub(super) answers: Vec<(W::Tag, Answer<W::Memory>)>,
}

impl<W: World> Engine<W> {
    /// Begins a checkpoint if there is a reason and none is under way.
    pub(super) fn maybe_checkpoint(&mut self) {
        if self.checkpoint.is_some() || self.failed.is_some() || !self.is_started {
            return;
        }
        let waits = !self.held.is_empty() || !self.held_discards.is_empty();
        let wanted = self.checkpoint_wanted
            || !self.admin.is_empty()
            || self.nodes.changed >= self.most_changed() / 2
            || self.log.wants_checkpoint()
            || (waits && self.space.has_freed());
        if wanted {
            self.freeze();
        }
    }

    /// A checkpoint that nobody waits for.
    pub(super) fn make_checkpoint(&mut self) -> super::Output<W> {
        self.checkpoint_wanted = true;
        self.settle()
    }

    /// The first step, with no request to the disk. A pool that has no room for it, which only places that the device refuses can bring about, has
    /// failed: what was flushed is in the log.
    pub(super) fn freeze(&mut self) {
        let mut answers = Vec::new();
        if let Err(NoRoom(what)) = self.try_to_freeze(&mut answers) {
            self.fail(format!("there is no room for {what}, which a checkpoint needs"));
            let error = self.failed.clone().unwrap_or(Error::Full);
            answers.into_iter().for_each(|(tag, _)| self.answer(tag, Err(error.clone())));
        }
    }

    fn try_to_freeze(&mut self, answers: &mut Vec<(W::Tag, Answer<W::Memory>)>) -> Result<(), NoRoom> {
        self.checkpoint_wanted = false;
        // What is pending becomes records that a replay from this checkpoint skips. Room for them is always kept.
        if !self.log.seal(self.durable_checkpoint, true) {
            return Err(NoRoom("the records of the log"));
        }
        self.company.close();
        let mut written = Vec::new();
        for id in std::mem::take(&mut self.changed_trees) {
            self.freeze_tree(id, &mut written)?;
            self.catalog.touch(id);
        }
        let clean = self.do_admin(answers, &mut written)?;
        let first_pinned = written.len();
        let mut pages = self.freeze_catalog(&mut written)?;
        let pinned = written[first_pinned..].iter().map(|placed| placed.place).collect();
        let superblock = self.freeze_space(&mut pages, clean);
        let left = join(written);
        let (applied, position) = (self.log.applied, self.log.position());
        let freed = self.space.take_freed();
        let (writes, answers) = (pages.len(), std::mem::take(answers));
        let bytes = pages.iter().map(|(_, page)| page.len()).sum::<usize>();
        let bytes = bytes + left.iter().map(|(_, pages)| pages.len() * BLOCK).sum::<usize>();
        self.counts.checkpoint_bytes += bytes as u64;
        self.checkpoint = Some(Checkpoint { superblock, applied, position, writes, left, freed, pinned, answers });
        for page in pages {
            self.ask(Purpose::CheckpointPages, Io::Pages { pages: vec![page] });
        }
        self.write_nodes();
        if !W::keeps(Rule::KeepLog) {
            self.log.trim(self.log.position());
        }
        self.resume();
        Ok(())
    }

    /// Does what waits for a checkpoint; tells whether it is the last one before the pool is closed.
    fn do_admin(
        &mut self,
        answers: &mut Vec<(W::Tag, Answer<W::Memory>)>,
        written: &mut Vec<Placed>,
    ) -> Result<bool, NoRoom> {
        let mut clean = false;
        let mut waiting = std::mem::take(&mut self.admin).into_iter();
        while let Some((tag, admin)) = waiting.next() {
            clean |= matches!(admin, Admin::Checkpoint { clean: true });
            let grows = if let Admin::Resize { volume, .. } = &admin { Some(TreeId::from(*volume)) } else { None };
            match self.admin(admin) {
                Ok(answer) => answers.push((tag, answer)),
                Err(error) => self.answer(tag, Err(error)),
            }
            if let Some(id) = grows
                && let Err(error) = self.freeze_tree(id, written)
            {
                self.admin.extend(waiting);
                return Err(error);
            }
        }
        Ok(clean)
    }

    fn freeze_tree(&mut self, id: TreeId, written: &mut Vec<Placed>) -> Result<(), NoRoom> {
        let Some(tree) = self.catalog.trees.get(&id) else { return Ok(()) };
        let runs = self.space.allocate(tree.changed.len() as u64, Use::Node).ok_or(NoRoom("the changed nodes"))?;
        let mut places =
            runs.iter().flat_map(|run| (run.start.0..run.end()).map(Place)).collect::<Vec<_>>().into_iter();
        let floor = self.catalog.floor(&tree.record);
        let first = written.len();
        let Some(tree) = self.catalog.trees.get_mut(&id) else { return Ok(()) };
        let replaced = freeze(tree, &mut self.nodes, &mut places, floor, written);
        written[first..].iter().for_each(|placed| self.space.put_in_use(Run::one(placed.place)));
        places.for_each(|place| self.space.release(Run::one(place)));
        replaced.into_iter().for_each(|place| super::write::free::<W>(&mut self.space, place));
        Ok(())
    }

    /// Puts the changed pages of the catalog to new places, and then its map.
    fn freeze_catalog(&mut self, written: &mut Vec<Placed>) -> Result<Vec<(u64, Buffer)>, NoRoom> {
        let mut pages = Vec::new();
        for page in std::mem::take(&mut self.catalog.changed_pages) {
            let mut bytes = Buffer::zeroed(BLOCK);
            for (slot, record) in self.catalog.in_page(page) {
                Record::put(record, &mut bytes[slot * SLOT..(slot + 1) * SLOT]);
            }
            let run = self.space.allocate(1, Use::Node).and_then(|runs| runs.first().copied());
            let run = run.ok_or(NoRoom("the catalog"))?;
            let sum = crate::checksum::of(&bytes);
            let Some(tree) = self.catalog.trees.get_mut(&TreeId::CATALOG) else { continue };
            tree.grow(&mut self.nodes, page + 1);
            let birth = tree.record.epoch;
            let leaf = tree.change(&mut self.nodes, page).map_err(|_| NoRoom("the catalog's nodes in memory"))?;
            let index = crate::map::index_in_leaf(page);
            let old = node::entry(leaf, index);
            node::set_entry(leaf, index, Entry { place: run.start, birth, sum });
            if old.place.is_somewhere() {
                super::write::free::<W>(&mut self.space, old.place);
            }
            self.space.put_in_use(run);
            pages.push((run.start.bytes(), bytes));
        }
        self.freeze_tree(TreeId::CATALOG, written)?;
        Ok(pages)
    }

    fn freeze_space(&mut self, pages: &mut Vec<(u64, Buffer)>, clean: bool) -> Superblock {
        let (images, groups) = self.space.freeze(!W::keeps(Rule::AlternatePages));
        pages.extend(images.into_iter().map(|image| (image.place.bytes(), image.bytes)));
        let catalog = self.catalog.trees.get(&TreeId::CATALOG).map(|tree| &tree.record);
        let (catalog, level) = catalog.map_or((self.superblock.catalog, 0), |record| (record.root, record.level));
        self.superblock = Superblock {
            checkpoint: self.superblock.checkpoint + 1,
            generation: self.log.generation,
            blocks: self.space.blocks(),
            replay_sequence: self.log.sequence,
            replay_offset: self.log.offset(),
            clean,
            catalog_pages: self.catalog.pages(),
            catalog_level: level,
            catalog,
            groups,
            ..self.superblock.clone()
        };
        self.superblock.clone()
    }

    /// Goes on with the nodes; when all that belongs to the checkpoint is written, it is flushed.
    fn write_nodes(&mut self) {
        while let Some(checkpoint) = &mut self.checkpoint
            && checkpoint.writes < MOST_WRITES
            && let Some((start, pages)) = checkpoint.left.pop_front()
        {
            checkpoint.writes += 1;
            self.ask(Purpose::CheckpointPages, Io::Nodes { start, pages });
        }
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.writes == 0) {
            self.flush_pages();
        }
    }

    pub(super) fn pages_written(&mut self, result: Result<(), (u64, String)>) {
        if let Err((place, reason)) = result {
            self.refused_place = Some(Place(place));
            return self.fail(format!("a checkpoint cannot be written at block {place} of the pool: {reason}"));
        }
        let Some(checkpoint) = &mut self.checkpoint else { return };
        checkpoint.writes -= 1;
        self.write_nodes();
    }

    fn flush_pages(&mut self) {
        if W::keeps(Rule::FlushPages) { self.ask(Purpose::CheckpointFlush, Io::Flush) } else { self.write_superblock() }
    }

    pub(super) fn pages_flushed(&mut self, result: Result<(), String>) {
        match result {
            Err(reason) => self.fail(format!("the device does not flush: {reason}")),
            Ok(()) => self.write_superblock(),
        }
    }

    /// Both copies go out in one write; the two of the last checkpoint stay as they are.
    fn write_superblock(&mut self) {
        let Some(checkpoint) = &self.checkpoint else { return };
        let number = if W::keeps(Rule::AlternateSuperblocks) { checkpoint.superblock.checkpoint } else { 0 };
        let mut bytes = Buffer::zeroed(2 * BLOCK);
        let superblock = checkpoint.superblock.encode();
        bytes.chunks_exact_mut(BLOCK).for_each(|copy| copy.copy_from_slice(&superblock));
        let offset = superblocks(number).start.0 * BLOCK_BYTES;
        self.ask(Purpose::CheckpointSuperblock, Io::Pages { pages: vec![(offset, bytes)] });
    }

    pub(super) fn superblock_written(&mut self, result: Result<(), (u64, String)>) {
        match result {
            Err((_, reason)) => self.fail(format!("a superblock cannot be written: {reason}")),
            Ok(()) if W::keeps(Rule::FlushSuperblock) => self.ask(Purpose::CheckpointLast, Io::Flush),
            Ok(()) => self.superblock_flushed(Ok(())),
        }
    }

    /// The checkpoint is durable.
    pub(super) fn superblock_flushed(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            return self.fail(format!("the device does not flush: {reason}"));
        }
        let Some(checkpoint) = self.checkpoint.take() else { return };
        self.durable_checkpoint = checkpoint.superblock.checkpoint;
        self.counts.checkpoints += 1;
        self.nodes.written(&checkpoint.pinned);
        self.space.use_grown();
        self.log.trim(checkpoint.position);
        self.log.set_in_checkpoint(checkpoint.applied);
        self.answer_logged();
        self.answer_flushes();
        if !checkpoint.freed.is_empty() {
            self.retired.push_back(Retired { age: self.age, runs: checkpoint.freed });
        }
        self.age += 1;
        self.release_retired();
        for (tag, answer) in checkpoint.answers {
            self.answer(tag, Ok(answer));
        }
        self.replayed.get_or_insert(Ok(()));
        self.resume();
    }
}

/// Nodes that follow each other are written at once.
fn join(mut written: Vec<Placed>) -> VecDeque<(Place, Vec<Page>)> {
    written.sort_unstable_by_key(|placed| placed.place);
    let mut runs: VecDeque<(Place, Vec<Page>)> = VecDeque::new();
    for Placed { place, page } in written {
        match runs.back_mut() {
            Some((start, pages)) if start.0 + pages.len() as u64 == place.0 && pages.len() < MOST_AT_ONCE => {
                pages.push(page)
            }
            _ => runs.push_back((place, vec![page])),
        }
    }
    runs
}
