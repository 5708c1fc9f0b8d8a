//! Blobs for readers that want them at any time: cached, each read once for all that wait, close ones read together.
//!
//! ```text
//! wanted ─► in memory? ─► somebody waits for it already? ─► queue ─► worker: takes what lies close together
//!                                                                      │
//!                                              on the disk, still what it was? ─► else in the store
//! ```
//! While the workers wait for the store, what is asked for meanwhile gathers in the queue, and goes out in fewer, longer requests. What is
//! read ahead comes after what somebody waits for.

use super::disk::DiskCache;
use super::lru::Lru;
use crate::ids::BlobRef;
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use crate::volume::Error;
use crate::{background, fetch, layout, pack};
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::oneshot;

/// How many requests are on their way at once.
const WORKERS: usize = 4;
/// Blobs that may wait for being read ahead; beyond it guesses are dropped.
const MOST_AHEAD: usize = 4096;

type Answer = Result<Bytes, Arc<Error>>;

/// Gives blobs, verified.
#[derive(Debug)]
pub(super) struct Blobs {
    repo: Repository,
    disk: Option<Arc<DiskCache>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: Lru<BlobRef, Bytes>,
    /// All that is in the queue or on its way, and who waits for it.
    wanted: HashMap<BlobRef, Wanted>,
    queue: VecDeque<BlobRef>,
    workers: usize,
}

#[derive(Debug, Default)]
struct Wanted {
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Somebody guessed that it will be wanted.
    ahead: bool,
}

impl Wanted {
    /// Whether somebody still waits for it.
    fn is_waited_for(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_closed())
    }
}

enum Asked {
    Here(Bytes),
    Comes(oneshot::Receiver<Answer>),
}

impl Blobs {
    pub(super) fn new(repo: &Repository, memory: u64, disk: Option<Arc<DiskCache>>) -> Arc<Self> {
        let state = State { cache: Lru::new(memory), wanted: HashMap::new(), queue: VecDeque::new(), workers: 0 };
        Arc::new(Self { repo: repo.clone(), disk, state: Mutex::new(state) })
    }

    /// The plain bytes of blobs, in their order.
    pub(super) async fn get(self: &Arc<Self>, blobs: &[BlobRef]) -> Result<Vec<Bytes>, Error> {
        let asked: Vec<_> = {
            let mut state = self.state();
            blobs.iter().map(|blob| state.ask(blob)).collect()
        };
        self.start_workers();
        let mut found = Vec::with_capacity(blobs.len());
        for asked in asked {
            found.push(match asked {
                Asked::Here(bytes) => bytes,
                Asked::Comes(answer) => answer
                    .await
                    .map_err(|_| crate::Error::Interrupted("the reading of a blob".to_owned()))?
                    .map_err(Error::Shared)?,
            });
        }
        Ok(found)
    }

