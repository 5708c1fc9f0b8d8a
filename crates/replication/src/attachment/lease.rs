//! Leases, and what may be served under them (rules 3 and 4).

use super::link::Purpose;
use super::{Attachment, Detaching, Notice, Phase, Why};
use crate::message::Body;
use crate::rules::{Rule, keeps};
use crate::units::{ReplicaId, Span, Time};
use std::collections::BTreeSet;

impl Attachment {
    /// The replicas that are in sync; also one of which it is not known whether it is: a swap that was asked for and not answered may be done at
    /// any time, and then another attachment may find that replica alone.
    pub(super) fn binding(&self) -> BTreeSet<ReplicaId> {
        let mut all: BTreeSet<ReplicaId> = self.in_sync().into_iter().collect();
        if keeps(Rule::HeedUnresolved) {
            all.extend(&self.doubtful);
        }
        if !keeps(Rule::RecordFirst) || !keeps(Rule::RecordLaggards) {
            // A broken variant: laggards are left out without, or before, the record saying so.
            all.retain(|id| !self.laggards.contains(id));
        }
        all
    }

    /// Who has to have a write before it is acknowledged (rule 2).
    pub(super) fn acknowledging(&self) -> BTreeSet<ReplicaId> {
        let mut all = self.binding();
        all.extend(self.joiner.as_ref().filter(|joiner| joiner.is_caught_up()).map(|joiner| joiner.replica));
        all
    }

    /// Who is sent a write.
    pub(super) fn writing(&self) -> BTreeSet<ReplicaId> {
        let mut all = self.binding();
        all.extend(self.joiner.as_ref().filter(|joiner| joiner.takes_writes()).map(|joiner| joiner.replica));
        all
    }

    fn is_leased(&self, now: Time) -> bool {
        let is_leased = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.lease_until > now);
        !keeps(Rule::Lease) || self.binding().iter().all(is_leased)
    }

    fn is_enough(&self) -> bool {
        let minimum = self.record().map_or(1, |record| record.minimum);
        !keeps(Rule::Minimum) || self.in_sync().len() as u64 >= u64::from(minimum)
    }

    /// Whether anything may be sent or answered: an epoch that every in-sync replica has sealed (rule 1) and confirmed within the lease time (rule
    /// 4), and enough of them (rule 3).
    #[must_use]
    pub fn may_serve(&self, now: Time) -> bool {
        // The record may say already that nobody is attached, when all is flushed.
        let is_leaving = self.detaching == Some(Detaching::Flushing);
        self.phase == Phase::Serving && !is_leaving && self.is_enough() && self.is_leased(now)
    }

    /// Asks for confirmations before the old ones end. Every answer is one, so a busy volume asks for none.
    pub(super) fn renew_leases(&mut self, now: Time) {
        if matches!(self.phase, Phase::Reading | Phase::Claiming | Phase::Ended(_)) {
            return;
        }
        let early = Span(self.limits.lease.0 / 3 * 2);
        for id in self.binding() {
            let link = self.link(id);
            if link.sealed.is_some() && link.lease_until <= now + early && !link.has(Purpose::Renew) {
                self.send(id, Purpose::Renew, Body::Renew, now);
            }
        }
    }

    /// Says when serving begins, stops and goes on.
    pub(super) fn tell(&mut self, now: Time) {
        let serves = self.may_serve(now);
        let why = if serves || matches!(self.phase, Phase::Ended(_)) { None } else { Some(self.why_suspended()) };
        if serves && self.told != Some(None) {
            self.told = Some(None);
            self.notice(Notice::Serving);
        } else if let Some(why) = why
            && self.told != Some(Some(why))
        {
            self.told = Some(Some(why));
            self.notice(Notice::Suspended(why));
        }
    }

    fn why_suspended(&self) -> Why {
        match self.phase {
            Phase::Serving if !self.is_enough() => Why::BelowMinimum,
            Phase::Serving => Why::NoLease,
            Phase::Equalizing | Phase::Confirming => Why::MakingEqual,
            _ if self.call.is_some() || self.must_read => Why::RecordStore,
            _ => Why::Sealing,
        }
    }
}
