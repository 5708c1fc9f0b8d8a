//! The snapshots of a volume, as they are written down.

use super::{Malformed, hexadecimal, malformed, read_replica};
use api::{Counter, RecordSnapshot, RecordTaken, VolumeRecordSpec};
use replication::record::snapshots::{MOST_SNAPSHOTS, Snapshot, Taken};
use replication::record::{Member, Record};
use replication::units::{Epoch, ReplicaId, SnapshotId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn written(record: &Record) -> Vec<RecordSnapshot> {
    let taken = |taken: &Taken| RecordTaken {
        epoch: Counter(taken.epoch.0),
        blocks: Counter(taken.blocks),
        holders: taken.holders.iter().map(|id| format!("{:016x}", id.0)).collect(),
    };
    let all = record.snapshots.keys();
    all.map(|id| RecordSnapshot { id: format!("{:032x}", id.0), taken: record.taken(*id).map(taken) }).collect()
}

pub(super) fn read(
    spec: &VolumeRecordSpec,
    members: &BTreeMap<ReplicaId, Member>,
) -> Result<BTreeMap<SnapshotId, Snapshot>, Malformed> {
    let mut all = BTreeMap::new();
    for written in &spec.snapshots {
        let wrong = || malformed(format!("{:?} is not the id of a snapshot, 32 hexadecimal digits", written.id));
        let id = hexadecimal(&written.id, 32).map(SnapshotId).ok_or_else(wrong)?;
        let snapshot = match &written.taken {
            None => Snapshot::Wanted,
            Some(taken) => Snapshot::Taken(read_taken(id, taken, members)?),
        };
        if all.insert(id, snapshot).is_some() {
            return Err(malformed(format!("{id} is in it twice")));
        }
    }
    let found = all.len();
    if found > MOST_SNAPSHOTS {
        return Err(malformed(format!("it has {found} snapshots, and {MOST_SNAPSHOTS} are the most")));
    }
    Ok(all)
}

fn read_taken(
    id: SnapshotId,
    written: &RecordTaken,
    members: &BTreeMap<ReplicaId, Member>,
) -> Result<Taken, Malformed> {
    let mut holders = BTreeSet::new();
    for holder in &written.holders {
        let holder = read_replica(holder)?;
        if !members.contains_key(&holder) {
            return Err(malformed(format!("{id} is on {holder}, which is no member")));
        }
        if !holders.insert(holder) {
            return Err(malformed(format!("{id} is on {holder} twice")));
        }
    }
    Ok(Taken { epoch: Epoch(written.epoch.0), blocks: written.blocks.0, holders })
}
