//! An attachment: the one that serves a volume, and writes to all its replicas.
//!
//! ```text
//!             swap: epoch + 1        all in-sync replicas have sealed it
//! Reading ──► Claiming ──► Sealing ─────────────────────────────► Serving ──► detached
//!                            ▲ │ the first time, after an unclean       │
//!                            │ └► Equalizing ──► Confirming ────────────┤
//!                            └──── swap: a replica leaves or joins ─────┘
//! ```
//! Every change of membership takes the same way as an attachment: the record first, then the seals, then what was under way again. So there
//! is one place where an epoch begins, and what is true of it is true of all.
//!
//! # What is promised
//!
//! * A write is acknowledged when every in-sync replica has it (rule 2). It survives the end of any processes, and the loss of power of any replicas as
//!   long as one in-sync replica keeps its power that is not taken out of the set just then because it does not answer.
//! * A flush is acknowledged when every in-sync replica has flushed. What was flushed survives the loss of power of all replicas at once. What was not
//!   may be lost then; so an attachment that lives through that ends, and does not go on as if nothing had happened: whoever uses the volume has
//!   to start again as after a loss of power of its own.
//! * Nothing fails because replicas or the record store cannot be reached: it waits, and goes on by itself (rule 3). What fails is a read of blocks that
//!   are damaged on all replicas.

mod answers;
mod copy;
mod join;
mod lease;
mod link;
mod membership;
mod operations;
mod phases;
mod view;
mod wishes;

use crate::limits::Limits;
use crate::message::{Answer, Body, Request};
use crate::record::store::{StoreError, SwapError, Version, Versioned};
use crate::record::{Attached, Record};
use crate::units::{AttachmentId, Blocks, Epoch, NodeId, ReplicaId, Sequence, Tag, Time};
use bytes::Bytes;
use copy::{Copier, Piece, Slot};
use join::Joiner;
use link::{Link, Pending, Purpose};
use membership::Call;
use operations::{Operation, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub use view::{Copying, View};
pub use wishes::Wish;
use wishes::{Pursuit, Refused};

/// How a volume is attached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who attaches it.
    pub me: Attached,
    /// The replica on the same node, which is read from.
    pub local: Option<ReplicaId>,
    /// Take it over from another attachment that may live still. Nothing is served before its leases have ended.
    pub force: bool,
    /// Whose volume it must be when it is claimed, or nobody's: what was decided on has to be so still. Without it, that is not looked at.
    pub expected: Option<Option<AttachmentId>>,
    /// This attachment has served the volume, and has ended for certain (its process is gone from this node): its leases are not waited for. One that has
    /// not served may not have waited for the one before it, which may live still. Whoever used the volume then goes on with this one, as if nothing had
    /// happened (rule 9); so `expected` says that nobody has had it since.
    pub ended: Option<AttachmentId>,
    /// Go on without a replica that cannot be reached even if all others have lost their power since the volume was last served: what was acknowledged
    /// and not flushed may be lost. Without it, the attachment waits for a replica that has lost nothing.
    pub give_up_unflushed: bool,
    /// Waiting times and sizes.
    pub limits: Limits,
}

/// What is asked of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Io {
    /// Write whole blocks.
    Write {
        /// Which.
        blocks: Blocks,
        /// Their bytes.
        data: Bytes,
    },
    /// These blocks shall read as zeros.
    Discard {
        /// Which.
        blocks: Blocks,
    },
    /// Read whole blocks.
    Read {
        /// Which.
        blocks: Blocks,
    },
    /// Make durable all that was answered before.
    Flush,
}

/// An answer to whoever uses the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is done.
    Done,
    /// What was read.
    Data(Bytes),
}

/// Why an operation is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// No replica has the blocks as they were written.
    #[error("{blocks} cannot be read on any in-sync replica; restore them from a snapshot or a backup")]
    Damaged {
        /// Which.
        blocks: Blocks,
    },
    /// More than the attachment holds.
    #[error("{most} operations wait already; ask again when some are answered")]
    TooMany {
        /// How many it holds.
        most: usize,
    },
    /// The volume is being detached.
    #[error("the volume is being detached and takes nothing new")]
    Detaching,
    /// The attachment has ended.
    #[error("the attachment has ended: {0}")]
    Ended(Ending),
}

