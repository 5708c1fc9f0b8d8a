//! The snapshots and the size of a volume, as its record has them: what is wanted, and what is so (rules 10 and 11).
//!
//! ```text
//!            with_snapshot                  with_taken: every in-sync replica has it, of this epoch
//! not there ───────────────► Wanted ───────────────────────────────────────────────────────────► Taken, with its holders
//!     ▲                        │                                                                    │
//!     └───── without_snapshot ─┴────────────────────────────────────────────────────────────────────┘
//! ```
//! People ask by [`Record::with_snapshot`] and [`Record::with_wanted_blocks`]; whoever serves the volume does it at the replicas, and then says so by [`Record::with_taken`] and
//! [`Record::grown`].
//!
//! # Invariants
//!
//! * A snapshot that is *taken* is on every replica that is named as its holder, as long as that is a member, durably and with the same blocks: those that the
//!   volume had at one instant after it was asked for and before it was taken.
//! * Which one it is on a replica says its id with the epoch that it was taken in. What an attachment left that ended in the middle is of an earlier epoch, and so
//!   never passes for it.
//! * A replica **holds** a snapshot if it was in sync when that was taken, and does so for as long as it is a member: also while it is stale, and when it has come back, since
//!   snapshots are durable and nothing changes them. One that is built later does not hold it. (To send it the older states of every block would be a second way to
//!   make replicas equal, with rules of its own, for what a clone and a backup do without: they need one holder.) So there may be fewer holders than
//!   replicas, and the record says which; the last of them does not leave as long as the snapshot is there, unless its pool has lost it.
//! * What a replica has and [`Record::is_garbage`] names never becomes part of a record any more. Whoever removes it *must* have read the record after he has
//!   found it there.
//! * Every in-sync replica has at least `blocks` blocks. Their user sees no more than that.

use super::{Record, RecordError};
use crate::rules::{Rule, keeps};
use crate::units::{Epoch, ReplicaId, SnapshotId};
use std::collections::BTreeSet;

/// The most snapshots of a volume. A record is read as a whole, and each has some hundred bytes in it.
pub const MOST_SNAPSHOTS: usize = 256;

/// A snapshot in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// Whoever serves the volume shall take it.
    Wanted,
    /// It is there.
    Taken(Taken),
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The epoch that it was taken in.
    pub epoch: Epoch,
    /// Its size.
    pub blocks: u64,
    /// The replicas that have it. None: it is lost.
    pub holders: BTreeSet<ReplicaId>,
}

impl Record {
    /// A snapshot is wanted.
    ///
    /// # Errors
    /// It is there already, or there are too many.
    pub fn with_snapshot(&self, id: SnapshotId) -> Result<Self, RecordError> {
        let mut next = self.clone();
        if next.snapshots.insert(id, Snapshot::Wanted).is_some() {
            return Err(RecordError::SnapshotExists(id));
        }
        if next.snapshots.len() > MOST_SNAPSHOTS { Err(RecordError::Snapshots) } else { Ok(next) }
    }

    /// A snapshot is not wanted any more. With that it is gone; what replicas have of it is garbage.
    ///
    /// # Errors
    /// It is not there.
    pub fn without_snapshot(&self, id: SnapshotId) -> Result<Self, RecordError> {
        let mut next = self.clone();
        next.snapshots.remove(&id).map(|_| next).ok_or(RecordError::NoSnapshot(id))
    }

    /// Every in-sync replica has taken it, in this epoch.
    ///
    /// # Errors
    /// It is not wanted (any more).
    pub fn with_taken(&self, id: SnapshotId) -> Result<Self, RecordError> {
        let taken = Taken { epoch: self.epoch, blocks: self.blocks, holders: self.in_sync().collect() };
        let mut next = self.clone();
        match next.snapshots.get_mut(&id) {
            Some(wanted @ Snapshot::Wanted) => *wanted = Snapshot::Taken(taken),
            _ => return Err(RecordError::NoSnapshot(id)),
        }
        Ok(next)
    }

    /// A snapshot that is there.
    #[must_use]
    pub fn taken(&self, id: SnapshotId) -> Option<&Taken> {
        match self.snapshots.get(&id) {
            Some(Snapshot::Taken(taken)) => Some(taken),
            Some(Snapshot::Wanted) | None => None,
        }
    }

    /// The first that whoever serves the volume shall take.
    #[must_use]
    pub fn wanted_snapshot(&self) -> Option<SnapshotId> {
        self.snapshots.iter().find(|(_, snapshot)| **snapshot == Snapshot::Wanted).map(|(id, _)| *id)
    }

    /// Snapshots that would be lost with this replica.
    #[must_use]
    pub fn only_on(&self, replica: ReplicaId) -> Vec<SnapshotId> {
        let is_only = |taken: &Taken| taken.holders.len() == 1 && taken.holders.contains(&replica);
        self.snapshots.keys().copied().filter(|id| self.taken(*id).is_some_and(is_only)).collect()
    }

    /// Whether what a replica has of a snapshot, of this epoch, is needed by nobody and will never be.
    #[must_use]
    pub fn is_garbage(&self, replica: ReplicaId, id: SnapshotId, epoch: Epoch) -> bool {
        match self.snapshots.get(&id) {
            // It was in the record before anybody took it, and ids are never used again.
            None => true,
            // In a later epoch it is taken anew; that of this one may come into the record at any time.
            Some(Snapshot::Wanted) => epoch < self.epoch || !keeps(Rule::KeepUnderWay),
            Some(Snapshot::Taken(taken)) => taken.epoch != epoch || !taken.holders.contains(&replica),
        }
    }

