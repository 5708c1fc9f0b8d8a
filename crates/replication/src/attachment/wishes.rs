//! What the record wants of all in-sync replicas: that they take a snapshot (rule 10), or grow (rule 11).
//!
//! ```text
//! in the record as wanted ──► begun: a place in the order of changes
//!        ▲                        │ a snapshot waits until all changes that were asked for before are on all in-sync replicas; later ones wait here
//!        │ the epoch changes      ▼
//!        └────────────────── asked of all in-sync replicas ──► all have done it: later changes go on ──► in the record as done
//! ```
//! One at a time, and each in one epoch from its begin to the record: when the epoch changes, nothing of it counts any more, and it is begun anew with those that are in
//! sync then. (A replica that has no room for a snapshot says so; then those that have taken it must not pass it for that of a second attempt, which so begins another
//! epoch.) So a snapshot in the record was taken by all that were in sync in its epoch, of the same changes; a replica that does not answer leaves the record first, as
//! with writes; and what an attachment that ended has left behind is of an earlier epoch.
//!
//! Changes wait from when the snapshot is begun until it is taken: for the slowest of those under way, and for the replicas' stores. They do not wait for the record.
//! Reads and flushes wait for nothing.

use super::link::Purpose;
use super::operations::Ticket;
use super::{Attachment, Notice};
use crate::message::Body;
use crate::record::snapshots::Snapshot;
use crate::record::{Change, Record};
use crate::rules::{Rule, keeps};
use crate::units::{ReplicaId, SnapshotId, Span, Time};
use std::collections::BTreeSet;

/// How often the pause after a refusal is doubled: from 5 s to five minutes.
const MOST_DOUBLINGS: u32 = 6;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That they hold this snapshot.
    Snapshot(SnapshotId),
    /// That they have so many blocks.
    Blocks(u64),
}

impl Wish {
    /// What is wanted and may be asked for now, the first first.
    fn of(record: &Record, refused: &Refused, now: Time) -> Option<Self> {
        let grows = record.wanted_blocks > record.blocks && now >= refused.growth.until;
        let blocks = Some(Self::Blocks(record.wanted_blocks)).filter(|_| grows);
        let snapshot = record.wanted_snapshot().filter(|_| now >= refused.snapshot.until);
        blocks.or(snapshot.map(Self::Snapshot))
    }

    /// Whether it is wanted still.
    fn is_open(self, record: &Record) -> bool {
        match self {
            Self::Snapshot(id) => record.snapshots.get(&id) == Some(&Snapshot::Wanted),
            Self::Blocks(blocks) => record.wanted_blocks == blocks && record.blocks < blocks,
        }
    }

    fn body(self) -> Body {
        match self {
            Self::Snapshot(id) => Body::Snapshot { id },
            Self::Blocks(blocks) => Body::Grow { blocks },
        }
    }
}

/// How long something is left alone that was refused: each time for longer, since an attempt may cost all replicas an epoch.
#[derive(Debug, Default)]
struct Pause {
    until: Time,
    refusals: u32,
}

impl Pause {
    fn longer(&mut self, now: Time, first: Span) {
        self.until = now + Span(first.0 << self.refusals.min(MOST_DOUBLINGS));
        self.refusals += 1;
    }
}

/// What was refused. A volume that has no room to grow has its snapshots all the same.
#[derive(Debug, Default)]
pub(super) struct Refused {
    snapshot: Pause,
    growth: Pause,
}

impl Refused {
    fn of(&mut self, wish: Wish) -> &mut Pause {
        match wish {
            Wish::Snapshot(_) => &mut self.snapshot,
            Wish::Blocks(_) => &mut self.growth,
        }
    }

    /// When what was refused is asked for again.
    pub(super) fn ends(&self) -> [Time; 2] {
        [self.snapshot.until, self.growth.until]
    }
}

/// What is being done about it.
#[derive(Debug)]
pub(super) struct Pursuit {
    wish: Wish,
    /// Changes from this one on come after it.
    place: Ticket,
    is_asked: bool,
    /// Who has not answered yet.
    missing: BTreeSet<ReplicaId>,
}

impl Pursuit {
    pub(super) fn progress(&self) -> (bool, usize) {
        (self.is_asked, self.missing.len())
    }

    /// Whether every replica that was in sync when it was asked has done it.
    fn is_done(&self) -> bool {
        // (A broken variant: one of them is enough.)
        let all = match self.wish {
            Wish::Snapshot(_) => Rule::TakenByAll,
            Wish::Blocks(_) => Rule::GrowAll,
        };
        self.is_asked && (self.missing.is_empty() || !keeps(all))
    }
}

