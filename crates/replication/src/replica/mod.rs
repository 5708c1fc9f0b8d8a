//! A replica: it obeys the highest epoch that it has sealed, and nothing else.
//!
//! ```text
//! request ──► fenced? ──► executed before? ──► store ──► answer
//!               │
//!             seal: no new requests of the old epoch; those under way end; all is flushed; the promise is durable; answer
//! ```
//! It has no clock: the lease that it grants (rule 4) is nothing but its answer, and what makes it safe is that a sealed replica gives no such
//! answer for an older epoch ever again. It never says whether it is in sync, and nobody asks it (rule 7).
//!
//! # What is durable before what is answered
//!
//! | answer | before it |
//! |---|---|
//! | to a seal | everything that was answered in older epochs, then the promise |
//! | to a write or discard | the store has it so that it survives the process, not the power |
//! | to a flush | everything that was answered before it was asked |
//! | to a confirmation | the same, then that the replica is whole |
//! | to a snapshot | the snapshot, with all that was answered before it was asked |
//! | to a growth | the new size |

pub mod store;
mod window;

use crate::message::{Answer, Body, Refusal, Reply, Request};
use crate::rules::{Rule, keeps};
use crate::units::{AttachmentId, Blocks, Epoch, Incarnation, Sequence, Session};
use std::collections::{BTreeMap, VecDeque};
use store::{Operation, Outcome, Promise};
use window::{Seen, Window};

/// Requests that a replica has under way in its store at most. An attachment has fewer, see [`crate::limits::Limits`]; more are not answered, so they come again.
const MOST_UNDER_WAY: usize = 8192;

/// The number of an operation of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A request has come.
    Asked(Request),
    /// The store has done something.
    Stored(OperationId, Outcome),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The store shall do something, and tell.
    Store(OperationId, Operation),
    /// Send this to the attachment that it names.
    Answer(Answer),
}

/// How an operation came about.
#[derive(Debug, Clone)]
enum Purpose {
    Execute(Request),
    Seal(Request),
    Confirm(Request, Promise),
    Grow(Request, u64),
}

/// The protocol's side of one copy of a volume.
#[derive(Debug)]
pub struct Replica {
    session: Session,
    incarnation: Incarnation,
    blocks: u64,
    block_bytes: usize,
    /// What the store has, durably.
    promise: Promise,
    /// A seal that is to be made, or is being made: nothing of a lower epoch begins any more.
    sealing: Option<Request>,
    window: Window,
    under_way: BTreeMap<OperationId, Purpose>,
    next: u64,
    actions: VecDeque<Action>,
}

impl Replica {
    /// A replica whose store was opened, and in it this promise was found; the first one has none.
    #[must_use]
    pub fn new(promise: Promise, session: Session, incarnation: Incarnation, blocks: u64, block_bytes: usize) -> Self {
        Self {
            session,
            incarnation,
            blocks,
            block_bytes,
            promise,
            sealing: None,
            // What was executed in the session before is not known, so nothing is until the epoch is sealed in this one.
            window: Window::default(),
            under_way: BTreeMap::new(),
            next: 0,
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened; gives what is to be done, in this order.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Asked(request) => self.asked(request),
            Event::Stored(id, outcome) => self.stored(id, outcome),
        }
        self.begin_seal();
        self.actions.drain(..).collect()
    }

