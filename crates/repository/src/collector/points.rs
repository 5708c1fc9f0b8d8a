//! Publishing and forgetting a recovery point.

use super::machine::{Folder, Object, PointRecord, Port};
use super::objects::Tombstone;
use super::rules::{Rule, Rules};
use crate::ids::{PointId, SessionId};
use crate::layout::ObjectName;
use jiff::Timestamp;

/// Why a recovery point is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotPublished {
    /// A collector has revoked it.
    Revoked,
    /// There is another of the same name.
    Exists,
    /// What is there under its name cannot be read.
    Damaged(String),
    /// It was forgotten in the same moment.
    Forgotten,
}

/// Creates a recovery point; whoever has created its name first, has decided what it is.
pub(crate) async fn publish(port: Port, point: PointRecord) -> Result<(), NotPublished> {
    let (name, sessions) = (ObjectName::Point(point.id.clone()), point.sessions.clone());
    if !port.create(Object::Point(point.clone())).await {
        match port.read(name).await {
            Ok(Some(Object::Tombstone(_))) => return Err(NotPublished::Revoked),
            Ok(Some(Object::Point(there))) if there == point => {}
            Ok(Some(_)) => return Err(NotPublished::Exists),
            Ok(None) => return Err(NotPublished::Forgotten),
            Err(what) => return Err(NotPublished::Damaged(what)),
        }
    }
    // A repeated creation may have come after the point was forgotten: then it does not count, and never will.
    if counts(&port, &sessions).await { Ok(()) } else { Err(NotPublished::Forgotten) }
}

/// Whether a point that is there and has these sessions counts.
pub(crate) async fn counts(port: &Port, sessions: &[SessionId]) -> bool {
    let found = port.glance_each(sessions.iter().copied().map(ObjectName::Session).collect()).await;
    !sessions.is_empty() && found.iter().all(|session| !matches!(session, Ok(None)))
}

/// Forgets a recovery point, whole or damaged; one that is not published yet never will be.
///
/// 1. Its sessions are deleted: from the first of them on, the point does not count, and never will again.
/// 2. The point is deleted. A crash before leaves a void point, which a collector deletes.
/// 3. Signs of life of its sessions are deleted. What a crash leaves of them, a collector deletes.
pub(crate) async fn forget(port: Port, rules: Rules, id: PointId, now: Timestamp) {
    let name = ObjectName::Point(id.clone());
    let sessions = loop {
        match port.read(name.clone()).await {
            Ok(Some(Object::Point(point))) => break point.sessions,
            Ok(Some(_)) | Err(_) => break naming(&port, &id).await,
            Ok(None) => {
                let sessions = naming(&port, &id).await;
                if sessions.is_empty() {
                    return;
                }
                // It is under way. If it is published in this moment, it is found the next time round.
                if port.create(Object::Tombstone(Tombstone::new(id.clone(), now))).await {
                    break sessions;
                }
            }
        }
    };
    let is_tombstone = matches!(port.read(name.clone()).await, Ok(Some(Object::Tombstone(_))));
    if !rules.keeps(Rule::SessionsFirst) {
        port.delete(name.clone()).await;
    }
    port.delete_each(sessions.iter().copied().map(ObjectName::Session).collect()).await;
    if !is_tombstone {
        port.delete(name).await;
    }
    let mut beats: Vec<_> = port.list(Folder::Beats).await.into_iter().map(|beat| beat.name).collect();
    beats.retain(|beat| matches!(beat, ObjectName::Beat(id, _) if sessions.contains(id)));
    port.delete_each(beats).await;
}

/// The sessions that say that they work for a point.
pub(super) async fn naming(port: &Port, id: &PointId) -> Vec<SessionId> {
    let names: Vec<_> = port.list(Folder::Sessions).await.into_iter().map(|session| session.name).collect();
    let records = port.glance_each(names).await.into_iter();
    records
        .filter_map(|record| match record {
            Ok(Some(Object::Session(session))) if session.point == *id => Some(session.id()),
            _ => None,
        })
        .collect()
}