/// Why an attachment has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// As was wanted; all replicas are equal.
    #[error("the volume is detached")]
    Detached,
    /// Another attachment has taken over.
    #[error("another attachment has taken the volume over")]
    Displaced,
    /// It is attached elsewhere, and not by force.
    #[error(
        "the volume is attached on {node}; detach it there, or attach it by force when that node is known to be gone"
    )]
    AttachedElsewhere {
        /// Where.
        node: NodeId,
    },
    /// There is no such volume.
    #[error("the volume has no record; it was deleted, or never made")]
    NoRecord,
    /// All in-sync replicas have lost their power, and with it what was not flushed.
    #[error(
        "all in-sync replicas have lost their power; what was not flushed may be lost, so whoever uses the volume has to start again"
    )]
    PowerLost,
    /// Replicas that may differ cannot be made equal, since none can read these blocks.
    #[error(
        "{blocks} cannot be read on any replica that holds everything, so the replicas cannot be made equal; bring another one back, or restore the volume"
    )]
    Damaged {
        /// Which.
        blocks: Blocks,
    },
}

/// Why nothing is served just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The record store has to be asked, and does not answer.
    RecordStore,
    /// Not all in-sync replicas have sealed the epoch.
    Sealing,
    /// The replicas are being made equal after an unclean end.
    MakingEqual,
    /// Fewer replicas are in sync than the volume's minimum.
    BelowMinimum,
    /// An in-sync replica has not confirmed the epoch in time.
    NoLease,
}

/// What whoever runs the attachment should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// I/O goes on.
    Serving,
    /// I/O waits; nothing fails.
    Suspended(Why),
    /// The replica is not in sync any more.
    Left(ReplicaId),
    /// The replica is in sync.
    Joined(ReplicaId),
    /// The replica is being made equal to the others.
    Joining(ReplicaId),
    /// That was given up for now.
    JoinFailed(ReplicaId),
    /// The replica has told damage in these blocks; they are written there anew from another.
    Damage(ReplicaId, Blocks),
    /// That is done.
    Repaired(ReplicaId, Blocks),
    /// What the record wanted of all replicas is so.
    Fulfilled(Wish),
    /// It is not done for now, since this replica has no room for it, and why.
    Unfulfilled(Wish, ReplicaId, String),
    /// It is over.
    Ended(Ending),
}

/// Names a question to the record store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something is asked of the volume.
    Submit {
        /// How the answer is known.
        tag: Tag,
        /// What.
        io: Io,
    },
    /// A replica has answered.
    Answered {
        /// Which one.
        from: ReplicaId,
        /// What.
        answer: Answer,
    },
    /// The record store has answered a reading.
    Got(CallId, Result<Option<Versioned>, StoreError>),
    /// The record store has answered a swap.
    Swapped(CallId, Result<Version, SwapError>),
    /// A watch says that the record has changed; it is read again.
    RecordChanged,
    /// The volume shall be detached.
    Detach,
    /// Time has passed, see [`Attachment::deadline`].
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a request.
    Send {
        /// To which replica.
        to: ReplicaId,
        /// What.
        request: Request,
    },
    /// Read the record.
    Get(CallId),
    /// Change the record.
    Swap {
        /// Which question this is.
        call: CallId,
        /// Which state is replaced.
        expected: Version,
        /// By what.
        record: Record,
    },
    /// Answer whoever uses the volume.
    Answer {
        /// Which operation.
        tag: Tag,
        /// How.
        result: Result<Done, IoError>,
    },
    /// Something to know.
    Notice(Notice),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Reading,
    Claiming,
    Sealing,
    Equalizing,
    Confirming,
    Serving,
    Ended(Ending),
}

/// How far a detach has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detaching {
    /// What is under way ends.
    Draining,
    /// All is flushed.
    Flushing,
}

