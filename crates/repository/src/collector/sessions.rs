//! Beginning a session, and what it may take over from earlier recovery points.

use super::look::{Silence, look, unfinished};
use super::machine::{Object, Port};
use super::objects::SessionRecord;
use super::rules::{Rule, Rules};
use crate::ids::{PointId, SessionId};
use crate::layout::ObjectName;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// How often a session is begun anew when its creation was not answered, or when an epoch was opened meanwhile.
const ATTEMPTS: u32 = 32;

/// What is to begin.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) point: PointId,
    pub(crate) host: String,
    pub(crate) started: Timestamp,
    /// Where the store does not refuse what exists, there must be no other run.
    pub(crate) alone: bool,
    /// When a run is taken for dead, where that matters.
    pub(crate) silence: Silence,
}

/// Why a session does not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotBegun {
    /// The repository has lost its epochs.
    NoEpoch,
    /// The recovery point has been revoked.
    Revoked,
    /// There is a recovery point of this name.
    PointExists,
    /// Another run is under way, and the store allows but one.
    Busy { point: PointId, host: String },
    /// Epochs are opened faster than a session can begin.
    TooOften,
}

/// Begins a session: nothing may be written before this has ended.
pub(crate) async fn begin(port: Port, rules: Rules, wanted: Begin) -> Result<SessionId, NotBegun> {
    match port.read(ObjectName::Point(wanted.point.clone())).await {
        Ok(None) => {}
        Ok(Some(Object::Tombstone(_))) => return Err(NotBegun::Revoked),
        _ => return Err(NotBegun::PointExists),
    }
    if wanted.alone {
        nobody_else(&port, &wanted).await?;
    }
    let mut writer = port.new_writer().await;
    for _ in 0..ATTEMPTS {
        let epoch = port.greatest_epoch().await.ok_or(NotBegun::NoEpoch)?;
        let id = SessionId { epoch, writer };
        let record = SessionRecord::new(id, wanted.point.clone(), wanted.host.clone(), wanted.started);
        let created = match rules.keeps(Rule::SessionOnce) {
            true => port.create_once(Object::Session(record)).await,
            false => port.create(Object::Session(record)).await,
        };
        let confirmed = !rules.keeps(Rule::ConfirmEpoch) || port.greatest_epoch().await == Some(epoch);
        if created && confirmed {
            return Ok(id);
        }
        // Nothing will ever refer to this session; what may be there of it would only be waited for.
        port.delete(ObjectName::Session(id)).await;
        writer = port.new_writer().await;
    }
    Err(NotBegun::TooOften)
}

/// Looks that no other run is under way. Two that begin in the same moment do not see each other: where the store refuses nothing,
/// nothing better can be had, and the specification asks for one writer.
async fn nobody_else(port: &Port, wanted: &Begin) -> Result<(), NotBegun> {
    let seen = look(port).await;
    let runs = unfinished(port, &seen, u64::MAX, wanted.silence).await;
    match runs.into_iter().find(|run| !run.silent && run.point != wanted.point) {
        Some(run) => Err(NotBegun::Busy { point: run.point, host: run.host }),
        None => Ok(()),
    }
}

/// The points that may be parents of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parents {
    /// All that count.
    All,
    /// These, and those all of whose sessions are of the session's epoch or later.
    Only(BTreeSet<PointId>),
}

/// Finds out which points may be parents of a session. It must be asked before the parent is read.
pub(crate) async fn parents(port: Port, rules: Rules, session: SessionId) -> Parents {
    let epoch = session.epoch;
    if epoch <= 1 || !rules.keeps(Rule::RestrictParents) || port.exists(ObjectName::Collected(epoch)).await {
        return Parents::All;
    }
    match port.read(ObjectName::Collection(epoch)).await {
        Ok(Some(Object::Collection(collection))) => Parents::Only(collection.points.into_iter().collect()),
        // It has ended since, or it is damaged; then only what is newer may be used.
        _ if port.exists(ObjectName::Collected(epoch)).await => Parents::All,
        _ => Parents::Only(BTreeSet::new()),
    }
}

impl Parents {
    /// Whether a point that counts, and has these sessions, may be a parent of a session.
    pub(crate) fn allow(&self, point: &PointId, sessions: &[SessionId], session: SessionId) -> bool {
        match self {
            Self::All => true,
            Self::Only(points) => points.contains(point) || sessions.iter().all(|other| other.epoch >= session.epoch),
        }
    }
}