    /// The epoch that it has sealed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.promise.epoch
    }

    fn asked(&mut self, request: Request) {
        if let Err(refusal) = self.fence(&request) {
            return self.answer(&request, Err(refusal));
        }
        if matches!(request.body, Body::Seal) {
            return self.ask_seal(request);
        }
        if let Err(refusal) = self.fit(&request.body) {
            return self.answer(&request, Err(refusal));
        }
        if request.body.is_change() && keeps(Rule::ExecuteOnce) {
            match self.window.see(request.sequence, request.done_below) {
                Seen::New => {}
                Seen::UnderWay => return,
                Seen::Done => return self.answer(&request, Ok(Reply::Done)),
                Seen::TooFar => return self.answer(&request, Err(Refusal::TooMany)),
            }
        }
        // What is no change may be done twice, but not beside itself: whoever is slow would get the more to do the longer it takes.
        if !request.body.is_change() && self.is_under_way(&request) {
            return;
        }
        if self.under_way.len() >= MOST_UNDER_WAY {
            // It comes again. What was seen of it must not count as under way.
            return self.window.forget(request.sequence);
        }
        self.execute(request);
    }

    fn is_under_way(&self, request: &Request) -> bool {
        let same = |other: &Request| (other.attachment, other.sequence) == (request.attachment, request.sequence);
        self.under_way.values().any(|purpose| match purpose {
            Purpose::Execute(other) | Purpose::Confirm(other, _) | Purpose::Grow(other, _) | Purpose::Seal(other) => {
                same(other)
            }
        })
    }

    /// Rule 1: lower epochs are refused, from the instant on that a higher one is asked for. Rule 4: so is their renewal.
    fn fence(&self, request: &Request) -> Result<(), Refusal> {
        let asked_for = self.sealing.as_ref().map_or(self.promise.epoch, |seal| seal.epoch.max(self.promise.epoch));
        if request.epoch < asked_for && keeps(Rule::RefuseLower) {
            return Err(Refusal::LowerEpoch { sealed: asked_for });
        }
        if matches!(request.body, Body::Seal) {
            let is_others = request.epoch == self.promise.epoch && self.promise.attachment != Some(request.attachment);
            return if is_others { Err(Refusal::NotSealed) } else { Ok(()) };
        }
        if request.session != Some(self.session) && keeps(Rule::RefuseEarlierSession) {
            return Err(Refusal::EarlierSession);
        }
        let is_sealed = request.epoch == self.promise.epoch && self.promise.attachment == Some(request.attachment);
        if is_sealed || !keeps(Rule::RefuseLower) { Ok(()) } else { Err(Refusal::NotSealed) }
    }

    fn fit(&self, body: &Body) -> Result<(), Refusal> {
        let unfit = |reason: String| Err(Refusal::Unfit { reason });
        let fits = |blocks: Blocks| {
            blocks.count > 0 && blocks.start.checked_add(blocks.count).is_some_and(|end| end <= self.blocks)
        };
        match body {
            Body::Write { blocks, .. } | Body::Discard { blocks } | Body::Read { blocks } | Body::Digest { blocks }
                if !fits(*blocks) =>
            {
                unfit(format!("{blocks} are none, or reach beyond its {}", self.blocks))
            }
            Body::Write { blocks, data } => {
                let expected = usize::try_from(blocks.count).ok().and_then(|count| count.checked_mul(self.block_bytes));
                if expected == Some(data.len()) {
                    Ok(())
                } else {
                    unfit(format!("{blocks} are not {} bytes", data.len()))
                }
            }
            Body::Changed { most: 0, .. } => unfit("no range at all is asked for".into()),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, request: Request) {
        let birth = request.epoch;
        let operation = match &request.body {
            Body::Seal => return,
            // Rule 4: that it comes so far says that no higher epoch is sealed.
            Body::Renew => return self.answer(&request, Ok(Reply::Done)),
            Body::Write { blocks, data } => Operation::Write { blocks: *blocks, data: data.clone(), birth },
            Body::Discard { blocks } => Operation::Discard { blocks: *blocks, birth },
            Body::Read { blocks } => Operation::Read { blocks: *blocks },
            Body::Flush => Operation::Flush,
            Body::Confirm => {
                let promise = Promise { whole: Some(self.incarnation), ..self.promise };
                return self.store(Operation::Promise(promise), Purpose::Confirm(request, promise));
            }
            Body::Changed { since, from, most } => Operation::Changed { since: *since, from: *from, most: *most },
            Body::Digest { blocks } => Operation::Digest { blocks: *blocks },
            Body::Snapshot { id } => {
                if !keeps(Rule::TakeDurably) {
                    self.answer(&request, Ok(Reply::Done));
                }
                Operation::Snapshot { id: *id, epoch: request.epoch }
            }
            Body::Grow { blocks } => {
                let blocks = *blocks;
                return self.store(Operation::Grow { blocks }, Purpose::Grow(request, blocks));
            }
        };
        self.store(operation, Purpose::Execute(request));
    }

    /// A seal is asked for. The same one again does not have to be made durable again; but it is answered, too, when nothing is under way any more: whoever
    /// asks for it begins anew with this replica, and what he has given up must not come late.
    fn ask_seal(&mut self, request: Request) {
        if self.sealing.as_ref().is_none_or(|seal| seal.epoch <= request.epoch) {
            self.sealing = Some(request);
        }
    }

    /// Rule 1: the seal is begun when nothing of an older epoch is under way any more, so that nothing of it can come after the seal.
    fn begin_seal(&mut self) {
        // (A broken variant answers at once.)
        if !self.under_way.is_empty() && keeps(Rule::SealDurably) {
            return;
        }
        let Some(request) = self.sealing.clone() else { return };
        // `whole` stays: what the store has lost is known by it, whatever is sealed meanwhile.
        let promise = Promise { epoch: request.epoch, attachment: Some(request.attachment), whole: self.promise.whole };
        if request.epoch > self.promise.epoch && keeps(Rule::SealDurably) {
            self.store(Operation::Promise(promise), Purpose::Seal(request));
        } else {
            self.sealed(&request);
        }
    }

    fn sealed(&mut self, request: &Request) {
        if request.epoch != self.promise.epoch {
            // (What was executed in this epoch and session stays remembered: a seal may come twice, too.)
            self.window = Window::default();
        }
        self.promise.epoch = request.epoch;
        self.promise.attachment = Some(request.attachment);
        // One that came meanwhile, with a higher epoch, is made next; then this one is not answered: nothing of its epoch would be executed.
        if self.sealing.as_ref().is_some_and(|seal| seal.epoch == request.epoch) {
            self.sealing = None;
            self.answer_seal(request);
        }
    }

    fn answer_seal(&mut self, request: &Request) {
        let is_whole = self.promise.whole == Some(self.incarnation);
        self.answer(request, Ok(Reply::Sealed { is_whole }));
    }

    fn stored(&mut self, id: OperationId, outcome: Outcome) {
        let Some(purpose) = self.under_way.remove(&id) else { return };
        match purpose {
            Purpose::Execute(request) => {
                let body = told(outcome);
                if body.is_ok() {
                    self.window.done(request.sequence);
                } else {
                    self.window.forget(request.sequence);
                }
                self.answer(&request, body);
            }
            Purpose::Confirm(request, promise) => {
                if outcome == Outcome::Done {
                    self.promise.whole = promise.whole;
                }
                self.answer(&request, told(outcome));
            }
            Purpose::Grow(request, blocks) => {
                if outcome == Outcome::Done {
                    self.blocks = self.blocks.max(blocks);
                }
                self.answer(&request, told(outcome));
            }
            Purpose::Seal(request) => match told(outcome) {
                Ok(_) => self.sealed(&request),
                Err(refusal) => {
                    self.sealing = None;
                    self.answer(&request, Err(refusal));
                }
            },
        }
    }

    fn store(&mut self, operation: Operation, purpose: Purpose) {
        let id = OperationId(self.next);
        self.next += 1;
        self.under_way.insert(id, purpose);
        self.actions.push_back(Action::Store(id, operation));
    }

    fn answer(&mut self, to: &Request, body: Result<Reply, Refusal>) {
        let (attachment, sequence, epoch): (AttachmentId, Sequence, Epoch) = (to.attachment, to.sequence, to.epoch);
        let (session, incarnation) = (self.session, self.incarnation);
        self.actions.push_back(Action::Answer(Answer { attachment, sequence, epoch, session, incarnation, body }));
    }
}

fn told(outcome: Outcome) -> Result<Reply, Refusal> {
    match outcome {
        Outcome::Done => Ok(Reply::Done),
        Outcome::Data(data) => Ok(Reply::Data(data)),
        Outcome::Changed(changed) => Ok(Reply::Changed(changed)),
        Outcome::Digest(digest) => Ok(Reply::Digest(digest)),
        Outcome::Damaged { blocks, reason } => Err(Refusal::Damaged { blocks, reason }),
        Outcome::Refused { reason } => Err(Refusal::Unfit { reason }),
        Outcome::Failed { reason } => Err(Refusal::Failed { reason }),
    }
}

#[cfg(test)]
mod tests;
