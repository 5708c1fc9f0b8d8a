//! Volumes with several replicas that begin as a snapshot of another.
//!
//! Their first replicas lie on nodes that hold the snapshot, each in the pool where that is: so making them costs no time and no room, whatever they hold. The controller
//! chooses the nodes by the record, and each node notes in the volume's status when its replica is made. Until all have, the snapshot is not deleted.

use super::snapshots::taken;
use super::{InCluster, failed};
use crate::placed;
use api::{Volume as Object, VolumeSource};
use csi::{Error, NewVolume, Volume};
use kube::ResourceExt;

impl InCluster {
    /// Makes a volume of the size of the snapshot; whoever asks has it grow.
    pub(super) fn clone_replicated(&self, of: &Object, snapshot: &str, new: &NewVolume) -> Result<Volume, Error> {
        let record = self.record(of)?;
        let (id, taken) = taken(of, snapshot, record.as_ref(), &format!("make {}", new.id))?;
        let volume = placed::id(of).ok_or_else(|| failed(format!("the Volume {} has no uid", of.name_any())))?;
        let mut spec = self.spec(new, of.spec.wrapped_key.clone());
        spec.bytes = taken.blocks * 4096;
        spec.source = Some(VolumeSource { volume: records::form::name(volume), snapshot: format!("{:032x}", id.0) });
        self.make(&new.id, spec)
    }

    /// A volume that is to begin as this snapshot, and does not everywhere yet.
    pub(super) fn unmade_from(&self, snapshot: &str) -> Result<Option<String>, Error> {
        let is_of = |object: &Object| object.spec.source.as_ref().is_some_and(|source| source.snapshot == snapshot);
        let all = self.objects()?;
        Ok(all.iter().find(|object| is_of(object) && !is_made(object)).map(ResourceExt::name_any))
    }
}

/// Whether a volume has what it begins as. (A replica that is built later gets it from the others.)
pub(super) fn is_made(object: &Object) -> bool {
    let status = object.status.clone().unwrap_or_default();
    let is_made = |replica: &api::VolumeReplica| {
        !replica.in_sync
            || status.holders.get(&replica.node).is_some_and(|held| held.made && held.replica == replica.replica)
    };
    object.spec.source.is_none() || (!status.replicas.is_empty() && status.replicas.iter().all(is_made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{HeldReplica, VolumeReplica, VolumeSpec, VolumeStatus};

    #[test]
    fn a_volume_is_made_when_every_replica_has_what_it_begins_as() {
        let mut volume = Object::new("pvc-2", VolumeSpec::default());
        assert!(is_made(&volume), "it begins empty");
        volume.spec.source = Some(VolumeSource::default());
        assert!(!is_made(&volume), "it is not placed");
        let replica = |node: &str, in_sync| VolumeReplica {
            node: node.into(),
            replica: format!("of-{node}"),
            in_sync,
            ..VolumeReplica::default()
        };
        let held = |of: &str, made| HeldReplica { replica: format!("of-{of}"), made, ..HeldReplica::default() };
        let mut with = |holders: &[(&str, HeldReplica)]| {
            let replicas = vec![replica("a", true), replica("b", true), replica("c", false)];
            let holders = holders.iter().map(|(node, held)| ((*node).to_owned(), held.clone())).collect();
            volume.status = Some(VolumeStatus { replicas, holders, ..VolumeStatus::default() });
            is_made(&volume)
        };
        assert!(!with(&[("a", held("a", true))]));
        assert!(!with(&[("a", held("a", true)), ("b", held("b", false))]));
        assert!(!with(&[("a", held("a", true)), ("b", held("another", true))]));
        assert!(with(&[("a", held("a", true)), ("b", held("b", true))]), "the third is built from these");
    }
}
