//! The replicas of this node are those that the records name for it.

use super::Agent;
use crate::error::{Error, Result, ask};
use crate::placed;
use ::replicas::HeldSnapshot;
use api::{HeldReplica, Volume, VolumeRecord, VolumeSource};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use node::SnapshotHere;
use replication::record::store::RecordStore;
use replication::record::{Record, Standing};
use replication::units::{Epoch, ReplicaId, SnapshotId, VolumeId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

impl Agent {
    /// One look at everything. What fails for one volume does not keep the others; the first error is told.
    pub(super) async fn look(&self, volumes: &[Arc<Volume>], records: &[Arc<VolumeRecord>]) -> Result<()> {
        let mut outcome = Ok(());
        let mut named: BTreeMap<VolumeId, BTreeSet<ReplicaId>> = BTreeMap::new();
        for object in records {
            let Some(id) = object.meta().name.as_deref().and_then(records::form::volume) else { continue };
            // One that is no record says nothing, and nothing is done for it.
            let Ok(record) = records::form::read(&object.spec) else { continue };
            let mine = record.members.iter().filter(|(_, member)| *member.node.0 == *self.me);
            named.insert(id, mine.map(|(replica, _)| *replica).collect());
        }
        // Before any record is read past the cache, see `Record::is_garbage`.
        let snapshots = self.node.held_snapshots();
        let (held, usable) = (self.node.held(), self.node.usable());
        let wanted = named.iter().flat_map(|(id, mine)| mine.iter().map(|replica| (*id, *replica)));
        let missing: Vec<_> = wanted.filter(|wanted| !usable.contains(wanted)).collect();
        for (volume, replica) in missing {
            outcome = outcome.and(self.make(volumes, volume, replica).await);
        }
        for (volume, replica) in held {
            if !named.get(&volume).is_some_and(|mine| mine.contains(&replica)) {
                outcome = outcome.and(self.remove(volumes, volume, replica).await);
            }
        }
        outcome = outcome.and(self.collect((volumes, records), snapshots).await);
        self.limit(volumes).await?;
        for volume in volumes {
            outcome = outcome.and(self.settle(volume).await);
        }
        outcome
    }

    /// Makes a replica that never was.
    async fn make(&self, volumes: &[Arc<Volume>], id: VolumeId, replica: ReplicaId) -> Result<()> {
        let Some(found) = self.records.get(id).await? else { return Ok(()) };
        let record = found.record;
        let Some(member) = record.members.get(&replica).filter(|member| *member.node.0 == *self.me) else {
            return Ok(());
        };
        let Some(cached) = self.volume_of(volumes, id) else { return Ok(()) };
        let name = cached.name_any();
        let Some(volume) = self.volume(&name, id).await? else { return Ok(()) };
        let noted = volume.status.as_ref().and_then(|status| status.holders.get(&self.me));
        let is_new = noted.is_none_or(|noted| noted.replica != replica_name(replica));
        // One that is here and cannot be used is as good as none.
        let is_held = self.node.held().contains(&(id, replica));
        if is_held || !is_new || !may_be_empty(&record, member.standing) {
            if self.is_news(id, replica) {
                tracing::error!(volume = name, %replica, "a replica is in no pool of this node any more, or cannot be used; another one has to take its place");
            }
            return self.note(&name, HeldReplica { lost: true, ..held(replica) }).await;
        }
        let from = match (&volume.spec.source, begins_empty(member.standing)) {
            (Some(source), false) => match self.source(source).await? {
                Some(from) => Some(from),
                // The volume was used before this replica was made, and the others have what it lacks.
                None if record.epoch > Epoch(0) => {
                    return self.note(&name, HeldReplica { lost: true, ..held(replica) }).await;
                }
                None => {
                    let what = format!("the snapshot {} is in no replica of this node", source.snapshot);
                    return Err(Error::Node(what));
                }
            },
            _ => None,
        };
        self.note(&name, held(replica)).await?;
        let node = self.node.clone();
        let made = tokio::task::spawn_blocking(move || match from {
            Some(from) => node.make_replica_from(id, replica, &from),
            None => node.make_replica(id, replica, record.blocks),
        });
        done(made.await)?;
        tracing::info!(volume = name, %replica, "a replica was made");
        Ok(())
    }

    /// The snapshot that a volume begins as, in a replica of this node, if one has it.
    async fn source(&self, source: &VolumeSource) -> Result<Option<SnapshotHere>> {
        let ids = records::form::volume(&source.volume).zip(placed::snapshot(&source.snapshot));
        let Some((volume, id)) = ids else { return Ok(None) };
        let Some(found) = self.records.get(volume).await? else { return Ok(None) };
        let record = found.record;
        let Some(taken) = record.taken(id) else { return Ok(None) };
        let is_mine = |holder: &&ReplicaId| record.members.get(holder).is_some_and(|of| *of.node.0 == *self.me);
        let replica = taken.holders.iter().find(is_mine).copied();
        Ok(replica.map(|replica| SnapshotHere { volume, replica, held: (id, taken.epoch) }))
    }

    /// Removes what replicas of this node have of snapshots that are in no record, and come into none any more. What was found before the record was read.
    async fn collect(
        &self,
        (volumes, records): (&[Arc<Volume>], &[Arc<VolumeRecord>]),
        found: Vec<(VolumeId, ReplicaId, HeldSnapshot)>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for (volume, replica, held) in found {
            let name = records::form::name(volume);
            let cached = records.iter().find(|object| object.meta().name.as_deref() == Some(name.as_str()));
            let cached = cached.and_then(|object| records::form::read(&object.spec).ok());
            // A volume without a record keeps all that it has.
            if cached.is_none_or(|record| !record.is_garbage(replica, held.0, held.1)) {
                continue;
            }
            outcome = outcome.and(self.remove_snapshot(volumes, volume, replica, held).await);
        }
        outcome
    }

    async fn remove_snapshot(
        &self,
        volumes: &[Arc<Volume>],
        volume: VolumeId,
        replica: ReplicaId,
        held: HeldSnapshot,
    ) -> Result<()> {
        let Some(found) = self.records.get(volume).await? else { return Ok(()) };
        let record = found.record;
        // As with replicas: an older record in its place is not the one that counts.
        let is_older = self.node.sealed_epoch(volume, replica).is_none_or(|sealed| sealed > record.epoch);
        if is_older || !record.is_garbage(replica, held.0, held.1) {
            return Ok(());
        }
        // One that its Volume names and the record does not know at all: somebody has brought back a record from before it.
        if !record.snapshots.contains_key(&held.0) && self.is_named(volumes, volume, held.0).await? {
            if self.is_news(volume, replica) {
                let volume = records::form::name(volume);
                tracing::warn!(volume, %replica, snapshot = %held.0, "a snapshot that its Volume names is missing in the record; it is kept");
            }
            return Ok(());
        }
        let node = self.node.clone();
        done(tokio::task::spawn_blocking(move || node.remove_held_snapshot(volume, replica, held)).await)?;
        tracing::info!(volume = records::form::name(volume), %replica, snapshot = %held.0, "what was left of a snapshot was removed");
        Ok(())
    }

    /// Whether a Volume has a snapshot, read past every cache.
    async fn is_named(&self, volumes: &[Arc<Volume>], id: VolumeId, snapshot: SnapshotId) -> Result<bool> {
        let Some(cached) = self.volume_of(volumes, id) else { return Ok(false) };
        let found = self.volume(&cached.name_any(), id).await?;
        let named = found.iter().flat_map(|volume| volume.spec.snapshots.values());
        Ok(named.filter_map(|wanted| placed::snapshot(&wanted.id)).any(|id| id == snapshot))
    }

    /// Removes a replica, if it is certain that it is not needed.
    async fn remove(&self, volumes: &[Arc<Volume>], id: VolumeId, replica: ReplicaId) -> Result<()> {
        let is_needed = match self.records.get(id).await? {
            // A record that is older than the replica is not the one that counts: somebody has brought it back.
            Some(found) => {
                let is_older = self.node.sealed_epoch(id, replica).is_some_and(|sealed| sealed > found.record.epoch);
                is_older || found.record.members.contains_key(&replica)
            }
            // A volume without a record may be one that was deleted, and may be one whose record somebody has lost.
            None => !self.volume_of(volumes, id).is_some_and(|volume| placed::is_deleted(volume)),
        };
        if is_needed {
            if self.is_news(id, replica) {
                let volume = records::form::name(id);
                tracing::warn!(volume, %replica, "a replica is here, its volume was not deleted, and the record of that is missing, or older than the replica; it is kept");
            }
            return Ok(());
        }
        let node = self.node.clone();
        done(tokio::task::spawn_blocking(move || node.remove_replica(id, replica)).await)?;
        tracing::info!(volume = records::form::name(id), %replica, "a replica was removed");
        Ok(())
    }

    /// Notes that a replica has what its volume begins as.
    async fn tell_made(&self, volume: &Volume, id: VolumeId, noted: &HeldReplica) -> Result<()> {
        let usable = self.node.usable();
        let is_it = |(of, replica): &&(VolumeId, ReplicaId)| *of == id && replica_name(*replica) == noted.replica;
        match usable.iter().find(is_it) {
            Some((_, replica)) if volume.spec.source.is_some() && !noted.made => {
                self.note(&volume.name_any(), HeldReplica { made: true, ..held(*replica) }).await
            }
            _ => Ok(()),
        }
    }

    /// Takes back that this node holds a replica of a volume, when it does not any more.
    async fn settle(&self, volume: &Volume) -> Result<()> {
        let Some(noted) = volume.status.as_ref().and_then(|status| status.holders.get(&self.me)) else { return Ok(()) };
        let Some(id) = placed::id(volume) else { return Ok(()) };
        if self.node.held().iter().any(|(held, _)| *held == id) {
            return self.tell_made(volume, id, noted).await;
        }
        let is_named = match self.records.get(id).await? {
            Some(found) => found.record.members.keys().any(|replica| replica_name(*replica) == noted.replica),
            None => !placed::is_deleted(volume),
        };
        if is_named { Ok(()) } else { self.patch(&volume.name_any(), Value::Null).await }
    }

    /// Waits for devices that are being made or removed, so in a thread that may wait.
    async fn limit(&self, volumes: &[Arc<Volume>]) -> Result<()> {
        let limits = |volume: &Arc<Volume>| {
            let limits = &volume.spec.limits;
            let limits = node::qos::Limits {
                iops: limits.iops.and_then(NonZeroU64::new),
                bytes_per_second: limits.bytes_per_second.and_then(NonZeroU64::new),
            };
            (volume.name_any(), limits)
        };
        let (node, all): (_, Vec<_>) = (self.node.clone(), volumes.iter().map(limits).collect());
        let limited = tokio::task::spawn_blocking(move || {
            all.into_iter().for_each(|(name, limits)| node.limit_replicated(&name, limits));
            Ok(())
        });
        done(limited.await)
    }

    /// The volume as it is now, past every cache.
    async fn volume(&self, name: &str, id: VolumeId) -> Result<Option<Volume>> {
        let api: Api<Volume> = Api::all(self.client.clone());
        let found = ask(self.times.request, || format!("read the Volume {name}"), api.get_opt(name)).await?;
        Ok(found.filter(|volume| placed::id(volume) == Some(id)))
    }

    async fn note(&self, volume: &str, held: HeldReplica) -> Result<()> {
        self.patch(volume, json!(held)).await
    }

    /// Writes this node's own part of a status, and nothing else of it.
    async fn patch(&self, volume: &str, held: Value) -> Result<()> {
        let api: Api<Volume> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"status": {"holders": {self.me.as_str(): held}}}));
        let what = || format!("write the status of the Volume {volume}");
        ask(self.times.request, what, api.patch_status(volume, &PatchParams::default(), &patch)).await.map(drop)
    }
}

