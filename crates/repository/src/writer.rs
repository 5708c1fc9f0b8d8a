//! A writing session: blobs in, packs out.
//!
//! A blob is hashed and compressed on a blocking thread, appended to the open pack, and can be referred to at once. A full pack
//! is uploaded in the background. What a crash leaves after each step is harmless, because nothing refers to it yet:
//! 0. the session has its object: a collector waits for it, and takes it for dead after a while;
//! 1. a pack is stored: a pack that no recovery point needs;
//! 2. an index run of stored packs is stored: the same, and the blobs can be found;
//! 3. [`Writer::finish`] returns: only now may a recovery point be published.

use crate::background;
use crate::collector::{Heart, Session as Begun};
use crate::error::{Error, Result};
use crate::ids::{BlobId, BlobRef, PackId, PointId, SessionId};
use crate::index::{self, MAX_RUN_ENTRIES};
use crate::layout::{self, RunId};
use crate::pack::{BlobKind, Buffers, Entry, FinishedPack, MAX_BLOB_LEN, PackBuilder, encode_blob};
use crate::point::RecoveryPoint;
use crate::repository::Repository;
use crate::seen::SeenBlobs;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// How many packs there are in memory at once, 32 MiB each: while one is uploaded, the next is filled. When that is full too, writing waits.
const PACKS: usize = 2;

/// A pack, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackInfo {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a session stored; all of it is durable.
#[derive(Debug, Clone)]
pub struct WrittenPacks {
    /// The session; the recovery point that needs the packs must name it.
    pub session: SessionId,
    /// Keeps the session from being taken for dead, until the recovery point is published.
    pub heart: Heart,
    /// The packs, in the order they were begun.
    pub packs: Vec<PackInfo>,
    /// What went in and what came out.
    pub stats: WriterStats,
}

/// What went into a session and what came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Blobs that were put.
    pub blobs: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// Blobs among them that were not known.
    pub new_blobs: u64,
    /// The plain bytes of these.
    pub new_bytes: u64,
    /// Bytes that these take in packs, compressed and sealed.
    pub stored_bytes: u64,
}

/// A writing session; clones belong to the same session.
///
/// A session that is dropped before it is finished leaves packs that nothing refers to.
#[derive(Debug, Clone)]
pub struct Writer {
    session: Arc<Session>,
}

#[derive(Debug)]
struct Session {
    repo: Repository,
    begun: Begun,
    /// One permit per core, so that blobs in work are bounded.
    workers: Semaphore,
    /// One permit for each pack in memory.
    packs: Arc<Semaphore>,
    buffers: Buffers,
    seen: Arc<Mutex<SeenBlobs>>,
    open: tokio::sync::Mutex<Open>,
    stored: Arc<Mutex<Stored>>,
}

/// What only one task at a time may work on.
#[derive(Debug, Default)]
struct Open {
    pack: Option<OpenPack>,
    next_sequence: u32,
    tasks: JoinSet<()>,
    stats: WriterStats,
    finished: bool,
}

/// A pack that is being filled or uploaded, and the leave to have it in memory.
#[derive(Debug)]
struct OpenPack {
    builder: PackBuilder,
    _permit: OwnedSemaphorePermit,
}

/// What the uploads have achieved.
#[derive(Debug, Default)]
struct Stored {
    packs: Vec<PackInfo>,
    /// Of packs that are stored, and of no run yet.
    entries: Vec<Entry>,
    next_run: u32,
    failure: Option<Error>,
}

/// A blob that is hashed and compressed, on its way into a pack.
#[derive(Debug)]
pub(crate) struct PreparedBlob {
    plain_len: u32,
    state: Prepared,
}

#[derive(Debug)]
enum Prepared {
    Known(BlobRef),
    New { id: BlobId, encoded: Vec<u8> },
}

impl Repository {
    /// Begins a writing session for a recovery point, which must not exist and must not have been revoked.
    ///
    /// Several sessions may work for one point, also at once and on several machines; it names them all when it is published.
    pub async fn writer(&self, point: &PointId) -> Result<Writer> {
        self.writer_of(point, false).await
    }

    /// The same, where this process alone works for the point, and publishes it. So a collector need not wait for it once it has ended.
    pub async fn lone_writer(&self, point: &PointId) -> Result<Writer> {
        self.writer_of(point, true).await
    }

    async fn writer_of(&self, point: &PointId, alone: bool) -> Result<Writer> {
        let begun = Begun::begin(self, point, alone).await?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let session = Session {
            repo: self.clone(),
            begun,
            workers: Semaphore::new(cores),
            packs: Arc::new(Semaphore::new(PACKS)),
            buffers: Buffers::default(),
            seen: Arc::default(),
            open: tokio::sync::Mutex::default(),
            stored: Arc::default(),
        };
        Ok(Writer { session: Arc::new(session) })
    }
}

