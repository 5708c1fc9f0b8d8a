//! The store behind a replica: a volume of a pool, and a small one beside it with what was promised.
//!
//! # In which order things become durable
//!
//! | promise | steps | after a crash behind a step |
//! |---|---|---|
//! | of a higher epoch | 1. a new birth begins in the pool, and all that was answered before becomes durable with it | the old promise; what is written under it has the new birth, which counts as the old epoch, since no entry begins with it |
//! | | 2. the record: the promise, and that the birth begins the epoch | the new promise |
//! | of the same epoch | 1. a flush | the old promise |
//! | | 2. the record | the new promise |
//!
//! What was written before a seal so has a lower birth than what is written after it, and nothing that an earlier attachment wrote can be taken for written
//! after a promise to a later one.
//!
//! Snapshots and growth are one step of the pool each, which is durable when it is answered ([`snapshots`]).
//!
//! (A pool does not touch what is discarded and reads as zeros already: it keeps its birth, and is not told as changed, which it is not.)
//!
//! # What an earlier process has asked for
//!
//! It is done or dropped before the pool is opened again: a pool is locked by the open file that its requests to the kernel use, and the kernel holds that file
//! until the last of them has ended.

mod births;
mod record;
mod snapshots;

use births::Births;
use block::Buffer;
use bytes::Bytes;
use record::{Record, Slots};
use replication::look::{Look, Unseen};
use replication::message::Changed;
use replication::replica::store::{Operation, Outcome, Promise};
use replication::units::{Blocks, Digest, Epoch, ReplicaId, VolumeId};
pub use snapshots::HeldSnapshot;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use volume::{BLOCK, Pool, Since, State};

/// What an operation is answered with: called once, from any thread, with no lock held.
pub type Answered = Box<dyn FnOnce(Outcome) + Send>;

/// What a look is answered with: called once, from any thread, with no lock held.
pub type Seen = Box<dyn FnOnce(Result<Changed, Unseen>) + Send>;

/// What a replica keeps its blocks and its promise in; its properties are those of [`replication::replica::store`].
pub trait Store: Send + Sync + 'static {
    /// What was promised last.
    fn promise(&self) -> Promise;

    /// How many blocks there are.
    fn blocks(&self) -> u64;

    /// Does it, and answers: at once or later.
    fn perform(&self, operation: Operation, answered: Answered);

    /// Tells what a snapshot has: at once or later.
    fn look(&self, look: &Look, seen: Seen);
}

/// Why a store cannot be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool refuses.
    #[error("use the pool of the replica")]
    Pool(#[from] volume::Error),
    /// It is not in the pool.
    #[error("{replica} of volume {volume:x} is not in the pool; it was removed, or is in another one", volume = .volume.0)]
    NotThere {
        /// Whose.
        volume: VolumeId,
        /// Which one.
        replica: ReplicaId,
    },
    /// Its bytes are gone, and it has promised something.
    #[error("{replica} was being removed, and is not made again: a new copy needs a new id")]
    Removed {
        /// Which one.
        replica: ReplicaId,
    },
    /// A later program has written its record.
    #[error(
        "the record of the replica has version {0}, and this program reads version 1; use the program that wrote it, or a later one"
    )]
    Newer(u32),
    /// Its record cannot be.
    #[error("the record of the replica is damaged: {0}; remove the replica, and have a new one built from the others")]
    Damaged(String),
}

/// A replica in a pool.
pub struct PoolStore {
    pool: Arc<Pool<Buffer>>,
    volume: volume::VolumeId,
    blocks: Arc<AtomicU64>,
    kept: Arc<Kept>,
}

/// What was promised, and where that is written. They have two locks, since the first is looked at by every change, and the second is held while the disk is waited
/// for.
#[derive(Debug)]
struct Kept {
    record: Mutex<Record>,
    slots: Mutex<Slots>,
}

const DATA: &str = ".replica-";
const PROMISE: &str = ".promise";

/// Names of the volumes of a replica. Names of users do not begin with a dot.
fn names(volume: VolumeId, replica: ReplicaId) -> (String, String) {
    let data = format!("{DATA}{:032x}-{:016x}", volume.0, replica.0);
    let record = format!("{data}{PROMISE}");
    (data, record)
}

