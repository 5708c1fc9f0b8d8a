//! Snapshots of volumes that have replicas on several nodes.
//!
//! A snapshot is wanted by writing it into its [`Volume`](api::Volume), with an id that no other ever has. The controller brings it into the record, whoever serves the volume
//! takes it, and only when the record says so is it told as one that is there. One whose volume nobody serves is taken by the node whose driver was asked, which serves it
//! for that moment, to nobody ([`node::Node::attend`]).
//!
//! Its time is when it was asked for: all that was written until then is in it, and what was written while it was taken may be, too. So a recovery point is never told as
//! younger than it is.

use super::{InCluster, failed};
use crate::error::Error as ClusterError;
use crate::placed;
use api::{Volume as Object, WantedSnapshot};
use csi::{Error, Kind, Labels, Snapshot, SnapshotState};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use replication::record::Record;
use replication::record::snapshots::{MOST_SNAPSHOTS, Taken};
use replication::record::store::RecordStore;
use replication::units::SnapshotId;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a snapshot is waited for; a sidecar waits for a minute, and asks again.
const TAKE_LIMIT: Duration = Duration::from_secs(45);
/// How often the record is looked at.
const TAKE_LOOK: Duration = Duration::from_millis(100);
/// Records that are read at once.
const READS: usize = 16;

/// A snapshot that is wanted, and its volume.
struct Asked<'a> {
    object: &'a Object,
    name: &'a str,
    wanted: WantedSnapshot,
    id: SnapshotId,
}

impl InCluster {
    /// Takes a snapshot, or waits for one that was asked for before.
    pub(super) fn take(&self, volume: &str, name: &str, labels: &Labels) -> Result<Snapshot, Error> {
        let created = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let id = format!("{:032x}", rand::random::<u128>());
        let mine = WantedSnapshot { id, created, node: self.me.clone(), labels: labels.clone() };
        self.change(volume, |object| {
            match object.spec.snapshots.get(name) {
                Some(there) if there.labels == *labels => return Ok(None),
                Some(_) => {
                    let story = format!("take the snapshot {volume}@{name}: there is one, and it is another");
                    return Err(Error { kind: Kind::Exists, story });
                }
                None => {}
            }
            if object.spec.snapshots.len() >= MOST_SNAPSHOTS {
                let story = format!("{volume} has {MOST_SNAPSHOTS} snapshots, and can have no more; delete some");
                return Err(Error { kind: Kind::NoRoom, story });
            }
            Ok(Some(json!({"snapshots": {name: mine}})))
        })?;
        let gone = || failed(format!("the snapshot {volume}@{name} was deleted before it was taken"));
        let object = self.object(volume)?.ok_or_else(gone)?;
        let wanted = object.spec.snapshots.get(name).cloned().ok_or_else(gone)?;
        let id = placed::snapshot(&wanted.id);
        let id = id.ok_or_else(|| failed(format!("the snapshot {volume}@{name} has no id")))?;
        self.await_taken(&Asked { object: &object, name, wanted, id })
    }

    fn await_taken(&self, asked: &Asked<'_>) -> Result<Snapshot, Error> {
        let (begin, volume) = (Instant::now(), asked.object.name_any());
        let mut why = "nobody has read it yet; see that the operator runs".to_owned();
        while begin.elapsed() < TAKE_LIMIT {
            if let Some(record) = self.record(asked.object)? {
                if record.taken(asked.id).is_some() {
                    let snapshot = self.told_snapshot(asked.object, asked.name, &asked.wanted, Some(&record));
                    let story = || format!("{} is lost with the pools that it was in; delete it", snapshot.id);
                    return match snapshot.state {
                        SnapshotState::Lost => Err(Error { kind: Kind::Damaged, story: story() }),
                        _ => Ok(snapshot),
                    };
                }
                why = self.bring_about(asked.object, &record)?;
            }
            let now = self.object(&volume)?;
            if now.is_none_or(|now| !now.spec.snapshots.contains_key(asked.name)) {
                return Err(failed(format!("the snapshot {volume}@{} was deleted before it was taken", asked.name)));
            }
            std::thread::sleep(TAKE_LOOK);
        }
        let story = format!("the snapshot {volume}@{} is not taken yet: {why}; ask again, and it goes on", asked.name);
        Err(Error { kind: Kind::Busy, story })
    }

    /// Has what the record wants done, if nobody serves the volume; tells what it waits for. Where a replica has no room for it, it is not tried again at once: a
    /// pod may want the volume.
    pub(super) fn bring_about(&self, object: &Object, record: &Record) -> Result<String, Error> {
        if let Some(by) = &record.attached {
            return Ok(format!("{} serves the volume, and has not done it", by.node));
        }
        let is_wanted = record.wanted_snapshot().is_some() || record.wanted_blocks > record.blocks;
        let Some(id) = placed::id(object).filter(|_| is_wanted) else {
            return Ok("it is not in the record yet; see that the operator runs".into());
        };
        match self.runtime.block_on(self.node.attend(id, &object.name_any())) {
            Ok(()) => Ok("its replicas have not done it".into()),
            Err(error) if error.kind() == node::Kind::NoRoom => Err(super::of_node(&error)),
            Err(error) => Ok(error.story()),
        }
    }

