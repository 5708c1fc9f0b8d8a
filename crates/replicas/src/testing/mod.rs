//! What tests share: pools whose process ends at any time, or whose power goes.

mod volatile;

pub(crate) use block::testing::seed;

use block::Buffer;
use rand::rngs::StdRng;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use volatile::Volatile;
use volume::{BLOCK, Disk, FileDisk, Options, Pool, Shape};

/// A disk as one process sees it: when the process has ended, nothing that it had asked for is done any more.
struct Mortal {
    disk: Arc<dyn Disk>,
    has_ended: Arc<Ended>,
}

/// Whether a process has ended. What it is doing to the disk at the time is waited for.
#[derive(Default)]
struct Ended {
    has_ended: AtomicBool,
    under_way: RwLock<()>,
}

impl Mortal {
    fn unless_ended<T>(&self, work: impl FnOnce(&dyn Disk) -> io::Result<T>) -> io::Result<T> {
        let under_way = self.has_ended.under_way.read().unwrap_or_else(PoisonError::into_inner);
        if self.has_ended.has_ended.load(Ordering::Acquire) {
            return Err(io::Error::other("the process has ended"));
        }
        let done = work(&*self.disk);
        drop(under_way);
        done
    }
}

impl Disk for Mortal {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.unless_ended(|disk| disk.read(offset, into))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unless_ended(|disk| disk.write(offset, bytes))
    }

    fn flush(&self) -> io::Result<()> {
        self.unless_ended(|disk| disk.flush())
    }

    fn unit(&self) -> u32 {
        self.disk.unit()
    }

    fn sector(&self) -> u32 {
        self.disk.sector()
    }

    fn is_in_memory(&self) -> bool {
        self.disk.is_in_memory()
    }
}

/// Where a pool lies that outlives the processes that have it open.
pub(crate) struct Place {
    _folder: Option<tempfile::TempDir>,
    disk: Arc<dyn Disk>,
    volatile: Option<Arc<Volatile>>,
    last: Option<Arc<Ended>>,
}

impl Place {
    /// A new pool of so many blocks.
    pub(crate) fn new(under: &Path, blocks: u64) -> Self {
        let folder = tempfile::tempdir_in(under).unwrap();
        let disk = FileDisk::create(&folder.path().join("pool"), blocks * BLOCK as u64).unwrap();
        Self { _folder: Some(folder), ..Self::on(Arc::new(disk), None) }
    }

    /// The same on a disk whose power goes.
    pub(crate) fn volatile(blocks: usize) -> Self {
        let disk = Arc::new(Volatile::new(blocks * BLOCK));
        Self::on(disk.clone(), Some(disk))
    }

    fn on(disk: Arc<dyn Disk>, volatile: Option<Arc<Volatile>>) -> Self {
        volume::create(&*disk, Shape { id: [7; 16], log_blocks: None, most_changed_nodes: None }).unwrap();
        Self { _folder: None, disk, volatile, last: None }
    }

    /// Ends the process, with the power if it is such a disk; tells whether it is.
    pub(crate) fn lose_power(&mut self, random: &mut StdRng) -> bool {
        self.kill();
        self.volatile.as_ref().inspect(|disk| disk.lose_power(random)).is_some()
    }

    /// Opens the pool in another process: the one before has ended.
    pub(crate) fn open(&mut self) -> Arc<Pool<Buffer>> {
        self.kill();
        let has_ended = Arc::<Ended>::default();
        self.last = Some(has_ended.clone());
        let disk = Mortal { disk: self.disk.clone(), has_ended };
        let options = Options { cache_bytes: volume::LEAST_CACHE, workers: 4, ..Options::default() };
        Arc::new(Pool::open(Arc::new(disk), options, Box::new(|_| {})).unwrap())
    }

    /// Ends the process that has the pool open; what is left of it in memory does nothing to it any more.
    pub(crate) fn kill(&mut self) {
        if let Some(last) = self.last.take() {
            last.has_ended.store(true, Ordering::Release);
            drop(last.under_way.write().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Pools of so many blocks: on a disk, and in memory, where there is a folder that is memory.
pub(crate) fn places(blocks: u64) -> Vec<Place> {
    let memory = Path::new("/dev/shm");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folders = [target.as_path(), memory].into_iter().filter(|folder| folder.is_dir());
    folders.map(|folder| Place::new(folder, blocks)).collect()
}
