//! What is to be done for a volume: decided from what was seen, without asking or changing anything.
//!
//! ```text
//! no record ──► place all ─────────────────────────────► a record with all in sync, of which nothing was ever written
//!     it begins as a snapshot ─────────────────────────► the same on nodes that hold the snapshot, as many as there are
//!     nodes hold replicas all the same ────────────────► nothing: the record was lost, and empty replicas must not take the place of theirs
//! snapshots are wanted, or not any more; it shall be larger ──► the record says so, and whoever serves the volume does it
//! a member is to go (dead for long, lost, drained, one too many)
//!     others that stay are too few ──► another is added, which the attachment builds
//!     others that stay are in sync ──► the member is forgotten, if it is stale; else it retires, and the attachment lets it go
//!     it alone has a snapshot ──► it stays until that is deleted, unless its pool has lost it
//! deleted ──► the record is removed, once nobody serves the volume
//! ```
//! A step changes one thing, so that the next is decided from what it has led to.

use super::place::{Asked, NodeView, Surroundings, place};
use placement::{Labels, Strategy};
use replication::record::snapshots::Taken;
use replication::record::{Member, Record, Standing};
use replication::units::{NodeId, ReplicaId, SnapshotId};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is wanted of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Blocks of 4096 bytes.
    pub blocks: u64,
    /// Replicas.
    pub replicas: usize,
    /// How many must be in sync.
    pub minimum: u32,
    /// Where the first replica is put if it can be.
    pub preferred: Option<NodeId>,
    /// The rules about where its replicas are, or why there are none that could be kept.
    pub strategy: Result<Strategy, String>,
    /// Its labels.
    pub labels: Labels,
    /// It was deleted.
    pub is_deleted: bool,
    /// Nodes that have made replicas of it, or were about to.
    pub holders: BTreeSet<NodeId>,
    /// Replicas that are not in their nodes' pools any more.
    pub lost: BTreeSet<ReplicaId>,
    /// Snapshots that there are to be.
    pub snapshots: BTreeSet<SnapshotId>,
    /// What it begins as.
    pub source: Option<Source>,
}

/// What a volume begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A snapshot of so many blocks, on these nodes.
    Held {
        /// Its size.
        blocks: u64,
        /// Where it is.
        on: BTreeSet<NodeId>,
    },
    /// A snapshot that is not there.
    Absent,
}

impl Source {
    /// The snapshot of this id, by the record of the volume that it was taken of.
    pub(super) fn of(record: Option<&Record>, id: SnapshotId) -> Self {
        let held = |record: &Record, taken: &Taken| {
            let on = taken.holders.iter().filter_map(|holder| record.members.get(holder));
            Self::Held { blocks: taken.blocks, on: on.map(|member| member.node.clone()).collect() }
        };
        let found = record.and_then(|record| Some(held(record, record.taken(id)?)));
        found.unwrap_or(Self::Absent)
    }
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is to be done.
    Nothing,
    /// The record becomes this one.
    Write(Record),
    /// The record goes.
    Remove,
}

/// What is to be done, and what a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// Why nothing or not more is done.
    pub message: Option<String>,
}

/// Why a member is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// Its pool has lost it.
    Lost,
    /// Its node is dead for longer than it is waited for, or was given up.
    Dead,
    /// Its node is drained.
    Drained,
    /// It was asked to before.
    Retiring,
}

/// Decides the next step. `fresh` gives ids that no replica ever had.
pub fn plan(
    wanted: &Wanted,
    record: Option<&Record>,
    among: &Surroundings,
    rebuild_after: Duration,
    mut fresh: impl FnMut() -> ReplicaId,
) -> Plan {
    match record {
        None if wanted.is_deleted => nothing(None),
        // Others would be made empty, and whoever used the volume would find nothing in it.
        None if !wanted.holders.is_empty() => {
            let holders: Vec<NodeId> = wanted.holders.iter().cloned().collect();
            nothing(Some(format!(
                "its VolumeRecord is gone, and {} hold replicas of it, which are kept: delete the Volume and restore its data from a recovery \
                 point; an older record in its place would lose what was written since",
                names(&holders)
            )))
        }
        None => first(wanted, among, fresh),
        Some(record) if wanted.is_deleted => deleted(record, &among.nodes),
        Some(record) => keep(wanted, record, among, rebuild_after, &mut fresh),
    }
}

fn nothing(message: Option<String>) -> Plan {
    Plan { step: Step::Nothing, message }
}

fn write(record: Record, message: String) -> Plan {
    Plan { step: Step::Write(record), message: Some(message) }
}

