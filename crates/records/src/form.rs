//! A record as it is written down: the `spec` of a `VolumeRecord`, which is also, as JSON, the value in etcd.
//!
//! Invariant: what is read is a record, or an error that says why it is none. Nothing of it is guessed or mended, since the record decides which replicas
//! are thrown away.

mod snapshots;

use api::{Counter, RecordAttached, RecordMember, RecordStanding, VolumeRecordSpec};
use replication::record::{Attached, MOST_MEMBERS, Member, Record, Standing};
use replication::units::{AttachmentId, Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeMap;

/// Why what is written down is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not a valid record: {what}; a copy of it from before it was changed by hand, or damaged, has to be put back"
)]
pub struct Malformed {
    what: String,
}

fn malformed(what: impl Into<String>) -> Malformed {
    Malformed { what: what.into() }
}

/// How a volume's record is named: the id in 32 hexadecimal digits.
#[must_use]
pub fn name(volume: VolumeId) -> String {
    format!("{:032x}", volume.0)
}

/// The volume whose record has this name, if it is the name of a record.
#[must_use]
pub fn volume(name: &str) -> Option<VolumeId> {
    hexadecimal(name, 32).map(VolumeId)
}

/// How a record is written down.
#[must_use]
pub fn written(record: &Record) -> VolumeRecordSpec {
    let members: Vec<_> = record.members.iter().map(|(id, member)| written_member(*id, member)).collect();
    VolumeRecordSpec {
        epoch: Counter(record.epoch.0),
        attached: record.attached.as_ref().map(|attached| RecordAttached {
            node: attached.node.0.to_string(),
            id: format!("{:032x}", attached.id.0),
        }),
        equal: Counter(record.equal.0),
        in_sync: in_sync(&members),
        member_count: count(members.len()),
        members,
        minimum: record.minimum,
        blocks: Counter(record.blocks),
        wanted_blocks: Some(Counter(record.wanted_blocks)).filter(|wanted| wanted.0 > record.blocks),
        snapshots: snapshots::written(record),
    }
}

/// The record that is written down.
///
/// # Errors
/// It is none.
pub fn read(spec: &VolumeRecordSpec) -> Result<Record, Malformed> {
    let mut members = BTreeMap::new();
    for written in &spec.members {
        let (id, member) = read_member(written)?;
        if members.values().any(|other: &Member| other.node == member.node) {
            return Err(malformed(format!("two of its members are on {}", member.node)));
        }
        if members.insert(id, member).is_some() {
            return Err(malformed(format!("{id} is in it twice")));
        }
    }
    check_counts(spec)?;
    let snapshots = snapshots::read(spec, &members)?;
    let wanted_blocks = spec.wanted_blocks.map_or(spec.blocks.0, |wanted| wanted.0);
    if spec.wanted_blocks.is_some() && wanted_blocks <= spec.blocks.0 {
        return Err(malformed(format!("{wanted_blocks} blocks are wanted, and it has {}", spec.blocks.0)));
    }
    Ok(Record {
        epoch: Epoch(spec.epoch.0),
        attached: spec.attached.as_ref().map(read_attached).transpose()?,
        equal: Epoch(spec.equal.0),
        members,
        minimum: spec.minimum,
        blocks: spec.blocks.0,
        wanted_blocks,
        snapshots,
    })
}

fn check_counts(spec: &VolumeRecordSpec) -> Result<(), Malformed> {
    let (found, in_sync) = (spec.members.len(), in_sync(&spec.members));
    if (spec.in_sync, spec.member_count) != (in_sync, count(found)) {
        let says = format!("it counts {} of {} members as in sync", spec.in_sync, spec.member_count);
        return Err(malformed(format!("{says}, but lists {in_sync} of {found}")));
    }
    if found > MOST_MEMBERS {
        return Err(malformed(format!("it has {found} members, and {MOST_MEMBERS} are the most")));
    }
    if in_sync == 0 {
        return Err(malformed("none of its members is in sync"));
    }
    if spec.minimum == 0 { Err(malformed("its minimum is 0")) } else { Ok(()) }
}

fn written_member(id: ReplicaId, member: &Member) -> RecordMember {
    let (standing, complete) = match member.standing {
        Standing::InSync => (RecordStanding::InSync, None),
        Standing::Stale { complete } => (RecordStanding::Stale, Some(Counter(complete.0))),
    };
    RecordMember {
        replica: format!("{:016x}", id.0),
        node: member.node.0.to_string(),
        standing,
        complete,
        retiring: member.is_retiring,
    }
}

fn read_member(written: &RecordMember) -> Result<(ReplicaId, Member), Malformed> {
    let id = read_replica(&written.replica)?;
    let standing = match (written.standing, written.complete) {
        (RecordStanding::InSync, None) => Standing::InSync,
        (RecordStanding::Stale, Some(complete)) => Standing::Stale { complete: Epoch(complete.0) },
        (RecordStanding::InSync, Some(_)) => return Err(malformed(format!("{id} is in sync and says what it lacks"))),
        (RecordStanding::Stale, None) => return Err(malformed(format!("{id} is stale and does not say since when"))),
    };
    Ok((id, Member { node: node(&written.node)?, standing, is_retiring: written.retiring }))
}

fn read_replica(id: &str) -> Result<ReplicaId, Malformed> {
    let wrong = || malformed(format!("{id:?} is not the id of a replica, 16 hexadecimal digits"));
    hexadecimal(id, 16).and_then(|id| u64::try_from(id).ok()).map(ReplicaId).ok_or_else(wrong)
}

fn read_attached(written: &RecordAttached) -> Result<Attached, Malformed> {
    let wrong = || malformed(format!("{:?} is not the id of an attachment, 32 hexadecimal digits", written.id));
    let id = hexadecimal(&written.id, 32).map(AttachmentId).ok_or_else(wrong)?;
    Ok(Attached { node: node(&written.node)?, id })
}

fn node(name: &str) -> Result<NodeId, Malformed> {
    if name.is_empty() { Err(malformed("a node has no name")) } else { Ok(name.into()) }
}

/// Lower-case digits only, and all of them, so that an id is written in one way.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_id = text.len() == digits && text.bytes().all(is_digit);
    u128::from_str_radix(text, 16).ok().filter(|_| is_id)
}

fn in_sync(members: &[RecordMember]) -> u32 {
    count(members.iter().filter(|member| member.standing == RecordStanding::InSync).count())
}

/// Members are few; what is written by somebody else may be more, and is told by that.
fn count(members: usize) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
