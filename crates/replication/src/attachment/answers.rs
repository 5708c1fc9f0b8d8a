//! What replicas answer.
//!
//! An answer counts if it is to a request that is open, of this epoch, from the run of the process that was asked. It then also confirms the epoch (rule 4).

use super::link::{Link, Purpose};
use super::{Attachment, Phase};
use crate::message::{Answer, Body, Refusal, Reply};
use crate::rules::{Rule, keeps};
use crate::units::{ReplicaId, Time};

impl Attachment {
    /// A replica has answered.
    pub(super) fn answered(&mut self, from: ReplicaId, answer: Answer, now: Time) {
        let is_mine = answer.attachment == self.options.me.id && answer.epoch == self.epoch();
        if !is_mine || matches!(self.phase, Phase::Reading | Phase::Claiming | Phase::Ended(_)) {
            return;
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        let Some(pending) = link.pending.get(&answer.sequence) else { return };
        let (purpose, first_sent) = (pending.purpose, pending.first_sent);
        let is_reading = matches!(pending.body, Body::Read { .. } | Body::Digest { .. } | Body::Changed { .. });
        if purpose != Purpose::Seal && link.session != Some(answer.session) {
            // It was started anew: what is open is sent again when it has told its new session. (Or it is the old one that answers, late.)
            if matches!(answer.body, Err(Refusal::EarlierSession)) {
                link.sealed = None;
            }
            return;
        }
        match &answer.body {
            // Rule 1: somebody has taken over; the record says who.
            Err(Refusal::LowerEpoch { .. }) => return self.must_read = true,
            Err(Refusal::NotSealed | Refusal::EarlierSession) => return link.sealed = None,
            Err(Refusal::Unfit { reason }) if purpose == Purpose::Wish => {
                let reason = reason.clone();
                return self.wish_answered(from, Some(reason), now);
            }
            Err(Refusal::Failed { .. } | Refusal::Unfit { .. }) => return link.has_failed = true,
            Err(Refusal::TooMany) => return,
            Err(Refusal::Damaged { .. }) if !is_reading => return link.has_failed = true,
            Ok(_) | Err(Refusal::Damaged { .. }) => {}
        }
        link.pending.remove(&answer.sequence);
        if let (Purpose::Seal, Ok(Reply::Sealed { is_whole })) = (purpose, &answer.body) {
            return self.sealed(from, &answer, *is_whole, first_sent);
        }
        link.lease_until = link.lease_until.max(first_sent + self.limits.lease);
        match purpose {
            Purpose::Seal | Purpose::Renew => {}
            Purpose::Settle => link.is_settled = true,
            Purpose::Confirm => (link.is_confirmed, link.is_whole) = (true, true),
            Purpose::Operation(ticket) => self.operation_answered(from, ticket, answer.body, now),
            Purpose::List => self.listed(from, answer.body, now),
            Purpose::Piece(slot) => self.piece_answered(slot, from, answer.body, now),
            Purpose::Wish => self.wish_answered(from, None, now),
            Purpose::Grow => self.joiner_has_grown(from),
        }
    }

    fn sealed(&mut self, from: ReplicaId, answer: &Answer, is_whole: bool, asked: Time) {
        let epoch = self.epoch();
        let lease = self.limits.lease;
        let is_bound = self.binding().contains(&from);
        let is_joiner = self.joiner.as_ref().is_some_and(|joiner| joiner.replica == from);
        let has_served = self.has_served;
        let link = self.link(from);
        let has_lost = link.incarnation.is_some_and(|known| known != answer.incarnation);
        if has_lost && keeps(Rule::DistrustReturner) {
            if is_bound && has_served {
                // Rule 7: it does not matter what it holds or says: it may lack what was acknowledged, and leaves.
                self.link(from).is_lost = true;
                return;
            }
            if is_joiner {
                return self.give_up_joiner(self.now);
            }
            // Nothing is served yet; all is looked at anew, with all of them: what is under way must not come late.
            (link.session, link.incarnation) = (Some(answer.session), Some(answer.incarnation));
            self.links.values_mut().for_each(Link::begin_epoch);
            (self.phase, self.copier) = (Phase::Sealing, None);
            return self.pieces.clear();
        }
        let link = self.link(from);
        if link.session != Some(answer.session) {
            link.has_failed = false;
        }
        (link.session, link.incarnation) = (Some(answer.session), Some(answer.incarnation));
        (link.sealed, link.is_whole) = (Some(epoch), is_whole);
        link.lease_until = link.lease_until.max(asked + lease);
        if is_bound && std::mem::take(&mut self.must_wait) && keeps(Rule::AwaitLease) {
            // Rule 4: the attachment before needs all replicas that were in sync, this one too, which confirms nothing to it any more. So it stops by itself until
            // then, however long the others are waited for.
            self.not_before = self.now + lease + self.limits.clock_bound;
        }
        // What was open comes again at once.
        for sequence in self.link(from).pending.keys().copied().collect::<Vec<_>>() {
            self.transmit(from, sequence);
        }
    }
}
