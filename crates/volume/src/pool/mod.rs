//! An open pool: the engine with a disk and threads.
//!
//! Requests come from any thread. The engine is locked only while it looks things up in memory; checksums are computed and the disk is used
//! outside of the lock. On a disk that is memory the thread that asks does it all and is answered before its call returns; on others
//! one thread asks the kernel by io_uring, or [`Options::workers`] threads wait for the disk, and one of them answers.

mod clock;
mod queue;
mod replies;
mod requests;
mod ring;
#[cfg(test)]
mod tests;

pub use requests::{Since, State};

use crate::disk::Disk;
use crate::engine::{self, Admin, Answer, Counts, Engine, Io, IoId, Notice, Output, Request, Shape, Shipped};
use crate::error::{Error, OpenError};
use crate::format::catalog::Kind;
use crate::memory::{Buffer, Memory};
use crate::units::{BLOCK, Epoch, SnapshotId, VolumeId};
use clock::Clock;
use queue::Queue;
use replies::{Callback, Replies};
use ring::Inbox;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// The fewest bytes of map nodes that [`Options::cache_bytes`] may keep: 1 MiB, so that the ways to some dozens of blocks that are looked up at
/// once are in memory together.
pub const LEAST_CACHE: usize = 1 << 20;

/// How a pool is used while it is open.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of map nodes in memory, of all kinds together: what has changed since the last checkpoint and what the next one is writing take the place of
    /// others, each a quarter at most. Two bits for each block of the pool that has ever been used come on top, which are 64 MiB for each TiB. At
    /// least [`LEAST_CACHE`].
    pub cache_bytes: usize,
    /// Threads that wait for the disk, at least one. On a disk in memory one of them makes checkpoints and the others are idle; with io_uring, they do
    /// what that has left.
    pub workers: usize,
    /// How a disk is asked that is no memory.
    pub access: Access,
    /// Whether the thread that asks may wait for the disk until its request is done, while no other is under way.
    pub may_wait: fn() -> bool,
}

/// How a disk is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Through io_uring if the kernel lets us, else by threads.
    #[default]
    Best,
    /// Through io_uring, or the pool is not opened.
    Ring,
    /// By threads that wait.
    Threads,
}

/// How the disk of an open pool is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// By whoever asks the pool, since it is memory.
    Inline,
    /// Through io_uring.
    Ring,
    /// By threads that wait, and why not through io_uring.
    Threads(String),
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline => f.write_str("memory, by the threads that ask"),
            Self::Ring => f.write_str("through io_uring"),
            Self::Threads(why) => write!(f, "by threads that wait, not through io_uring: {why}"),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 40 << 20, workers: 16, access: Access::Best, may_wait: || false }
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
    /// What that volume was cloned from.
    pub origin: Option<SnapshotId>,
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
    /// Checkpoints since the pool was made.
    pub checkpoint: u64,
}

/// An open pool.
pub struct Pool<M: Memory = Buffer> {
    shared: Arc<Shared<M>>,
    workers: Vec<JoinHandle<()>>,
    reached: Reached,
}

struct Shared<M: Memory> {
    owner: Mutex<Owner<M>>,
    disk: Arc<dyn Disk>,
    is_inline: bool,
    may_wait: fn() -> bool,
    /// Where requests to the disk go, if not to the workers.
    inbox: OnceLock<Arc<Inbox<M>>>,
    queue: Queue<Job<M>>,
    clock: Clock,
    /// A piece of work is queued already.
    is_working: AtomicBool,
    listener: Listener,
}

/// The engine, and those who wait for its answers.
struct Owner<M: Memory> {
    engine: Engine<Shipped<M>>,
    replies: Replies<M>,
    /// Something has panicked: nobody knows what the engine holds, and it is asked nothing more.
    broken: Option<Error>,
}

enum Job<M> {
    Io(IoId, Io<M>),
    Work,
}

/// Requests to the disk that whoever was told of them does by himself.
struct Here<M> {
    ios: VecDeque<(IoId, Io<M>)>,
    who: Who,
}

/// Who is told what is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Somebody who must not wait.
    Hasty,
    /// Somebody who asks, and may wait while nothing else is under way.
    Patient,
    /// A worker. He goes on with what follows from what he has done: waking another for it would take as long as a fast disk.
    Worker,
}

impl<M> Here<M> {
    fn new(who: Who) -> Self {
        Self { ios: VecDeque::new(), who }
    }
}

/// Makes an empty pool of all of a disk.
///
/// # Errors
///
/// If there is one already, or the disk is too small.
pub fn create(disk: &dyn Disk, shape: Shape) -> Result<(), OpenError> {
    engine::create::<Shipped<Buffer>>(disk, shape)
}

/// Looks whether there is a pool, of a version that is understood here, and all of it. Nothing is written, and no more is read than its superblocks.
///
/// # Errors
///
/// If not.
pub fn look(disk: &dyn Disk) -> Result<(), OpenError> {
    engine::look(disk)
}

