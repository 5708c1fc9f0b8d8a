//! Bringing the last checkpoint up to what was flushed after it.

use super::task::{Flow, Task};
use super::{Engine, Output, Rule, World};
use crate::error::Error;
use crate::format::record::Change;
use crate::map::NodeAt;
use crate::units::{Blocks, Place, Run, TreeId};
use std::collections::VecDeque;

/// What the log holds that the checkpoint does not.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// In the order in which they were applied.
    pub(crate) changes: VecDeque<Change>,
    /// Where the next record goes.
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
}

/// The task.
pub(super) struct Replay {
    left: Replayed,
    /// Places that the checkpoint after it must do without.
    avoided: Vec<Run>,
}

impl<W: World> Engine<W> {
    /// Applies what the log holds, and makes it a checkpoint: the log of the opening before is not needed any more then, and what was written
    /// into it and dropped never comes back. That checkpoint writes nothing to the runs that are to be avoided, as far as there is room elsewhere.
    pub(crate) fn replay(&mut self, left: Replayed, avoided: Vec<Run>) -> Output<W> {
        self.start(Task::Replay(Replay { left, avoided }));
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
        self.log.start(replay.left.offset, replay.left.sequence, generation);
        // What was replayed may lie there: only what is free by now is kept from being given out. One checkpoint follows at once.
        let keep = self.reserve(1) + self.nodes.changed as u64;
        replay.avoided.iter().for_each(|run| drop(self.space.avoid(*run, keep)));
        self.is_started = true;
        self.checkpoint_wanted = true;
        Flow::Done
    }

    /// What a log that this program wrote cannot say.
    fn check_replayed(&self, change: &Change) -> Result<(), String> {
        let (volume, start, count) = match change {
            Change::Write { volume, start, run, .. } => {
                let is_free = |place| self.space.is_place(place) && !self.space.is_used(place);
                if !(run.start.0..run.end()).map(Place).all(is_free) {
                    return Err(format!("data at {}, which is another's", run.start));
                }
                (*volume, *start, u64::from(run.count))
            }
            Change::Discard { volume, start, count } => (*volume, *start, u64::from(*count)),
        };
        let tree = self.catalog.live_volume(volume).ok_or_else(|| format!("{volume}, which there is not"))?;
        let leaf = NodeAt::leaf_of(start).blocks();
        if count == 0 || start + count > leaf.end() || start + count > tree.record.blocks {
            return Err(format!("{count} blocks from {start} of {volume}, which has them not"));
        }
        debug_assert!(self.catalog.trees.contains_key(&TreeId::from(volume)));
        Ok(())
    }
}
