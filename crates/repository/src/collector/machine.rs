//! Protocols without input and output: a machine is given an answer, and gives the next operation.
//!
//! What a machine does is written as one straight line of code that asks for one thing after the other; the compiler makes the states
//! of it. It sees no store, no clock and no other task: whoever drives it performs its operations, in production on a store
//! ([`super::driver`]), in the simulation on a world that delays, loses and repeats them.

use super::objects::{Collection, SessionRecord, Tombstone};
use crate::ids::{PackId, PointId, SessionId, WriterId};
use crate::layout::{ObjectName, RunId};
use crate::point::RecoveryPoint;
use crate::progress::Counters;
use crate::writer::PackInfo;
use jiff::Timestamp;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// How many operations are handed out together: enough for a driver to keep several under way.
const AT_ONCE: usize = 64;

/// What a machine asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    /// The names of the objects of one kind.
    List(Folder),
    /// Creates an object unless there is one of its name; repeated when the answer is lost.
    Create(Object),
    /// The same with one request only, whatever becomes of its answer; answered with [`Answer::Created`] only when that is sure.
    CreateOnce(Object),
    /// Reads an object.
    Read(ObjectName),
    /// Reads an object, and keeps of a recovery point no more than its sessions.
    Glance(ObjectName),
    /// Finds all packs that a recovery point refers to, first-hand or through older points.
    Follow(PointId),
    /// Deletes an object; one that is gone is a success.
    Delete(ObjectName),
    /// Deletes a pack.
    DeletePack(PackInfo),
    /// Does all of these, in any order.
    Each(Vec<Operation>),
    /// Tells how much will be deleted next.
    Announce(Counters),
    /// Asks the store what time it is.
    Now,
    /// A name for a writing session that nobody has ever had.
    NewWriter,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// These are there.
    Listed(Vec<Listed>),
    /// The object is there, and this call made it.
    Created,
    /// Of [`Operation::Create`]: there is another of its name. Of [`Operation::CreateOnce`]: there is one, or it is not known.
    Exists,
    /// The object.
    Found(Object),
    /// There is no such object.
    Absent,
    /// The object, or something it needs, is damaged or gone.
    Damaged(String),
    /// A recovery point refers to these packs.
    Refers(Vec<PackId>),
    /// It is done.
    Deleted,
    /// It is locked, and stays.
    Kept,
    /// It is taken note of.
    Told,
    /// It is this late, if the store tells.
    Time(Option<Timestamp>),
    /// A name.
    Writer(WriterId),
    /// The answers to [`Operation::Each`], in the order of the operations.
    Each(Vec<Answer>),
}

/// The kinds of objects that are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    Epochs,
    Sessions,
    Beats,
    Points,
    Packs,
    Runs,
    Collections,
    Repairs,
}

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: ObjectName,
    pub(crate) bytes: u64,
    pub(crate) modified: Option<Timestamp>,
}

/// An object with what it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Epoch(u64),
    Session(SessionRecord),
    Point(PointRecord),
    Tombstone(Tombstone),
    Collection(Collection),
    Collected(u64),
    /// What the protocol does not look into.
    Other(ObjectName),
}

/// A recovery point, as far as the protocol cares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PointRecord {
    pub(crate) id: PointId,
    /// The sessions without which it does not count.
    pub(crate) sessions: Vec<SessionId>,
    /// The document; the simulation has none.
    pub(crate) document: Option<Arc<RecoveryPoint>>,
    /// All packs that it refers to; only the simulation knows them beforehand.
    pub(crate) packs: Vec<PackId>,
}

impl Object {
    pub(crate) fn name(&self) -> ObjectName {
        match self {
            Self::Epoch(epoch) => ObjectName::Epoch(*epoch),
            Self::Session(session) => ObjectName::Session(session.id()),
            Self::Point(point) => ObjectName::Point(point.id.clone()),
            Self::Tombstone(tombstone) => ObjectName::Point(tombstone.point.clone()),
            Self::Collection(collection) => ObjectName::Collection(collection.epoch),
            Self::Collected(epoch) => ObjectName::Collected(*epoch),
            Self::Other(name) => name.clone(),
        }
    }
}

/// Where a machine leaves what it asks for, and finds the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Port(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    operation: Option<Operation>,
    answer: Option<Answer>,
}

impl Port {
    /// Asks for something, and waits for the answer.
    async fn ask(&self, operation: Operation) -> Answer {
        self.slot(|slot| slot.operation = Some(operation));
        std::future::poll_fn(|_| self.slot(|slot| slot.answer.take()).map_or(Poll::Pending, Poll::Ready)).await
    }

