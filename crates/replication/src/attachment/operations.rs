//! What is asked of the volume, from the question to the answer.
//!
//! ```text
//! held ──► sent to all in-sync replicas ──► each has it ──► answered
//!   ▲            │ the epoch changes: again, to all of the new set, with the new birth
//!   └────────────┘
//! ```
//! Of operations that overlap, if one is a change, one is under way at a time: a change has ended when every replica has it. So no replica sees two
//! changes of a block in another order than its neighbours, and no read sees a change that the next one may not see.

use super::link::Purpose;
use super::{Action, Attachment, Done, Io, IoError, Phase};
use crate::message::{Body, Refusal, Reply};
use crate::rules::{Rule, keeps};
use crate::units::{Blocks, ReplicaId, Tag, Time};
use std::collections::BTreeSet;

/// The place of an operation in the order in which they were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

#[derive(Debug)]
pub(super) struct Operation {
    tag: Tag,
    io: Io,
    pub(super) is_sent: bool,
    /// Who has not answered yet.
    pub(super) missing: BTreeSet<ReplicaId>,
    /// It was answered; a replica that is being brought back has to have it still.
    pub(super) is_answered: bool,
    /// Of a read: who has told that it is damaged there, or was slow last.
    damaged: BTreeSet<ReplicaId>,
    avoided: Option<ReplicaId>,
    /// Of a flush: how many changes had been answered when it was sent.
    covers: u64,
}

impl Operation {
    pub(super) fn changes(&self) -> Option<Blocks> {
        match &self.io {
            Io::Write { blocks, .. } | Io::Discard { blocks } => Some(*blocks),
            Io::Read { .. } | Io::Flush => None,
        }
    }

    /// Whether a replica may still be doing it. One that all have may wait for its answer for long: it must not keep those waiting who make the answer
    /// possible, such as the replica that the minimum lacks.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_sent && !self.missing.is_empty()
    }

    fn touches(&self) -> Option<Blocks> {
        match &self.io {
            Io::Write { blocks, .. } | Io::Discard { blocks } | Io::Read { blocks } => Some(*blocks),
            Io::Flush => None,
        }
    }

    fn body(&self) -> Body {
        match &self.io {
            Io::Write { blocks, data } => Body::Write { blocks: *blocks, data: data.clone() },
            Io::Discard { blocks } => Body::Discard { blocks: *blocks },
            Io::Read { blocks } => Body::Read { blocks: *blocks },
            Io::Flush => Body::Flush,
        }
    }
}

impl Attachment {
    /// Takes an operation, or refuses it at once.
    pub(super) fn submit(&mut self, tag: Tag, io: Io) {
        let refused = match (&self.phase, self.detaching) {
            (Phase::Ended(ending), _) => Some(IoError::Ended(ending.clone())),
            (_, Some(_)) => Some(IoError::Detaching),
            _ if self.operations.len() >= self.limits.most_operations => {
                Some(IoError::TooMany { most: self.limits.most_operations })
            }
            _ => None,
        };
        if let Some(error) = refused {
            return self.actions.push(Action::Answer { tag, result: Err(error) });
        }
        let operation = Operation {
            tag,
            io,
            is_sent: false,
            missing: BTreeSet::new(),
            is_answered: false,
            damaged: BTreeSet::new(),
            avoided: None,
            covers: 0,
        };
        self.operations.insert(Ticket(self.next_ticket), operation);
        self.next_ticket += 1;
    }

    /// Sends what may be sent, in its order. What overlaps waits for what came before, if one of both is a change; and one that has to be sent again, for
    /// whatever is under way meanwhile: else a read could see a change that some replicas lack, and that nobody sees after the next failure.
    pub(super) fn send_operations(&mut self, now: Time) {
        if !self.may_serve(now) {
            return;
        }
        let mut ahead: Vec<(Blocks, bool)> = Vec::new();
        for operation in self.operations.values().filter(|operation| operation.is_sent) {
            let is_change = operation.changes().is_some();
            // A change that only a replica lacks that is brought back is on all that a read may be sent to.
            ahead.extend(operation.touches().map(|blocks| (blocks, is_change && !operation.is_answered)));
        }
        for ticket in self.operations.keys().copied().collect::<Vec<_>>() {
            let Some(operation) = self.operations.get(&ticket).filter(|operation| !operation.is_sent) else { continue };
            let is_change = operation.changes().is_some();
            let touches = operation.touches();
            let conflicts = |(blocks, stops_reads): &(Blocks, bool)| {
                (is_change || *stops_reads) && touches.is_some_and(|touched| touched.overlap(*blocks))
            };
            let is_free = !keeps(Rule::OneAtATime) || !ahead.iter().any(conflicts);
            let is_locked = operation.changes().is_some_and(|blocks| self.is_locked(blocks) || self.is_held(ticket));
            ahead.extend(touches.map(|blocks| (blocks, is_change)));
            if is_free && !is_locked {
                self.send_operation(ticket, now);
            }
        }
    }