    /// The record of a volume, past every cache.
    pub(super) fn record(&self, object: &Object) -> Result<Option<Record>, Error> {
        let Some(id) = placed::id(object) else { return Ok(None) };
        let found = self.wait(async { self.records.get(id).await.map_err(ClusterError::from) })?;
        Ok(found.map(|found| found.record))
    }

    /// Volumes with their records, several of which are read at once. One that cannot be read is as good as none for who asks about all: what other volumes are, must
    /// not hang on it.
    pub(super) fn with_records(&self, objects: Vec<Object>) -> Vec<(Object, Option<Record>)> {
        let records = &self.records;
        let read = |object: Object| async move {
            let Some(id) = placed::id(&object) else { return (object, None) };
            let found = records.get(id).await.unwrap_or_else(|error| {
                tracing::warn!(volume = object.name_any(), %error, "a record cannot be read");
                None
            });
            (object, found.map(|found| found.record))
        };
        let reads = stream::iter(objects.into_iter().map(read));
        self.runtime.block_on(reads.buffered(READS).collect())
    }

    /// All snapshots of such volumes, those that are not taken yet too.
    pub(super) fn all_snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let mut objects = self.objects()?;
        objects.retain(|object| !object.spec.snapshots.is_empty());
        let of = |(object, record): &(Object, Option<Record>)| {
            let all = object.spec.snapshots.iter();
            all.map(|(name, wanted)| self.told_snapshot(object, name, wanted, record.as_ref())).collect::<Vec<_>>()
        };
        Ok(self.with_records(objects).iter().flat_map(of).collect())
    }

    /// Takes a snapshot out of its volume; the controller takes it out of the record, and the nodes out of their pools.
    pub(super) fn forget(&self, volume: &str, name: &str) -> Result<(), Error> {
        self.change(volume, |object| {
            let Some(wanted) = object.spec.snapshots.get(name) else { return Ok(None) };
            if let Some(clone) = self.unmade_from(&wanted.id)? {
                let story = format!("{volume}@{name} is being made into {clone}; ask again when that is done");
                return Err(Error { kind: Kind::Busy, story });
            }
            Ok(Some(json!({"snapshots": {name: Value::Null}})))
        })
    }

    /// A snapshot as the driver knows it.
    fn told_snapshot(&self, object: &Object, name: &str, wanted: &WantedSnapshot, record: Option<&Record>) -> Snapshot {
        let volume = object.name_any();
        let taken = record.zip(placed::snapshot(&wanted.id)).and_then(|(record, id)| record.taken(id));
        Snapshot {
            id: format!("{volume}@{name}"),
            volume,
            bytes: taken.map_or(object.spec.bytes, |taken| taken.blocks * 4096),
            created: wanted.created,
            is_encrypted: object.spec.wrapped_key.is_some(),
            state: match taken {
                None => SnapshotState::Wanted,
                Some(taken) if taken.holders.is_empty() => SnapshotState::Lost,
                Some(_) => SnapshotState::Ready,
            },
            is_asked_here: wanted.node == self.me,
            labels: wanted.labels.clone(),
        }
    }
}

/// A snapshot that is taken and not lost, by the record as it was read; `what` needs it.
pub(super) fn taken<'r>(
    object: &Object,
    name: &str,
    record: Option<&'r Record>,
    what: &str,
) -> Result<(SnapshotId, &'r Taken), Error> {
    let snapshot = format!("{}@{name}", object.name_any());
    let error = |kind, why: &str| Err(Error { kind, story: format!("{what}: {why}") });
    let Some(id) = object.spec.snapshots.get(name).and_then(|wanted| placed::snapshot(&wanted.id)) else {
        return error(Kind::NotFound, &format!("there is no snapshot {snapshot}"));
    };
    match record.and_then(|record| record.taken(id)) {
        None => error(Kind::Busy, &format!("{snapshot} is not taken yet; ask again")),
        Some(taken) if taken.holders.is_empty() => {
            let why = format!("every replica that had {snapshot} is lost, and it with them; delete it");
            error(Kind::Damaged, &why)
        }
        Some(taken) => Ok((id, taken)),
    }
}

/// Why a volume is not deleted.
pub(super) fn kept_by_snapshots(object: &Object) -> Option<String> {
    // One that was taken for a clone alone, which was broken off, keeps nothing.
    let all: Vec<_> = object.spec.snapshots.iter().filter(|(_, wanted)| !csi::is_for_clone(&wanted.labels)).collect();
    let (first, _) = all.first()?;
    let volume = object.name_any();
    let count = all.len();
    Some(format!(
        "delete {volume}: its snapshots lie in its replicas, and there are {count}, such as {first}; delete them first"
    ))
}