/// Places for more replicas, by the volume's rules.
fn placed(
    wanted: &Wanted,
    (blocks, count): (u64, usize),
    preferred: Option<&NodeId>,
    (stay, leave): (&[NodeId], &[NodeId]),
    among: &Surroundings,
) -> Result<Vec<NodeId>, String> {
    let (strategy, labels) = (wanted.strategy.as_ref().map_err(Clone::clone)?, &wanted.labels);
    place(Asked { bytes: blocks.saturating_mul(4096), count, preferred, stay, leave, labels, strategy }, among)
}

/// As many replicas as there can be on nodes that hold the snapshot; the others are built from them.
fn clones(
    wanted: &Wanted,
    (blocks, on): (u64, &BTreeSet<NodeId>),
    among: &Surroundings,
    mut fresh: impl FnMut() -> ReplicaId,
) -> Plan {
    let mut holders = among.clone();
    holders.nodes.retain(|node| on.contains(&node.name));
    let least = usize::try_from(wanted.minimum).unwrap_or(usize::MAX).max(1);
    let mut refused = "so many are not there".to_owned();
    for count in (least..=wanted.replicas.min(holders.nodes.len())).rev() {
        match placed(wanted, (blocks, count), wanted.preferred.as_ref(), (&[], &[]), &holders) {
            Ok(places) => {
                let members: Vec<_> = places.iter().map(|node| (fresh(), node.clone())).collect();
                return match Record::new(members, wanted.minimum, blocks) {
                    Ok(record) => write(record, format!("it begins as its source on {}", names(&places))),
                    Err(error) => nothing(Some(format!("it cannot be placed: {error}"))),
                };
            }
            Err(why) => refused = why,
        }
    }
    let all: Vec<NodeId> = on.iter().cloned().collect();
    nothing(Some(format!(
        "a volume begins as a snapshot on nodes that hold that, and {least} of them are needed, of {}: {refused}",
        names(&all)
    )))
}

fn first(wanted: &Wanted, among: &Surroundings, mut fresh: impl FnMut() -> ReplicaId) -> Plan {
    match &wanted.source {
        Some(Source::Held { blocks, on }) => return clones(wanted, (*blocks, on), among, fresh),
        Some(Source::Absent) => {
            return nothing(Some("the snapshot that it is to begin as is not there any more; delete it".into()));
        }
        None => {}
    }
    let count = (wanted.blocks, wanted.replicas);
    let places = match placed(wanted, count, wanted.preferred.as_ref(), (&[], &[]), among) {
        Ok(places) => places,
        Err(refused) => return nothing(Some(refused)),
    };
    let members: Vec<_> = places.iter().map(|node| (fresh(), node.clone())).collect();
    match Record::new(members, wanted.minimum, wanted.blocks) {
        Ok(record) => write(record, format!("replicas are placed on {}", names(&places))),
        Err(error) => nothing(Some(format!("it cannot be placed: {error}"))),
    }
}

fn deleted(record: &Record, nodes: &[NodeView]) -> Plan {
    let Some(by) = &record.attached else { return Plan { step: Step::Remove, message: None } };
    let lives = nodes.iter().any(|node| node.name == by.node && node.is_alive());
    if lives {
        return nothing(Some(format!("it was deleted while {} serves it; it goes when that ends", by.node)));
    }
    // A node that lives after all finds no record, and ends.
    Plan { step: Step::Remove, message: None }
}

