//! How an attachment is, for people and metrics.

use super::owner::{Shared, Target};
use crate::clock;
use replication::attachment::{Copying, Ending, Why};
use replication::record::Standing;
use replication::units::{Epoch, NodeId, ReplicaId};
use std::time::Duration;

/// How an attachment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The epoch of the record as it knows it.
    pub epoch: Epoch,
    /// I/O waits; nothing if it is served, or has ended.
    pub suspended: Option<Suspended>,
    /// How it has ended, if it has.
    pub ended: Option<Ending>,
    /// The replicas, by their ids.
    pub members: Vec<MemberStatus>,
    /// What is being made equal.
    pub copying: Option<Copying>,
    /// Operations that are not answered.
    pub operations: usize,
}

/// Why nothing is served, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspended {
    /// What it waits for now.
    pub why: Why,
    /// For how long nothing has been served.
    pub since: Duration,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which one.
    pub replica: ReplicaId,
    /// Where it is.
    pub node: NodeId,
    /// What it is worth.
    pub standing: Standing,
    /// It shall leave.
    pub is_retiring: bool,
    /// Requests to it do not leave this process.
    pub is_here: bool,
    /// For how long it has owed an answer.
    pub lag: Option<Duration>,
    /// Bytes that were sent to it over the network since the connections to it were begun.
    pub sent_bytes: u64,
}

pub(super) fn of(shared: &Shared) -> Status {
    let owner = shared.lock();
    let view = owner.machine.view();
    let now = clock::now();
    let members = view.record.iter().flat_map(|record| &record.members).map(|(id, member)| {
        let target = owner.targets.get(id);
        MemberStatus {
            replica: *id,
            node: member.node.clone(),
            standing: member.standing,
            is_retiring: member.is_retiring,
            is_here: matches!(target, Some(Target::Here(_))),
            lag: view.lag.get(id).map(|lag| clock::duration(*lag)),
            sent_bytes: if let Some(Target::There(link)) = target { link.sent_bytes() } else { 0 },
        }
    });
    let members = members.collect();
    let suspended = owner.suspended.map(|(why, since)| Suspended { why, since: clock::until(since, now) });
    let ended = owner.machine.ending().cloned();
    let epoch = view.record.map_or(Epoch(0), |record| record.epoch);
    Status { epoch, suspended, ended, members, copying: view.copying, operations: owner.operations() }
}
