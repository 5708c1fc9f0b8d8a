//! From an epoch to serving in it: seals, replicas made equal, confirmations.

use super::copy::Copier;
use super::link::Purpose;
use super::{Attachment, Detaching, Ending, Phase};
use crate::message::Body;
use crate::rules::{Rule, keeps};
use crate::units::{ReplicaId, Time};
use std::collections::BTreeSet;

impl Attachment {
    /// Goes on to the next phase as far as it is possible.
    pub(super) fn go_on(&mut self, now: Time) {
        if matches!(self.phase, Phase::Reading | Phase::Claiming | Phase::Ended(_)) {
            return;
        }
        self.ask_seals(now);
        match self.phase {
            Phase::Sealing if self.are_sealed() => self.all_sealed(now),
            Phase::Equalizing if self.copier.as_ref().is_some_and(Copier::is_done) => {
                self.copier = None;
                self.phase = Phase::Confirming;
            }
            Phase::Confirming => self.confirm(now),
            Phase::Serving if self.detaching.is_some() => self.drain(now),
            _ => {}
        }
    }

    /// Rule 1: every replica that is written to seals the epoch; again after it was started anew, which it does not have to make durable then.
    fn ask_seals(&mut self, now: Time) {
        for id in self.writing_or_joining() {
            let link = self.link(id);
            if link.sealed.is_none() && !link.is_lost && !link.has(Purpose::Seal) {
                self.send(id, Purpose::Seal, Body::Seal, now);
            }
        }
    }

    fn writing_or_joining(&self) -> BTreeSet<ReplicaId> {
        let mut all = self.binding();
        all.extend(self.joiner.as_ref().map(|joiner| joiner.replica));
        all
    }

    fn are_sealed(&self) -> bool {
        let is_sealed = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.sealed.is_some());
        // One that is being brought back is waited for too, so that it misses nothing; it is given up when it is late.
        self.writing_or_joining().iter().all(is_sealed)
    }

    fn all_sealed(&mut self, now: Time) {
        // Rule 9: who goes on with what an earlier process has served still believes what was answered and not flushed.
        let is_whole = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.is_whole);
        let goes_on = !self.has_served && self.options.ended.is_some() && keeps(Rule::TellUsers);
        if goes_on && !self.in_sync().iter().any(is_whole) {
            return self.end(Ending::PowerLost);
        }
        if self.has_served {
            self.phase = Phase::Serving;
            if let Some(joiner) = self.joiner.as_ref().map(|joiner| joiner.replica) {
                self.resend_to_joiner(joiner, now);
            }
        } else if self.is_clean || !keeps(Rule::MakeEqual) {
            self.phase = Phase::Confirming;
        } else {
            self.phase = Phase::Equalizing;
            self.equalize();
        }
    }

    /// Every in-sync replica flushes what was copied to it, and remembers that it holds everything. Then all are equal up to this epoch (rule 5).
    fn confirm(&mut self, now: Time) {
        let mut is_complete = true;
        for id in self.in_sync() {
            let is_clean = self.is_clean;
            let link = self.link(id);
            if link.is_confirmed || (is_clean && link.is_whole) || !keeps(Rule::ConfirmCopies) {
                continue;
            }
            is_complete = false;
            if !link.has(Purpose::Confirm) {
                self.send(id, Purpose::Confirm, Body::Confirm, now);
            }
        }
        if is_complete && now >= self.not_before {
            self.has_served = true;
            self.phase = Phase::Serving;
        }
    }

    /// When nothing older than this epoch is under way any more, all in-sync replicas are equal in it. That counts when it is durable on them, too: a loss of
    /// their power must not take back what those that have left before are not asked for (rule 5).
    pub(super) fn settle_epoch(&mut self, now: Time) {
        if self.base == self.epoch() || !self.carried.is_empty() || self.phase != Phase::Serving {
            return;
        }
        let mut is_durable = true;
        for id in self.in_sync().into_iter().filter(|_| keeps(Rule::SettleDurably)) {
            let link = self.link(id);
            is_durable &= link.is_settled;
            if !link.is_settled && !link.has(Purpose::Settle) {
                self.send(id, Purpose::Settle, Body::Flush, now);
            }
        }
        if is_durable {
            self.base = self.epoch();
        }
    }

    /// On the way to a detach: what is under way ends, then all is flushed, then the record says so.
    fn drain(&mut self, now: Time) {
        if self.detaching == Some(Detaching::Draining) {
            if !self.operations.is_empty() || !self.doubtful.is_empty() {
                return;
            }
            if self.joiner.is_some() {
                self.give_up_joiner(now);
            }
            self.links.values_mut().for_each(|link| link.is_confirmed = false);
            self.pieces.clear();
            self.repairs.clear();
            self.detaching = Some(Detaching::Flushing);
        }
        for id in self.in_sync() {
            let link = self.link(id);
            if !link.is_confirmed && !link.has(Purpose::Confirm) {
                self.send(id, Purpose::Confirm, Body::Confirm, now);
            }
        }
    }
}