impl Writer {
    /// The repository that is written to.
    pub fn repository(&self) -> &Repository {
        &self.session.repo
    }

    /// The session, which the recovery point must name.
    pub fn session(&self) -> SessionId {
        self.session.begun.id()
    }

    /// Reads a recovery point, if it counts and this session may take over from it what it refers to; else there is none.
    ///
    /// While a collection is under way, points that were published after it had begun are no parents (see [`crate::collector`]). What a
    /// session refers to must be its own, or come from a point that it got here.
    pub async fn parent(&self, id: &PointId) -> Result<Option<RecoveryPoint>> {
        self.session.begun.parent(&self.session.repo, id).await
    }

    /// Stores a blob of at most [`MAX_BLOB_LEN`] bytes, unless the session has it; gives where it is.
    pub async fn put_blob(&self, kind: BlobKind, plain: Bytes) -> Result<BlobRef> {
        self.put_blob_unless(kind, plain, |_| None).await
    }

    /// Stores a blob unless `known` says where it is already, such as in the parent of what is being backed up.
    pub async fn put_blob_unless<F>(&self, kind: BlobKind, plain: Bytes, known: F) -> Result<BlobRef>
    where
        F: FnOnce(&BlobId) -> Option<BlobRef> + Send + 'static,
    {
        let writer = self.clone();
        let prepared = self.work(move || Ok(vec![writer.prepare(&plain, known)?])).await?;
        let blobs = self.append(kind, prepared).await?;
        Ok(blobs[0])
    }

    /// Does work that takes a core, on a thread where it may, and not more of it at once than there are cores.
    pub(crate) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let closed = |error| Error::Interrupted(format!("{error}"));
        let _worker = self.session.workers.acquire().await.map_err(closed)?;
        background::run(work).await?
    }

    /// Hashes a blob of at most [`MAX_BLOB_LEN`] bytes, and compresses it if it is not known; takes its time.
    pub(crate) fn prepare(&self, plain: &[u8], known: impl FnOnce(&BlobId) -> Option<BlobRef>) -> Result<PreparedBlob> {
        let plain_len = u32::try_from(plain.len())
            .ok()
            .filter(|len| *len as usize <= MAX_BLOB_LEN)
            .ok_or_else(|| Error::invalid(format!("a blob of {} bytes is longer than {MAX_BLOB_LEN}", plain.len())))?;
        let id = self.session.repo.keys().identify(plain);
        let blob = known(&id).or_else(|| lock(&self.session.seen).get(&id));
        let state = blob.map_or_else(|| Prepared::New { id, encoded: encode_blob(plain) }, Prepared::Known);
        Ok(PreparedBlob { plain_len, state })
    }

    /// Puts blobs into packs, next to each other where that is possible; gives where they are.
    pub(crate) async fn append(&self, kind: BlobKind, blobs: Vec<PreparedBlob>) -> Result<Vec<BlobRef>> {
        let mut open = self.session.open.lock().await;
        let mut placed = Vec::with_capacity(blobs.len());
        for blob in blobs {
            placed.push(self.session.append(&mut open, kind, blob).await?);
        }
        Ok(placed)
    }

    /// Lets the runs of this session also say where blobs of other sessions are, whose own runs are lost.
    pub(crate) async fn name(&self, entries: Vec<Entry>) -> Result<()> {
        let session = &self.session;
        let run = {
            let mut stored = lock(&session.stored);
            stored.entries.extend(entries);
            stored.take_run(session.begun.id(), MAX_RUN_ENTRIES)
        };
        match run {
            Some((id, entries)) => store_run(&session.repo, id, entries).await,
            None => Ok(()),
        }
    }

    /// What went in and what came out so far.
    pub async fn stats(&self) -> WriterStats {
        self.session.open.lock().await.stats
    }

    /// Stores what is left, then the index, and returns when all of it is durable.
    ///
    /// Nothing can be written afterwards, by no clone of the session.
    pub async fn finish(self) -> Result<WrittenPacks> {
        let session = &self.session;
        let mut open = session.open.lock().await;
        session.check_usable(&open)?;
        open.finished = true;
        session.upload_open_pack(&mut open)?;
        while let Some(ended) = open.tasks.join_next().await {
            ended.map_err(|error| Error::Interrupted(error.to_string()))?;
        }
        let run = {
            let mut stored = lock(&session.stored);
            if let Some(failure) = &stored.failure {
                return Err(failure.clone());
            }
            stored.take_run(session.begun.id(), 1)
        };
        if let Some((id, entries)) = run {
            store_run(&session.repo, id, entries).await?;
        }
        session.buffers.clear();
        let mut packs = std::mem::take(&mut lock(&session.stored).packs);
        packs.sort_unstable();
        Ok(WrittenPacks { session: session.begun.id(), heart: session.begun.heart(), packs, stats: open.stats })
    }
}

