//! Performs on a store what the machines ask for.

use super::machine::{Answer, Folder, Listed, Machine, Next, Object, Operation, PointRecord};
use super::mark::Marker;
use super::objects::{self, Collection, MAX_COLLECTION_LEN, SessionRecord, Tombstone};
use super::points::{self, NotPublished};
use super::rules::Rules;
use crate::checked_json;
use crate::codec::Malformed;
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{PointId, WriterId};
use crate::layout::{self, ObjectName};
use crate::point::{MAX_POINT_LEN, RecoveryPoint};
use crate::progress::{Counters, NoProgress, Progress};
use crate::repository::{EpochObject, MAX_PLAIN_OBJECT_LEN, Repository};
use crate::store::{Attempts, StoreErrorKind};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::sync::Arc;

/// How many operations of a group are under way at once.
const AT_ONCE: usize = 8;

/// Drives one machine to its end.
pub(super) struct Driver<'a> {
    repo: &'a Repository,
    marker: Marker,
    attempts: Attempts,
    progress: &'a dyn Progress,
    /// What the same work has done before.
    done: Counters,
    /// Whether what is locked stays without that being an error.
    spares_locked: bool,
}

impl<'a> Driver<'a> {
    pub(super) fn new(repo: &'a Repository, progress: &'a dyn Progress) -> Self {
        let (marker, attempts, done) = (Marker::default(), repo.store().attempts(), Counters::default());
        Self { repo, marker, attempts, progress, done, spares_locked: false }
    }

    /// Leaves what is locked where it is, and goes on.
    pub(super) fn sparing_locked(self) -> Self {
        Self { spares_locked: true, ..self }
    }

    /// Tells totals with what the same work has done before.
    pub(super) fn after(self, done: Counters) -> Self {
        Self { done, ..self }
    }

    /// Drives a machine. An error of the store ends it where it is, which is what the protocol calls a crash.
    pub(super) async fn run<T>(mut self, mut machine: Machine<T>) -> Result<T> {
        let mut answer = None;
        loop {
            match machine.apply(answer) {
                Next::Done(done) => return Ok(done),
                Next::Perform(operation) => answer = Some(self.perform(operation).await?),
            }
        }
    }

    async fn perform(&mut self, operation: Operation) -> Result<Answer> {
        match operation {
            Operation::Each(operations) => {
                let work = operations.into_iter().map(|operation| self.simple(operation));
                let answers = stream::iter(work.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect();
                Ok(Answer::Each(answers.await?))
            }
            Operation::CreateOnce(object) => {
                let (name, bytes) = written(self.repo, &object)?;
                let created = self.repo.store().create_once(&name, bytes, &mut self.attempts).await?;
                Ok(if created { Answer::Created } else { Answer::Exists })
            }
            Operation::Follow(id) => self.follow(&id).await,
            Operation::Announce(more) => {
                let (files, bytes) = (self.done.files + more.files, self.done.bytes + more.bytes);
                self.progress.total(Counters { files, bytes, new_bytes: 0 });
                Ok(Answer::Told)
            }
            operation => self.simple(operation).await,
        }
    }

    async fn simple(&self, operation: Operation) -> Result<Answer> {
        match simple(self.repo, self.progress, operation).await {
            Err(Error::Store(error)) if self.spares_locked && matches!(error.kind, StoreErrorKind::Locked { .. }) => {
                Ok(Answer::Kept)
            }
            answer => answer,
        }
    }

    async fn follow(&mut self, id: &PointId) -> Result<Answer> {
        let point = match read(self.repo, ObjectName::Point(id.clone())).await? {
            Answer::Found(Object::Point(PointRecord { document: Some(document), .. })) => document,
            Answer::Found(_) => return Ok(Answer::Absent),
            other => return Ok(other),
        };
        match self.marker.follow(self.repo, &point).await {
            Ok(packs) => Ok(Answer::Refers(packs.into_iter().collect())),
            Err(error) => damage(error),
        }
    }
}

async fn simple(repo: &Repository, progress: &dyn Progress, operation: Operation) -> Result<Answer> {
    let store = repo.store();
    Ok(match operation {
        Operation::List(folder) => list(repo, folder).await?,
        Operation::Create(object) => {
            let (name, bytes) = written(repo, &object)?;
            match store.put_new(&name, bytes).await {
                Ok(()) => Answer::Created,
                Err(error) if error.kind == StoreErrorKind::AlreadyExists => Answer::Exists,
                Err(error) => return Err(error.into()),
            }
        }
        Operation::Read(name) => read(repo, name).await?,
        Operation::Glance(name) => match read(repo, name).await? {
            Answer::Found(Object::Point(point)) => {
                Answer::Found(Object::Point(PointRecord { document: None, ..point }))
            }
            other => other,
        },
        Operation::Delete(name) => {
            if let Some(name) = layout::name(&name) {
                store.delete(&name).await?;
            }
            Answer::Deleted
        }
        Operation::DeletePack(pack) => {
            store.delete(&layout::pack(&pack.id)).await?;
            progress.add(Counters { files: 1, bytes: pack.bytes, new_bytes: 0 });
            Answer::Deleted
        }
        Operation::Now => Answer::Time(store.now().await?),
        Operation::NewWriter => {
            Answer::Writer(WriterId(random().map_err(|what: Malformed| Error::invalid(what.to_string()))?))
        }
        Operation::CreateOnce(_) | Operation::Follow(_) | Operation::Announce(_) | Operation::Each(_) => {
            unreachable!("the protocol groups only what is independent")
        }
    })
}

async fn list(repo: &Repository, folder: Folder) -> Result<Answer> {
    let folder = match folder {
        Folder::Epochs => layout::EPOCHS.to_owned(),
        Folder::Sessions => layout::domain_folder("sessions"),
        Folder::Beats => layout::domain_folder("beats"),
        Folder::Points => layout::domain_folder("points"),
        Folder::Packs => layout::domain_folder("packs"),
        Folder::Runs => layout::domain_folder("index"),
        Folder::Collections => layout::domain_folder("collections"),
        Folder::Repairs => layout::domain_folder("repairs"),
    };
    let objects = repo.store().list(&folder).await?.into_iter();
    let listed = objects.filter_map(|object| match layout::parse(&object.name) {
        ObjectName::Foreign => None,
        name => Some(Listed { name, bytes: object.size, modified: object.modified }),
    });
    Ok(Answer::Listed(listed.collect()))
}

/// The name and the bytes of an object that is to be created.
fn written(repo: &Repository, object: &Object) -> Result<(String, Bytes)> {
    let in_memory = |what: Malformed| Error::invalid(what.to_string());
    let bytes = match object {
        Object::Epoch(epoch) => checked_json::write(&EpochObject::new(*epoch)),
        Object::Session(session) => session.to_bytes(),
        Object::Tombstone(tombstone) => tombstone.to_bytes(),
        Object::Collection(collection) => collection.to_bytes(repo.keys()),
        Object::Collected(epoch) => objects::collected_to_bytes(*epoch),
        Object::Point(PointRecord { document: Some(document), .. }) => return sealed(repo, document),
        Object::Point(_) | Object::Other(_) => Err(Malformed::new("there is nothing to write")),
    };
    let name = layout::name(&object.name()).ok_or_else(|| Error::invalid("a foreign object is not written"))?;
    Ok((name, Bytes::from(bytes.map_err(in_memory)?)))
}

fn sealed(repo: &Repository, document: &RecoveryPoint) -> Result<(String, Bytes)> {
    Ok((layout::point(&document.id), Bytes::from(repo.seal_point(document)?)))
}

/// Reads an object with what it says.
async fn read(repo: &Repository, name: ObjectName) -> Result<Answer> {
    let Some(text) = layout::name(&name) else { return Ok(Answer::Absent) };
    let limit = match name {
        ObjectName::Point(_) => MAX_POINT_LEN,
        ObjectName::Collection(_) => MAX_COLLECTION_LEN,
        _ => MAX_PLAIN_OBJECT_LEN,
    };
    let bytes = match repo.store().get(&text, limit).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(Answer::Absent),
        Err(error) => return damage(error.into()),
    };
    match understand(repo, name, &bytes).map_err(|error| match error {
        Understood::Malformed(what) => what.in_object(text),
        Understood::Error(error) => error,
    }) {
        Ok(object) => Ok(Answer::Found(object)),
        Err(error) => damage(error),
    }
}

