//! What a node knows of the volumes of a pool beyond their bytes: keys, limits, times. It lies in the pool itself, so that it goes where the pool
//! goes.
//!
//! The pool's catalog is the truth about what exists. The records follow it, in three steps with a crash allowed after each:
//!
//! 1. What a volume is going to be is recorded as an *intent* under its name.
//! 2. The volume is made in the pool, durably.
//! 3. [`Records::follow`] gives the intent to the volume of that name that has no record, and drops records of what is gone.
//!
//! A pool that is opened is followed first, so whatever a crash has left undone is done, and an intent of which the volume was never made is dropped.
//! A key that no state of the pool uses any more is dropped with the last that did.

mod slots;

pub(crate) use slots::{RecordsError, Slots};

use crate::crypt::{KeyId, WrappedKey};
use crate::qos::Limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use volume::{SnapshotInfo, VolumeInfo};

/// All that is recorded, as it is stored: JSON, so that a person can read it, too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Records {
    /// By the ids of volumes and snapshots, which share no number.
    states: BTreeMap<u64, Record>,
    /// By the names of volumes and snapshots to be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    intents: BTreeMap<String, Record>,
    /// By their ids.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<KeyId, WrappedKey>,
    /// When all of the pool was read the last time, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scrubbed: Option<u64>,
}

/// What is recorded of one volume or snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    /// When it was made, in seconds since 1970; nothing if nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<u64>,
    /// The key that its bytes are encrypted with. One that is not among the keys was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyId>,
    /// How much may be asked of it.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub(crate) limits: Limits,
    /// Of a snapshot: the name of the volume that it was taken of, which may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<String>,
    /// What clients have noted of it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(crate) labels: Labels,
}

/// What clients note of a volume or snapshot: a value under a key.
pub(crate) type Labels = BTreeMap<String, String>;

fn is_unlimited(limits: &Limits) -> bool {
    *limits == Limits::default()
}

