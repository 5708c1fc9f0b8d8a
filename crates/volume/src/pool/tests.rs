//! Whoever asks is answered, once.

use super::{Error, LEAST_CACHE, Memory, Notice, OpenError, Options, Pool, Shared, create};
use crate::disk::Disk;
use crate::engine::Shape;
use crate::memory::Buffer;
use crate::simulation::disk::TestDisk;
use crate::units::{BLOCK, Blocks, VolumeId};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

/// A disk that can be told to panic, or to take its time until it is let go.
struct Wayward {
    disk: TestDisk,
    panics: AtomicBool,
    /// Only what begins so takes its time when it is written.
    only: Option<u8>,
    is_held: Mutex<bool>,
    let_go: Condvar,
    in_memory: bool,
}

impl Wayward {
    fn new(in_memory: bool) -> Arc<Self> {
        Self::with(in_memory, None)
    }

    fn with(in_memory: bool, only: Option<u8>) -> Arc<Self> {
        let disk = TestDisk::new(2048 * BLOCK, 512);
        create(&disk, Shape { id: [1; 16], log_blocks: None, most_changed_nodes: None }).unwrap();
        let (is_held, let_go) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { disk, panics: AtomicBool::new(false), only, is_held, let_go, in_memory })
    }

    fn hold(&self, held: bool) {
        *self.is_held.lock().unwrap() = held;
        self.let_go.notify_all();
    }

    fn go(&self) {
        let held = self.is_held.lock().unwrap();
        drop(self.let_go.wait_while(held, |held| *held).unwrap());
        assert!(!self.panics.load(Ordering::Relaxed), "a disk that panics");
    }
}