/// Whose a name is: that of one of the two.
fn owner(name: &str) -> Option<(VolumeId, ReplicaId)> {
    let id = name.strip_prefix(DATA)?;
    let (volume, replica) = id.strip_suffix(PROMISE).unwrap_or(id).split_once('-')?;
    let volume = u128::from_str_radix(volume, 16).ok().map(VolumeId)?;
    let replica = u64::from_str_radix(replica, 16).ok().map(ReplicaId)?;
    let (data, record) = names(volume, replica);
    (name == data || name == record).then_some((volume, replica))
}

impl PoolStore {
    /// Makes an empty replica of so many blocks, and opens it. One that is there already, of which nothing was promised, is opened: so this may be called again
    /// after a crash.
    ///
    /// # Errors
    /// The pool refuses, or what is there cannot be used.
    pub fn create(
        pool: &Arc<Pool<Buffer>>,
        volume: VolumeId,
        replica: ReplicaId,
        blocks: u64,
    ) -> Result<Self, StoreError> {
        Self::make(pool, volume, replica, |data| pool.create_volume(data, blocks))
    }

    /// The same with one that begins as a snapshot of another replica in the pool.
    ///
    /// # Errors
    /// The pool refuses, such as when the snapshot is not there, or what is there cannot be used.
    pub fn create_from(
        pool: &Arc<Pool<Buffer>>,
        volume: VolumeId,
        replica: ReplicaId,
        snapshot: volume::SnapshotId,
    ) -> Result<Self, StoreError> {
        Self::make(pool, volume, replica, |data| pool.clone_snapshot(snapshot, data))
    }

    fn make(
        pool: &Arc<Pool<Buffer>>,
        volume: VolumeId,
        replica: ReplicaId,
        make_data: impl FnOnce(&str) -> Result<volume::VolumeId, volume::Error>,
    ) -> Result<Self, StoreError> {
        let (data, record) = names(volume, replica);
        // The record first: without it, nothing of a replica is there.
        if find(pool, &record).is_none() {
            pool.create_volume(&record, record::BLOCKS)?;
        }
        if find(pool, &data).is_none() {
            let id = find(pool, &record).ok_or(StoreError::NotThere { volume, replica })?.id;
            if Slots::open(pool, id)?.1.is_some() {
                return Err(StoreError::Removed { replica });
            }
            make_data(&data)?;
        }
        Self::open(pool, volume, replica)
    }

    /// Opens a replica.
    ///
    /// # Errors
    /// It is not there, or its record is damaged.
    pub fn open(pool: &Arc<Pool<Buffer>>, volume: VolumeId, replica: ReplicaId) -> Result<Self, StoreError> {
        let (data, record) = names(volume, replica);
        let (Some(data), Some(record)) = (find(pool, &data), find(pool, &record)) else {
            return Err(StoreError::NotThere { volume, replica });
        };
        let (slots, kept) = Slots::open(pool, record.id)?;
        let fresh = Record { volume, replica, promise: Promise::default(), births: Births::default() };
        let record = kept.unwrap_or(fresh);
        if (record.volume, record.replica) != (volume, replica) {
            return Err(StoreError::Damaged(format!("it is that of {} of another volume", record.replica)));
        }
        if record.births.last().is_some_and(|last| last > data.epoch) {
            return Err(StoreError::Damaged(
                "the blocks are older than it; the pool was brought back to an earlier state".into(),
            ));
        }
        let kept = Arc::new(Kept { record: Mutex::new(record), slots: Mutex::new(slots) });
        Ok(Self { pool: pool.clone(), volume: data.id, blocks: Arc::new(data.blocks.into()), kept })
    }

    /// The replicas in a pool, also those of which a part alone is there: whose making or removal a crash has interrupted.
    #[must_use]
    pub fn all(pool: &Pool<Buffer>) -> BTreeSet<(VolumeId, ReplicaId)> {
        pool.volumes().iter().filter_map(|volume| owner(&volume.name)).collect()
    }

    /// Removes a replica for good; one that is not there is left so.
    ///
    /// # Errors
    /// The pool refuses.
    pub fn remove(pool: &Pool<Buffer>, volume: VolumeId, replica: ReplicaId) -> Result<(), StoreError> {
        let (data, record) = names(volume, replica);
        // The record last, so that what is left of one that was removed in part cannot be opened.
        for name in [data, record] {
            if let Some(found) = find(pool, &name) {
                // Without the volume, nobody would find them.
                snapshots::remove_all(pool, found.id)?;
                pool.delete(State::Volume(found.id))?;
            }
        }
        Ok(())
    }

    /// The volume of the pool that has its blocks, for snapshots.
    #[must_use]
    pub fn volume(&self) -> volume::VolumeId {
        self.volume
    }