    fn slot<T>(&self, work: impl FnOnce(&mut Slot) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn list(&self, folder: Folder) -> Vec<Listed> {
        match self.ask(Operation::List(folder)).await {
            Answer::Listed(objects) => objects,
            other => unfit(&other),
        }
    }

    /// Creates an object; tells whether it was this call that made it.
    pub(super) async fn create(&self, object: Object) -> bool {
        match self.ask(Operation::Create(object)).await {
            Answer::Created => true,
            Answer::Exists => false,
            other => unfit(&other),
        }
    }

    /// Creates an object with one request; tells whether it is sure that this made it.
    pub(super) async fn create_once(&self, object: Object) -> bool {
        match self.ask(Operation::CreateOnce(object)).await {
            Answer::Created => true,
            Answer::Exists => false,
            other => unfit(&other),
        }
    }

    /// Reads an object; an error says what is wrong with it.
    pub(super) async fn read(&self, name: ObjectName) -> Result<Option<Object>, String> {
        as_read(self.ask(Operation::Read(name)).await)
    }

    /// Whether there is an object of this name; one that is damaged is there.
    pub(super) async fn exists(&self, name: ObjectName) -> bool {
        !matches!(as_read(self.ask(Operation::Glance(name)).await), Ok(None))
    }

    /// The packs that a recovery point refers to; none when there is no such point.
    pub(super) async fn follow(&self, id: PointId) -> Result<Option<Vec<PackId>>, String> {
        match self.ask(Operation::Follow(id)).await {
            Answer::Refers(packs) => Ok(Some(packs)),
            Answer::Absent => Ok(None),
            Answer::Damaged(what) => Err(what),
            other => unfit(&other),
        }
    }

    pub(super) async fn delete(&self, name: ObjectName) {
        match self.ask(Operation::Delete(name)).await {
            Answer::Deleted | Answer::Kept => {}
            other => unfit(&other),
        }
    }

    pub(super) async fn delete_each(&self, names: Vec<ObjectName>) {
        self.each(names.into_iter().map(Operation::Delete).collect()).await;
    }

    /// Deletes packs; gives those that are deleted. Others are locked, and stay.
    pub(super) async fn delete_packs(&self, packs: Vec<PackInfo>) -> Vec<PackInfo> {
        let bytes = packs.iter().map(|pack| pack.bytes).sum();
        match self.ask(Operation::Announce(Counters { files: packs.len() as u64, bytes, new_bytes: 0 })).await {
            Answer::Told => {}
            other => unfit(&other),
        }
        let answers = self.each(packs.iter().copied().map(Operation::DeletePack).collect()).await;
        let deleted = packs.into_iter().zip(answers).filter(|(_, answer)| *answer == Answer::Deleted);
        deleted.map(|(pack, _)| pack).collect()
    }

    /// Glances at objects, some at once; an error says what is wrong with one.
    pub(super) async fn glance_each(&self, names: Vec<ObjectName>) -> Vec<Result<Option<Object>, String>> {
        let answers = self.each(names.into_iter().map(Operation::Glance).collect()).await;
        answers.into_iter().map(as_read).collect()
    }

    async fn each(&self, mut operations: Vec<Operation>) -> Vec<Answer> {
        let mut all = Vec::with_capacity(operations.len());
        while !operations.is_empty() {
            let rest = operations.split_off(operations.len().min(AT_ONCE));
            match self.ask(Operation::Each(std::mem::replace(&mut operations, rest))).await {
                Answer::Each(answers) => all.extend(answers),
                other => unfit(&other),
            }
        }
        all
    }

    pub(super) async fn now(&self) -> Option<Timestamp> {
        match self.ask(Operation::Now).await {
            Answer::Time(time) => time,
            other => unfit(&other),
        }
    }

    pub(super) async fn new_writer(&self) -> WriterId {
        match self.ask(Operation::NewWriter).await {
            Answer::Writer(writer) => writer,
            other => unfit(&other),
        }
    }

    /// The greatest epoch that has been opened; none in a repository that has lost all of them.
    pub(super) async fn greatest_epoch(&self) -> Option<u64> {
        let epochs = self.list(Folder::Epochs).await.into_iter();
        epochs.filter_map(|object| if let ObjectName::Epoch(epoch) = object.name { Some(epoch) } else { None }).max()
    }
}

fn as_read(answer: Answer) -> Result<Option<Object>, String> {
    match answer {
        Answer::Found(object) => Ok(Some(object)),
        Answer::Absent => Ok(None),
        Answer::Damaged(what) => Err(what),
        other => unfit(&other),
    }
}

/// Whoever drives a machine answers what was asked.
fn unfit(answer: &Answer) -> ! {
    unreachable!("{answer:?} is no answer to what was asked")
}

/// What a machine wants next.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// Perform this, and come back with the answer.
    Perform(Operation),
    /// It is done.
    Done(T),
}

/// A protocol at some point of its way.
pub(crate) struct Machine<T> {
    port: Port,
    work: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Machine<T> {
    /// Nothing happens before the first [`Machine::apply`].
    pub(crate) fn new<F: Future<Output = T> + Send + 'static>(work: impl FnOnce(Port) -> F) -> Self {
        let port = Port::default();
        Self { work: Box::pin(work(port.clone())), port }
    }

    /// Takes the answer to the last operation (none at the beginning), and gives the next one.
    pub(crate) fn apply(&mut self, answer: Option<Answer>) -> Next<T> {
        self.port.slot(|slot| slot.answer = answer);
        match self.work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Next::Done(done),
            Poll::Pending => {
                let operation = self.port.slot(|slot| slot.operation.take());
                Next::Perform(operation.expect("a machine waits for nothing but answers"))
            }
        }
    }
}

impl RunId {
    pub(super) fn session(&self) -> SessionId {
        SessionId { epoch: self.epoch, writer: self.writer }
    }
}