    /// Has blobs read that may be wanted soon; nobody is told if that fails.
    pub(super) fn ahead(self: &Arc<Self>, blobs: &[BlobRef]) {
        let mut state = self.state();
        blobs.iter().for_each(|blob| state.guess(blob));
        drop(state);
        self.start_workers();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_workers(self: &Arc<Self>) {
        let mut state = self.state();
        let wanted = WORKERS.min(state.workers + state.queue.len());
        for _ in state.workers..wanted {
            state.workers += 1;
            tokio::spawn(Self::work(Arc::downgrade(self)));
        }
    }

    /// Reads what is in the queue, as long as there is somebody who could want it.
    async fn work(blobs: Weak<Self>) {
        while let Some(blobs) = blobs.upgrade() {
            let batch = {
                let mut state = blobs.state();
                match state.take_batch() {
                    Some(batch) => batch,
                    None => {
                        state.workers -= 1;
                        return;
                    }
                }
            };
            blobs.load(batch).await;
        }
    }

    async fn load(self: &Arc<Self>, batch: Vec<BlobRef>) {
        let left = match &self.disk {
            Some(_) => self.load_from_disk(batch).await,
            None => batch,
        };
        for request in fetch::requests(&left) {
            if let Err(error) = self.load_from_store(&request).await {
                let error = Arc::new(error);
                request.iter().for_each(|blob| self.deliver(blob, Err(error.clone())));
            }
        }
    }

    /// Gives what is in the cache on the disk and still what it was; the rest is left.
    async fn load_from_disk(self: &Arc<Self>, batch: Vec<BlobRef>) -> Vec<BlobRef> {
        let (blobs, wanted) = (self.clone(), batch.clone());
        let read = background::run(move || {
            let Some(disk) = &blobs.disk else { return wanted };
            let mut left = Vec::new();
            for blob in wanted {
                match disk.get(&blob).and_then(|sealed| blobs.open_cached(disk, &blob, &sealed)) {
                    Some(plain) => blobs.deliver(&blob, Ok(plain)),
                    None => left.push(blob),
                }
            }
            left
        });
        // What was given already is asked for again then, and nobody waits for it.
        read.await.unwrap_or(batch)
    }

    fn open_cached(&self, disk: &DiskCache, blob: &BlobRef, sealed: &[u8]) -> Option<Bytes> {
        match pack::open_blob(blob, sealed, &self.repo.pack_key(&blob.pack), self.repo.keys()) {
            Ok(plain) => Some(plain.into()),
            Err(_) => {
                disk.drop_damaged(blob);
                None
            }
        }
    }

    /// Reads blobs that lie close together in one pack, and gives each.
    async fn load_from_store(self: &Arc<Self>, request: &[BlobRef]) -> Result<(), Error> {
        let name = layout::pack(&request[0].pack);
        for blob in request {
            pack::check_lengths(blob).map_err(|what| what.in_object(&name))?;
        }
        let start = u64::from(request[0].offset);
        let ends = request.iter().map(|blob| u64::from(blob.offset) + u64::from(blob.stored_len));
        let sealed = match self.repo.store().get_range(&name, start..ends.max().unwrap_or(start)).await {
            Ok(sealed) => sealed,
            // A blob of a pack that is gone may be elsewhere, and of one that is cut off some are still there.
            Err(error) if matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::TooShort) => {
                for blob in request {
                    let read = self.repo.read_blob(blob).await;
                    self.deliver(blob, read.map_err(|error| Arc::new(error.into())));
                }
                return Ok(());
            }
            Err(error) => return Err(crate::Error::from(error).into()),
        };
        let (blobs, request) = (self.clone(), request.to_vec());
        background::run(move || {
            for blob in &request {
                let at = (blob.offset - request[0].offset) as usize;
                // A range that was read has the length that was asked for.
                blobs.open_and_deliver(blob, &sealed[at..at + blob.stored_len as usize], &name);
            }
        })
        .await?;
        Ok(())
    }

    fn open_and_deliver(&self, blob: &BlobRef, sealed: &[u8], name: &str) {
        match pack::open_blob(blob, sealed, &self.repo.pack_key(&blob.pack), self.repo.keys()) {
            Ok(plain) => {
                self.deliver(blob, Ok(plain.into()));
                if let Some(disk) = &self.disk {
                    disk.put(blob, sealed);
                }
            }
            Err(what) => self.deliver(blob, Err(Arc::new(what.in_object(name).into()))),
        }
    }

    fn deliver(&self, blob: &BlobRef, answer: Answer) {
        let mut state = self.state();
        if let Ok(bytes) = &answer {
            state.cache.insert(*blob, bytes.clone(), bytes.len() as u64);
        }
        let wanted = state.wanted.remove(blob).unwrap_or_default();
        drop(state);
        for waiting in wanted.waiting {
            // Who does not wait any more does not miss it.
            let _ = waiting.send(answer.clone());
        }
    }
}

impl State {
    fn ask(&mut self, blob: &BlobRef) -> Asked {
        if let Some(bytes) = self.cache.get(blob) {
            return Asked::Here(bytes);
        }
        let (give, answer) = oneshot::channel();
        self.want(blob).waiting.push(give);
        Asked::Comes(answer)
    }

    fn guess(&mut self, blob: &BlobRef) {
        if !self.cache.contains(blob) && self.queue.len() < MOST_AHEAD {
            self.want(blob).ahead = true;
        }
    }

    fn want(&mut self, blob: &BlobRef) -> &mut Wanted {
        let queue = &mut self.queue;
        self.wanted.entry(*blob).or_insert_with(|| {
            queue.push_back(*blob);
            Wanted::default()
        })
    }

    /// Takes the blob out of the queue that somebody has waited for longest, and with it what lies close to it.
    fn take_batch(&mut self) -> Option<Vec<BlobRef>> {
        let wanted = &mut self.wanted;
        self.queue.retain(|blob| {
            let keep = wanted.get(blob).is_some_and(|wanted| wanted.ahead || wanted.is_waited_for());
            if !keep {
                wanted.remove(blob);
            }
            keep
        });
        let waited_for = |blob: &&BlobRef| self.wanted.get(*blob).is_some_and(Wanted::is_waited_for);
        let first = *self.queue.iter().find(waited_for).or(self.queue.front())?;
        let mut close: Vec<_> = self.queue.iter().filter(|blob| blob.pack == first.pack).copied().collect();
        close.sort_unstable_by_key(|blob| (blob.offset, blob.id));
        let batch = fetch::requests(&close).into_iter().find(|request| request.contains(&first))?;
        let taken: HashSet<_> = batch.iter().collect();
        self.queue.retain(|blob| !taken.contains(blob));
        Some(batch)
    }
}
