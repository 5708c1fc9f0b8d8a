//! An open pool: the engine with a disk and threads.
//!
//! Requests come from any thread. The engine is locked only while it looks things up in memory; checksums are computed and the disk is used
//! outside of the lock. On a disk that is memory the thread that asks does it all and is answered before its call returns; on others
//! [`Options::workers`] threads wait for the disk, and one of them answers.

mod queue;
mod requests;

pub use requests::{Since, State};

use crate::disk::Disk;
use crate::engine::{self, Admin, Done, Engine, Io, IoId, Notice, Output, Request, Shape, Shipped};
use crate::error::{Error, OpenError};
use crate::format::catalog::Kind;
use crate::memory::{Buffer, Memory};
use crate::units::{BLOCK, Epoch, SnapshotId, VolumeId};
use queue::Queue;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The fewest bytes of map nodes that [`Options::cache_bytes`] may keep: 1 MiB, so that the ways to some dozens of blocks that are looked up at
/// once are in memory together.
pub const LEAST_CACHE: usize = 1 << 20;

/// How a pool is used while it is open.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of map nodes that are kept in memory; what has changed since the last checkpoint, and two bits for each block of the pool
    /// that has ever been used, come on top. At least [`LEAST_CACHE`].
    pub cache_bytes: usize,
    /// Threads that wait for the disk, at least one. On a disk in memory one of them makes checkpoints and the others are idle.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, workers: 16 }
    }
}

/// Who learns what whoever runs the pool should know. It is called without any lock, from any thread, and must not wait for the pool.
pub type Listener = Box<dyn Fn(Notice) + Send + Sync>;

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size.
    pub blocks: u64,
    /// What it was cloned from.
    pub origin: Option<SnapshotId>,
    /// What is written to it now is born in this epoch.
    pub epoch: Epoch,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// Its size.
    pub blocks: u64,
    /// The volume that it was taken of, which may be gone.
    pub volume: VolumeId,
    /// The last epoch that is in it.
    pub epoch: Epoch,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Blocks that data and maps can have.
    pub blocks: u64,
    /// Blocks that are free, those included that are kept for checkpoints.
    pub free: u64,
    /// Nodes of maps in memory.
    pub cached_nodes: usize,
    /// Checkpoints since the pool was made.
    pub checkpoint: u64,
}

/// An open pool.
pub struct Pool<M: Memory = Buffer> {
    shared: Arc<Shared<M>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<M: Memory> {
    engine: Mutex<Engine<Shipped<M>>>,
    disk: Arc<dyn Disk>,
    is_inline: bool,
    queue: Queue<Job<M>>,
    /// A piece of work is queued already.
    is_working: AtomicBool,
    listener: Listener,
}

enum Job<M> {
    Io(IoId, Io<M>),
    Work,
}

/// Makes an empty pool of all of a disk.
///
/// # Errors
///
/// If there is one already, or the disk is too small.
pub fn create(disk: &dyn Disk, shape: Shape) -> Result<(), OpenError> {
    engine::create(disk, shape)
}

impl<M: Memory> Pool<M> {
    /// Opens a pool, and brings it up to its log.
    ///
    /// # Errors
    ///
    /// If it is not one, is of a later version, or what is needed is damaged; if the options cannot be.
    pub fn open(disk: Arc<dyn Disk>, options: Options, listener: Listener) -> Result<Self, OpenError> {
        if options.cache_bytes < LEAST_CACHE || options.workers == 0 {
            let Options { cache_bytes, workers } = options;
            return Err(OpenError::Unfit(format!(
                "a cache of {cache_bytes} bytes and {workers} threads are too little for a pool: {LEAST_CACHE} and 1 are the least"
            )));
        }
        let engine = engine::open::<Shipped<M>>(&*disk, options.cache_bytes / BLOCK)?;
        let shared = Arc::new(Shared {
            engine: Mutex::new(engine),
            is_inline: disk.is_in_memory(),
            disk,
            queue: Queue::default(),
            is_working: AtomicBool::new(false),
            listener,
        });
        let worker = |i| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("pool-{i}")).spawn(move || shared.serve())
        };
        let workers: Result<Vec<_>, _> = (0..options.workers).map(worker).collect();
        let workers = workers.map_err(OpenError::disk("start the threads of the pool"))?;
        // Deletions go on that were begun in an earlier opening.
        shared.queue_work();
        Ok(Self { shared, workers })
    }

    /// All volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let engine = self.shared.lock();
        let states = engine.states().filter(|record| record.kind == Kind::Volume);
        let mut infos: Vec<_> = states
            .map(|record| VolumeInfo {
                id: VolumeId(record.id.0),
                name: record.name.clone(),
                blocks: record.blocks,
                origin: record.origin,
                epoch: record.epoch,
            })
            .collect();
        infos.sort_unstable_by_key(|info| info.id);
        infos
    }

    /// All snapshots.
    #[must_use]
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        let engine = self.shared.lock();
        let states = engine.states().filter(|record| record.kind == Kind::Snapshot);
        let mut infos: Vec<_> = states
            .map(|record| SnapshotInfo {
                id: SnapshotId(record.id.0),
                name: record.name.clone(),
                blocks: record.blocks,
                volume: record.line,
                epoch: record.epoch,
            })
            .collect();
        infos.sort_unstable_by_key(|info| info.id);
        infos
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.lock().usage()
    }

    /// Makes a last checkpoint, so that the next opening has nothing to bring up, and ends.
    ///
    /// # Errors
    ///
    /// If the checkpoint fails; nothing that was flushed is lost then.
    pub fn close(self) -> Result<(), Error> {
        self.wait(Request::Admin(Admin::Checkpoint { clean: true })).map(|_| ())
    }
}