impl Records {
    pub(crate) fn of(&self, id: u64) -> Record {
        self.states.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn set_limits(&mut self, id: u64, limits: Limits) {
        self.states.entry(id).or_default().limits = limits;
    }

    /// Sets labels, and removes those of which the new value is empty.
    pub(crate) fn set_labels(&mut self, id: u64, changed: &Labels) {
        let labels = &mut self.states.entry(id).or_default().labels;
        labels.extend(changed.clone());
        labels.retain(|_, value| !value.is_empty());
    }

    /// Says what the next volume, or snapshot, of this name will be, with a key of its own if it has a new one.
    pub(crate) fn intend(&mut self, name: &str, record: Record, key: Option<WrappedKey>) {
        self.intents.insert(name.to_owned(), record);
        self.keys.extend(key.map(|key| (key.id(), key)));
    }

    pub(crate) fn key(&self, id: KeyId) -> Option<&WrappedKey> {
        self.keys.get(&id)
    }

    /// Puts another wrapping in place of a key's.
    pub(crate) fn rewrap(&mut self, key: WrappedKey) {
        self.keys.insert(key.id(), key);
    }

    /// Destroys a key; what was encrypted with it stays, and nobody can read it.
    pub(crate) fn destroy(&mut self, id: KeyId) {
        self.keys.remove(&id);
    }

    /// The ids of all that is encrypted with a key.
    pub(crate) fn with_key(&self, id: KeyId) -> BTreeSet<u64> {
        let states = self.states.iter().filter(|(_, record)| record.key == Some(id));
        states.map(|(id, _)| *id).collect()
    }

    /// Brings the records in line with what is in the pool.
    pub(crate) fn follow(&mut self, volumes: &[VolumeInfo], snapshots: &[SnapshotInfo], now: u64) {
        for volume in volumes.iter().filter(|volume| !self.states.contains_key(&volume.id.0)).collect::<Vec<_>>() {
            let record =
                self.intents.remove(&volume.name).unwrap_or(Record { created: Some(now), ..Record::default() });
            self.states.insert(volume.id.0, record);
        }
        for snapshot in snapshots {
            if !self.states.contains_key(&snapshot.id.0) {
                let mut record = self.of_new_snapshot(snapshot, volumes, snapshots, now);
                // No volume has such a name.
                let intent = record.of.as_ref().and_then(|of| self.intents.remove(&format!("{of}@{}", snapshot.name)));
                record.labels = intent.unwrap_or_default().labels;
                self.states.insert(snapshot.id.0, record);
            }
        }
        let living: BTreeSet<u64> = volumes.iter().map(|v| v.id.0).chain(snapshots.iter().map(|s| s.id.0)).collect();
        self.states.retain(|id, _| living.contains(id));
        self.intents.clear();
        let used: BTreeSet<KeyId> = self.states.values().filter_map(|record| record.key).collect();
        self.keys.retain(|id, _| used.contains(id));
    }

    /// A snapshot has the key and the name of the volume that it was taken of, and so have all others of it if that one is gone.
    fn of_new_snapshot(
        &self,
        new: &SnapshotInfo,
        volumes: &[VolumeInfo],
        snapshots: &[SnapshotInfo],
        now: u64,
    ) -> Record {
        let volume = volumes.iter().find(|volume| volume.id == new.volume);
        let siblings = snapshots.iter().filter(|other| other.volume == new.volume && other.id != new.id);
        let sibling = siblings.filter_map(|other| self.states.get(&other.id.0)).next();
        let line = self.states.get(&new.volume.0).or(sibling);
        let name = volume.map(|volume| volume.name.clone()).or_else(|| sibling.and_then(|record| record.of.clone()));
        let key = line.and_then(|record| record.key);
        Record { created: Some(now), key, of: name, ..Record::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::{DataKey, Secret};
    use volume::{Epoch, SnapshotId, VolumeId};
    use zeroize::Zeroizing;

    fn volume(id: u64, name: &str) -> VolumeInfo {
        VolumeInfo { id: VolumeId(id), name: name.into(), blocks: 1, origin: None, epoch: Epoch(1) }
    }

    fn snapshot(id: u64, of: u64) -> SnapshotInfo {
        SnapshotInfo {
            id: SnapshotId(id),
            name: "s".into(),
            blocks: 1,
            volume: VolumeId(of),
            origin: None,
            epoch: Epoch(1),
        }
    }

    fn encrypted() -> (Record, WrappedKey, KeyId) {
        let secret = Secret::new(Zeroizing::new(vec![7])).unwrap();
        let wrapped = DataKey::random().unwrap().wrap(&secret).unwrap();
        let id = wrapped.id();
        (Record { created: Some(1), key: Some(id), ..Record::default() }, wrapped, id)
    }

    #[test]
    fn an_intent_becomes_the_record_of_its_volume_alone() {
        let mut records = Records::default();
        let (record, wrapped, key) = encrypted();
        records.intend("web", record.clone(), Some(wrapped));
        records.follow(&[volume(1, "other"), volume(2, "web")], &[], 9);
        assert_eq!((records.of(2), records.of(1).created, records.of(1).key), (record, Some(9), None));
        assert!(records.key(key).is_some() && records.intents.is_empty());
    }

    #[test]
    fn an_intent_without_a_volume_is_dropped_with_its_key() {
        let mut records = Records::default();
        let (record, wrapped, _) = encrypted();
        records.intend("web", record, Some(wrapped));
        records.follow(&[], &[], 9);
        assert_eq!(records, Records::default());
    }

    #[test]
    fn what_is_noted_of_a_snapshot_to_be_is_noted_of_it_alone() {
        let mut records = Records::default();
        let labels = Labels::from([("k".to_owned(), "v".to_owned())]);
        records.follow(&[volume(2, "web"), volume(5, "db")], &[], 9);
        records.intend("web@s", Record { labels: labels.clone(), ..Record::default() }, None);
        records.follow(&[volume(2, "web"), volume(5, "db")], &[snapshot(3, 2), snapshot(6, 5)], 10);
        assert_eq!((records.of(3).labels, records.of(6).labels), (labels, Labels::new()));
        assert!(records.intents.is_empty());
    }

    #[test]
    fn labels_are_set_and_removed_one_by_one() {
        let mut records = Records::default();
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        records.set_labels(1, &labels(&[("a", "1"), ("b", "2")]));
        records.set_labels(1, &labels(&[("a", ""), ("c", "3")]));
        assert_eq!(records.of(1).labels, labels(&[("b", "2"), ("c", "3")]));
    }

    #[test]
    fn a_key_lives_as_long_as_the_last_that_needs_it() {
        let mut records = Records::default();
        let (record, wrapped, key) = encrypted();
        records.intend("web", record, Some(wrapped));
        records.follow(&[volume(2, "web")], &[], 9);
        records.follow(&[volume(2, "web")], &[snapshot(3, 2)], 10);
        let expected = Record { created: Some(10), key: Some(key), of: Some("web".into()), ..Record::default() };
        assert_eq!(records.of(3), expected);
        records.follow(&[], &[snapshot(3, 2)], 11);
        assert!(records.key(key).is_some(), "the snapshot is encrypted with it");
        records.follow(&[], &[snapshot(3, 2), snapshot(4, 2)], 11);
        assert_eq!(records.with_key(key), BTreeSet::from([3, 4]), "the volume is gone, but not what was taken of it");
        assert_eq!(records.of(4).of.as_deref(), Some("web"));
        records.follow(&[], &[], 12);
        assert_eq!(records, Records::default());
    }

    #[test]
    fn a_destroyed_key_is_not_the_same_as_none() {
        let mut records = Records::default();
        let (record, wrapped, key) = encrypted();
        records.intend("web", record, Some(wrapped));
        records.follow(&[volume(2, "web")], &[], 9);
        records.destroy(key);
        records.follow(&[volume(2, "web")], &[], 9);
        assert_eq!((records.of(2).key, records.key(key)), (Some(key), None));
    }
}