/// Whether an empty replica is what its record says: all replicas of a volume that was never served are, and those that are to be built.
fn may_be_empty(record: &Record, standing: Standing) -> bool {
    match standing {
        Standing::InSync => record.epoch == Epoch(0),
        // Nothing is written before the first attachment, whose epoch is 1.
        Standing::Stale { complete } => complete <= Epoch(1),
    }
}

fn held(replica: ReplicaId) -> HeldReplica {
    HeldReplica { replica: replica_name(replica), ..HeldReplica::default() }
}

/// Whether a replica of a volume that begins as another gets all of that from its neighbours. One that its record calls complete up to the first attachment must have it: it
/// is sent only what was written since.
fn begins_empty(standing: Standing) -> bool {
    standing == Standing::Stale { complete: Epoch(0) }
}

/// How ids of replicas are written.
pub(crate) fn replica_name(replica: ReplicaId) -> String {
    format!("{:016x}", replica.0)
}

fn done(asked: std::result::Result<node::Result<()>, tokio::task::JoinError>) -> Result<()> {
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::Node(error.story())),
        Err(error) => Err(Error::Node(format!("a request has panicked, which is a defect: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::record::{Attached, Change};
    use replication::units::AttachmentId;

    #[test]
    fn only_what_holds_nothing_by_its_record_is_made_empty() {
        let record = Record::new([(ReplicaId(1), "a".into()), (ReplicaId(2), "b".into())], 1, 8).unwrap();
        assert!(may_be_empty(&record, Standing::InSync));
        let served = record.claimed(Attached { node: "a".into(), id: AttachmentId(1) });
        assert!(!may_be_empty(&served, Standing::InSync), "it would count as one that has everything");
        assert!(may_be_empty(&served, Standing::Stale { complete: Epoch(0) }));
        assert!(begins_empty(Standing::Stale { complete: Epoch(0) }) && !begins_empty(Standing::InSync));
        // The first attachment went on without it, since it was not made yet.
        let left = Change { leave: [ReplicaId(2)].into(), ..Change::default() };
        let left = served.changed(&left, Epoch(0)).unwrap();
        assert!(may_be_empty(&left, left.members[&ReplicaId(2)].standing));
        assert!(!begins_empty(Standing::Stale { complete: record.equal }), "what it begins as is not sent to it");
        assert!(
            !may_be_empty(&served, Standing::Stale { complete: Epoch(2) }),
            "it would be taken to have what is older"
        );
    }
}
