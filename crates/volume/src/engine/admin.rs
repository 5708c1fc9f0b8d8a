//! Volumes, snapshots and clones: what changes the catalog.
//!
//! It is done at the instant of a freeze, and is durable with that checkpoint or not at all. A snapshot so has exactly what was applied before the
//! freeze, flushed or not, of all its volumes at the same instant.

use super::request::{Admin, Answer};
use super::{Engine, Rule, World};
use crate::error::Error;
use crate::format::catalog::{Kind, MOST_NAME, Record, SLOTS};
use crate::format::layout::{MOST_BLOCKS, MOST_CATALOG_PAGES};
use crate::format::node::{MOST_LEVEL, Pointer, level_for, span};
use crate::units::{Epoch, SnapshotId, TreeId, VolumeId};

impl<W: World> Engine<W> {
    pub(super) fn begin_admin(&mut self, admin: Admin, tag: W::Tag) {
        if let Some(error) = &self.failed {
            let error = error.clone();
            return self.answer(tag, Err(error));
        }
        self.admin.push((tag, admin));
    }

    /// Does it, in memory, while a checkpoint is frozen.
    pub(super) fn admin(&mut self, admin: Admin) -> Result<Answer<W::Memory>, Error> {
        let adds = !matches!(
            admin,
            Admin::Delete { .. } | Admin::BeginEpoch { .. } | Admin::GrowPool { .. } | Admin::Checkpoint { .. }
        );
        if adds && self.space.free() < self.reserve(1) + 16 {
            return Err(Error::Full);
        }
        let wanted = match &admin {
            Admin::Snapshot { volumes } => volumes.len() as u64,
            Admin::Create { .. } | Admin::Clone { .. } | Admin::Rollback { .. } => 1,
            _ => 0,
        };
        if wanted > self.catalog.room() {
            return Err(Error::TooMany { most: MOST_CATALOG_PAGES * SLOTS as u64 });
        }
        match admin {
            Admin::Create { name, blocks } => self.create_volume(name, blocks),
            Admin::Snapshot { volumes } => self.take_snapshots(volumes),
            Admin::Clone { snapshot, name } => self.clone_volume(snapshot, name),
            Admin::Rollback { volume, snapshot } => self.roll_back(volume, snapshot),
            Admin::Delete { of } => self.begin_deletion(of),
            Admin::Resize { volume, blocks } => self.resize(volume, blocks),
            Admin::BeginEpoch { volume } => self.begin_epoch(volume),
            Admin::GrowPool { blocks } => self.grow_pool(blocks),
            Admin::Checkpoint { .. } => Ok(Answer::Done),
        }
    }

    fn next_id(&mut self) -> u64 {
        let id = self.superblock.next_id;
        self.superblock.next_id += 1;
        id
    }

    fn next_epoch(&mut self) -> Epoch {
        let epoch = Epoch(self.superblock.next_epoch);
        self.superblock.next_epoch += 1;
        epoch
    }

    fn check_name(&self, line: Option<VolumeId>, name: &str) -> Result<(), Error> {
        if name.is_empty() || name.len() > MOST_NAME {
            return Err(Error::BadName(name.to_owned()));
        }
        if self.catalog.is_taken(line, name) { Err(Error::NameTaken(name.to_owned())) } else { Ok(()) }
    }

    fn create_volume(&mut self, name: String, blocks: u64) -> Result<Answer<W::Memory>, Error> {
        self.check_name(None, &name)?;
        check_size(blocks)?;
        let id = VolumeId(self.next_id());
        let record = Record {
            id: id.into(),
            kind: Kind::Volume,
            name,
            epoch: self.next_epoch(),
            line: id,
            origin: None,
            blocks,
            level: level_for(blocks),
            root: Pointer::hole(Epoch(0)),
            deleting: None,
        };
        self.catalog.add(record, None);
        Ok(Answer::Created(id))
    }

    fn take_snapshots(&mut self, volumes: Vec<(VolumeId, String)>) -> Result<Answer<W::Memory>, Error> {
        let mut seen = std::collections::HashSet::new();
        for (volume, name) in &volumes {
            self.catalog.live_volume(*volume).ok_or(Error::NoVolume(*volume))?;
            self.check_name(Some(*volume), name)?;
            if !seen.insert(volume) {
                return Err(Error::NameTaken(name.clone()));
            }
        }
        let mut ids = Vec::new();
        for (volume, name) in volumes {
            let id = SnapshotId(self.next_id());
            let next = self.next_epoch();
            let current = self.catalog.live_volume(volume).map_or(next, |tree| tree.record.epoch);
            let next = if W::keeps(Rule::BumpEpoch) { next } else { current };
            self.catalog.snapshot(volume.into(), id, name, next);
            ids.push(id);
        }
        Ok(Answer::Snapshots(ids))
    }

    fn clone_volume(&mut self, snapshot: SnapshotId, name: String) -> Result<Answer<W::Memory>, Error> {
        self.check_name(None, &name)?;
        let origin = self.catalog.live_snapshot(snapshot).ok_or(Error::NoSnapshot(snapshot))?;
        let record = origin.record.clone();
        let id = VolumeId(self.next_id());
        let record = Record {
            id: id.into(),
            kind: Kind::Volume,
            name,
            epoch: self.next_epoch(),
            line: id,
            origin: Some(snapshot),
            ..record
        };
        self.catalog.add(record, None);
        Ok(Answer::Created(id))
    }