fn keep(
    wanted: &Wanted,
    record: &Record,
    among: &Surroundings,
    rebuild_after: Duration,
    fresh: &mut impl FnMut() -> ReplicaId,
) -> Plan {
    // Nothing is in it. It goes first, since its node may be the only one for another.
    let is_nothing =
        |(id, member): &(&ReplicaId, &Member)| wanted.lost.contains(id) && member.standing != Standing::InSync;
    if let Some((id, member)) = record.members.iter().find(is_nothing) {
        return match record.without_lost(*id) {
            Ok(next) => write(next, format!("the replica that {} has lost was given up", member.node)),
            Err(error) => nothing(Some(format!("the replica on {} cannot leave: {error}", member.node))),
        };
    }
    if let Some(plan) = wish(wanted, record) {
        return plan;
    }
    let going = |id: &ReplicaId, member: &Member| going(wanted, *id, member, &among.nodes, rebuild_after);
    let stays: Vec<_> = record.members.iter().filter(|(id, member)| going(id, member).is_none()).collect();
    if stays.len() < wanted.replicas {
        let stay: Vec<NodeId> = stays.iter().map(|(_, member)| member.node.clone()).collect();
        let all = record.members.values().map(|member| member.node.clone());
        let leave: Vec<NodeId> = all.filter(|node| !stay.contains(node)).collect();
        return match placed(wanted, (record.blocks, 1), None, (&stay, &leave), among) {
            Ok(places) => match places.first().map(|node| record.with_replica(fresh(), node.clone())) {
                Some(Ok(next)) => {
                    write(next, format!("a replica is built on {}{}", names(&places), only_served(record)))
                }
                Some(Err(error)) => nothing(Some(format!("no replica can be added: {error}"))),
                None => nothing(None),
            },
            Err(refused) => {
                nothing(Some(format!("{} of {} replicas stay, and {refused}", stays.len(), wanted.replicas)))
            }
        };
    }
    let whole = stays.iter().filter(|(_, member)| member.standing == Standing::InSync).count();
    if whole < wanted.replicas {
        let away = stays.iter().find(|(_, member)| member.standing != Standing::InSync);
        return nothing(
            away.map(|(_, member)| format!("the replica on {} is not in sync{}", member.node, only_served(record))),
        );
    }
    let gone = record.members.iter().filter(|(id, member)| going(id, member).is_some()).map(|(id, _)| *id);
    let extra = stays.iter().rev().map(|(id, _)| **id).filter(|_| stays.len() > wanted.replicas);
    let (gone, extra): (Vec<_>, Vec<_>) = (gone.collect(), extra.collect());
    // Of those that are one too many it does not matter which goes; the latest, if it can.
    let is_free = |id: &ReplicaId| wanted.lost.contains(id) || record.only_on(*id).is_empty();
    let leaving = gone.iter().find(|id| is_free(id)).or(extra.iter().find(|id| is_free(id)));
    match leaving.or(gone.first()).or(extra.first()) {
        Some(id) if is_free(id) => leave(record, *id),
        Some(id) => {
            let node = record.members.get(id).map(|member| member.node.to_string()).unwrap_or_default();
            let count = record.only_on(*id).len();
            nothing(Some(format!(
                "the replica on {node} alone has {count} of the volume's snapshots, and stays until these are deleted"
            )))
        }
        None => nothing(None),
    }
}

/// A member goes, when the others are enough.
fn leave(record: &Record, id: ReplicaId) -> Plan {
    let Some(member) = record.members.get(&id) else { return nothing(None) };
    let node = &member.node;
    let (next, message) = match (member.standing, member.is_retiring) {
        (Standing::Stale { .. }, _) => (record.without_stale(id), format!("the replica on {node} was given up")),
        (Standing::InSync, false) => (record.with_retiring(id), format!("the replica on {node} retires")),
        (Standing::InSync, true) => {
            return nothing(Some(format!("the replica on {node} retires{}", only_served(record))));
        }
    };
    match next {
        Ok(next) => write(next, message),
        Err(error) => nothing(Some(format!("the replica on {node} cannot leave: {error}"))),
    }
}

/// What whoever serves the volume is asked to do.
fn wish(wanted: &Wanted, record: &Record) -> Option<Plan> {
    let next = if wanted.blocks > record.wanted_blocks {
        record.with_wanted_blocks(wanted.blocks).map(|next| (next, "it grows".to_owned()))
    } else if let Some(gone) = record.snapshots.keys().find(|id| !wanted.snapshots.contains(id)) {
        // Before others are added: there are only so many.
        record.without_snapshot(*gone).map(|next| (next, format!("{gone} was deleted")))
    } else {
        let id = wanted.snapshots.iter().find(|id| !record.snapshots.contains_key(id))?;
        record.with_snapshot(*id).map(|next| (next, format!("{id} is wanted")))
    };
    // What cannot be keeps nothing else from being done.
    next.ok().map(|(next, message)| write(next, message))
}

/// What only happens while somebody serves the volume.
fn only_served(record: &Record) -> &'static str {
    if record.attached.is_some() { "" } else { "; that goes on when the volume is used" }
}

fn going(
    wanted: &Wanted,
    id: ReplicaId,
    member: &Member,
    nodes: &[NodeView],
    rebuild_after: Duration,
) -> Option<Going> {
    let node = nodes.iter().find(|node| node.name == member.node);
    match node {
        _ if wanted.lost.contains(&id) => Some(Going::Lost),
        _ if member.is_retiring => Some(Going::Retiring),
        None => Some(Going::Dead),
        Some(node) if node.silent_for >= rebuild_after => Some(Going::Dead),
        Some(node) if node.is_drained => Some(Going::Drained),
        Some(_) => None,
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(|node| node.0.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