    fn send_operation(&mut self, ticket: Ticket, now: Time) {
        let Some(operation) = self.operations.get(&ticket) else { return };
        let body = operation.body();
        let targets = match &operation.io {
            Io::Read { .. } => match self.source_of_read(operation) {
                Some(source) => BTreeSet::from([source]),
                None => return self.read_is_damaged(ticket),
            },
            Io::Flush if self.flushed == self.answered_changes => BTreeSet::new(),
            // (A broken variant: one is enough.)
            Io::Flush if !keeps(Rule::FlushAll) => self.acknowledging().into_iter().take(1).collect(),
            Io::Flush => self.acknowledging(),
            Io::Write { .. } | Io::Discard { .. } => self.writing(),
        };
        if body.is_change() && targets.iter().any(|to| self.link(*to).changes() >= self.limits.most_changes) {
            return;
        }
        let covers = self.answered_changes;
        if let Some(operation) = self.operations.get_mut(&ticket) {
            (operation.is_sent, operation.missing, operation.covers) = (true, targets.clone(), covers);
        }
        for to in targets {
            self.send(to, Purpose::Operation(ticket), body.clone(), now);
        }
    }

    /// The nearest in-sync replica that has not said that it is damaged there.
    fn source_of_read(&self, operation: &Operation) -> Option<ReplicaId> {
        let fit = |id: &ReplicaId| !operation.damaged.contains(id);
        let open = |id: &ReplicaId| {
            let link = self.links.get(id);
            link.is_some_and(|link| !link.is_lost && link.sealed.is_some()) && operation.avoided != Some(*id)
        };
        let all: Vec<ReplicaId> = self.in_sync().into_iter().filter(fit).collect();
        let local = self.options.local.filter(|local| all.contains(local) && open(local));
        local.or_else(|| all.iter().copied().find(open)).or(all.first().copied())
    }

    fn read_is_damaged(&mut self, ticket: Ticket) {
        let Some(operation) = self.operations.remove(&ticket) else { return };
        let blocks = operation.touches().unwrap_or(Blocks { start: 0, count: 0 });
        self.actions.push(Action::Answer { tag: operation.tag, result: Err(IoError::Damaged { blocks }) });
    }

    /// A replica has answered.
    pub(super) fn operation_answered(
        &mut self,
        from: ReplicaId,
        ticket: Ticket,
        reply: Result<Reply, Refusal>,
        now: Time,
    ) {
        let may_serve = self.may_serve(now);
        let Some(operation) = self.operations.get_mut(&ticket) else { return };
        operation.missing.remove(&from);
        if !matches!(operation.io, Io::Read { .. }) {
            return;
        }
        operation.is_sent = false;
        match reply {
            // Rule 4: what was read is answered under a lease. Else it is read again when there is one.
            Ok(Reply::Data(data)) if may_serve => {
                let tag = operation.tag;
                self.operations.remove(&ticket);
                self.actions.push(Action::Answer { tag, result: Ok(Done::Data(data)) });
            }
            Err(Refusal::Damaged { .. }) => {
                operation.damaged.insert(from);
                let damaged = operation.touches();
                if let Some(blocks) = damaged {
                    self.want_repair(from, blocks);
                }
            }
            _ => {}
        }
    }

    /// Answers what every replica has that must have it (rule 2).
    pub(super) fn answer_operations(&mut self, now: Time) {
        if !self.may_serve(now) {
            return;
        }
        let must = self.acknowledging();
        let mut ended = Vec::new();
        for (ticket, operation) in &mut self.operations {
            let is_read = matches!(operation.io, Io::Read { .. });
            if is_read || !operation.is_sent {
                continue;
            }
            if !operation.is_answered && lacks_none(&operation.missing, &must, &operation.io) {
                operation.is_answered = true;
                match operation.io {
                    Io::Flush => self.flushed = self.flushed.max(operation.covers),
                    _ => self.answered_changes += 1,
                }
                self.actions.push(Action::Answer { tag: operation.tag, result: Ok(Done::Done) });
            }
            if operation.is_answered {
                self.carried.remove(ticket);
                // A flush has no business with who is not in sync.
                if operation.missing.is_empty() || operation.io == Io::Flush {
                    ended.push(*ticket);
                }
            }
        }
        for ticket in ended {
            self.operations.remove(&ticket);
        }
    }

