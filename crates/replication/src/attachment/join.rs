//! Bringing a replica back, or a new one in.
//!
//! 1. It seals the epoch, and becomes as large as the volume is or is to be (rule 11); from then on every write goes to it too, and is acknowledged without it.
//! 2. What it lacks is copied and compared ([`super::copy`]).
//! 3. From then on no write is acknowledged without it; those that were, it gets.
//! 4. It makes all durable, and remembers that it holds everything.
//! 5. The record says so. Until step 5 it is stale, whatever happens: what is known of it is what the record says (rule 7).
//!
//! A crash after any step but the last leaves it stale and complete up to the same epoch as before; after the last it is in sync, and durable in all that
//! was copied.

use super::copy::Copier;
use super::link::{Link, Purpose};
use super::{Attachment, Notice, Phase};
use crate::message::Body;
use crate::record::{Record, Standing};
use crate::rules::{Rule, keeps};
use crate::units::{Epoch, ReplicaId, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sealing,
    Growing,
    Copying,
    CatchingUp,
    Confirming,
    Ready,
}

/// A replica that is being brought back.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) replica: ReplicaId,
    complete: Epoch,
    stage: Stage,
    /// As large as this it is.
    blocks: u64,
    has_grown: bool,
}

impl Joiner {
    pub(super) fn progress(&self) -> (ReplicaId, u8) {
        (self.replica, self.stage as u8)
    }

    pub(super) fn takes_writes(&self) -> bool {
        !matches!(self.stage, Stage::Sealing | Stage::Growing)
    }

    /// No write is acknowledged without it.
    pub(super) fn is_caught_up(&self) -> bool {
        matches!(self.stage, Stage::CatchingUp | Stage::Confirming | Stage::Ready)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }
}

impl Attachment {
    /// Goes on with bringing a replica back.
    pub(super) fn bring_back(&mut self, now: Time) {
        if self.joiner.as_ref().is_some_and(|joiner| self.is_late(joiner.replica, now)) {
            self.give_up_joiner(now);
        }
        // On the way to a detach it is needed as long as something waits, since that may wait for it.
        let is_idle = self.detaching.is_some() && self.operations.is_empty();
        if self.phase != Phase::Serving || is_idle {
            return;
        }
        if self.joiner.is_none() {
            self.begin_joiner(now);
        }
        if self.record().is_some_and(|record| !self.is_large(record)) {
            // The volume has grown meanwhile: it is begun anew.
            self.give_up_joiner(now);
        }
        let size = self.record().map_or(0, |record| record.blocks.max(record.wanted_blocks));
        let Some(joiner) = &mut self.joiner else { return };
        if joiner.stage == Stage::Sealing {
            (joiner.blocks, joiner.has_grown) = (size, !keeps(Rule::GrowReturner));
        }
        let (id, complete, stage, has_grown) = (joiner.replica, joiner.complete, joiner.stage, joiner.has_grown);
        let lacks_answered = self.operations.values().any(|o| o.is_answered && o.missing.contains(&id));
        let link = self.link(id);
        let (is_sealed, is_confirmed) = (link.sealed.is_some(), link.is_confirmed);
        let next = match stage {
            Stage::Sealing if is_sealed => {
                if !has_grown {
                    self.send(id, Purpose::Grow, Body::Grow { blocks: size }, now);
                }
                Stage::Growing
            }
            Stage::Growing if has_grown => {
                self.share_operations(id, now);
                self.begin_copies_to(id, complete);
                Stage::Copying
            }
            Stage::Copying if self.are_copies_done() => {
                self.copier = None;
                Stage::CatchingUp
            }
            Stage::CatchingUp if !lacks_answered && !keeps(Rule::ConfirmCopies) => Stage::Ready,
            Stage::CatchingUp if !lacks_answered => {
                self.link(id).is_confirmed = false;
                self.send(id, Purpose::Confirm, Body::Confirm, now);
                Stage::Confirming
            }
            Stage::Confirming if is_confirmed => Stage::Ready,
            same => same,
        };
        if let Some(joiner) = &mut self.joiner {
            joiner.stage = next;
        }
    }

    fn begin_joiner(&mut self, now: Time) {
        let Some(record) = self.record() else { return };
        let may = |id: &ReplicaId| {
            self.links.get(id).is_none_or(|link| link.join_after <= now) && !self.doubtful.contains(id)
        };
        let stale = record.members.iter().filter_map(|(id, member)| match member.standing {
            Standing::Stale { complete } if !member.is_retiring && may(id) => Some((*id, complete)),
            _ => None,
        });
        // The one that was left alone longest.
        let Some((replica, complete)) = stale.min_by_key(|(id, _)| self.links.get(id).map(|link| link.join_after))
        else {
            return;
        };
        self.joiner = Some(Joiner { replica, complete, stage: Stage::Sealing, blocks: 0, has_grown: false });
        self.notice(Notice::Joining(replica));
        self.send(replica, Purpose::Seal, Body::Seal, now);
    }

    /// Whether one that is brought back has as many blocks as the volume, or is asked for them still.
    pub(super) fn is_large(&self, record: &Record) -> bool {
        let is_large = |joiner: &Joiner| joiner.stage == Stage::Sealing || joiner.blocks >= record.blocks;
        !keeps(Rule::GrowReturner) || self.joiner.as_ref().is_none_or(is_large)
    }

    pub(super) fn joiner_has_grown(&mut self, from: ReplicaId) {
        if let Some(joiner) = self.joiner.as_mut().filter(|joiner| joiner.replica == from) {
            joiner.has_grown = true;
        }
    }

    /// It stays stale, and is tried again later. If the record may say already that it is in sync, it counts as such until that is settled.
    pub(super) fn give_up_joiner(&mut self, now: Time) {
        let Some(Joiner { replica, .. }) = self.joiner.take() else { return };
        self.copier = self.copier.take().filter(Copier::is_for_all);
        self.pieces.retain(|slot, _| !slot.is_copy());
        for link in self.links.values_mut() {
            link.drop_copies();
        }
        self.notice(Notice::JoinFailed(replica));
        let pause = self.limits.join_pause;
        let link = self.link(replica);
        link.join_after = now + pause;
        if !self.doubtful.contains(&replica) {
            self.let_go(replica);
        }
    }

    /// Nothing waits any more for a replica that is stale; when it is brought back, it is looked at anew.
    pub(super) fn let_go(&mut self, replica: ReplicaId) {
        let link = self.link(replica);
        *link = Link { next: link.next, join_after: link.join_after, ..Link::default() };
        self.do_without(replica);
    }

    /// In a new epoch: it is in sync now, or goes on where it was; what was not confirmed in the old one is in the new one.
    pub(super) fn joiner_in_new_epoch(&mut self) {
        let Some(joiner) = &mut self.joiner else { return };
        let (id, has_copier) = (joiner.replica, self.copier.is_some());
        joiner.stage = match joiner.stage {
            Stage::Confirming | Stage::Ready => Stage::CatchingUp,
            Stage::Growing => Stage::Sealing,
            // Its source has left: all is listed again.
            Stage::Copying if !has_copier => Stage::Sealing,
            stage => stage,
        };
        let record = self.known.as_ref().map(|known| &known.record);
        let is_stale = record.is_some_and(|record| record.members.contains_key(&id) && !record.is_in_sync(id));
        if !is_stale {
            self.joiner = None;
            self.copier = None;
        }
    }
}
