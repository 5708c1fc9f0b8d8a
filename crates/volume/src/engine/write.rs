//! Writing and discarding.
//!
//! A write goes through these steps; after a crash in any of them the block is as it was before, unless the log was flushed.
//!
//! 1. It is *admitted* if the pool has room for it and for all that it may change in maps; else it waits.
//! 2. Its data is written to free blocks.
//! 3. It is *applied*: the map in memory says so, what it replaces is freed, the change is pending in the log. Reads see it.
//! 4. It is answered when the log has it: then it survives the end of the process. One that shall be durable waits until the log is flushed, too, and
//!    survives the end of the power.

use super::io::{Io, Part};
use super::request::Answer;
use super::task::{Flow, Task, whole_blocks};
use super::{Engine, Notice, Purpose, Rule, World};
use crate::catalog::Floor;
use crate::error::Error;
use crate::format::node::{self, Entry, LEAF_ENTRIES};
use crate::format::record::Change;
use crate::map::{Missing, NodeAt};
use crate::space::Use;
use crate::units::{BLOCK, Blocks, Epoch, Place, Run, TreeId, VolumeId};
use std::sync::Arc;

/// How often a write that the device refuses is tried at another place; each time four times as many blocks are passed over, 64 MiB at
/// last. Then whoever asked is told.
const MOST_ATTEMPTS: u32 = 8;

/// Leaves that a discard goes through at once, so that it does not hold up others: 256 MiB of the volume.
const MOST_LEAVES: u32 = 256;

/// A write that is under way.
pub(super) struct Writing<W: World> {
    pub(super) tag: W::Tag,
    pub(super) volume: VolumeId,
    start: u64,
    from: Arc<W::Memory>,
    sums: Vec<u32>,
    runs: Vec<Run>,
    /// How many of its blocks are in the map.
    applied: u64,
    /// The first block of a leaf that is lost, and that it has something new for as a whole.
    renewed: Option<u64>,
    durable: bool,
    attempts: u32,
    /// Where it was refused, and what lies around.
    avoided: Vec<Run>,
    /// How many nodes it may change.
    promise: u64,
}

impl<W: World> Writing<W> {
    pub(super) fn next_block(&self) -> u64 {
        self.start + self.applied
    }

    fn count(&self) -> u64 {
        self.sums.len() as u64
    }

    fn end(&self) -> u64 {
        self.start + self.count()
    }

    /// What is left of the runs after so many blocks: the first piece of it.
    fn piece(&self, mut skip: u64) -> Run {
        for run in &self.runs {
            let count = u64::from(run.count);
            if skip < count {
                let count = run.count - u32::try_from(skip).unwrap_or(0);
                return Run { start: Place(run.start.0 + skip), count };
            }
            skip -= count;
        }
        Run { start: Place::NOWHERE, count: 0 }
    }
}