    /// The line of the volume stays behind with its snapshots, since a line never turns back: the volume goes on as a clone. So the ones between are
    /// kept, and births only grow.
    fn roll_back(&mut self, volume: VolumeId, snapshot: SnapshotId) -> Result<Answer<W::Memory>, Error> {
        let tree = self.catalog.live_volume(volume).ok_or(Error::NoVolume(volume))?;
        self.catalog.live_snapshot(snapshot).ok_or(Error::NoSnapshot(snapshot))?;
        let name = tree.record.name.clone();
        self.catalog.begin_deletion(volume.into());
        self.clone_volume(snapshot, name)
    }

    fn begin_deletion(&mut self, of: TreeId) -> Result<Answer<W::Memory>, Error> {
        self.catalog.live(of).ok_or_else(|| self.absent(of))?;
        self.catalog.begin_deletion(of);
        Ok(Answer::Done)
    }

    fn resize(&mut self, volume: VolumeId, blocks: u64) -> Result<Answer<W::Memory>, Error> {
        let size = self.catalog.live_volume(volume).ok_or(Error::NoVolume(volume))?.record.blocks;
        check_size(blocks)?;
        if blocks < size {
            return Err(Error::BadSize { blocks, reason: "it would be smaller, and lose what lies behind its end" });
        }
        if let Some(tree) = self.catalog.trees.get_mut(&volume.into()) {
            tree.grow(&mut self.nodes, blocks);
        }
        self.catalog.touch(volume.into());
        Ok(Answer::Done)
    }

    /// A snapshot does the same, and keeps what was there; here nothing is kept, so births alone tell the two times apart.
    fn begin_epoch(&mut self, volume: VolumeId) -> Result<Answer<W::Memory>, Error> {
        self.catalog.live_volume(volume).ok_or(Error::NoVolume(volume))?;
        let epoch = self.next_epoch();
        if let Some(tree) = self.catalog.trees.get_mut(&volume.into()) {
            tree.record.epoch = epoch;
        }
        self.catalog.touch(volume.into());
        Ok(Answer::Began(epoch))
    }

    fn grow_pool(&mut self, blocks: u64) -> Result<Answer<W::Memory>, Error> {
        let reason = if blocks < self.space.blocks() {
            "a pool cannot shrink"
        } else if blocks > MOST_BLOCKS {
            "28 TiB are the most that this format has room for"
        } else {
            self.space.grow(blocks);
            if !W::keeps(Rule::HoldGrown) {
                self.space.use_grown();
            }
            return Ok(Answer::Done);
        };
        Err(Error::BadPoolSize { blocks, reason })
    }
}

fn check_size(blocks: u64) -> Result<(), Error> {
    if blocks == 0 {
        return Err(Error::BadSize { blocks, reason: "it would be empty" });
    }
    if blocks > span(MOST_LEVEL) {
        return Err(Error::BadSize { blocks, reason: "1 PiB is the most that a map can hold" });
    }
    Ok(())
}

/// What is there, by name and number.
impl<W: World> Engine<W> {
    /// A volume's id and size.
    #[cfg(test)]
    pub(crate) fn find_volume(&self, name: &str) -> Option<(TreeId, u64)> {
        let id = self.catalog.find(None, name)?;
        self.catalog.live(id).map(|tree| (id, tree.record.blocks))
    }

    /// Leaves no room for anything, which nothing that is asked can do.
    #[cfg(test)]
    pub(crate) fn use_up(&mut self) {
        let free = self.space.free();
        assert!(self.space.allocate(free, crate::space::Use::Data).is_some());
    }

    /// How many volumes and snapshots there are that are not being deleted.
    #[cfg(test)]
    pub(crate) fn live_states(&self) -> usize {
        self.catalog.trees.keys().filter(|id| self.catalog.live(**id).is_some()).count()
    }

    /// The epoch of a snapshot that a state comes from.
    pub(crate) fn epoch_in(&self, of: TreeId, snapshot: SnapshotId) -> Result<Epoch, Error> {
        let wanted = self.catalog.live_snapshot(snapshot).ok_or(Error::NoSnapshot(snapshot))?;
        let mut state = self.catalog.live(of).ok_or_else(|| self.absent(of))?;
        while state.record.id != wanted.record.id {
            let before = self.catalog.before(&state.record);
            state = before.ok_or_else(|| Error::Unrelated { state: self.describe(of), snapshot })?;
        }
        Ok(wanted.record.epoch)
    }

    pub(crate) fn pool_id(&self) -> [u8; 16] {
        self.superblock.pool
    }

    pub(crate) fn usage(&self) -> crate::pool::Usage {
        crate::pool::Usage {
            blocks: self.space.capacity(),
            free: self.space.free(),
            checkpoint: self.durable_checkpoint,
        }
    }

    /// All volumes and snapshots that are not being deleted.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Record> {
        self.catalog.trees.keys().filter_map(|id| self.catalog.live(*id)).map(|tree| &tree.record)
    }

    #[cfg(test)]
    pub(crate) fn find_snapshot(&self, name: &str) -> Option<(TreeId, Epoch, u64)> {
        let found = self.states().find(|record| record.kind == Kind::Snapshot && record.name == name);
        found.map(|record| (record.id, record.epoch, record.blocks))
    }
}
