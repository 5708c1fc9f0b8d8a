//! Bringing the last checkpoint up to what was flushed after it.

use super::task::{Flow, Task};
use super::{Engine, Notice, Output, Rule, World};
use crate::error::Error;
use crate::format::record::{Change, Packed, unpack};
use crate::map::NodeAt;
use crate::units::{Blocks, Place, Run, TreeId, VolumeId};
use std::collections::VecDeque;

/// What the log holds that the checkpoint does not.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// In the order in which they were applied.
    pub(crate) changes: Changes,
    /// Where the next record goes.
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
}

/// Changes in their order, of which only those of one record are unpacked: a log may tell of a million.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Empty only if there are none.
    near: VecDeque<Change>,
    far: VecDeque<Packed>,
}

impl Changes {
    /// Adds the changes of a record.
    pub(super) fn push(&mut self, packed: Packed) {
        self.far.push_back(packed);
        self.unpack();
    }

    fn unpack(&mut self) {
        while self.near.is_empty()
            && let Some(packed) = self.far.pop_front()
        {
            self.near.extend(unpack(&packed));
        }
    }

    fn front(&self) -> Option<&Change> {
        self.near.front()
    }

    fn pop_front(&mut self) -> Option<Change> {
        let first = self.near.pop_front();
        self.unpack();
        first
    }

    fn push_front(&mut self, change: Change) {
        self.near.push_front(change);
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Change> {
        self.near.iter().cloned().chain(self.far.iter().flat_map(|packed| unpack(packed)))
    }
}

/// The task.
pub(super) struct Replay {
    left: Replayed,
    /// Places that the checkpoint after it must do without.
    avoided: Vec<Run>,
    /// The volume and first block of a leaf that is lost, and that the next changes have something new for as a whole.
    renewed: Option<(VolumeId, u64)>,
}

impl Replay {
    /// What the next change is about.
    pub(super) fn at(&self) -> (TreeId, u64) {
        self.left.changes.front().map_or((TreeId::CATALOG, 0), |change| {
            let (volume, blocks) = subject(change);
            (volume.into(), blocks.start)
        })
    }

    /// Up to which block the changes that come next go, one after the other, from the begin of a leaf on.
    fn covered(&self, volume: VolumeId, leaf: Blocks) -> u64 {
        let mut end = leaf.start;
        for (of, blocks) in self.left.changes.iter().map(|change| subject(&change)) {
            if of != volume || blocks.start != end || end >= leaf.end() {
                break;
            }
            end = blocks.end();
        }
        end
    }
}

/// Which blocks of which volume a change is about.
fn subject(change: &Change) -> (VolumeId, Blocks) {
    match change {
        Change::Write { volume, start, run, .. } => (*volume, Blocks { start: *start, count: u64::from(run.count) }),
        Change::Discard { volume, start, count } => (*volume, Blocks { start: *start, count: u64::from(*count) }),
    }
}

impl<W: World> Engine<W> {
    /// Applies what the log holds, and makes it a checkpoint: the log of the opening before is not needed any more then, and what was written
    /// into it and dropped never comes back. That checkpoint writes nothing to the runs that are to be avoided, as far as there is room elsewhere.
    pub(crate) fn replay(&mut self, left: Replayed, avoided: Vec<Run>) -> Output<W> {
        self.start(Task::Replay(Replay { left, avoided, renewed: None }));
        self.settle()
    }

    /// How opening went, once it is known.
    pub(crate) fn opened(&self) -> Option<Result<(), Error>> {
        self.replayed.clone()
    }

    pub(super) fn replay_step(&mut self, mut replay: Replay) -> Flow<W> {
        while let Some(change) = replay.left.changes.pop_front() {
            if let Err(reason) = self.check_replayed(&change) {
                self.replayed = Some(Err(Error::Failed { reason: format!("the log tells of {reason}") }));
                return Flow::Done;
            }
            let (volume, blocks) = subject(&change);
            if replay.renewed.take_if(|renewed| *renewed == (volume, blocks.start)).is_some()
                && let Err(missing) = self.renew(volume, blocks.start)
            {
                replay.left.changes.push_front(change);
                return Flow::Wait(Task::Replay(replay), missing);
            }
            let applied = match &change {
                Change::Write { volume, start, run, sums } => self.put(*volume, *start, *run, sums),
                Change::Discard { volume, start, count } => {
                    self.cut(*volume, Blocks { start: *start, count: u64::from(*count) }).map(|_| ())
                }
            };
            if let Err(missing) = applied {
                replay.left.changes.push_front(change);
                return Flow::Wait(Task::Replay(replay), missing);
            }
        }
        let generation = self.superblock.generation + u64::from(W::keeps(Rule::NewGeneration));
        self.log.start(
            replay.left.offset.next_multiple_of(u64::from(self.superblock.log_unit)),
            replay.left.sequence,
            generation,
        );
        // What was replayed may lie there: only what is free by now is kept from being given out. One checkpoint follows at once.
        let keep = self.reserve(1) + self.nodes.changed as u64;
        replay.avoided.iter().for_each(|run| drop(self.space.avoid(*run, keep)));
        self.is_started = true;
        self.checkpoint_wanted = true;
        Flow::Done
    }

    /// A node is lost that a change must be put into. If it is a leaf that the next changes have something new for as a whole, it is begun anew;
    /// else the change is dropped: its blocks are lost with the node, and an error when they are read.
    pub(super) fn replay_without(&mut self, id: usize, mut replay: Replay, lost: Blocks, error: Error) {
        let (volume, blocks) = replay.left.changes.front().map_or((VolumeId(0), lost), subject);
        let is_whole = blocks.start == lost.start && self.reaches_end(volume, lost, replay.covered(volume, lost));
        if is_whole && replay.renewed != Some((volume, lost.start)) {
            self.out.notices.push(Notice::Leaked(error));
            replay.renewed = Some((volume, lost.start));
        } else {
            self.out.notices.push(Notice::Damage(error));
            replay.left.changes.pop_front();
        }
        self.tasks.put_back(id, Task::Replay(replay));
        self.step(id);
    }

    /// What a log that this program wrote cannot say.
    fn check_replayed(&self, change: &Change) -> Result<(), String> {
        if let Change::Write { run, .. } = change {
            // Nothing was given out yet in this opening: what is busy is used, or was and is only freed by what was replayed so far.
            let is_free = |place| self.space.is_place(place) && !self.space.is_busy(place);
            if !(run.start.0..run.end()).map(Place).all(is_free) {
                return Err(format!("data at {}, which is another's", run.start));
            }
        }
        let (volume, Blocks { start, count }) = subject(change);
        let tree = self.catalog.live_volume(volume).ok_or_else(|| format!("{volume}, which there is not"))?;
        let leaf = NodeAt::leaf_of(start).blocks();
        if count == 0 || start + count > leaf.end() || start + count > tree.record.blocks {
            return Err(format!("{count} blocks from {start} of {volume}, which has them not"));
        }
        debug_assert!(self.catalog.trees.contains_key(&TreeId::from(volume)));
        Ok(())
    }
}
