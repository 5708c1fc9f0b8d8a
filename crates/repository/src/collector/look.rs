//! Looking at all sessions and recovery points: what counts, what is void, what is under way.

use super::machine::{Folder, Object, Port};
use super::points::{counts, naming};
use crate::ids::{PackId, PointId, SessionId, WriterId};
use crate::layout::ObjectName;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// All sessions and recovery points.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The sessions that there are, with the time of their objects.
    pub(super) sessions: BTreeMap<SessionId, Option<Timestamp>>,
    /// The points that count, with their sessions.
    pub(super) counted: BTreeMap<PointId, Vec<SessionId>>,
    /// Points that do not count, and never will again: some of their sessions are gone.
    pub(super) void: BTreeMap<PointId, Vec<SessionId>>,
    pub(super) tombstones: BTreeSet<PointId>,
    /// Points that cannot be read and may count, with what is wrong.
    pub(super) damaged: BTreeMap<PointId, String>,
    /// Sessions that no point has among its own, by the point that they work for.
    pub(super) strays: BTreeMap<PointId, Vec<Stray>>,
    /// Sessions whose objects cannot be read, so that nobody knows what they work for.
    pub(super) unreadable: BTreeMap<SessionId, String>,
    /// Who has repaired something: all their packs and index runs are needed.
    pub(super) repairs: BTreeSet<WriterId>,
}

/// A session that no point has among its own.
#[derive(Debug, Clone)]
pub(super) struct Stray {
    pub(super) id: SessionId,
    host: String,
    started: Timestamp,
}

/// Looks at everything. Sessions are listed before points: a session that is missing in the list, and that a point names, is asked for by
/// its name; so a point that is published meanwhile is not taken for a void one.
pub(super) async fn look(port: &Port) -> Look {
    let mut look = Look::default();
    for session in port.list(Folder::Sessions).await {
        if let ObjectName::Session(id) = session.name {
            look.sessions.insert(id, session.modified);
        }
    }
    let names: Vec<_> = port.list(Folder::Points).await.into_iter().map(|point| point.name).collect();
    let found = port.glance_each(names.clone()).await;
    for (name, found) in names.into_iter().zip(found) {
        let ObjectName::Point(id) = name else { continue };
        match found {
            Ok(Some(Object::Point(point))) => look.sort(port, id, point.sessions).await,
            Ok(Some(_)) => _ = look.tombstones.insert(id),
            Ok(None) => {}
            Err(what) => _ = look.damaged.insert(id, what),
        }
    }
    for mark in port.list(Folder::Repairs).await {
        if let ObjectName::Repair(writer) = mark.name {
            look.repairs.insert(writer);
        }
    }
    look.find_strays(port).await;
    look.void_the_lost(port).await;
    look
}

impl Look {
    async fn sort(&mut self, port: &Port, id: PointId, sessions: Vec<SessionId>) {
        let missing: Vec<_> = sessions.iter().filter(|id| !self.sessions.contains_key(id)).copied().collect();
        let counting = !sessions.is_empty() && (missing.is_empty() || counts(port, &missing).await);
        let points = if counting { &mut self.counted } else { &mut self.void };
        points.insert(id, sessions);
    }

    /// Reads the sessions that no point has among its own.
    async fn find_strays(&mut self, port: &Port) {
        let known: BTreeSet<_> = self.counted.values().chain(self.void.values()).flatten().copied().collect();
        let strays: Vec<_> = self.sessions.keys().filter(|id| !known.contains(id)).copied().collect();
        let found = port.glance_each(strays.iter().copied().map(ObjectName::Session).collect()).await;
        for (id, found) in strays.into_iter().zip(found) {
            match found {
                Ok(Some(Object::Session(record))) => {
                    let stray = Stray { id, host: record.host, started: record.started };
                    self.strays.entry(record.point).or_default().push(stray);
                }
                Ok(_) => {}
                Err(what) => _ = self.unreadable.insert(id, what),
            }
        }
    }

    /// A point that cannot be read and for which no session works does not count, whatever it says.
    async fn void_the_lost(&mut self, port: &Port) {
        let lost: Vec<_> = self.damaged.keys().filter(|id| !self.strays.contains_key(*id)).cloned().collect();
        for id in lost {
            // Looked for once more, because it may have been published after the sessions were listed.
            if self.unreadable.is_empty() && naming(port, &id).await.is_empty() {
                self.damaged.remove(&id);
                self.void.insert(id, Vec::new());
            }
        }
    }

