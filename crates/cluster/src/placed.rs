//! Volumes and their records, by the id that they share.

use api::Volume;
use kube::Resource;
use replication::units::{SnapshotId, VolumeId};

/// The id of a volume: its uid, which no other object ever has.
#[must_use]
pub fn id(volume: &Volume) -> Option<VolumeId> {
    let uid = volume.meta().uid.as_deref()?;
    let digits: String = uid.chars().filter(|c| *c != '-').collect();
    let is_id = digits.len() == 32;
    u128::from_str_radix(&digits, 16).ok().filter(|_| is_id).map(VolumeId)
}

/// The id of a snapshot, as it is written in a volume.
pub(crate) fn snapshot(id: &str) -> Option<SnapshotId> {
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(id, 16).ok().filter(|_| is_id).map(SnapshotId)
}

/// It was deleted, and is there until its replicas are gone.
pub(crate) fn is_deleted(volume: &Volume) -> bool {
    volume.meta().deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_volume_is_its_uid() {
        let with = |uid: Option<&str>| {
            let mut volume = Volume::new("data", api::VolumeSpec::default());
            volume.metadata.uid = uid.map(str::to_owned);
            id(&volume)
        };
        assert_eq!(with(Some("00000000-0000-0000-0000-0000000000ff")), Some(VolumeId(255)));
        for odd in [None, Some(""), Some("ff"), Some("0000000000-0000-0000-0000-0000000000zz")] {
            assert_eq!(with(odd), None, "{odd:?}");
        }
    }
}
