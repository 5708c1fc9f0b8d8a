//! The record of a volume: who may serve it, and which replicas hold all that was acknowledged.
//!
//! ```text
//!             claimed                     changed (leave, join, forget)
//! nobody ───────────────► attached to A ─────────────────────────────► attached to A, next epoch
//!    ▲                         │    claimed, by force
//!    └──── detached ───────────┴─────────────────────────────────────► attached to B, next epoch
//! ```
//! It is the only thing that decides who is in sync (rule 7), and it changes by compare-and-swap alone ([`store::RecordStore`]). The functions
//! here make the next record out of one; they do not know time, and what they refuse cannot be written.
//!
//! # What a record says
//!
//! * `epoch`, `attached`: this attachment alone may write, with this epoch, once every in-sync replica has sealed it.
//! * A member is **in sync**: it holds every acknowledged write; without its power since, also those that were never flushed.
//! * A member is **stale**, `complete` up to an epoch: of the acknowledged writes it holds, durably, all those that were born in epochs before that one.
//!   So it lacks at most what an in-sync replica says was born in that epoch or later (rule 6).
//! * `equal`: blocks in which in-sync replicas may differ, by writes that nobody acknowledged, were born in this epoch or later on one of them
//!   (rule 5). After a clean detach there are none.

pub mod memory;
pub mod snapshots;
pub mod store;

use crate::units::{AttachmentId, Epoch, NodeId, ReplicaId, SnapshotId};
use snapshots::{MOST_SNAPSHOTS, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// The most replicas of a volume, those that are being built or removed too. A record is kept in a custom resource and read as a whole.
pub const MOST_MEMBERS: usize = 16;

/// Who serves a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Where.
    pub node: NodeId,
    /// By which process, in which attempt.
    pub id: AttachmentId,
}

/// What a replica is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds every acknowledged write.
    InSync,
    /// It lacks some.
    Stale {
        /// It holds all that was acknowledged and born before this epoch; a new replica holds nothing before epoch 0.
        complete: Epoch,
    },
}

/// A replica of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub node: NodeId,
    /// What it is worth.
    pub standing: Standing,
    /// It shall leave as soon as the others are enough.
    pub is_retiring: bool,
}

/// What is known of a volume for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of the last attachment or change of membership.
    pub epoch: Epoch,
    /// Who may serve it.
    pub attached: Option<Attached>,
    /// From which birth on in-sync replicas may differ.
    pub equal: Epoch,
    /// All replicas.
    pub members: BTreeMap<ReplicaId, Member>,
    /// How many replicas have to be in sync for I/O to go on (rule 3).
    pub minimum: u32,
    /// Blocks of the volume.
    pub blocks: u64,
    /// How many there are to be.
    pub wanted_blocks: u64,
    /// Its snapshots.
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
}

/// Why a record cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A volume without a replica that holds everything is lost.
    #[error("no replica would be in sync; {last} is the last one that holds everything, so it cannot leave")]
    NoneLeft {
        /// One that was to leave.
        last: ReplicaId,
    },
    /// The number of replicas is not possible.
    #[error("{count} replicas are not possible: a volume has 1 to {MOST_MEMBERS}")]
    Count {
        /// How many there would be.
        count: usize,
    },
    /// The minimum is not possible.
    #[error("a minimum of {minimum} is not possible with {count} replicas that stay: set it to 1 to {count}")]
    Minimum {
        /// What was asked for.
        minimum: u32,
        /// How many there are.
        count: usize,
    },
    /// There is no such member.
    #[error("the volume has no {0}")]
    NoMember(ReplicaId),
    /// It is there already.
    #[error("the volume has {0} already; a new copy needs a new id")]
    Exists(ReplicaId),
    /// Two copies on one node are lost together.
    #[error("the volume has a replica on {0} already")]
    NodeTaken(NodeId),
    /// It holds everything, so it is not simply forgotten.
    #[error("{0} is in sync; let it retire first")]
    InSync(ReplicaId),
    /// A snapshot would be lost.
    #[error("{0} alone has {1}, so it stays until that is deleted")]
    LastHolder(ReplicaId, SnapshotId),
    /// There is no such snapshot, or it is in another state.
    #[error("{0} is not in the record, or is there as something else")]
    NoSnapshot(SnapshotId),
    /// It is there already.
    #[error("the volume has {0} already; a new one needs a new id")]
    SnapshotExists(SnapshotId),
    /// There is no room for more.
    #[error("a volume has {MOST_SNAPSHOTS} snapshots at most; delete some")]
    Snapshots,
    /// A volume does not shrink.
    #[error(
        "{blocks} blocks are less than the {has} that the volume has or is to have; a volume never becomes smaller"
    )]
    Smaller {
        /// What was asked for.
        blocks: u64,
        /// What there is, or is to be.
        has: u64,
    },
}

/// A change of membership by the attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// These are not in sync any more.
    pub leave: BTreeSet<ReplicaId>,
    /// This one is.
    pub join: Option<ReplicaId>,
    /// These are no members any more.
    pub forget: BTreeSet<ReplicaId>,
}

impl Change {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leave.is_empty() && self.join.is_none() && self.forget.is_empty()
    }
}

