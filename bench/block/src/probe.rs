//! A disk under a pool in this process.

use anyhow::Result;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use volume::{Disk, FileDisk, Options, Pool, Shape};

/// Counts readings where it is memory; and is hollow there: zeros take no room in it, so that a pool may be larger than memory. Maps are no zeros, and are kept.
pub(crate) struct Probe {
    disk: FileDisk,
    holes: File,
    sector: u32,
    /// How often something was read, which is a node each when only maps are looked at.
    pub(crate) reads: AtomicU64,
}

impl Probe {
    /// A new pool in a new file.
    pub(crate) fn create(path: &Path, bytes: u64, sector: u32) -> Result<Arc<Self>> {
        drop(FileDisk::create(path, bytes)?);
        let probe = Self::open(path, sector)?;
        volume::create(&*probe, Shape { id: *b"measured, anyway", log_blocks: None, most_changed_nodes: None })?;
        Ok(probe)
    }

    pub(crate) fn open(path: &Path, sector: u32) -> Result<Arc<Self>> {
        let reads = AtomicU64::new(0);
        let holes = OpenOptions::new().write(true).open(path)?;
        Ok(Arc::new(Self { disk: FileDisk::open(path)?, holes, sector, reads }))
    }

    pub(crate) fn pool(self: &Arc<Self>) -> Result<Pool> {
        Ok(Pool::open(self.clone(), Options::default(), Box::new(|_| {}))?)
    }
}

impl Disk for Probe {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.disk.read(offset, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().any(|byte| *byte != 0) {
            return self.disk.write(offset, bytes);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.holes, flags, offset, bytes.len() as u64)?)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn unit(&self) -> u32 {
        self.disk.unit()
    }

    fn sector(&self) -> u32 {
        self.sector
    }

    fn is_in_memory(&self) -> bool {
        self.disk.is_in_memory()
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.disk.file()
    }
}

/// Where to write next, from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Asks, and waits for the answer.
pub(crate) fn wait<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(Result<T, volume::Error>) + Send>)) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    ask(Box::new(move |result| drop(sender.send(result))));
    Ok(receiver.recv()??)
}