impl<W: World> Engine<W> {
    /// Whether a volume can be changed there.
    pub(super) fn check_change(&self, volume: VolumeId, blocks: Blocks) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.catalog.live_volume(volume).ok_or(Error::NoVolume(volume))?;
        self.check_range(volume.into(), blocks)
    }

    pub(super) fn begin_write(
        &mut self,
        tag: W::Tag,
        volume: VolumeId,
        start: u64,
        from: W::Memory,
        sums: Vec<u32>,
        durable: bool,
    ) {
        let count = whole_blocks(from.as_ref().len());
        let fits = count.and_then(|count| self.check_change(volume, Blocks { start, count }));
        if let Err(error) = fits {
            return self.answer(tag, Err(error));
        }
        // The leaves that it touches, and the nodes above: fewer than two of each level for each leaf.
        let count = sums.len() as u64;
        let promise = count / LEAF_ENTRIES as u64 + 2 + 2 * u64::from(node::MOST_LEVEL);
        // What could not be admitted if all that is not set aside were free would hold all others for ever.
        let most = self.space.capacity().saturating_sub(promise + self.reserve(3) - self.promised);
        if count > most {
            let most = usize::try_from(most).unwrap_or(0).saturating_mul(BLOCK);
            return self.answer(tag, Err(Error::TooLong { bytes: sums.len() * BLOCK, most }));
        }
        let from = Arc::new(from);
        let (runs, avoided) = (Vec::new(), Vec::new());
        let writing = Writing {
            tag,
            volume,
            start,
            from,
            sums,
            runs,
            applied: 0,
            renewed: None,
            durable,
            attempts: 0,
            avoided,
            promise,
        };
        let id = self.tasks.insert(Task::Write(writing));
        self.held.push_back(id);
        self.admit_held();
    }

    /// Blocks that are kept free so that what was admitted, and the checkpoints that follow, always have room.
    pub(super) fn reserve(&self, checkpoints: u64) -> u64 {
        checkpoints * u64::from(self.superblock.most_nodes) + 64 + self.catalog.pages() + self.promised
    }

    /// Starts writes that wait for room, as far as there is room; in their order, so that none waits for ever.
    pub(super) fn admit_held(&mut self) {
        while let Some(id) = self.held.front().copied() {
            let Some(Task::Write(writing)) = self.tasks.take(id) else {
                self.held.pop_front();
                continue;
            };
            if self.space.free() < writing.count() + writing.promise + self.reserve(3) {
                self.tasks.put_back(id, Task::Write(writing));
                break;
            }
            self.held.pop_front();
            self.promised += writing.promise;
            self.write_data(id, writing);
        }
        if !self.held_discards.is_empty() && self.space.free() >= self.reserve(2) {
            for id in std::mem::take(&mut self.held_discards) {
                self.step(id);
            }
        }
        let waits = !self.held.is_empty() || !self.held_discards.is_empty();
        if waits && !self.is_full && self.checkpoint.is_none() && !self.space.has_freed() && self.retired.is_empty() {
            self.is_full = true;
            self.out.notices.push(Notice::Full);
        } else if !waits && self.is_full {
            self.is_full = false;
            self.out.notices.push(Notice::Resumed);
        }
    }

    /// Gives the data places, and has it written.
    fn write_data(&mut self, id: usize, mut writing: Writing<W>) {
        writing.runs = self.space.allocate(writing.count(), Use::Data).unwrap_or_default();
        let mut at = 0;
        let mut parts = Vec::with_capacity(writing.runs.len());
        for run in &writing.runs {
            parts.push(Part { at, run: *run });
            at += run.count as usize * BLOCK;
        }
        let (from, count) = (Arc::clone(&writing.from), writing.count());
        self.tasks.put_back(id, Task::Write(writing));
        self.writing += 1;
        self.company.begin(count);
        self.ask(Purpose::Write(id, count), Io::Write { parts, from });
        if !W::keeps(Rule::DataFirst)
            && let Some((io, _)) = self.out.ios.last()
        {
            // A broken variant: the data is taken as written when it is only asked for.
            self.ios.take(io.0);
            self.writing -= 1;
            self.company.end(count);
            self.step(id);
        }
    }

    /// The data is on its way into the map, or must be written somewhere else.
    pub(super) fn write_done(&mut self, id: usize, count: u64, result: Result<(), (u64, String)>) {
        self.writing -= 1;
        self.company.end(count);
        let Err((place, reason)) = result else { return self.step(id) };
        let Some(Task::Write(mut writing)) = self.tasks.take(id) else { return };
        self.out.notices.push(Notice::Avoided { place, reason: reason.clone() });
        writing.attempts += 1;
        std::mem::take(&mut writing.runs).into_iter().for_each(|run| self.space.release(run));
        let around = 1_u32 << (2 * writing.attempts.min(7));
        let avoided = self.space.avoid(Run { start: Place(place), count: around }, self.reserve(3));
        writing.avoided.extend(avoided);
        if writing.attempts < MOST_ATTEMPTS && self.space.free() >= writing.count() + self.reserve(3) {
            return self.write_data(id, writing);
        }
        // It is not these places: nothing is avoided for a device that takes nothing.
        std::mem::take(&mut writing.avoided).into_iter().for_each(|run| self.space.release(run));
        self.tasks.put_back(id, Task::Write(writing));
        self.refuse(id, Error::Unwritable { place, reason });
    }

    /// Gives back what a write holds that will not be applied.
    pub(super) fn drop_write(&mut self, writing: &Writing<W>) {
        let mut skip = writing.applied;
        for run in &writing.runs {
            let used = skip.min(u64::from(run.count));
            skip -= used;
            let count = run.count - u32::try_from(used).unwrap_or(0);
            self.space.release(Run { start: Place(run.start.0 + used), count });
        }
        if !writing.runs.is_empty() || writing.attempts > 0 {
            self.promised -= writing.promise;
        }
    }

    /// Puts what is written into the map, leaf by leaf.
    pub(super) fn apply_write(&mut self, mut writing: Writing<W>) -> Flow<W> {
        while writing.applied < writing.count() {
            let block = writing.next_block();
            if let Err(error) = self.check_change(writing.volume, Blocks { start: block, count: 1 }) {
                self.drop_write(&writing);
                self.answer(writing.tag, Err(error));
                return Flow::Done;
            }
            if self.is_crowded() {
                return Flow::Stall(Task::Write(writing));
            }
            match self.apply_leaf(&writing) {
                Err(missing) => return Flow::Wait(Task::Write(writing), missing),
                Ok(changes) => self.log.push(&changes),
            }
            writing.applied = NodeAt::leaf_of(block).blocks().end().min(writing.end()) - writing.start;
        }
        self.promised -= writing.promise;
        self.end_change(writing.tag, writing.durable);
        Flow::Done
    }

    /// Puts what of a write belongs to one leaf into the map, all of it or nothing; gives what the log has to tell.
    fn apply_leaf(&mut self, writing: &Writing<W>) -> Result<Vec<Change>, Missing> {
        let mut at = writing.next_block();
        let end = NodeAt::leaf_of(at).blocks().end().min(writing.end());
        if writing.renewed == Some(at) {
            self.renew(writing.volume, at)?;
        }
        let mut changes = Vec::new();
        while at < end {
            let mut run = writing.piece(at - writing.start);
            run.count = run.count.min(u32::try_from(end - at).unwrap_or(u32::MAX));
            let first = usize::try_from(at - writing.start).unwrap_or(0);
            let sums = &writing.sums[first..first + run.count as usize];
            // Only the first of them can find the leaf missing.
            self.put(writing.volume, at, run, sums)?;
            changes.push(Change::Write { volume: writing.volume, start: at, run, sums: sums.to_vec() });
            at += u64::from(run.count);
        }
        Ok(changes)
    }

    /// Begins a leaf anew that is lost: its blocks are about to be replaced, all of them. What they were stays used until a repair.
    pub(super) fn renew(&mut self, volume: VolumeId, block: u64) -> Result<(), Missing> {
        let Some(tree) = self.catalog.trees.get_mut(&TreeId::from(volume)) else { return Ok(()) };
        tree.renew(&mut self.nodes, block)?;
        self.changed_trees.insert(volume.into());
        Ok(())
    }

    /// A write goes on without a leaf that is lost, if it has all of its blocks.
    pub(super) fn write_without(&mut self, id: usize, mut writing: Writing<W>, lost: Blocks, error: Error) {
        let has_all = writing.next_block() == lost.start && self.reaches_end(writing.volume, lost, writing.end());
        if !has_all || writing.renewed == Some(lost.start) {
            self.tasks.put_back(id, Task::Write(writing));
            self.out.notices.push(Notice::Damage(error.clone()));
            return self.refuse(id, error);
        }
        self.out.notices.push(Notice::Leaked(error));
        writing.renewed = Some(lost.start);
        self.tasks.put_back(id, Task::Write(writing));
        self.step(id);
    }

    /// The same for a discard: what it says of the leaf is all that there is to know.
    pub(super) fn cut_lost(&mut self, volume: VolumeId, lost: Blocks) -> Result<(), Missing> {
        self.renew(volume, lost.start)?;
        let size = self.catalog.trees.get(&volume.into()).map_or(0, |tree| tree.record.blocks);
        if W::keeps(Rule::LogDiscards) {
            let count = u32::try_from(lost.end().min(size) - lost.start).unwrap_or(0);
            self.log.push(&[Change::Discard { volume, start: lost.start, count }]);
        }
        Ok(())
    }

    /// Whether what ends there is the last that a volume has of a lost leaf.
    pub(super) fn reaches_end(&self, volume: VolumeId, lost: Blocks, end: u64) -> bool {
        let size = self.catalog.trees.get(&volume.into()).map_or(0, |tree| tree.record.blocks);
        lost.count == LEAF_ENTRIES as u64 && end >= lost.end().min(size)
    }

    /// Answers a change that is applied, when the log has it or when it is durable.
    fn end_change(&mut self, tag: W::Tag, durable: bool) {
        if durable {
            self.begin_flush(tag);
        } else if W::keeps(Rule::LogFirst) {
            self.unlogged.push_back((self.log.applied, tag));
            self.answer_logged();
        } else {
            self.answer(tag, Ok(Answer::Done));
        }
    }

    fn floor_and_epoch(&self, volume: VolumeId) -> Option<(Floor, Epoch)> {
        let record = &self.catalog.trees.get(&volume.into())?.record;
        Some((self.catalog.floor(record), record.epoch))
    }

    /// Makes the map say that these blocks, all of one leaf, are in this run.
    pub(super) fn put(&mut self, volume: VolumeId, start: u64, run: Run, sums: &[u32]) -> Result<(), Missing> {
        let Some((floor, birth)) = self.floor_and_epoch(volume) else { return Ok(()) };
        let Some(tree) = self.catalog.trees.get_mut(&TreeId::from(volume)) else { return Ok(()) };
        let page = tree.change(&mut self.nodes, start)?;
        self.changed_trees.insert(volume.into());
        for (i, sum) in sums.iter().enumerate() {
            let block = start + i as u64;
            let index = crate::map::index_in_leaf(block);
            let old = node::entry(page, index);
            let place = Place(run.start.0 + i as u64);
            node::set_entry(page, index, Entry { place, birth, sum: *sum });
            if old.place.is_somewhere() && old.place != place && old.birth > floor.at(block) {
                free::<W>(&mut self.space, old.place);
            }
        }
        self.space.put_in_use(run);
        Ok(())
    }

    /// Makes the map say that these blocks, all of one leaf, are holes; tells whether any was not.
    pub(super) fn cut(&mut self, volume: VolumeId, blocks: Blocks) -> Result<bool, Missing> {
        let Some((floor, birth)) = self.floor_and_epoch(volume) else { return Ok(false) };
        let Some(tree) = self.catalog.trees.get_mut(&TreeId::from(volume)) else { return Ok(false) };
        let leaf = tree.leaf(&mut self.nodes, blocks.start)?;
        if !(blocks.start..blocks.end()).any(|block| leaf.entry(block).place.is_somewhere()) {
            return Ok(false);
        }
        let page = tree.change(&mut self.nodes, blocks.start)?;
        self.changed_trees.insert(volume.into());
        for block in blocks.start..blocks.end() {
            let index = crate::map::index_in_leaf(block);
            let old = node::entry(page, index);
            if old.place.is_somewhere() {
                node::set_entry(page, index, Entry::hole(birth));
                if old.birth > floor.at(block) {
                    free::<W>(&mut self.space, old.place);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn discard(&mut self, tag: W::Tag, volume: VolumeId, mut at: u64, end: u64, durable: bool) -> Flow<W> {
        let mut leaves = 0;
        while at < end {
            let task = |tag, at| Task::Discard { tag, volume, at, end, durable };
            if let Err(error) = self.check_change(volume, Blocks { start: at, count: 1 }) {
                self.answer(tag, Err(error));
                return Flow::Done;
            }
            leaves += 1;
            if leaves > MOST_LEAVES {
                self.has_yielded = true;
            }
            if leaves > MOST_LEAVES || self.is_crowded() {
                return Flow::Stall(task(tag, at));
            }
            if self.space.free() < self.reserve(2) {
                return Flow::Hold(task(tag, at));
            }
            let Some(tree) = self.catalog.trees.get(&TreeId::from(volume)) else { return Flow::Done };
            match tree.hole(&mut self.nodes, at) {
                Err(missing) => return Flow::Wait(task(tag, at), missing),
                Ok(Some((_, hole_end))) => {
                    at = hole_end;
                    continue;
                }
                Ok(None) => {}
            }
            let count = NodeAt::leaf_of(at).blocks().end().min(end) - at;
            match self.cut(volume, Blocks { start: at, count }) {
                Err(missing) => return Flow::Wait(task(tag, at), missing),
                Ok(true) if W::keeps(Rule::LogDiscards) => {
                    let count = u32::try_from(count).unwrap_or(0);
                    self.log.push(&[Change::Discard { volume, start: at, count }]);
                }
                Ok(_) => {}
            }
            at += count;
        }
        self.end_change(tag, durable);
        Flow::Done
    }
}

/// Frees a block that no map has any more.
pub(super) fn free<W: World>(space: &mut crate::space::Space, place: Place) {
    // A map that contradicts the space map, with checksums that are right, must not free what is another's by now: then it stays used, and a
    // repair finds it.
    if !space.is_place(place) || !space.is_used(place) {
        return W::contradicts(&format_args!("{place} is freed, and not used"));
    }
    space.free_later(place);
    if !W::keeps(Rule::HoldFreed) {
        space.take_freed().into_iter().for_each(|run| space.release(run));
    }
}
