//! A device in memory, which may lose its power.

use crate::{
    ALLOCATION, BlockSizes, Buffer, CHANGED, ContextQuery, Description, Device, Done, Failure, FailureKind, Features,
    HOLE, PAGE, Status, ZERO, ZeroMode,
};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What one lock covers, so that several threads get on.
const SHARD: usize = 64 << 10;

/// Bytes; pages that are all zeros are holes.
///
/// One that was made by [`Memory::volatile`] has a second image of them: what a disk has that loses its power. A flush brings there all that
/// was written, a durable request what it wrote itself; nothing else does.
#[derive(Debug)]
pub struct Memory {
    shards: Vec<RwLock<Shard>>,
    /// Earlier states: each is a context by its name.
    snapshots: RwLock<Vec<(String, Vec<u8>)>>,
    size: usize,
    /// What it says it can do.
    pub features: Features,
    /// What requests should look like.
    pub blocks: BlockSizes,
    /// Reads that touch this byte fail.
    pub bad: Option<u64>,
    /// How often it was flushed.
    pub flushes: AtomicUsize,
}

/// A stretch of the bytes.
#[derive(Debug)]
struct Shard {
    now: Vec<u8>,
    /// What of it is durable, where that is kept.
    durable: Option<Vec<u8>>,
}

impl Memory {
    /// A device that is only read.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            shards: bytes.chunks(SHARD).map(|part| RwLock::new(Shard { now: part.to_vec(), durable: None })).collect(),
            snapshots: RwLock::default(),
            size: bytes.len(),
            features: Features { several_connections: true, ..Features::default() },
            blocks: BlockSizes::ASSUMED,
            bad: None,
            flushes: AtomicUsize::new(0),
        }
    }

    /// A device that can do everything.
    #[must_use]
    pub fn writable(bytes: &[u8]) -> Self {
        Self { features: Features::ALL, ..Self::new(bytes) }
    }

    /// A device that can do everything, and that can crash: these bytes are durable.
    #[must_use]
    pub fn volatile(bytes: &[u8]) -> Self {
        let memory = Self::writable(bytes);
        for shard in &memory.shards {
            let mut shard = exclusive(shard);
            shard.durable = Some(shard.now.clone());
        }
        memory
    }

    /// Loses its power: what is not durable is gone. Whoever asks it something meanwhile may lose that or not.
    ///
    /// # Panics
    ///
    /// Unless it is volatile.
    pub fn crash(&self) {
        for shard in &self.shards {
            let Shard { now, durable } = &mut *exclusive(shard);
            now.copy_from_slice(durable.as_ref().expect("it is volatile"));
        }
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.shards.iter().map(|shard| shared(shard).now.clone()).collect::<Vec<_>>().concat()
    }

    /// Puts bytes into it, besides the protocol.
    pub fn set(&self, offset: u64, bytes: &[u8]) {
        self.put(offset, bytes, true);
    }

    fn put(&self, offset: u64, bytes: &[u8], durable: bool) {
        self.each_mut(offset, bytes.len(), durable, |into, at| into.copy_from_slice(&bytes[at..at + into.len()]));
    }

    /// Keeps the present state under a name, which becomes the context `orlop:changed-since=NAME`.
    pub fn snapshot(&self, name: &str) {
        let bytes = self.bytes();
        exclusive(&self.snapshots).push((format!("orlop:changed-since={name}"), bytes));
    }

    /// The parts of a range in the shards, and how far from its begin each is.
    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let start = usize::try_from(offset).expect("it lies in memory");
        let mut at = start;
        std::iter::from_fn(move || {
            let (shard, from) = (at / SHARD, at % SHARD);
            let part = (SHARD - from).min(start + len - at);
            let found = (shard, from..from + part, at - start);
            at += part;
            (part > 0).then_some(found)
        })
    }

    fn each_mut(&self, offset: u64, len: usize, durable: bool, mut change: impl FnMut(&mut [u8], usize)) {
        for (shard, part, at) in Self::parts(offset, len) {
            let shard = &mut *exclusive(&self.shards[shard]);
            change(&mut shard.now[part.clone()], at);
            if durable {
                shard.persist(part);
            }
        }
    }

    fn states(&self, range: Range<u64>, state: impl Fn(&[u8], usize) -> u32) -> Vec<Status> {
        let end = usize::try_from(range.end).expect("it lies in memory");
        let mut at = usize::try_from(range.start).expect("it lies in memory");
        let mut found: Vec<Status> = Vec::new();
        while at < end {
            let begin = at / PAGE * PAGE;
            let next = (begin + PAGE).min(end);
            let shard = &shared(&self.shards[begin / SHARD]).now;
            let within = begin % SHARD;
            let flags = state(&shard[within..(within + PAGE).min(shard.len())], begin);
            let len = (next - at) as u64;
            match found.last_mut() {
                Some(last) if last.flags == flags => last.len += len,
                _ => found.push(Status { len, flags }),
            }
            at = next;
        }
        found
    }
}

impl Shard {
    fn persist(&mut self, part: Range<usize>) {
        if let Some(durable) = &mut self.durable {
            durable[part.clone()].copy_from_slice(&self.now[part]);
        }
    }
}

fn shared<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn exclusive<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn len_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("it lies in memory")
}

impl Device for Memory {
    fn describe(&self) -> Result<Description, Failure> {
        Ok(Description { size: self.size as u64, blocks: self.blocks, features: self.features })
    }

    fn read(&self, offset: u64, mut buffer: Buffer, done: Done<Buffer>) {
        let range = offset..offset + buffer.len() as u64;
        if self.bad.is_some_and(|bad| range.contains(&bad)) {
            return done.fail(FailureKind::Io, "the byte is bad");
        }
        for (shard, part, at) in Self::parts(offset, buffer.len()) {
            buffer[at..at + part.len()].copy_from_slice(&shared(&self.shards[shard]).now[part]);
        }
        done.ok(buffer);
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        if !self.features.write {
            return done.fail(FailureKind::NotPermitted, "the device is read-only");
        }
        self.put(offset, &bytes, durable);
        done.ok(());
    }

    fn flush(&self, done: Done<()>) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            let mut shard = exclusive(shard);
            let all = 0..shard.now.len();
            shard.persist(all);
        }
        done.ok(());
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.write_zeroes(range, ZeroMode { durable, keep_allocated: false }, done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.each_mut(range.start, len_of(&range), mode.durable, |part, _| part.fill(0));
        done.ok(());
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        let snapshots = shared(&self.snapshots);
        Ok(super::picked(query, most, [ALLOCATION].into_iter().chain(snapshots.iter().map(|(name, _)| name.as_str()))))
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        let mut states = if context == ALLOCATION {
            let state = |page: &[u8], _| if page.iter().all(|byte| *byte == 0) { HOLE | ZERO } else { 0 };
            self.states(range, state)
        } else {
            let snapshots = shared(&self.snapshots);
            let Some((_, then)) = snapshots.iter().find(|(name, _)| name == context) else {
                return done.fail(FailureKind::Invalid, format!("there is no context {context}"));
            };
            let state = |page: &[u8], at: usize| if page == &then[at..at + page.len()] { 0 } else { CHANGED };
            self.states(range, state)
        };
        states.truncate(most);
        done.ok(states);
    }
}