impl Session {
    fn check_usable(&self, open: &Open) -> Result<()> {
        if let Some(failure) = &lock(&self.stored).failure {
            return Err(Error::SessionOver { cause: Some(Arc::new(failure.clone())) });
        }
        if open.finished { Err(Error::SessionOver { cause: None }) } else { Ok(()) }
    }

    async fn append(&self, open: &mut Open, kind: BlobKind, blob: PreparedBlob) -> Result<BlobRef> {
        self.check_usable(open)?;
        let plain_len = blob.plain_len;
        open.stats.blobs += 1;
        open.stats.bytes += u64::from(plain_len);
        let (id, encoded) = match blob.state {
            Prepared::Known(blob) => return Ok(blob),
            Prepared::New { id, encoded } => (id, encoded),
        };
        // Another task may have stored the same blob since we looked.
        if let Some(blob) = lock(&self.seen).get(&id) {
            return Ok(blob);
        }
        if open.pack.as_ref().is_some_and(|pack| !pack.builder.has_room(encoded.len())) {
            self.upload_open_pack(open)?;
        }
        let Open { pack, next_sequence, stats, .. } = open;
        let pack = match pack {
            Some(pack) => pack,
            None => pack.insert(self.new_pack(next_sequence).await?),
        };
        let blob = pack.builder.append(id, kind, &encoded, plain_len as usize);
        lock(&self.seen).insert(blob);
        stats.new_blobs += 1;
        stats.new_bytes += u64::from(plain_len);
        stats.stored_bytes += u64::from(blob.stored_len);
        Ok(blob)
    }

    /// Begins a pack as soon as there may be one more; until then nobody else writes either.
    async fn new_pack(&self, next_sequence: &mut u32) -> Result<OpenPack> {
        let closed = |error| Error::Interrupted(format!("{error}"));
        let _permit = Arc::clone(&self.packs).acquire_owned().await.map_err(closed)?;
        let SessionId { epoch, writer } = self.begun.id();
        let id = PackId { epoch, writer, sequence: *next_sequence };
        let next = next_sequence.checked_add(1);
        *next_sequence = next.ok_or_else(|| Error::invalid("a session has no more than 4 Gi packs"))?;
        let builder = PackBuilder::new(id, self.repo.pack_key(&id), &self.buffers);
        Ok(OpenPack { builder, _permit })
    }

    /// Uploads the open pack in the background.
    fn upload_open_pack(&self, open: &mut Open) -> Result<()> {
        while let Some(ended) = open.tasks.try_join_next() {
            ended.map_err(|error| Error::Interrupted(error.to_string()))?;
        }
        if let Some(pack) = open.pack.take() {
            let (repo, stored) = (self.repo.clone(), Arc::clone(&self.stored));
            open.tasks.spawn(upload(repo, pack, stored, self.begun.id()));
        }
        Ok(())
    }
}

/// Stores a pack, and an index run when enough entries have come together.
async fn upload(repo: Repository, pack: OpenPack, stored: Arc<Mutex<Stored>>, session: SessionId) {
    let OpenPack { builder, _permit } = pack;
    let result = async {
        let FinishedPack { id, bytes, entries } = background::run(|| builder.finish()).await?;
        let info = PackInfo { id, bytes: bytes.len() as u64 };
        repo.store().put_new(&layout::pack(&id), bytes).await?;
        let run = {
            let mut stored = lock(&stored);
            stored.packs.push(info);
            stored.entries.extend(entries);
            stored.take_run(session, MAX_RUN_ENTRIES)
        };
        match run {
            Some((id, entries)) => store_run(&repo, id, entries).await,
            None => Ok(()),
        }
    };
    if let Err(error) = result.await {
        // The first failure is the one that explains the others.
        lock(&stored).failure.get_or_insert(error);
    }
}

impl Stored {
    /// Takes the entries for the next run if there are at least `enough`.
    fn take_run(&mut self, SessionId { epoch, writer }: SessionId, enough: usize) -> Option<(RunId, Vec<Entry>)> {
        if self.entries.len() < enough {
            return None;
        }
        let id = RunId { epoch, writer, sequence: self.next_run };
        self.next_run += 1;
        Some((id, std::mem::take(&mut self.entries)))
    }
}

async fn store_run(repo: &Repository, id: RunId, entries: Vec<Entry>) -> Result<()> {
    let key = repo.keys().run(&id);
    let bytes = background::run(move || index::encode(&id, entries, &key)).await?;
    Ok(repo.store().put_new(&layout::run(&id), bytes).await?)
}

/// Locks even after a panic elsewhere: what is kept under these locks is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