impl<M: Memory> Drop for Pool<M> {
    /// Ends at once: for what was flushed and what was not it is as if the power went.
    fn drop(&mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            // A worker that has panicked has said so already.
            drop(worker.join());
        }
    }
}

impl<M: Memory> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Engine<Shipped<M>>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, request: Request<M>, done: engine::Callback<M>) {
        if self.engine.is_poisoned() {
            // Nobody knows what the engine was doing when it panicked.
            return done(Err(Error::Failed { reason: "a thread of it has panicked, which is a defect".into() }));
        }
        let out = self.lock().submit(request, done);
        self.carry_out(out);
    }

    /// Does what the engine wants, and what it wants then: all of it here, or what takes long in other threads.
    fn carry_out(&self, out: Output<Shipped<M>>) {
        let mut here = VecDeque::new();
        self.hand_out(out, &mut here);
        while let Some((id, io)) = here.pop_front() {
            self.perform(id, io, &mut here);
        }
    }

    fn perform(&self, id: IoId, io: Io<M>, here: &mut VecDeque<(IoId, Io<M>)>) {
        let done: Done<M> = io.perform(&*self.disk);
        if self.engine.is_poisoned() {
            return;
        }
        let out = self.lock().finished(id, done);
        self.hand_out(out, here);
    }

    fn hand_out(&self, out: Output<Shipped<M>>, here: &mut VecDeque<(IoId, Io<M>)>) {
        for (id, io) in out.ios {
            if self.is_inline && !io.is_large() {
                here.push_back((id, io));
            } else {
                self.queue.push(Job::Io(id, io));
            }
        }
        if out.more {
            self.queue_work();
        }
        out.notices.into_iter().for_each(|notice| (self.listener)(notice));
        for (done, result) in out.answers {
            done(result);
        }
    }

    fn queue_work(&self) {
        if !self.is_working.swap(true, Ordering::AcqRel) {
            self.queue.push(Job::Work);
        }
    }

    /// What a worker does until the pool ends.
    fn serve(&self) {
        while let Some(job) = self.queue.pop() {
            match job {
                Job::Io(id, io) => {
                    let mut here = VecDeque::new();
                    self.perform(id, io, &mut here);
                    while let Some((id, io)) = here.pop_front() {
                        self.perform(id, io, &mut here);
                    }
                }
                Job::Work => {
                    self.is_working.store(false, Ordering::Release);
                    if self.engine.is_poisoned() {
                        continue;
                    }
                    let out = self.lock().work();
                    self.carry_out(out);
                }
            }
        }
    }
}
