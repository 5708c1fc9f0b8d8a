//! The attachment and the record: claiming the volume, and who leaves and joins the in-sync set.
//!
//! One question to the record store is under way at a time. When a swap is not answered, nobody knows whether it was done or will be. Then the
//! record is read, and what is found there counts; while the version is still the one that the swap expects, the swap may come late, and the replica that
//! it lets join counts as in sync for all that must hold ([`Attachment::binding`]). Another swap settles that.

use super::link::Link;
use super::{Action, Attachment, CallId, Detaching, Ending, Notice, Phase};
use crate::record::store::{StoreError, SwapError, Version, Versioned};
use crate::record::{Change, Record, Standing};
use crate::rules::{Rule, keeps};
use crate::units::{ReplicaId, Time};
use std::collections::BTreeSet;

/// A question to the record store.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) asked: Time,
    /// What is to be written; a reading has none.
    record: Option<Record>,
}

impl Attachment {
    /// Asks what has to be asked, if nothing is under way.
    pub(super) fn ask_record_store(&mut self, now: Time) {
        self.laggards = self.laggards_left_out(now);
        if let Some(call) = &self.call {
            if call.asked + self.limits.record_deadline > now {
                return;
            }
            (self.call, self.must_read) = (None, true);
        }
        if now < self.ask_after {
            return;
        }
        if self.must_read {
            let id = self.begin_call(None, now);
            return self.actions.push(Action::Get(id));
        }
        let Some(known) = self.known.clone() else { return };
        let next =
            if self.phase == Phase::Claiming { self.claim(&known.record) } else { self.change(&known.record, now) };
        if let Some(next) = next {
            let id = self.begin_call(Some(next.clone()), now);
            self.actions.push(Action::Swap { call: id, expected: known.version, record: next });
        }
    }