impl Record {
    /// The record of a volume that was never written: its replicas are all equal.
    ///
    /// # Errors
    /// The numbers do not fit, or two replicas are on one node.
    pub fn new(
        replicas: impl IntoIterator<Item = (ReplicaId, NodeId)>,
        minimum: u32,
        blocks: u64,
    ) -> Result<Self, RecordError> {
        let mut record = Self {
            epoch: Epoch(0),
            attached: None,
            equal: Epoch(1),
            members: BTreeMap::new(),
            minimum,
            blocks,
            wanted_blocks: blocks,
            snapshots: BTreeMap::new(),
        };
        for (id, node) in replicas {
            record.add(id, node, Standing::InSync)?;
        }
        record.with_minimum(minimum)
    }

    /// The replicas that hold every acknowledged write.
    pub fn in_sync(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.members.iter().filter(|(_, member)| member.standing == Standing::InSync).map(|(id, _)| *id)
    }

    /// Whether this replica holds every acknowledged write.
    #[must_use]
    pub fn is_in_sync(&self, replica: ReplicaId) -> bool {
        self.members.get(&replica).is_some_and(|member| member.standing == Standing::InSync)
    }

    /// Whether this attachment may serve the volume.
    #[must_use]
    pub fn is_attached_to(&self, id: AttachmentId) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.id == id)
    }

    /// The next attachment begins: rule 1, the epoch grows.
    #[must_use]
    pub fn claimed(&self, by: Attached) -> Self {
        Self { epoch: self.epoch.next(), attached: Some(by), ..self.clone() }
    }

    /// The membership changes: rule 6, the epoch grows with it.
    ///
    /// `equal` is where the attachment knows all in-sync replicas to be equal from, and what those that leave are complete up to.
    ///
    /// # Errors
    /// No replica would be left in sync, one that is named is no member, or a snapshot would be lost.
    pub fn changed(&self, change: &Change, equal: Epoch) -> Result<Self, RecordError> {
        let mut next = Self { epoch: self.epoch.next(), equal: equal.max(self.equal), ..self.clone() };
        for id in change.leave.iter().chain(&change.join) {
            let member = next.members.get_mut(id).ok_or(RecordError::NoMember(*id))?;
            let joins = change.join == Some(*id);
            member.standing = if joins { Standing::InSync } else { Standing::Stale { complete: next.equal } };
        }
        for id in &change.forget {
            next.part_from(*id)?;
        }
        match change.leave.first().or(change.forget.first()) {
            Some(last) if next.in_sync().next().is_none() => Err(RecordError::NoneLeft { last: *last }),
            _ => Ok(next),
        }
    }

    /// The attachment has ended well: all in-sync replicas are equal, and durably so.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { attached: None, equal: self.epoch.next(), ..self.clone() }
    }

    /// A replica more is wanted; it is built by the attachment.
    ///
    /// # Errors
    /// There are too many, or it or its node is there already.
    pub fn with_replica(&self, id: ReplicaId, node: NodeId) -> Result<Self, RecordError> {
        let mut next = self.clone();
        next.add(id, node, Standing::Stale { complete: Epoch(0) })?;
        Ok(next)
    }

    /// A replica is not wanted any more. The attachment lets it go when the others are enough; one that is stale may be forgotten at once.
    ///
    /// # Errors
    /// It is no member, or those that stay are less than the minimum.
    pub fn with_retiring(&self, id: ReplicaId) -> Result<Self, RecordError> {
        let mut next = self.clone();
        next.members.get_mut(&id).ok_or(RecordError::NoMember(id))?.is_retiring = true;
        next.with_minimum(self.minimum)
    }

    /// A stale replica is forgotten, whether the volume is attached or not.
    ///
    /// # Errors
    /// It is no member, it is in sync, or a snapshot would be lost.
    pub fn without_stale(&self, id: ReplicaId) -> Result<Self, RecordError> {
        if self.is_in_sync(id) {
            return Err(RecordError::InSync(id));
        }
        let mut next = self.clone();
        next.part_from(id)?;
        Ok(next)
    }

    /// The same for one that is in no pool any more: what it alone had is lost already.
    ///
    /// # Errors
    /// It is no member, or it is in sync.
    pub fn without_lost(&self, id: ReplicaId) -> Result<Self, RecordError> {
        let mut next = self.clone();
        next.forget_holder(id);
        next.without_stale(id)
    }

    /// Another number of replicas is enough for I/O to go on.
    ///
    /// # Errors
    /// There are not so many replicas that stay, or it is none.
    pub fn with_minimum(&self, minimum: u32) -> Result<Self, RecordError> {
        let count = self.members.values().filter(|member| !member.is_retiring).count();
        if minimum == 0 || usize::try_from(minimum).is_ok_and(|minimum| minimum > count) {
            return Err(RecordError::Minimum { minimum, count });
        }
        Ok(Self { minimum, ..self.clone() })
    }

    fn part_from(&mut self, id: ReplicaId) -> Result<(), RecordError> {
        if let Some(snapshot) = self.only_on(id).first() {
            return Err(RecordError::LastHolder(id, *snapshot));
        }
        self.members.remove(&id).ok_or(RecordError::NoMember(id))?;
        self.forget_holder(id);
        Ok(())
    }

    fn add(&mut self, id: ReplicaId, node: NodeId, standing: Standing) -> Result<(), RecordError> {
        if self.members.contains_key(&id) {
            return Err(RecordError::Exists(id));
        }
        if self.members.values().any(|member| member.node == node) {
            return Err(RecordError::NodeTaken(node));
        }
        self.members.insert(id, Member { node, standing, is_retiring: false });
        let count = self.members.len();
        if count > MOST_MEMBERS { Err(RecordError::Count { count }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
