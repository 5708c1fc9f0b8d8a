//! What is told of a volume. Only what the record says, and what was done, is told.

use crate::agent::replica_name;
use api::{Volume, VolumePhase, VolumeReplica, VolumeStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use replication::record::{Record, Standing};

const HEALTHY: &str = "Healthy";

/// The status of a volume with this record; what its nodes have written into it stays.
pub(super) fn status(
    volume: &Volume,
    record: Option<&Record>,
    message: Option<String>,
    now: Timestamp,
) -> VolumeStatus {
    let before = volume.status.clone().unwrap_or_default();
    let replicas = record.iter().flat_map(|record| &record.members).map(|(id, member)| VolumeReplica {
        replica: replica_name(*id),
        node: member.node.0.to_string(),
        in_sync: member.standing == Standing::InSync,
        retiring: member.is_retiring,
    });
    let replicas: Vec<_> = replicas.collect();
    let whole = replicas.iter().filter(|replica| replica.in_sync && !replica.retiring).count();
    let wanted = usize::try_from(volume.spec.replicas).unwrap_or(usize::MAX);
    let phase = match record {
        _ if crate::placed::is_deleted(volume) => VolumePhase::Deleting,
        None => VolumePhase::Pending,
        Some(_) if whole >= wanted => VolumePhase::Healthy,
        Some(_) => VolumePhase::Degraded,
    };
    VolumeStatus {
        observed_generation: volume.metadata.generation,
        in_sync: record.map(|_| format!("{whole}/{wanted}")),
        attached_node: record.and_then(|record| Some(record.attached.as_ref()?.node.0.to_string())),
        replicas,
        conditions: vec![healthy(&before, phase, message.as_deref(), volume.metadata.generation, now)],
        phase,
        message,
        holders: before.holders,
    }
}

/// What there is to say where nothing is in the way.
fn said(phase: VolumePhase) -> &'static str {
    match phase {
        VolumePhase::Pending => "its replicas are not placed yet",
        VolumePhase::Healthy => "all replicas are in sync",
        VolumePhase::Degraded => "not all replicas are in sync",
        VolumePhase::Deleting => "it was deleted, and its replicas are being removed",
    }
}

fn healthy(
    before: &VolumeStatus,
    phase: VolumePhase,
    message: Option<&str>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if phase == VolumePhase::Healthy { "True" } else { "False" };
    let same = before.conditions.iter().find(|condition| condition.type_ == HEALTHY && condition.status == status);
    Condition {
        type_: HEALTHY.to_owned(),
        status: status.to_owned(),
        reason: format!("{phase:?}"),
        // Never empty: an API server may take that for one that is not there, which a condition must not be.
        message: message.unwrap_or_else(|| said(phase)).to_owned(),
        observed_generation: generation,
        last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{HeldReplica, VolumeSpec};
    use replication::record::Change;
    use replication::units::{Epoch, ReplicaId};

    #[test]
    fn a_status_says_what_the_record_says_and_keeps_what_nodes_have_written() {
        let mut volume = Volume::new("data", VolumeSpec { replicas: 2, ..VolumeSpec::default() });
        let now = Timestamp::UNIX_EPOCH;
        let pending = status(&volume, None, Some("no nodes".into()), now);
        assert_eq!(
            (pending.phase, pending.in_sync, pending.message.as_deref()),
            (VolumePhase::Pending, None, Some("no nodes"))
        );
        let held = HeldReplica { replica: "1".into(), ..HeldReplica::default() };
        volume.status = Some(VolumeStatus { holders: [("a".to_owned(), held)].into(), ..VolumeStatus::default() });
        let record = Record::new([(ReplicaId(1), "a".into()), (ReplicaId(2), "b".into())], 1, 8).unwrap();
        let healthy = status(&volume, Some(&record), None, now);
        assert_eq!(
            (healthy.phase, healthy.in_sync.as_deref(), healthy.holders.len()),
            (VolumePhase::Healthy, Some("2/2"), 1)
        );
        assert!(!healthy.conditions[0].message.is_empty(), "servers refuse a condition that says nothing");
        volume.status = Some(healthy);
        let change = Change { leave: [ReplicaId(2)].into(), ..Change::default() };
        let later = Timestamp::from_second(9).unwrap();
        let degraded = status(&volume, Some(&record.changed(&change, Epoch(1)).unwrap()), None, later);
        assert_eq!((degraded.phase, degraded.in_sync.as_deref()), (VolumePhase::Degraded, Some("1/2")));
        assert_eq!(
            (degraded.conditions[0].status.as_str(), degraded.conditions[0].last_transition_time.0),
            ("False", later)
        );
        volume.status = Some(degraded.clone());
        let again = status(
            &volume,
            Some(&record.changed(&change, Epoch(1)).unwrap()),
            None,
            Timestamp::from_second(20).unwrap(),
        );
        assert_eq!(again, degraded, "what has not changed is not written again");
    }
}