    fn state(&self) -> State {
        State::Volume(self.volume)
    }

    /// Whether this is the epoch that was promised to somebody: what is written has its birth.
    fn check_birth(&self, birth: Epoch) -> Result<(), Outcome> {
        let promised = lock(&self.kept.record).promise;
        if birth == promised.epoch && promised.attachment.is_some() {
            return Ok(());
        }
        let reason = format!("a change of {birth} came while {} is promised; this is a defect", promised.epoch);
        Err(Outcome::Failed { reason })
    }

    fn write(&self, blocks: Blocks, data: &Bytes, answered: Answered) {
        // The one copy on the way: disks without a cache want memory that is aligned, which slices of what was received are not.
        let bytes = Buffer::copy_of(data);
        self.pool.write(self.volume, blocks.start, bytes, false, move |result| answered(done(blocks, result)));
    }

    fn changed(&self, since: Epoch, from: u64, most: u32, answered: Answered) {
        let before = lock(&self.kept.record).births.before(since);
        let size = self.blocks();
        let Some(before) = before.filter(|_| from < size) else {
            return answered(Outcome::Changed(Changed::default()));
        };
        let (blocks, end) = (volume::Blocks { start: from, count: size - from }, size);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.pool.changed(self.state(), Since::Epoch(before), blocks, most, move |result| {
            answered(match result {
                Ok(page) => {
                    let range = |blocks: volume::Blocks| Blocks { start: blocks.start, count: blocks.count };
                    let next = Some(page.next).filter(|next| *next < end);
                    Outcome::Changed(Changed { ranges: page.items.into_iter().map(range).collect(), next })
                }
                Err(error) => failed(Blocks { start: from, count: end - from }, &error),
            });
        });
    }

    /// What is rare and waits for the disk has a thread of its own.
    fn in_thread(
        &self,
        answered: Answered,
        work: impl FnOnce(&Pool<Buffer>, volume::VolumeId) -> Outcome + Send + 'static,
    ) {
        let (pool, volume) = (self.pool.clone(), self.volume);
        let (sender, receiver) = mpsc::channel::<Answered>();
        let spawned = std::thread::Builder::new().name("promise".into()).spawn(move || {
            let outcome = work(&pool, volume);
            if let Ok(answered) = receiver.recv() {
                answered(outcome);
            }
        });
        match spawned {
            // It waits for this.
            Ok(_) => drop(sender.send(answered)),
            Err(error) => answered(Outcome::Failed { reason: format!("no thread can be started: {error}") }),
        }
    }
}

/// The steps that the module's table numbers.
fn promise_durably(
    pool: &Pool<Buffer>,
    volume: volume::VolumeId,
    kept: &Kept,
    promise: Promise,
) -> Result<(), volume::Error> {
    let mut slots = lock(&kept.slots);
    let before = lock(&kept.record).clone();
    let is_higher = promise.epoch > before.promise.epoch;
    let mut record = Record { promise, ..before };
    if is_higher {
        let birth = pool.begin_epoch(volume)?;
        record.births.begin(birth, promise.epoch);
    } else {
        let (sender, receiver) = mpsc::channel();
        pool.flush(move |result| drop(sender.send(result)));
        receiver.recv().unwrap_or(Err(volume::Error::Closed))?;
    }
    slots.write(pool, &record)?;
    *lock(&kept.record) = record;
    Ok(())
}