impl Attachment {
    /// Begins what is wanted, and asks for it when its place has come.
    pub(super) fn pursue(&mut self, now: Time) {
        let record = self.known.as_ref().map(|known| &known.record);
        let is_open = |wish: &Wish| record.is_some_and(|record| wish.is_open(record));
        // What is begun is ended first.
        let begun = self.pursuit.as_ref().map(|pursuit| pursuit.wish).filter(is_open);
        let wanted = begun.or_else(|| record.and_then(|record| Wish::of(record, &self.refused, now)));
        if let Some(pursuit) = self.pursuit.take_if(|pursuit| Some(pursuit.wish) != wanted) {
            // The record has it, or nobody wants it any more.
            self.links.values_mut().for_each(|link| link.drop_purpose(Purpose::Wish));
            *self.refused.of(pursuit.wish) = Pause::default();
            if pursuit.is_done() {
                self.notice(Notice::Fulfilled(pursuit.wish));
            }
        }
        let Some(wish) = wanted.filter(|_| self.may_serve(now)) else { return };
        // What is begun goes on, since changes wait for it.
        let may_begin = self.detaching.is_none() && !self.is_spoiled(wish);
        if self.pursuit.is_none() && may_begin {
            let place = Ticket(self.next_ticket);
            self.pursuit = Some(Pursuit { wish, place, is_asked: false, missing: BTreeSet::new() });
        }
        let Some(pursuit) = self.pursuit.as_ref().filter(|pursuit| !pursuit.is_asked) else { return };
        let place = pursuit.place;
        let waits = |(ticket, operation): (&Ticket, &super::Operation)| {
            *ticket < place && operation.changes().is_some() && !operation.is_answered
        };
        let is_snapshot = matches!(wish, Wish::Snapshot(_)) && keeps(Rule::AwaitEarlier);
        if is_snapshot && self.operations.iter().any(waits) {
            return;
        }
        let all: BTreeSet<ReplicaId> = self.in_sync().into_iter().collect();
        if let Some(pursuit) = &mut self.pursuit {
            (pursuit.is_asked, pursuit.missing) = (true, all.clone());
        }
        for id in all {
            self.send(id, Purpose::Wish, wish.body(), now);
        }
    }

    /// Whether a change comes after a snapshot that is not taken yet.
    pub(super) fn is_held(&self, ticket: Ticket) -> bool {
        let holds = |pursuit: &Pursuit| {
            let is_open = matches!(pursuit.wish, Wish::Snapshot(_)) && !pursuit.is_done();
            is_open && ticket >= pursuit.place
        };
        keeps(Rule::HoldLater) && self.pursuit.as_ref().is_some_and(holds)
    }

    /// A replica has done it; or there is no room for it there, which says nothing against the replica.
    pub(super) fn wish_answered(&mut self, from: ReplicaId, refused: Option<String>, now: Time) {
        let Some(reason) = refused else {
            if let Some(pursuit) = &mut self.pursuit {
                pursuit.missing.remove(&from);
            }
            return;
        };
        self.links.values_mut().for_each(|link| link.drop_purpose(Purpose::Wish));
        if let Some(pursuit) = self.pursuit.take() {
            self.refused.of(pursuit.wish).longer(now, self.limits.join_pause);
            self.has_spoiled |= matches!(pursuit.wish, Wish::Snapshot(_)) && keeps(Rule::TakeAnew);
            self.notice(Notice::Unfulfilled(pursuit.wish, from, reason));
        }
    }

    /// Whether some have taken a snapshot in this epoch that was given up, so that the next attempt needs another epoch.
    fn is_spoiled(&self, wish: Wish) -> bool {
        self.has_spoiled && matches!(wish, Wish::Snapshot(_))
    }

    /// The record that says that it is done, when it is; or begins another epoch for another attempt.
    pub(super) fn fulfilled(&self, record: &Record, now: Time) -> Option<Record> {
        let may_begin = self.pursuit.is_none() && self.may_serve(now) && self.detaching.is_none();
        if may_begin && Wish::of(record, &self.refused, now).is_some_and(|wish| self.is_spoiled(wish)) {
            return record.changed(&Change::default(), self.base).ok();
        }
        let pursuit = self.pursuit.as_ref().filter(|pursuit| pursuit.is_done())?;
        match pursuit.wish {
            // One that is not wanted any more is not pursued any more, either.
            Wish::Snapshot(id) => record.with_taken(id).ok(),
            Wish::Blocks(blocks) => Some(record.grown(blocks)),
        }
    }

    /// Rule 10: another epoch, and all anew.
    pub(super) fn wishes_in_new_epoch(&mut self, now: Time) {
        self.has_spoiled = false;
        if keeps(Rule::TakeAnew) {
            return self.pursuit = None;
        }
        // A broken variant: what was answered in the old one counts, and those that have not answered are asked in the new one.
        let in_sync = self.in_sync();
        let Some(pursuit) = &mut self.pursuit else { return };
        pursuit.missing.retain(|id| in_sync.contains(id));
        let (body, missing) = (pursuit.wish.body(), pursuit.missing.clone());
        missing.into_iter().for_each(|id| self.send(id, Purpose::Wish, body.clone(), now));
    }
}