    /// The volume shall be larger.
    ///
    /// # Errors
    /// It is larger already, or shall be.
    pub fn with_wanted_blocks(&self, blocks: u64) -> Result<Self, RecordError> {
        if blocks < self.wanted_blocks {
            return Err(RecordError::Smaller { blocks, has: self.wanted_blocks });
        }
        Ok(Self { wanted_blocks: blocks, ..self.clone() })
    }

    /// Every in-sync replica has so many blocks.
    #[must_use]
    pub fn grown(&self, blocks: u64) -> Self {
        Self { blocks: blocks.max(self.blocks), ..self.clone() }
    }

    /// What no replica has any more that it alone had, is lost.
    pub(crate) fn forget_holder(&mut self, replica: ReplicaId) {
        for snapshot in self.snapshots.values_mut() {
            if let Snapshot::Taken(taken) = snapshot {
                taken.holders.remove(&replica);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_SNAPSHOTS, Record, RecordError};
    use crate::record::{Attached, Change};
    use crate::units::{AttachmentId, Epoch, ReplicaId, SnapshotId};

    const S: SnapshotId = SnapshotId(9);

    fn served() -> Record {
        let members = [(ReplicaId(1), "a".into()), (ReplicaId(2), "b".into())];
        Record::new(members, 1, 64).unwrap().claimed(Attached { node: "a".into(), id: AttachmentId(7) })
    }

    #[test]
    fn a_snapshot_is_wanted_taken_and_gone() {
        let wanted = served().with_snapshot(S).unwrap();
        assert_eq!((wanted.wanted_snapshot(), wanted.taken(S)), (Some(S), None));
        assert_eq!(wanted.with_snapshot(S), Err(RecordError::SnapshotExists(S)));
        assert_eq!(served().with_taken(S), Err(RecordError::NoSnapshot(S)));
        let record = wanted.with_taken(S).unwrap();
        let taken = record.taken(S).unwrap();
        assert_eq!((taken.epoch, taken.blocks, taken.holders.len()), (Epoch(1), 64, 2));
        assert_eq!(record.with_taken(S), Err(RecordError::NoSnapshot(S)), "it is there");
        assert_eq!(record.without_snapshot(S), Ok(served()));
        assert_eq!(served().without_snapshot(S), Err(RecordError::NoSnapshot(S)));
        let many = (0..MOST_SNAPSHOTS as u128).fold(served(), |all, i| all.with_snapshot(SnapshotId(i)).unwrap());
        assert_eq!(many.with_snapshot(SnapshotId(999)), Err(RecordError::Snapshots));
    }

    #[test]
    fn what_may_come_into_the_record_is_no_garbage() {
        let is_garbage = |record: &Record, epoch| record.is_garbage(ReplicaId(1), S, Epoch(epoch));
        assert!(is_garbage(&served(), 1));
        let wanted = served().with_snapshot(S).unwrap();
        assert_eq!([0, 1, 2].map(|epoch| is_garbage(&wanted, epoch)), [true, false, false]);
        let taken = wanted.with_taken(S).unwrap();
        assert_eq!([0, 1].map(|epoch| is_garbage(&taken, epoch)), [true, false]);
        assert!(taken.is_garbage(ReplicaId(3), S, Epoch(1)), "who is no holder has another one");
    }

    #[test]
    fn the_last_holder_stays_unless_its_pool_has_lost_it() {
        let record = served().with_snapshot(S).unwrap().with_taken(S).unwrap();
        let leave = |id| Change { leave: [ReplicaId(id)].into(), ..Change::default() };
        let stale = record.changed(&leave(2), Epoch(1)).unwrap();
        assert_eq!(stale.taken(S).unwrap().holders.len(), 2, "a stale one has it");
        let one = stale.without_stale(ReplicaId(2)).unwrap();
        assert_eq!(one.only_on(ReplicaId(1)), [S]);
        let more = one.with_replica(ReplicaId(3), "c".into()).unwrap();
        let joined = more.changed(&Change { join: Some(ReplicaId(3)), ..Change::default() }, Epoch(1)).unwrap();
        let forget = Change { forget: [ReplicaId(1)].into(), ..Change::default() };
        assert_eq!(joined.changed(&forget, Epoch(1)), Err(RecordError::LastHolder(ReplicaId(1), S)));
        let stale = joined.changed(&leave(1), Epoch(1)).unwrap();
        assert_eq!(stale.without_stale(ReplicaId(1)), Err(RecordError::LastHolder(ReplicaId(1), S)));
        let lost = stale.without_lost(ReplicaId(1)).unwrap();
        assert!(lost.taken(S).unwrap().holders.is_empty());
    }

    #[test]
    fn a_volume_grows_and_never_shrinks() {
        let wanted = served().with_wanted_blocks(100).unwrap();
        assert_eq!((wanted.blocks, wanted.wanted_blocks), (64, 100));
        assert_eq!(wanted.with_wanted_blocks(99), Err(RecordError::Smaller { blocks: 99, has: 100 }));
        assert_eq!(wanted.grown(100).blocks, 100);
    }
}