/// The state machine.
#[derive(Debug)]
pub struct Attachment {
    options: Options,
    limits: Limits,
    phase: Phase,
    detaching: Option<Detaching>,
    known: Option<Versioned>,
    call: Option<Call>,
    next_call: u64,
    must_read: bool,
    /// The record store is not asked before.
    ask_after: Time,
    /// Replicas that may be in sync by a swap whose end is not known, and the version that it expects.
    doubtful: BTreeSet<ReplicaId>,
    doubtful_at: Option<Version>,
    /// Nobody was attached before, or had ended well.
    is_clean: bool,
    has_served: bool,
    /// Another attachment may live until then.
    not_before: Time,
    must_wait: bool,
    /// All in-sync replicas are equal, durably, in what was born before this epoch; what was under way when it began is written again (`carried`).
    base: Epoch,
    carried: BTreeSet<Ticket>,
    links: BTreeMap<ReplicaId, Link>,
    operations: BTreeMap<Ticket, Operation>,
    next_ticket: u64,
    answered_changes: u64,
    flushed: u64,
    joiner: Option<Joiner>,
    copier: Option<Copier>,
    pieces: BTreeMap<Slot, Piece>,
    repairs: VecDeque<(ReplicaId, Blocks)>,
    pursuit: Option<Pursuit>,
    /// In this epoch a snapshot was given up that some have taken.
    has_spoiled: bool,
    refused: Refused,
    /// Those that are late, for the variants that leave them out.
    laggards: BTreeSet<ReplicaId>,
    told: Option<Option<Why>>,
    now: Time,
    actions: Vec<Action>,
}

