//! What is data in a snapshot of a volume with several replicas, and what has changed since an older one.
//!
//! One replica tells it that has both, by the record ([`replication::look`]): one of this node, if there is one, otherwise one of another node, over the network of the replicas. When one cannot go
//! on, the next one does from where it came: each of them lacks nothing, and may tell more than another.
//!
//! Nothing is told of what the record does not say: not of a snapshot that is not taken, and not from a replica that is no holder, whatever its pool has.

use super::snapshots::taken;
use super::{InCluster, failed};
use crate::placed;
use api::Volume as Object;
use csi::{Error, Kind, Range};
use kube::ResourceExt;
use replicas::LookError;
use replication::look::{Look, Unseen};
use replication::record::Record;
use replication::record::snapshots::Taken;
use replication::units::{Blocks, HeldSnapshot, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

/// Ranges that a replica tells at once.
const PAGE: u32 = 4096;
const BLOCK: u64 = 4096;

/// What is asked of whichever replica.
struct Asked {
    volume: VolumeId,
    of: HeldSnapshot,
    since: Option<HeldSnapshot>,
    /// The size of the snapshot. A replica may have become larger earlier than its volume.
    blocks: u64,
}

impl InCluster {
    pub(super) fn ranges_of_snapshot(
        &self,
        (object, name): (&Object, &str),
        since: Option<&str>,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error> {
        let volume = object.name_any();
        let what = match since {
            None => format!("tell what is data in {volume}@{name}"),
            Some(since) => format!("tell what has changed in {volume}@{name} since {since}"),
        };
        let older = since.map(|since| older(&volume, since, &what)).transpose()?;
        let record = self.record(object)?;
        let of = taken(object, name, record.as_ref(), &what)?;
        let since = older.map(|older| taken(object, older, record.as_ref(), &what)).transpose()?;
        let (Some(record), Some(id)) = (record.as_ref(), placed::id(object)) else {
            return Err(failed(format!("{what}: the volume has no record")));
        };
        let both = since.map_or_else(|| of.1.holders.clone(), |since| &of.1.holders & &since.1.holders);
        let held = |(id, taken): (_, &Taken)| (id, taken.epoch);
        let asked = Asked { volume: id, of: held(of), since: since.map(held), blocks: of.1.blocks };
        self.ask_holders(&asked, &in_order(record, &both, &self.me), &what, start, tell)
    }

    /// Asks one after the other until all is told, or whoever is told wants no more.
    fn ask_holders(
        &self,
        asked: &Asked,
        holders: &[(ReplicaId, NodeId)],
        what: &str,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error> {
        if holders.is_empty() {
            let story = format!("{what}: no replica has both any more; read all of it");
            return Err(Error { kind: Kind::Precondition, story });
        }
        let (mut at, mut whys, mut is_damaged) = (start / BLOCK, Vec::new(), true);
        for (replica, node) in holders {
            match self.ask_holder(asked, *replica, node, &mut at, tell) {
                Ok(()) => return Ok(()),
                // Each of them has the two in the same order.
                Err(LookError::Unseen(unseen @ Unseen::Unrelated(_))) => {
                    return Err(Error { kind: Kind::Precondition, story: format!("{what}: {unseen}") });
                }
                Err(error) => {
                    tracing::warn!(%replica, %node, %error, what, "a replica does not tell what its snapshot has");
                    is_damaged &= matches!(error, LookError::Unseen(Unseen::Damaged(_)));
                    whys.push(format!("{replica} on {node}: {error}"));
                }
            }
        }
        let (kind, help) = if is_damaged {
            (Kind::Damaged, "read all of it, where it can be read")
        } else {
            (Kind::Busy, "ask again when their nodes and pools are well")
        };
        Err(Error { kind, story: format!("{what}: none of its replicas tells it ({}); {help}", whys.join("; ")) })
    }

    /// Asks one, from a block on, and notes how far it came.
    fn ask_holder(
        &self,
        asked: &Asked,
        replica: ReplicaId,
        node: &NodeId,
        at: &mut u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), LookError> {
        let mut looking = self.runtime.block_on(self.node.look_at(asked.volume, replica, node))?;
        while *at < asked.blocks {
            let blocks = Blocks { start: *at, count: asked.blocks - *at };
            let look = Look { of: asked.of, since: asked.since, blocks, most: PAGE };
            // Whoever is told may wait, so he is not told while the runtime is waited on.
            let told = self.runtime.block_on(looking.look(&look))?;
            *at = told.next.unwrap_or(asked.blocks);
            let range = |blocks: Blocks| Range { offset: blocks.start * BLOCK, length: blocks.count * BLOCK };
            if !told.ranges.is_empty() && !tell(told.ranges.into_iter().map(range).collect()) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The name of an older snapshot of the same volume.
fn older<'a>(volume: &str, since: &'a str, what: &str) -> Result<&'a str, Error> {
    let of_same = since.split_once('@').filter(|(of, _)| *of == volume).map(|(_, name)| name);
    let story = || {
        format!(
            "{what}: that is no snapshot of {volume}, and what several copies have in common with another volume is not known"
        )
    };
    of_same.ok_or_else(|| Error { kind: Kind::Invalid, story: story() })
}

/// Holders in the order in which they are asked: that of this node costs no network, and those that are in sync were there lately.
fn in_order(record: &Record, holders: &BTreeSet<ReplicaId>, me: &str) -> Vec<(ReplicaId, NodeId)> {
    let members = record.members.iter().filter(|(id, _)| holders.contains(id));
    let mut all: Vec<_> = members.map(|(id, member)| (*id, member.node.clone())).collect();
    all.sort_by_key(|(id, node)| (*node.0 != *me, !record.is_in_sync(*id)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::record::Change;
    use replication::units::Epoch;

    #[test]
    fn holders_are_asked_from_near_to_far_and_nobody_else_is() {
        let members = (1..=4).map(|id| (ReplicaId(id), NodeId::from(format!("node-{id}").as_str())));
        let record = Record::new(members, 1, 64).unwrap();
        let leave = Change { leave: [ReplicaId(1)].into(), ..Change::default() };
        let record = record.changed(&leave, Epoch(0)).unwrap();
        let order = |holders: &[u64], me: &str| -> Vec<u64> {
            let holders = holders.iter().map(|id| ReplicaId(*id)).collect();
            in_order(&record, &holders, me).into_iter().map(|(id, _)| id.0).collect()
        };
        assert_eq!(order(&[1, 2, 3], "node-3"), [3, 2, 1]);
        assert_eq!(order(&[1, 2], "node-3"), [2, 1], "what is here is no holder");
        assert_eq!(order(&[1, 2], "node-1"), [1, 2], "it is stale, and holds them all the same");
        assert_eq!(order(&[], "node-1"), [0; 0]);
    }

    #[test]
    fn only_snapshots_of_the_same_volume_are_compared() {
        assert_eq!(older("pvc-1", "pvc-1@s", "look").unwrap(), "s");
        for other in ["pvc-2@s", "s", "pvc-1", "pvc-11@s"] {
            let error = older("pvc-1", other, "look").unwrap_err();
            assert!(error.kind == Kind::Invalid && error.story.contains("no snapshot of pvc-1"), "{other}: {error}");
        }
    }
}