impl Disk for Wayward {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.only.is_none() {
            self.go();
        }
        self.disk.read(offset, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.only.is_none_or(|only| bytes.starts_with(&[only])) {
            self.go();
        }
        self.disk.write(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn unit(&self) -> u32 {
        self.disk.unit()
    }

    fn is_in_memory(&self) -> bool {
        self.in_memory
    }
}

fn open<M: Memory>(disk: &Arc<Wayward>) -> (Pool<M>, mpsc::Receiver<Notice>) {
    let (sender, notices) = mpsc::channel();
    let options = Options { cache_bytes: LEAST_CACHE, workers: 3, ..Options::default() };
    let listener = Box::new(move |notice| drop(sender.send(notice)));
    (Pool::open(Arc::clone(disk) as Arc<dyn Disk>, options, listener).unwrap(), notices)
}

/// Counts answers, and keeps them.
#[derive(Clone)]
struct Answers(mpsc::Sender<Result<(), Error>>);

impl Answers {
    fn new() -> (Self, mpsc::Receiver<Result<(), Error>>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    fn one(&self) -> impl FnOnce(Result<(), Error>) + Send + 'static {
        let sender = self.0.clone();
        move |result| drop(sender.send(result))
    }
}

#[test]
fn who_waits_when_the_pool_ends_is_told() {
    for (closes, in_memory) in [(false, true), (true, true), (false, false), (true, false)] {
        let disk = Wayward::new(in_memory);
        let (pool, _) = open::<Buffer>(&disk);
        let volume = pool.create_volume("v", 100_000).unwrap();
        let (answers, given) = Answers::new();
        // More than there is room for: the last ones wait.
        (0..300).for_each(|i| pool.write(volume, i * 10, Buffer::zeroed(10 * BLOCK), false, answers.one()));
        if closes {
            pool.close().unwrap();
        } else {
            drop(pool);
        }
        drop(answers);
        let given: Vec<_> = given.iter().collect();
        let closed = given.iter().filter(|result| **result == Err(Error::Closed)).count();
        let done = given.iter().filter(|result| result.is_ok()).count();
        assert!(closed > 50 && closed + done == 300, "{closed} closed, {done} done of {}", given.len());
    }
}

#[test]
fn who_waits_for_one_that_takes_long_goes_ahead_without_it() {
    let disk = Wayward::with(false, Some(0xAA));
    let (pool, _) = open::<Buffer>(&disk);
    let volume = pool.create_volume("v", 1000).unwrap();
    let ((slow, late), (answers, given)) = (Answers::new(), Answers::new());
    disk.hold(true);
    pool.write(volume, 0, Buffer::copy_of(&[0xAA; BLOCK]), false, slow.one());
    // One after the other, so that each is alone with the one that takes long.
    for i in 1..20 {
        pool.write(volume, i, Buffer::copy_of(&[1; BLOCK]), false, answers.one());
        let answer = given.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(answer.expect("it waits for no other for ever"), Ok(()));
    }
    assert!(late.try_recv().is_err(), "it takes its time still");
    let counts = pool.counts();
    assert_eq!((counts.waiting, counts.log_writes >= 19), (1, true), "{counts:?}");
    disk.hold(false);
    assert_eq!(late.recv().unwrap(), Ok(()));
    pool.close().unwrap();
}

#[test]
fn a_disk_that_panics_is_an_error_for_everybody() {
    for in_memory in [true, false] {
        let disk = Wayward::new(in_memory);
        let (pool, notices) = open::<Buffer>(&disk);
        let volume = pool.create_volume("v", 1000).unwrap();
        let (answers, given) = Answers::new();
        if !in_memory {
            // All are under way at once.
            disk.hold(true);
        }
        disk.panics.store(true, Ordering::Relaxed);
        (0..20).for_each(|i| pool.write(volume, i, Buffer::zeroed(BLOCK), true, answers.one()));
        disk.hold(false);
        for _ in 0..20 {
            assert!(matches!(given.recv().unwrap(), Err(Error::Failed { .. })));
        }
        assert!(matches!(notices.recv().unwrap(), Notice::Failed(_)));
        pool.flush(answers.one());
        assert!(matches!(given.recv().unwrap(), Err(Error::Failed { .. })));
        assert!(matches!(pool.create_volume("w", 5), Err(Error::Failed { .. })));
        drop(pool);
        drop(answers);
        assert_eq!(given.iter().count(), 0, "nobody is answered twice");
    }
}

#[test]
fn a_flush_that_fails_is_not_asked_for_again() {
    for in_memory in [true, false] {
        let disk = Wayward::new(in_memory);
        let (pool, notices) = open::<Buffer>(&disk);
        let volume = pool.create_volume("v", 1000).unwrap();
        let (answers, given) = Answers::new();
        let write = |durable| pool.write(volume, 0, Buffer::zeroed(BLOCK), durable, answers.one());
        write(false);
        assert_eq!(given.recv().unwrap(), Ok(()));
        disk.disk.set_flush_fails(true);
        pool.flush(answers.one());
        assert!(matches!(given.recv().unwrap(), Err(Error::Failed { .. })));
        assert!(matches!(notices.recv().unwrap(), Notice::Failed(_)));
        // The next one would succeed, though what the system has dropped by then is lost.
        disk.disk.set_flush_fails(false);
        let (.., flushes) = disk.disk.counts();
        pool.flush(answers.one());
        write(true);
        (0..2).for_each(|_| assert!(matches!(given.recv().unwrap(), Err(Error::Failed { .. }))));
        assert!(matches!(pool.close(), Err(Error::Failed { .. })));
        assert_eq!(disk.disk.counts().2, flushes);
    }
}

/// Memory that panics when it is looked at, from the second time on: once by the pool, once by the engine.
struct Trap(Buffer, AtomicUsize);

impl AsRef<[u8]> for Trap {
    fn as_ref(&self) -> &[u8] {
        assert!(self.1.fetch_sub(1, Ordering::Relaxed) > 0, "memory that panics");
        &self.0
    }
}

impl AsMut<[u8]> for Trap {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[test]
fn an_engine_that_panics_is_an_error_for_everybody() {
    let disk = Wayward::new(false);
    let (pool, notices) = open::<Trap>(&disk);
    let volume = pool.create_volume("v", 1000).unwrap();
    let (answers, given) = Answers::new();
    let trap = |looks| Trap(Buffer::zeroed(BLOCK), AtomicUsize::new(looks));
    disk.hold(true);
    (0..5).for_each(|i| pool.write(volume, i, trap(1000), false, answers.one()));
    pool.write(volume, 9, trap(1), false, answers.one());
    for _ in 0..6 {
        assert!(matches!(given.recv().unwrap(), Err(Error::Failed { .. })));
    }
    assert!(matches!(notices.recv().unwrap(), Notice::Failed(_)));
    disk.hold(false);
    drop(pool);
    drop(answers);
    assert_eq!(given.iter().count(), 0, "nobody is answered twice");
}

#[test]
fn a_callback_that_panics_keeps_nobody_from_being_called() {
    for in_memory in [true, false] {
        let disk = Wayward::new(in_memory);
        let (pool, _) = open::<Buffer>(&disk);
        let volume = pool.create_volume("v", 1000).unwrap();
        let (answers, given) = Answers::new();
        for i in 0..10 {
            pool.write(volume, i, Buffer::zeroed(BLOCK), true, |_| panic!("a callback that panics"));
            pool.write(volume, 100 + i, Buffer::zeroed(BLOCK), true, answers.one());
        }
        (0..10).for_each(|_| assert_eq!(given.recv().unwrap(), Ok(())));
        pool.close().unwrap();
    }
}

#[test]
fn a_thread_that_cannot_be_started_leaves_nothing_behind() {
    // The third of four workers, or the clock.
    for last in [3, 5] {
        let disk = Wayward::new(false);
        let engine = crate::engine::open(&*disk, 16).unwrap();
        let shared = Shared::new(engine, Arc::clone(&disk) as Arc<dyn Disk>, || false, Box::new(|_| {}));
        let mut started = 0;
        let failed = Pool::<Buffer>::start(shared, (4, true), |name, work| {
            started += 1;
            if started == last {
                Err(io::Error::other("no more threads"))
            } else {
                std::thread::Builder::new().name(name).spawn(work)
            }
        });
        assert!(matches!(failed, Err(OpenError::Disk { .. })));
        assert_eq!(Arc::strong_count(&disk), 1, "nobody holds the disk any more");
    }
}

#[test]
fn too_little_is_refused() {
    let disk = Wayward::new(true);
    for (cache_bytes, workers) in [(LEAST_CACHE - 1, 1), (LEAST_CACHE, 0)] {
        let options = Options { cache_bytes, workers, ..Options::default() };
        let refused = Pool::<Buffer>::open(Arc::clone(&disk) as Arc<dyn Disk>, options, Box::new(|_| {}));
        assert!(matches!(refused, Err(OpenError::Unfit(_))));
    }
    let (pool, _) = open::<Buffer>(&disk);
    let (answers, given) = Answers::new();
    pool.discard(VolumeId(7), Blocks { start: 0, count: 1 }, false, answers.one());
    assert_eq!(given.recv().unwrap(), Err(Error::NoVolume(VolumeId(7))));
}