    /// Whether it is decided what becomes of a point: then its sessions have ended.
    pub(super) fn is_decided(&self, point: &PointId) -> bool {
        self.counted.contains_key(point)
            || self.void.contains_key(point)
            || self.tombstones.contains(point)
            || self.damaged.contains_key(point)
    }
}

/// When a run is taken for dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// It has given no sign of life for so long, by the clock of the store.
    pub(crate) after: SignedDuration,
    /// Whether the process is known to have ended that says of itself where it runs.
    pub(crate) ended: fn(&str) -> bool,
}

/// A run of which nobody knows yet what becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) point: PointId,
    pub(crate) host: String,
    pub(crate) started: Timestamp,
    /// Its last sign of life, by the clock of the store.
    pub(crate) seen: Option<Timestamp>,
    /// Whether that is so long ago that it may be taken for dead, or its processes have ended.
    pub(crate) silent: bool,
}

/// The runs without end that have a session up to an epoch. A run lives while any of its sessions does: one may be read back, or wait for
/// the others, long after it has written its last pack.
pub(super) async fn unfinished(port: &Port, look: &Look, up_to: u64, silence: Silence) -> Vec<Unfinished> {
    let mut undecided: Vec<_> = look.strays.iter().collect();
    undecided.retain(|(point, strays)| !look.is_decided(point) && strays.iter().any(|stray| stray.id.epoch <= up_to));
    if undecided.is_empty() {
        return Vec::new();
    }
    let beats = last_beats(port).await;
    let now = port.now().await;
    let mut runs = Vec::new();
    for (point, strays) in undecided {
        let sign = |stray: &Stray| look.sessions.get(&stray.id).copied().flatten().max(beats.get(&stray.id).copied());
        let living = strays.iter().filter(|stray| !(silence.ended)(&stray.host)).map(sign).collect();
        let seen = strays.iter().filter_map(sign).max();
        let silent = is_silent(living, now, silence.after);
        let Some(last) = strays.iter().max_by_key(|stray| stray.started) else { continue };
        runs.push(Unfinished {
            point: point.clone(),
            host: last.host.clone(),
            started: strays.iter().map(|stray| stray.started).min().unwrap_or(last.started),
            seen,
            silent,
        });
    }
    runs
}

/// Whether a run may be taken for dead, of whose sessions these may live, with the last signs of life that they gave.
fn is_silent(living: Vec<Option<Timestamp>>, now: Option<Timestamp>, after: SignedDuration) -> bool {
    let last = now.zip(living.iter().flatten().max());
    living.is_empty() || last.is_some_and(|(now, last)| now.duration_since(*last) >= after)
}

async fn last_beats(port: &Port) -> BTreeMap<SessionId, Timestamp> {
    let mut last = BTreeMap::new();
    for beat in port.list(Folder::Beats).await {
        if let (ObjectName::Beat(session, _), Some(modified)) = (beat.name, beat.modified) {
            let time = last.entry(session).or_insert(modified);
            *time = modified.max(*time);
        }
    }
    last
}

/// Adds all packs that the points that count refer to; or gives the points that cannot be followed, with what is wrong.
///
/// What was marked before stays marked: of what points share, a driver tells only the first time.
pub(super) async fn mark(
    port: &Port,
    look: &Look,
    referenced: &mut BTreeSet<PackId>,
) -> Result<(), BTreeMap<PointId, String>> {
    let mut unreadable = look.damaged.clone();
    for (id, sessions) in &look.counted {
        match port.follow(id.clone()).await {
            Ok(Some(packs)) => referenced.extend(packs),
            Ok(None) => {}
            // It may have been forgotten meanwhile, and its packs deleted by another collector.
            Err(what) => {
                if port.exists(ObjectName::Point(id.clone())).await && counts(port, sessions).await {
                    unreadable.insert(id.clone(), what);
                }
            }
        }
    }
    if unreadable.is_empty() { Ok(()) } else { Err(unreadable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_silent_when_all_its_sessions_have_ended_or_none_has_given_a_sign_for_long() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let check = |living: Vec<Option<Timestamp>>, expected: bool| {
            let silent = is_silent(living.clone(), at(1000), SignedDuration::from_secs(100));
            assert_eq!(silent, expected, "{living:?}");
        };
        check(vec![], true);
        check(vec![at(900)], true);
        check(vec![at(901)], false);
        check(vec![at(1), at(901)], false);
        check(vec![at(1), None], true);
        // A store that tells no times lets nobody be taken for dead.
        check(vec![None], false);
        assert!(!is_silent(vec![at(1)], None, SignedDuration::ZERO));
    }
}