    /// The epoch has changed: what is not answered is sent again to all, and written again by those that have it, so that its birth is the same
    /// everywhere. Only then are they known to be equal up to this epoch (`carried`).
    pub(super) fn carry_operations(&mut self, now: Time) {
        let joiner = self.joiner.as_ref().map(|joiner| joiner.replica);
        let in_sync: BTreeSet<ReplicaId> = self.in_sync().into_iter().collect();
        self.operations.retain(|_, operation| {
            operation.missing.retain(|id| in_sync.contains(id) || joiner == Some(*id));
            !operation.is_answered || !operation.missing.is_empty()
        });
        let mut lacking = Vec::new();
        for (ticket, operation) in &mut self.operations {
            if !operation.is_sent || operation.is_answered {
                continue;
            }
            let is_change = operation.changes().is_some();
            if is_change && !keeps(Rule::ResendAll) {
                // A broken variant: those that have it keep it with the birth that it had.
                lacking.extend(operation.missing.iter().map(|id| (*id, *ticket, operation.body())));
                continue;
            }
            operation.is_sent = false;
            if is_change {
                self.carried.insert(*ticket);
            }
        }
        for (to, ticket, body) in lacking {
            self.send(to, Purpose::Operation(ticket), body, now);
        }
    }

    /// What was answered already, and a replica that is being brought back lacks still.
    pub(super) fn resend_to_joiner(&mut self, joiner: ReplicaId, now: Time) {
        let lacking = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.is_answered && operation.missing.contains(&joiner));
        let lacking: Vec<(Ticket, Body)> = lacking.map(|(ticket, operation)| (*ticket, operation.body())).collect();
        for (ticket, body) in lacking {
            if !self.link(joiner).has(Purpose::Operation(ticket)) {
                self.send(joiner, Purpose::Operation(ticket), body, now);
            }
        }
    }

    /// A replica takes writes from now on: it gets those under way, too, since the source may not have them yet when it lists what has changed.
    pub(super) fn share_operations(&mut self, joiner: ReplicaId, now: Time) {
        let mut shared = Vec::new();
        for (ticket, operation) in &mut self.operations {
            if operation.is_sent
                && !operation.is_answered
                && operation.changes().is_some()
                && operation.missing.insert(joiner)
            {
                shared.push((*ticket, operation.body()));
            }
        }
        for (ticket, body) in shared {
            self.send(joiner, Purpose::Operation(ticket), body, now);
        }
    }

    /// Nobody waits for this replica any more.
    pub(super) fn do_without(&mut self, replica: ReplicaId) {
        self.operations.retain(|_, operation| {
            operation.missing.remove(&replica);
            !operation.is_answered || !operation.missing.is_empty()
        });
    }

    /// Reads that a slow replica keeps waiting are asked of another one.
    pub(super) fn turn_reads(&mut self, now: Time) {
        let mut turned = Vec::new();
        for (id, link) in &self.links {
            for pending in link.pending.values() {
                if let (Purpose::Operation(ticket), Body::Read { .. }) = (pending.purpose, &pending.body)
                    && pending.first_sent + self.limits.retry + self.limits.retry <= now
                {
                    turned.push((*id, ticket));
                }
            }
        }
        let others = self.in_sync().len() > 1;
        for (from, ticket) in turned.into_iter().filter(|_| others) {
            if let Some(operation) = self.operations.get_mut(&ticket) {
                (operation.is_sent, operation.avoided) = (false, Some(from));
                operation.missing.clear();
            }
            self.link(from).drop_purpose(Purpose::Operation(ticket));
        }
    }

    /// The attachment has ended: nobody is left waiting.
    pub(super) fn refuse_operations(&mut self, error: &IoError) {
        for operation in std::mem::take(&mut self.operations).into_values().filter(|operation| !operation.is_answered) {
            self.actions.push(Action::Answer { tag: operation.tag, result: Err(error.clone()) });
        }
    }
}

/// Rule 2: whether everybody who must have it has it. A replica that was not sent it has not got it, whatever the set was then.
fn lacks_none(missing: &BTreeSet<ReplicaId>, must: &BTreeSet<ReplicaId>, io: &Io) -> bool {
    if *io != Io::Flush && !keeps(Rule::AllInSync) {
        // A broken variant: most of them are enough.
        return missing.intersection(must).count() * 2 < must.len();
    }
    missing.is_disjoint(must)
}