impl Attachment {
    /// Begins to attach; the first [`Event::Tick`] starts it.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            limits: options.limits.clone(),
            options,
            phase: Phase::Reading,
            detaching: None,
            known: None,
            call: None,
            next_call: 0,
            must_read: true,
            ask_after: Time(0),
            doubtful: BTreeSet::new(),
            doubtful_at: None,
            is_clean: false,
            has_served: false,
            not_before: Time(0),
            must_wait: false,
            base: Epoch(0),
            carried: BTreeSet::new(),
            links: BTreeMap::new(),
            operations: BTreeMap::new(),
            next_ticket: 0,
            // What the attachment before has left unflushed is not known.
            answered_changes: 1,
            flushed: 0,
            joiner: None,
            copier: None,
            pieces: BTreeMap::new(),
            repairs: VecDeque::new(),
            pursuit: None,
            has_spoiled: false,
            refused: Refused::default(),
            laggards: BTreeSet::new(),
            told: None,
            now: Time(0),
            actions: Vec::new(),
        }
    }

    /// Takes what happened, and when; gives what is to be done, in this order. Times only grow.
    pub fn apply(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.apply_all(now, [event])
    }

    /// The same with several events, in their order, that were all there by then. What follows from them is thought through once and not after each: that goes
    /// through all that is under way, so one by one a busy volume would do little else.
    pub fn apply_all(&mut self, now: Time, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        self.now = self.now.max(now);
        let now = self.now;
        events.into_iter().for_each(|event| self.take(now, event));
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    fn take(&mut self, now: Time, event: Event) {
        match event {
            Event::Submit { tag, io } => self.submit(tag, io),
            Event::Answered { from, answer } => self.answered(from, answer, now),
            Event::Got(call, result) => self.got(call, result, now),
            Event::Swapped(call, result) => self.swapped(call, result, now),
            Event::RecordChanged => self.must_read = true,
            Event::Detach => self.detaching = self.detaching.or(Some(Detaching::Draining)),
            Event::Tick => {}
        }
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        let mut all = vec![self.ask_after, self.not_before];
        all.extend(self.refused.ends());
        all.extend(self.call.as_ref().map(|call| call.asked + self.limits.record_deadline));
        for link in self.links.values() {
            let early = crate::units::Span(self.limits.lease.0 / 3);
            all.extend([link.join_after, link.lease_until, Time(link.lease_until.0.saturating_sub(early.0 * 2))]);
            for pending in link.pending.values() {
                all.extend([pending.last_sent + self.limits.retry, pending.since + self.limits.member_deadline]);
            }
        }
        all.into_iter().filter(|time| *time > self.now).min()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        if let Phase::Ended(ending) = &self.phase { Some(ending) } else { None }
    }

    /// How many operations more it takes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limits.most_operations.saturating_sub(self.operations.len())
    }

    /// Does all that can be done without waiting.
    fn settle(&mut self, now: Time) {
        loop {
            let before = self.shape();
            if matches!(self.phase, Phase::Ended(_)) {
                return;
            }
            self.turn_reads(now);
            self.ask_record_store(now);
            self.go_on(now);
            self.bring_back(now);
            self.copy(now);
            self.pursue(now);
            self.send_operations(now);
            self.answer_operations(now);
            self.settle_epoch(now);
            if before == self.shape() {
                break;
            }
        }
        self.renew_leases(now);
        self.send_again(now);
        self.tell(now);
    }

    /// What tells whether anything has been done.
    fn shape(&self) -> impl PartialEq + use<> {
        let copies = self.copier.as_ref().map(Copier::left);
        let joiner = self.joiner.as_ref().map(Joiner::progress);
        let counts = (self.actions.len(), self.operations.len(), self.pieces.len(), self.repairs.len());
        let pursuit = self.pursuit.as_ref().map(Pursuit::progress);
        (counts, self.phase.clone(), self.detaching, joiner, copies, self.base, pursuit)
    }

    /// The record as this attachment knows it; nothing before it was read.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.known.as_ref().map(|known| &known.record)
    }

    /// The record's epoch; this attachment's own from when it has claimed the volume.
    fn epoch(&self) -> Epoch {
        self.record().map_or(Epoch(0), |record| record.epoch)
    }

    fn in_sync(&self) -> Vec<ReplicaId> {
        self.record().map(|record| record.in_sync().collect()).unwrap_or_default()
    }

    fn link(&mut self, id: ReplicaId) -> &mut Link {
        self.links.entry(id).or_default()
    }

    fn notice(&mut self, notice: Notice) {
        self.actions.push(Action::Notice(notice));
    }

    fn end(&mut self, ending: Ending) {
        self.phase = Phase::Ended(ending.clone());
        self.refuse_operations(&IoError::Ended(ending.clone()));
        self.notice(Notice::Ended(ending));
    }

    /// A request begins: it is sent when the replica has sealed the epoch, and again until there is an answer.
    fn send(&mut self, to: ReplicaId, purpose: Purpose, body: Body, now: Time) {
        let link = self.link(to);
        let sequence = link.next;
        link.next = sequence.next();
        let pending = Pending { purpose, body, first_sent: now, last_sent: now, since: now };
        link.pending.insert(sequence, pending);
        self.transmit(to, sequence);
    }

    fn transmit(&mut self, to: ReplicaId, sequence: Sequence) {
        let epoch = self.epoch();
        let attachment = self.options.me.id;
        let link = self.link(to);
        let done_below = link.done_below();
        let Some(pending) = link.pending.get(&sequence) else { return };
        let is_seal = pending.purpose == Purpose::Seal;
        if !is_seal && link.sealed.is_none() {
            return;
        }
        let session = if is_seal { None } else { link.session };
        let request = Request { attachment, epoch, session, sequence, done_below, body: pending.body.clone() };
        self.actions.push(Action::Send { to, request });
    }

    /// What is not answered comes again; a question for the lease anew, since its answer counts from when it was asked.
    fn send_again(&mut self, now: Time) {
        let retry = self.limits.retry;
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            let link = self.link(id);
            let is_open = link.sealed.is_some();
            let due = link.pending.iter_mut().filter(|(_, pending)| pending.last_sent + retry <= now);
            let mut due: Vec<(Sequence, Purpose)> = due
                .map(|(sequence, pending)| {
                    pending.last_sent = now;
                    (*sequence, pending.purpose)
                })
                .collect();
            due.retain(|(_, purpose)| is_open || *purpose == Purpose::Seal);
            for (sequence, purpose) in due {
                if purpose == Purpose::Renew
                    && let Some(old) = self.link(id).pending.remove(&sequence)
                {
                    self.send(id, Purpose::Renew, Body::Renew, now);
                    let newest = self.link(id).pending.last_entry();
                    newest.into_iter().for_each(|mut entry| entry.get_mut().since = old.since);
                } else {
                    self.transmit(id, sequence);
                }
            }
        }
    }
}

#[cfg(test)]
impl Attachment {
    /// Whether this request copies something.
    pub(crate) fn is_copying(&self, to: ReplicaId, sequence: Sequence) -> bool {
        let pending = self.links.get(&to).and_then(|link| link.pending.get(&sequence));
        pending.is_some_and(|pending| matches!(pending.purpose, Purpose::Piece(_)))
    }

    pub(crate) fn has_claimed(&self) -> bool {
        !matches!(self.phase, Phase::Reading | Phase::Claiming)
    }

    /// In which incarnation it knows a replica.
    pub(crate) fn incarnation_of(&self, replica: ReplicaId) -> Option<crate::units::Incarnation> {
        self.links.get(&replica).and_then(|link| link.incarnation)
    }
}

#[cfg(test)]
mod tests;
