//! What an attachment knows of one replica, and has under way to it.

use super::copy::Slot;
use super::operations::Ticket;
use crate::message::Body;
use crate::units::{Epoch, Incarnation, Sequence, Session, Time};
use std::collections::BTreeMap;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Seal,
    Renew,
    Confirm,
    Operation(Ticket),
    List,
    Piece(Slot),
    /// That what is older than the epoch is durable.
    Settle,
    /// What the record wants of all.
    Wish,
    /// That a replica that is brought back grows.
    Grow,
}

/// A request without an answer.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) body: Body,
    /// An answer confirms the epoch as of this time: when its first copy was sent, since that may be the one that is answered.
    pub(super) first_sent: Time,
    pub(super) last_sent: Time,
    /// Since when the replica owes an answer.
    pub(super) since: Time,
}

/// One replica, as seen by the attachment in this epoch.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) session: Option<Session>,
    pub(super) incarnation: Option<Incarnation>,
    /// The epoch that it has told to have sealed, in this session.
    pub(super) sealed: Option<Epoch>,
    /// It has lost nothing since it was told that it holds everything.
    pub(super) is_whole: bool,
    pub(super) is_confirmed: bool,
    /// It has flushed in this epoch, when nothing older was under way any more.
    pub(super) is_settled: bool,
    /// Rule 4: its epoch is confirmed until then.
    pub(super) lease_until: Time,
    /// It was in sync, and its store has lost what was not flushed.
    pub(super) is_lost: bool,
    /// Its store takes no changes.
    pub(super) has_failed: bool,
    /// As a stale one, it is left alone until then.
    pub(super) join_after: Time,
    pub(super) next: Sequence,
    pub(super) pending: BTreeMap<Sequence, Pending>,
}

impl Link {
    /// The epoch is another one: what was under way is refused, if it comes at all.
    pub(super) fn begin_epoch(&mut self) {
        self.sealed = None;
        (self.is_confirmed, self.is_settled) = (false, false);
        self.lease_until = Time(0);
        self.pending.clear();
    }

    pub(super) fn has(&self, purpose: Purpose) -> bool {
        self.pending.values().any(|pending| pending.purpose == purpose)
    }

    pub(super) fn changes(&self) -> u64 {
        self.pending.values().filter(|pending| pending.body.is_change()).count() as u64
    }

    /// Changes with lower numbers are finished.
    pub(super) fn done_below(&self) -> Sequence {
        let oldest = self.pending.iter().find(|(_, pending)| pending.body.is_change());
        oldest.map_or(self.next, |(sequence, _)| *sequence)
    }

    /// Since when it owes an answer; of several, the oldest.
    pub(super) fn owes_since(&self) -> Option<Time> {
        self.pending.values().map(|pending| pending.since).min()
    }

    pub(super) fn drop_purpose(&mut self, purpose: Purpose) {
        self.pending.retain(|_, pending| pending.purpose != purpose);
    }

    /// Nobody waits any more for what was asked to make another replica equal.
    pub(super) fn drop_copies(&mut self) {
        let is_for_copies =
            |purpose| matches!(purpose, Purpose::List) || matches!(purpose, Purpose::Piece(slot) if slot.is_copy());
        self.pending.retain(|_, pending| !is_for_copies(pending.purpose));
    }
}
