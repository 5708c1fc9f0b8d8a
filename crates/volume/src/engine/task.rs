//! Requests that are under way.

use super::io::{Fault, Part};
use super::query::List;
use super::request::Scrubbed;
use super::scrub_fixed::Fixed;
use super::write::Writing;
use super::{Engine, Notice, World};
use crate::error::Error;
use crate::format::catalog::Kind;
use crate::map::{Missing, NodeAt};
use crate::units::{BLOCK, Blocks, MOST_REQUEST, Place, SnapshotId, TreeId, VolumeId};

/// A request that is under way.
pub(super) enum Task<W: World> {
    /// What lies before `next` is read already.
    Read {
        tag: W::Tag,
        of: TreeId,
        start: u64,
        next: u64,
        into: W::Memory,
    },
    /// Its data is being read, up to `next`.
    Reading {
        tag: W::Tag,
        of: TreeId,
        start: u64,
        next: u64,
        parts: Vec<Part>,
    },
    Write(Writing<W>),
    Discard {
        tag: W::Tag,
        volume: VolumeId,
        at: u64,
        end: u64,
        durable: bool,
    },
    List {
        tag: W::Tag,
        of: TreeId,
        at: u64,
        end: u64,
        most: usize,
        /// Nodes that were read for it.
        missed: u32,
        found: List,
    },
    Scrub {
        tag: W::Tag,
        of: TreeId,
        left: usize,
        scrubbed: Scrubbed,
    },
    /// Its data is being read, and may be no one's any more.
    Scrubbing {
        tag: W::Tag,
        of: TreeId,
        left: usize,
        scrubbed: Scrubbed,
        blocks: Vec<(u64, Place)>,
    },
    ScrubFixed {
        tag: W::Tag,
        start: u64,
        most: usize,
    },
    /// They are being read, up to the number `next`, and may be written over.
    ScrubbingFixed {
        tag: W::Tag,
        next: u64,
        pages: Vec<Fixed>,
    },
    /// The deletion that is under way.
    Delete,
    Replay(super::replay::Replay),
}

/// How a step of a task ends.
pub(super) enum Flow<W: World> {
    /// It is answered.
    Done,
    /// It goes on when a request to the disk is done.
    Keep(Task<W>),
    /// It goes on when the node is there.
    Wait(Task<W>, Missing),
    /// It goes on when the log and the changed nodes are fewer.
    Stall(Task<W>),
    /// It goes on when there is room.
    Hold(Task<W>),
}

impl<W: World> Engine<W> {
    /// A new task makes its first step.
    pub(super) fn start(&mut self, task: Task<W>) {
        let id = self.tasks.insert(task);
        self.step(id);
    }

    pub(super) fn step(&mut self, id: usize) {
        let Some(task) = self.tasks.take(id) else { return };
        let flow = match task {
            Task::Read { tag, of, start, next, into } => self.read(id, tag, of, (start, next), into),
            Task::Write(writing) => self.apply_write(writing),
            Task::Discard { tag, volume, at, end, durable } => self.discard(tag, volume, at, end, durable),
            Task::List { tag, of, at, end, most, missed, found } => {
                self.list(tag, of, (at, end), (most, missed), found)
            }
            Task::Scrub { tag, of, left, scrubbed } => self.scrub(id, tag, of, left, scrubbed),
            Task::ScrubFixed { tag, start, most } => self.scrub_fixed(id, tag, start, most),
            Task::Delete => self.delete_step(),
            Task::Replay(replay) => self.replay_step(replay),
            waiting @ (Task::Reading { .. } | Task::Scrubbing { .. } | Task::ScrubbingFixed { .. }) => {
                Flow::Keep(waiting)
            }
        };
        match flow {
            Flow::Done => self.tasks.let_go(id),
            Flow::Keep(task) => self.tasks.put_back(id, task),
            Flow::Wait(task, missing) => {
                self.tasks.put_back(id, task);
                self.wait_for_node(id, missing);
            }
            Flow::Stall(task) => {
                self.tasks.put_back(id, task);
                self.stalled.push_back(id);
            }
            Flow::Hold(task) => {
                self.tasks.put_back(id, task);
                self.held_discards.push_back(id);
            }
        }
    }

    /// Tasks that were stalled try again.
    pub(super) fn resume(&mut self) {
        for id in std::mem::take(&mut self.stalled) {
            self.step(id);
        }
    }

    /// Whether changes must wait, so that memory and the log stay bounded.
    pub(super) fn is_crowded(&mut self) -> bool {
        let too_many = self.nodes.changed >= self.most_changed();
        self.checkpoint_wanted |= too_many;
        too_many || self.log.is_crowded()
    }

    /// How many nodes may have changed before others must wait: what the pool has room for on disk, and what there is memory for.
    pub(super) fn most_changed(&self) -> usize {
        (self.superblock.most_nodes as usize).min(self.nodes.most_changed())
    }