enum Understood {
    Malformed(Malformed),
    Error(Error),
}

impl From<Malformed> for Understood {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

fn understand(repo: &Repository, name: ObjectName, bytes: &[u8]) -> Result<Object, Understood> {
    Ok(match name {
        ObjectName::Session(id) => Object::Session(SessionRecord::from_bytes(bytes, &id)?),
        ObjectName::Point(id) if Tombstone::is_one(bytes) => Object::Tombstone(Tombstone::from_bytes(bytes, &id)?),
        ObjectName::Point(id) => {
            let document = repo.open_point(&id, bytes).map_err(Understood::Error)?;
            Object::Point(record(document))
        }
        ObjectName::Collection(epoch) => Object::Collection(Collection::from_bytes(bytes, epoch, repo.keys())?),
        ObjectName::Collected(epoch) => {
            objects::verify_collected(bytes, epoch)?;
            Object::Collected(epoch)
        }
        ObjectName::Epoch(epoch) => Object::Epoch(epoch),
        other => Object::Other(other),
    })
}

fn record(document: RecoveryPoint) -> PointRecord {
    let (id, sessions) = (document.id.clone(), document.sessions.clone());
    PointRecord { id, sessions, document: Some(Arc::new(document)), packs: Vec::new() }
}

/// Tells damage, which a machine must know of, from trouble with the store, which ends it.
fn damage(error: Error) -> Result<Answer> {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Newer => Ok(Answer::Damaged(error.to_string())),
        _ => Err(error),
    }
}

/// Publishes a recovery point.
pub(crate) async fn publish(repo: &Repository, point: &RecoveryPoint) -> Result<()> {
    let (id, point) = (point.id.clone(), record(point.clone()));
    let machine = Machine::new(move |port| points::publish(port, point));
    match Driver::new(repo, &NoProgress).run(machine).await? {
        Ok(()) => Ok(()),
        Err(NotPublished::Revoked | NotPublished::Forgotten) => Err(Error::Revoked { id }),
        Err(NotPublished::Exists) => Err(Error::PointExists { id }),
        Err(NotPublished::Damaged(what)) => Err(Error::Damaged { object: layout::point(&id), what }),
    }
}

/// A recovery point to be forgotten.
pub(crate) struct ForgetRequest {
    pub(crate) id: PointId,
    pub(crate) now: Timestamp,
}

/// Forgets a recovery point.
pub(crate) async fn forget(repo: &Repository, request: ForgetRequest) -> Result<()> {
    let machine = Machine::new(move |port| points::forget(port, Rules::default(), request.id, request.now));
    Driver::new(repo, &NoProgress).run(machine).await
}