    fn begin_call(&mut self, record: Option<Record>, now: Time) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.must_read = false;
        self.call = Some(Call { id, asked: now, record });
        id
    }

    /// Rule 1: the swap that makes the volume this attachment's.
    fn claim(&mut self, record: &Record) -> Option<Record> {
        let me = self.options.me.clone();
        let attached = record.attached.as_ref();
        if self.options.expected.is_some_and(|expected| expected != attached.map(|by| by.id)) {
            self.end(attached.map_or(Ending::Displaced, |by| Ending::AttachedElsewhere { node: by.node.clone() }));
            return None;
        }
        if let Some(other) = record.attached.as_ref().filter(|other| Some(other.id) != self.options.ended) {
            if !self.options.force {
                self.end(Ending::AttachedElsewhere { node: other.node.clone() });
                return None;
            }
            self.must_wait = true;
        } else {
            self.must_wait = false;
        }
        self.is_clean = record.attached.is_none();
        self.base = record.equal;
        Some(record.claimed(me))
    }

    /// The next record, if there is anything to change in this one.
    fn change(&mut self, record: &Record, now: Time) -> Option<Record> {
        if self.may_detach() {
            return Some(record.detached());
        }
        let change = match self.wanted_change(record, now) {
            Ok(change) => change,
            Err(ending) => {
                self.end(ending);
                return None;
            }
        };
        let is_stuck = !self.doubtful.is_empty() && change.join.is_none();
        if change.is_empty() && !is_stuck {
            return self.fulfilled(record, now);
        }
        if let Some(join) = change.join {
            self.doubtful.insert(join);
            self.doubtful_at = self.known.as_ref().map(|known| known.version.clone());
        }
        // What cannot be is not wanted; see `wanted_change`.
        record.changed(&change, self.base).ok()
    }

    fn may_detach(&self) -> bool {
        let all = self.in_sync();
        let is_confirmed = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.is_confirmed);
        self.detaching == Some(Detaching::Flushing) && self.phase == Phase::Serving && all.iter().all(is_confirmed)
    }

    /// Who leaves: what has lost writes, always, unless nobody would be left; what is late, if the others are enough (rules 2 and 3). Who joins.
    fn wanted_change(&self, record: &Record, now: Time) -> Result<Change, Ending> {
        let mut change = Change::default();
        if matches!(self.phase, Phase::Reading | Phase::Claiming | Phase::Ended(_)) {
            return Ok(change);
        }
        let mut stay: BTreeSet<ReplicaId> = record.in_sync().collect();
        let is_lost = |id: &ReplicaId| self.links.get(id).is_some_and(|link| link.is_lost);
        change.leave = stay.iter().copied().filter(is_lost).collect();
        stay.retain(|id| !change.leave.contains(id));
        if stay.is_empty() {
            return Err(Ending::PowerLost);
        }
        for late in self.late(now).into_iter().filter(|_| keeps(Rule::RecordLaggards)) {
            if stay.contains(&late) && self.may_lose(late, &stay, record) {
                stay.remove(&late);
                change.leave.insert(late);
            }
        }
        if self.phase == Phase::Serving {
            let mut left = record.clone();
            for (id, member) in record.members.iter().filter(|(_, member)| member.is_retiring) {
                let is_stale = member.standing != Standing::InSync;
                // One that alone has a snapshot stays until that is deleted; of several that have it, the last.
                let is_free = left.only_on(*id).is_empty();
                if is_free && (is_stale || change.leave.contains(id) || self.may_lose(*id, &stay, record)) {
                    stay.remove(id);
                    change.leave.remove(id);
                    change.forget.insert(*id);
                    left.forget_holder(*id);
                }
            }
            let ready = self.joiner.as_ref().filter(|joiner| joiner.is_ready()).map(|joiner| joiner.replica);
            change.join = ready
                .filter(|id| record.members.contains_key(id) && !change.forget.contains(id) && self.is_large(record));
        }
        Ok(change)
    }

    /// Those that owe an answer for too long or whose stores have failed, the latest first.
    fn late(&self, now: Time) -> Vec<ReplicaId> {
        let since = |link: &Link| if link.has_failed { Some(Time(0)) } else { link.owes_since() };
        let is_late = |since: &Time| *since + self.limits.member_deadline <= now;
        let late = self.links.iter().filter_map(|(id, link)| Some((since(link).filter(is_late)?, *id)));
        let mut late: Vec<(Time, ReplicaId)> = late.collect();
        late.sort_unstable();
        late.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn is_late(&self, id: ReplicaId, now: Time) -> bool {
        self.late(now).contains(&id)
    }

    /// Rule 3: the set does not fall under the minimum for one that is merely late. One that stays must have answered what was asked since that one fell
    /// silent, and not be late itself: else it may be the one that has lost its power. And before anything is served after an unclean end, one that has lost
    /// nothing stays: it may be the only one that has what was acknowledged and not flushed.
    fn may_lose(&self, id: ReplicaId, stay: &BTreeSet<ReplicaId>, record: &Record) -> bool {
        let minimum =
            if keeps(Rule::Minimum) { usize::try_from(record.minimum).unwrap_or(usize::MAX).max(1) } else { 1 };
        let silent_since = self.links.get(&id).and_then(Link::owes_since).unwrap_or_default();
        let is_heard = |link: &Link| link.lease_until >= silent_since + self.limits.lease && !self.owes_too_long(link);
        let is_known = self.has_served || self.is_clean || self.options.give_up_unflushed || !keeps(Rule::WholeSource);
        let is_enough = |link: &Link| link.sealed.is_some() && is_heard(link) && (is_known || link.is_whole);
        let mut others = stay.iter().filter(|other| **other != id).filter_map(|other| self.links.get(other));
        stay.len() > minimum && others.any(is_enough)
    }

    fn owes_too_long(&self, link: &Link) -> bool {
        link.has_failed || link.owes_since().is_some_and(|since| since + self.limits.member_deadline <= self.now)
    }

    /// Broken variants: those that are late are left out before the record says so, or without.
    fn laggards_left_out(&self, now: Time) -> BTreeSet<ReplicaId> {
        if !keeps(Rule::RecordLaggards) {
            return self.late(now).into_iter().collect();
        }
        let asked = self.call.as_ref().and_then(|call| call.record.as_ref());
        let out = asked.map(|next| self.in_sync().into_iter().filter(|id| !next.is_in_sync(*id)).collect());
        if keeps(Rule::RecordFirst) { BTreeSet::new() } else { out.unwrap_or_default() }
    }

    /// The record store has answered a reading.
    pub(super) fn got(&mut self, call: CallId, result: Result<Option<Versioned>, StoreError>, now: Time) {
        if self.call.as_ref().is_none_or(|open| open.id != call) {
            return;
        }
        self.call = None;
        match result {
            Ok(Some(found)) => self.learn(found, now),
            Ok(None) => self.end(Ending::NoRecord),
            Err(_) => (self.must_read, self.ask_after) = (true, now + self.limits.record_retry),
        }
    }

    /// The record store has answered a swap.
    pub(super) fn swapped(&mut self, call: CallId, result: Result<Version, SwapError>, now: Time) {
        if self.call.as_ref().is_none_or(|open| open.id != call) {
            return;
        }
        let record = self.call.take().and_then(|call| call.record);
        match (result, record) {
            (Ok(version), Some(record)) => self.learn(Versioned { version, record }, now),
            (Err(SwapError::Unknown { .. }), _) => {
                (self.must_read, self.ask_after) = (true, now + self.limits.record_retry)
            }
            (Err(SwapError::Conflict) | Ok(_), _) => self.must_read = true,
        }
    }

    /// What the record says counts, whoever has written it.
    fn learn(&mut self, found: Versioned, now: Time) {
        if self.doubtful_at.as_ref() != Some(&found.version) {
            // The swap that is not settled expects a version that is past.
            self.doubtful_at = None;
            let joiner = self.joiner.as_ref().map(|joiner| joiner.replica);
            for id in std::mem::take(&mut self.doubtful) {
                if !found.record.is_in_sync(id) && joiner != Some(id) {
                    self.let_go(id);
                }
            }
        }
        let is_mine = found.record.is_attached_to(self.options.me.id);
        let epoch = self.epoch();
        match self.phase {
            Phase::Ended(_) => {}
            Phase::Reading | Phase::Claiming if !is_mine => {
                self.known = Some(found);
                self.phase = Phase::Claiming;
            }
            Phase::Reading | Phase::Claiming => self.begin_epoch(found, now),
            _ if !is_mine => {
                let is_detached = found.record.attached.is_none() && self.detaching == Some(Detaching::Flushing);
                self.end(if is_detached { Ending::Detached } else { Ending::Displaced });
            }
            _ if found.record.epoch > epoch => self.begin_epoch(found, now),
            _ => self.known = Some(found),
        }
    }

    /// An epoch of this attachment begins: its replicas have to seal it, and what is under way is sent again.
    fn begin_epoch(&mut self, found: Versioned, now: Time) {
        let before: BTreeSet<ReplicaId> = self.in_sync().into_iter().collect();
        let was_mine = self.record().is_some_and(|record| record.is_attached_to(self.options.me.id));
        self.known = Some(found);
        self.phase = Phase::Sealing;
        let after: BTreeSet<ReplicaId> = self.in_sync().into_iter().collect();
        let retry = self.limits.retry;
        for id in before.difference(&after).filter(|_| was_mine) {
            self.notice(Notice::Left(*id));
            let link = self.link(*id);
            // It is stale now, and is looked at anew when it is brought back.
            *link = Link { next: link.next, join_after: now + retry, ..Link::default() };
        }
        for id in after.difference(&before).filter(|_| was_mine) {
            self.notice(Notice::Joined(*id));
        }
        self.links.values_mut().for_each(Link::begin_epoch);
        let members: BTreeSet<ReplicaId> =
            self.record().map(|record| record.members.keys().copied().collect()).unwrap_or_default();
        self.links.retain(|id, _| members.contains(id));
        self.detaching = self.detaching.map(|_| Detaching::Draining);
        self.epoch_changes_copies();
        self.wishes_in_new_epoch(now);
        self.carry_operations(now);
    }
}