    /// Ends a task with an error.
    pub(super) fn refuse(&mut self, id: usize, error: Error) {
        let Some(task) = self.tasks.take(id) else { return };
        self.tasks.let_go(id);
        let tag = match task {
            Task::Read { tag, .. } | Task::Reading { tag, .. } => tag,
            Task::Discard { tag, .. } | Task::List { tag, .. } => tag,
            Task::Scrub { tag, .. } | Task::Scrubbing { tag, .. } => tag,
            Task::ScrubFixed { tag, .. } | Task::ScrubbingFixed { tag, .. } => tag,
            Task::Write(writing) => {
                self.drop_write(&writing);
                writing.tag
            }
            Task::Delete => {
                self.deletion = None;
                return;
            }
            Task::Replay(replay) => {
                self.replayed = Some(Err(error));
                drop(replay);
                return;
            }
        };
        self.answer(tag, Err(error));
    }

    /// A node that a task waits for cannot be had.
    pub(super) fn lose_node(&mut self, id: usize, place: Place, fault: &Fault) {
        // What is in memory tells which blocks are lost: the first node on the way that is not there.
        let Some(task) = self.tasks.take(id) else { return };
        let (tree, block) = match &task {
            Task::Read { of, next, .. } => (*of, *next),
            Task::Write(writing) => (writing.volume.into(), writing.next_block()),
            Task::Discard { volume, at, .. } => ((*volume).into(), *at),
            Task::List { of, at, .. } => (*of, *at),
            Task::Scrub { of, scrubbed, .. } => (*of, scrubbed.next),
            Task::Replay(replay) => replay.at(),
            _ => (TreeId::CATALOG, 0),
        };
        let lost = self.lost_blocks(tree, block, place);
        let reason = match fault {
            Fault::Sum => "is not what was written: its checksum is another".to_owned(),
            Fault::Disk(reason) => format!("cannot be read: {reason}"),
        };
        let error = Error::MapLost { of: self.describe(tree), blocks: lost, place: place.0, reason };
        match task {
            Task::Delete => {
                self.tasks.put_back(id, Task::Delete);
                self.skip_deletion(id, error);
            }
            Task::Write(writing) => self.write_without(id, writing, lost, error),
            Task::Discard { tag, volume, at, end, durable }
                if at == lost.start && self.reaches_end(volume, lost, end) && self.cut_lost(volume, lost).is_ok() =>
            {
                self.out.notices.push(Notice::Leaked(error));
                let at = lost.end().min(end);
                self.tasks.put_back(id, Task::Discard { tag, volume, at, end, durable });
                self.step(id);
            }
            Task::Replay(replay) => self.replay_without(id, replay, lost, error),
            Task::Scrub { tag, of, left, mut scrubbed } => {
                scrubbed.faults.push(error);
                scrubbed.next = lost.end();
                self.tasks.put_back(id, Task::Scrub { tag, of, left: left.saturating_sub(1), scrubbed });
                self.step(id);
            }
            task => {
                self.out.notices.push(Notice::Damage(error.clone()));
                self.tasks.put_back(id, task);
                self.refuse(id, error);
            }
        }
    }

    /// For which blocks a node stands that was missing on the way to a block, or to a later one of the same request.
    fn lost_blocks(&mut self, tree: TreeId, block: u64, place: Place) -> Blocks {
        let Some(tree) = self.catalog.trees.get(&tree) else { return Blocks { start: block, count: 1 } };
        let mut at = block;
        while at < tree.record.blocks {
            match tree.leaf(&mut self.nodes, at) {
                Ok(_) => at = NodeAt::leaf_of(at).blocks().end(),
                Err(missing) if missing.node.place == place => return missing.at.blocks(),
                Err(missing) => at = missing.at.blocks().end(),
            }
        }
        Blocks { start: block, count: 1 }
    }

    /// How a tree is called in an error.
    pub(super) fn describe(&self, id: TreeId) -> String {
        match self.catalog.trees.get(&id).map(|tree| &tree.record).filter(|_| id != TreeId::CATALOG) {
            Some(record) if record.kind == Kind::Volume => format!("{} ({:?})", VolumeId(id.0), record.name),
            Some(record) => format!("{} ({:?} of {})", SnapshotId(id.0), record.name, record.line),
            None => id.to_string(),
        }
    }

    /// The error for something that is not there.
    pub(super) fn absent(&self, id: TreeId) -> Error {
        match self.catalog.trees.get(&id) {
            Some(tree) if tree.record.kind == Kind::Snapshot => Error::NoSnapshot(SnapshotId(id.0)),
            _ => Error::NoVolume(VolumeId(id.0)),
        }
    }

    /// Checks a range against the size of a tree.
    pub(super) fn check_range(&self, of: TreeId, blocks: Blocks) -> Result<(), Error> {
        let size = self.catalog.live(of).ok_or_else(|| self.absent(of))?.record.blocks;
        let fits = blocks.start.checked_add(blocks.count).is_some_and(|end| end <= size);
        if fits { Ok(()) } else { Err(Error::BeyondEnd { blocks, size }) }
    }
}

/// How many blocks some memory is: a whole number, not none, and not too many.
pub(super) fn whole_blocks(len: usize) -> Result<u64, Error> {
    if len == 0 || !len.is_multiple_of(BLOCK) {
        return Err(Error::Unaligned(len));
    }
    if len > MOST_REQUEST { Err(Error::TooLong { bytes: len, most: MOST_REQUEST }) } else { Ok((len / BLOCK) as u64) }
}
