//! A replica at work: the state machine, with a store behind it and those who ask in front of it.
//!
//! Whoever has an event for it gives it to the machine under a lock, and does what the machine says without: in his own thread. A store that is memory so answers within the call that
//! asks. In which order two threads do what they were told does not matter: the machine says what must come after something when it was told that it is done.

use crate::store::{Answered, Store};
use replication::look::{Look, Unseen};
use replication::message::{Answer, Changed, Request};
use replication::replica::store::{Operation, Outcome};
use replication::replica::{self, Action, Event, OperationId};
use replication::units::{AttachmentId, Epoch, Incarnation, ReplicaId, Sequence, Session, VolumeId};
use replication::wire::BLOCK;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

/// Requests of which it is remembered who is to be answered. The machine has fewer under way; what is beyond is the oldest, and was asked again or given up.
const MOST_WAITING: usize = 16_384;

/// Takes answers of a replica to an attachment.
pub(crate) trait Answers: Send + Sync + 'static {
    /// From any thread, with no lock held. `held` is what the request takes of its connection's room, until this is gone.
    fn answer(&self, from: ReplicaId, answer: Answer, held: Held);

    /// Those that have come together.
    fn answer_all(&self, from: ReplicaId, answers: Vec<Answer>) {
        answers.into_iter().for_each(|answer| self.answer(from, answer, None));
    }
}

/// What a request takes of its connection's room.
pub(crate) type Held = Option<OwnedSemaphorePermit>;

/// Who is to be answered.
pub(crate) struct Asker {
    pub(crate) to: Arc<dyn Answers>,
    pub(crate) held: Held,
}

/// A replica at work.
pub struct Replica {
    volume: VolumeId,
    id: ReplicaId,
    store: Arc<dyn Store>,
    /// It is not offered any more.
    pub(crate) is_gone: CancellationToken,
    running: Mutex<Running>,
}

struct Running {
    machine: replica::Replica,
    waiting: BTreeMap<(AttachmentId, Sequence), Asker>,
}

/// What is to be done outside of the lock.
enum Todo {
    Store(OperationId, Operation),
    Answer(Answer, Asker),
}

impl Replica {
    /// A replica whose store was opened by this process.
    #[must_use]
    pub fn new(
        volume: VolumeId,
        id: ReplicaId,
        store: Arc<dyn Store>,
        session: Session,
        incarnation: Incarnation,
    ) -> Arc<Self> {
        let machine = replica::Replica::new(store.promise(), session, incarnation, store.blocks(), BLOCK);
        let running = Running { machine, waiting: BTreeMap::new() };
        Arc::new(Self { volume, id, store, is_gone: CancellationToken::new(), running: Mutex::new(running) })
    }

    /// Of which volume it is.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The epoch that it has sealed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.lock().machine.epoch()
    }

    /// Asks it. Each request is answered once at most; one that is not is asked again by whoever wants it.
    pub(crate) fn ask(self: &Arc<Self>, requests: impl IntoIterator<Item = (Request, Asker)>) {
        let mut todo = Vec::new();
        let mut running = self.lock();
        for (request, asker) in requests {
            running.waiting.insert((request.attachment, request.sequence), asker);
            running.tell(Event::Asked(request), &mut todo);
        }
        while running.waiting.len() > MOST_WAITING {
            running.waiting.pop_first();
        }
        drop(running);
        todo.into_iter().for_each(|todo| self.act(todo));
    }

    /// What a snapshot of it has. The machine has nothing to do with it: no epoch fences what never changes, and no seal waits for it.
    pub(crate) async fn look(&self, look: &Look) -> Result<Changed, Unseen> {
        let (sender, receiver) = oneshot::channel();
        self.store.look(look, Box::new(move |seen| drop(sender.send(seen))));
        receiver.await.unwrap_or_else(|_| Err(Unseen::Failed("it was closed".into())))
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(self: &Arc<Self>, todo: Todo) {
        match todo {
            Todo::Answer(answer, asker) => asker.to.answer(self.id, answer, asker.held),
            Todo::Store(id, operation) => {
                // When nobody has the replica any more, nobody is to be told.
                let me = Arc::downgrade(self);
                let answered: Answered = Box::new(move |outcome| {
                    if let Some(me) = me.upgrade() {
                        me.stored(id, outcome);
                    }
                });
                self.store.perform(operation, answered);
            }
        }
    }

    fn stored(self: &Arc<Self>, id: OperationId, outcome: Outcome) {
        let mut todo = Vec::new();
        self.lock().tell(Event::Stored(id, outcome), &mut todo);
        todo.into_iter().for_each(|todo| self.act(todo));
    }
}

impl Running {
    /// Tells the machine what happened, and adds what it says.
    fn tell(&mut self, event: Event, todo: &mut Vec<Todo>) {
        for action in self.machine.apply(event) {
            match action {
                Action::Store(id, operation) => todo.push(Todo::Store(id, operation)),
                Action::Answer(answer) => {
                    // Who has left, or was pushed out, asks again.
                    if let Some(asker) = self.waiting.remove(&(answer.attachment, answer.sequence)) {
                        todo.push(Todo::Answer(answer, asker));
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({} of volume {:x})", self.id, self.volume.0)
    }
}

/// The replicas of a node, for its own attachments and for those of others.
#[derive(Debug, Default)]
pub struct Replicas(RwLock<BTreeMap<(VolumeId, ReplicaId), Arc<Replica>>>);

impl Replicas {
    /// Offers a replica from now on.
    pub fn add(&self, replica: Arc<Replica>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert((replica.volume, replica.id), replica);
    }

    /// Offers it no more, and ends the connections to it.
    pub fn remove(&self, volume: VolumeId, id: ReplicaId) -> Option<Arc<Replica>> {
        let removed = self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&(volume, id));
        removed.inspect(|replica| replica.is_gone.cancel())
    }

    /// The one with this id.
    #[must_use]
    pub fn find(&self, volume: VolumeId, id: ReplicaId) -> Option<Arc<Replica>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&(volume, id)).cloned()
    }
}