impl<M: Memory> Pool<M> {
    /// Opens a pool, and brings it up to its log.
    ///
    /// # Errors
    ///
    /// If it is not one, is of a later version, or what is needed is damaged; if the options cannot be.
    pub fn open(disk: Arc<dyn Disk>, options: Options, listener: Listener) -> Result<Self, OpenError> {
        if options.cache_bytes < LEAST_CACHE || options.workers == 0 {
            let Options { cache_bytes, workers, .. } = options;
            return Err(OpenError::Unfit(format!(
                "a cache of {cache_bytes} bytes and {workers} threads are too little for a pool: {LEAST_CACHE} and 1 are the least"
            )));
        }
        let mut engine = engine::open::<Shipped<M>>(&*disk, options.cache_bytes / BLOCK)?;
        if disk.is_in_memory() {
            engine.be_hasty();
        }
        let lingers = engine.may_linger();
        let shared = Shared::new(engine, disk, options.may_wait, listener);
        let spawn = |name, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name).spawn(work);
        let mut pool = Self::start(shared, (options.workers, lingers), spawn)?;
        pool.reach(options.access)?;
        // Deletions go on that were begun in an earlier opening.
        pool.shared.queue_work();
        Ok(pool)
    }

    /// Decides how the disk is asked.
    fn reach(&mut self, access: Access) -> Result<(), OpenError> {
        if self.shared.is_inline {
            return Ok(());
        }
        let started = match access {
            Access::Threads => Err(io::Error::other("it was not wanted")),
            Access::Best | Access::Ring => ring::start(&self.shared),
        };
        match started {
            Ok((inbox, thread)) => {
                self.workers.push(thread);
                self.reached = Reached::Ring;
                // Nothing was asked before.
                let _was_empty = self.shared.inbox.set(inbox);
                Ok(())
            }
            Err(error) if access == Access::Ring => {
                Err(OpenError::Unfit(format!("io_uring is wanted, and cannot be used here: {error}")))
            }
            Err(error) => {
                self.reached = Reached::Threads(error.to_string());
                Ok(())
            }
        }
    }

    /// How its disk is asked.
    #[must_use]
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Starts the threads. If one of them cannot be, those that could end, so that nothing of the pool is left.
    fn start(
        shared: Arc<Shared<M>>,
        (workers, lingers): (usize, bool),
        mut spawn: impl FnMut(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self, OpenError> {
        let mut pool = Self { shared, workers: Vec::new(), reached: Reached::Inline };
        for i in 0..workers {
            let shared = Arc::clone(&pool.shared);
            let worker = spawn(format!("pool-{i}"), Box::new(move || shared.serve()));
            pool.workers.push(worker.map_err(OpenError::disk("start the threads of the pool"))?);
        }
        if lingers {
            let shared = Arc::clone(&pool.shared);
            let clock = spawn("pool-clock".into(), Box::new(move || shared.hurry()));
            pool.workers.push(clock.map_err(OpenError::disk("start the clock of the pool"))?);
        }
        Ok(pool)
    }

    /// What tells it from every other: what its shape said when it was made.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.shared.lock().engine.pool_id()
    }

    /// All volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let owner = self.shared.lock();
        let states = owner.engine.states().filter(|record| record.kind == Kind::Volume);
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
        let owner = self.shared.lock();
        let states = owner.engine.states().filter(|record| record.kind == Kind::Snapshot);
        let mut infos: Vec<_> = states
            .map(|record| SnapshotInfo {
                id: SnapshotId(record.id.0),
                name: record.name.clone(),
                blocks: record.blocks,
                volume: record.line,
                origin: record.origin,
                epoch: record.epoch,
            })
            .collect();
        infos.sort_unstable_by_key(|info| info.id);
        infos
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.lock().engine.usage()
    }

    /// What it has done since it was opened, and what it holds and has waiting.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let owner = self.shared.lock();
        Counts { waiting: owner.replies.waiting(), ..owner.engine.counts() }
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
    /// Ends at once: for what was flushed and what was not it is as if the power went. Who waits still is told that the pool is closed.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.clock.close();
        if let Some(inbox) = self.shared.inbox.get() {
            inbox.close();
        }
        // The last to have the pool may be a callback, in a thread of it: that one ends by itself.
        let me = std::thread::current().id();
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != me) {
            // A worker that has panicked has said so already.
            drop(worker.join());
        }
        let waiting = self.shared.lock().replies.take_all();
        waiting.into_iter().for_each(|done| reply(done, Err(Error::Closed)));
    }
}

/// Calls a callback. One that panics has said so, and keeps nobody else from being called.
fn reply<M: Memory>(done: Callback<M>, result: Result<Answer<M>, Error>) {
    drop(catch_unwind(AssertUnwindSafe(|| done(result))));
}