impl Store for PoolStore {
    fn promise(&self) -> Promise {
        lock(&self.kept.record).promise
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    fn perform(&self, operation: Operation, answered: Answered) {
        match operation {
            Operation::Promise(promise) => {
                let kept = self.kept.clone();
                self.in_thread(answered, move |pool, volume| {
                    let failed = |error: volume::Error| Outcome::Failed { reason: error.to_string() };
                    promise_durably(pool, volume, &kept, promise).map_or_else(failed, |()| Outcome::Done)
                });
            }
            Operation::Snapshot { id, epoch } => self.in_thread(answered, move |pool, volume| {
                snapshots::take(pool, volume, (id, epoch)).map_or_else(|error| refused(&error), |()| Outcome::Done)
            }),
            Operation::Grow { blocks } => {
                let size = self.blocks.clone();
                self.in_thread(answered, move |pool, volume| grow(pool, volume, &size, blocks));
            }
            Operation::Write { blocks, data, birth } => match self.check_birth(birth) {
                Ok(()) => self.write(blocks, &data, answered),
                Err(outcome) => answered(outcome),
            },
            Operation::Discard { blocks, birth } => match self.check_birth(birth) {
                Ok(()) => {
                    let range = volume::Blocks { start: blocks.start, count: blocks.count };
                    self.pool.discard(self.volume, range, false, move |result| answered(done(blocks, result)));
                }
                Err(outcome) => answered(outcome),
            },
            Operation::Read { blocks } => read(&self.pool, self.state(), blocks, move |result| {
                answered(result.map_or_else(|outcome| outcome, |buffer| Outcome::Data(Bytes::from_owner(buffer))));
            }),
            Operation::Flush => {
                let all = Blocks { start: 0, count: self.blocks() };
                self.pool.flush(move |result| answered(done(all, result)));
            }
            Operation::Changed { since, from, most } => self.changed(since, from, most, answered),
            // Hashing takes longer than reading, and whoever brings the bytes brings those of all others, too.
            Operation::Digest { blocks } => self.in_thread(answered, move |pool, volume| {
                let (sender, receiver) = mpsc::channel();
                read(pool, State::Volume(volume), blocks, move |result| drop(sender.send(result)));
                let closed = || Err(failed(blocks, &volume::Error::Closed));
                receiver
                    .recv()
                    .unwrap_or_else(|_| closed())
                    .map_or_else(|outcome| outcome, |buffer| Outcome::Digest(digest(&buffer)))
            }),
        }
    }

    fn look(&self, look: &Look, seen: Seen) {
        snapshots::look(&self.pool, self.volume, look, seen);
    }
}

fn read(
    pool: &Pool<Buffer>,
    of: State,
    blocks: Blocks,
    answered: impl FnOnce(Result<Buffer, Outcome>) + Send + 'static,
) {
    // What is asked for is not longer than the pool allows, or it says so before it is read.
    let len = usize::try_from(blocks.count).unwrap_or(usize::MAX).saturating_mul(BLOCK);
    if len > volume::MOST_REQUEST {
        let error = volume::Error::TooLong { bytes: len, most: volume::MOST_REQUEST };
        return answered(Err(failed(blocks, &error)));
    }
    let into = Buffer::zeroed(len);
    pool.read(of, blocks.start, into, move |result| answered(result.map_err(|e| failed(blocks, &e))));
}

fn grow(pool: &Pool<Buffer>, volume: volume::VolumeId, size: &AtomicU64, blocks: u64) -> Outcome {
    if blocks > size.load(Ordering::Acquire) {
        if let Err(error) = pool.resize(volume, blocks) {
            return refused(&error);
        }
        size.fetch_max(blocks, Ordering::AcqRel);
    }
    Outcome::Done
}

/// What there is no room for is not done, and harms nothing else.
fn refused(error: &volume::Error) -> Outcome {
    use volume::Error as E;
    let reason = error.to_string();
    if matches!(error, E::Full | E::TooMany { .. } | E::BadSize { .. }) {
        Outcome::Refused { reason }
    } else {
        Outcome::Failed { reason }
    }
}

/// The first half of BLAKE3, so that no bytes that anybody chooses are taken for others.
fn digest(bytes: &[u8]) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    Digest(half)
}

fn done(blocks: Blocks, result: Result<(), volume::Error>) -> Outcome {
    result.map_or_else(|error| failed(blocks, &error), |()| Outcome::Done)
}

fn failed(asked: Blocks, error: &volume::Error) -> Outcome {
    use volume::Error as E;
    let reason = error.to_string();
    match error {
        E::Corrupt { block, .. } | E::Unreadable { block, .. } => {
            Outcome::Damaged { blocks: Blocks { start: *block, count: 1 }, reason }
        }
        E::MapLost { blocks, .. } => {
            // Of what is lost, what was asked for.
            let (start, end) = (blocks.start.max(asked.start), blocks.end().min(asked.end()));
            let blocks = if start < end { Blocks { start, count: end - start } } else { asked };
            Outcome::Damaged { blocks, reason }
        }
        _ => Outcome::Failed { reason },
    }
}

fn find(pool: &Pool<Buffer>, name: &str) -> Option<volume::VolumeInfo> {
    pool.volumes().into_iter().find(|volume| volume.name == name)
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced as a whole.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for PoolStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = lock(&self.kept.record);
        write!(f, "PoolStore({} of volume {:x}, {} blocks)", record.replica, record.volume.0, self.blocks())
    }
}

#[cfg(test)]
mod tests;