impl<M: Memory> Shared<M> {
    fn new(engine: Engine<Shipped<M>>, disk: Arc<dyn Disk>, may_wait: fn() -> bool, listener: Listener) -> Arc<Self> {
        Arc::new(Self {
            owner: Mutex::new(Owner { engine, replies: Replies::default(), broken: None }),
            is_inline: disk.is_in_memory(),
            disk,
            may_wait,
            inbox: OnceLock::new(),
            queue: Queue::default(),
            clock: Clock::default(),
            is_working: AtomicBool::new(false),
            listener,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Owner<M>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, request: Request<M>, done: Callback<M>) {
        let mut here = Here::new(if (self.may_wait)() { Who::Patient } else { Who::Hasty });
        let mut owner = self.lock();
        if let Some(error) = owner.broken.clone() {
            drop(owner);
            return reply(done, Err(error));
        }
        let tag = owner.replies.keep(done);
        self.tell(owner, |engine| engine.submit(request, tag), &mut here);
        self.perform_all(here);
    }

    /// Tells the engine something, and passes on what it says. If it panics, everybody who waits is told.
    fn tell(
        &self,
        mut owner: MutexGuard<'_, Owner<M>>,
        what: impl FnOnce(&mut Engine<Shipped<M>>) -> Output<Shipped<M>>,
        here: &mut Here<M>,
    ) {
        if owner.broken.is_some() {
            return;
        }
        let Ok(out) = catch_unwind(AssertUnwindSafe(|| what(&mut owner.engine))) else {
            return self.break_down(owner);
        };
        let answers: Vec<_> =
            out.answers.into_iter().filter_map(|(tag, result)| Some((owner.replies.take(tag)?, result))).collect();
        let is_only = owner.engine.under_way() == 1;
        drop(owner);
        out.ios.into_iter().for_each(|(id, io)| self.pass_on(id, io, is_only, here));
        if out.more {
            self.queue_work();
        }
        if let Some(batch) = out.lingers {
            self.clock.set(batch);
        }
        out.notices.into_iter().for_each(|notice| self.notify(notice));
        answers.into_iter().for_each(|(done, result)| reply(done, result));
    }

    /// Gives a request to the disk to whoever is to do it.
    fn pass_on(&self, id: IoId, io: Io<M>, is_only: bool, here: &mut Here<M>) {
        let inbox = self.inbox.get();
        let stays = match here.who {
            _ if self.is_inline => !io.is_large(),
            Who::Patient => is_only && !io.is_large(),
            Who::Worker => inbox.is_none() && here.ios.is_empty(),
            Who::Hasty => false,
        };
        match inbox {
            _ if stays => here.ios.push_back((id, io)),
            Some(inbox) => inbox.push(id, io),
            None => self.queue.push(Job::Io(id, io)),
        }
    }

    /// Something has panicked, with the engine or on its behalf: what it waits for may never come.
    fn break_down(&self, mut owner: MutexGuard<'_, Owner<M>>) {
        let error = Error::Failed { reason: "a thread of it has panicked, which is a defect".into() };
        let is_first = owner.broken.replace(error.clone()).is_none();
        let waiting = owner.replies.take_all();
        drop(owner);
        if is_first {
            self.notify(Notice::Failed(error.clone()));
        }
        waiting.into_iter().for_each(|done| reply(done, Err(error.clone())));
    }

    fn notify(&self, notice: Notice) {
        drop(catch_unwind(AssertUnwindSafe(|| (self.listener)(notice))));
    }

    /// Does what the engine wants, and what it wants then: all of it here, or what takes long in other threads.
    fn perform_all(&self, mut here: Here<M>) {
        while let Some((id, io)) = here.ios.pop_front() {
            match catch_unwind(AssertUnwindSafe(|| io.perform(&*self.disk))) {
                Ok(done) => self.tell(self.lock(), |engine| engine.finished(id, done), &mut here),
                Err(_) => return self.break_down(self.lock()),
            }
        }
    }

    fn queue_work(&self) {
        if !self.is_working.swap(true, Ordering::AcqRel) {
            self.queue.push(Job::Work);
        }
    }

    /// What the clock does until the pool ends.
    fn hurry(&self) {
        while let Some(batch) = self.clock.next() {
            let mut here = Here::new(Who::Hasty);
            self.tell(self.lock(), |engine| engine.hurry(batch), &mut here);
            self.perform_all(here);
        }
    }

    /// What a worker does until the pool ends.
    fn serve(&self) {
        while let Some(job) = self.queue.pop() {
            let mut here = Here::new(Who::Worker);
            match job {
                Job::Io(id, io) => here.ios.push_back((id, io)),
                Job::Work => {
                    self.is_working.store(false, Ordering::Release);
                    self.tell(self.lock(), Engine::work, &mut here);
                }
            }
            self.perform_all(here);
        }
    }
}
