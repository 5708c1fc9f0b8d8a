//! A pool that this node has open, with what is recorded of it.

use crate::error::{Error, Kind, Result, stored};
use crate::metrics::PoolFigures;
use crate::pool_spec::{PoolSpec, unopened};
use crate::records::{Record, Records, RecordsError, Slots};
use block::Buffer;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use volume::{
    Access, BLOCK, Disk, Epoch, FileDisk, Notice, Options, Pool, SnapshotId, SnapshotInfo, State, VolumeInfo,
};

/// What the pool has told of since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) is_full: AtomicBool,
    pub(crate) has_failed: AtomicBool,
    /// Blocks that were not what was written, or could not be read.
    pub(crate) damage: AtomicU64,
    /// Places that the device did not take.
    pub(crate) avoided: AtomicU64,
    /// Bytes that were read to see whether they are what was written, and how often they were not.
    pub(crate) scrubbed: AtomicU64,
    pub(crate) scrub_faults: AtomicU64,
}

/// An open pool.
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) pool: Arc<Pool<Buffer>>,
    pub(crate) told: Arc<Told>,
    book: Mutex<Book>,
    /// What the pool lies on.
    disk: Arc<FileDisk>,
}

struct Book {
    slots: Slots,
    records: Records,
}

impl Store {
    /// Opens a pool, makes or grows it where its size was given, and does what a crash has left undone.
    pub(crate) fn open(spec: &PoolSpec, (cache_bytes, access): (usize, Access), now: u64) -> Result<Self> {
        let name = spec.name();
        let what = || format!("open the pool {}", spec.path.display());
        let disk = Arc::new(spec.open().map_err(|e| unopened(&what(), e))?);
        let told = Arc::new(Told::default());
        let options = Options { cache_bytes, access, may_wait: block::is_patient, ..Options::default() };
        let listener = {
            let (name, told) = (name.clone(), told.clone());
            Box::new(move |notice| hear(&name, &told, notice))
        };
        let pool = Pool::open(disk.clone(), options, listener).map_err(|e| unopened(&what(), e))?;
        tracing::info!(pool = name, disk = %pool.reached(), "opened");
        if spec.bytes.is_some() {
            pool.grow().map_err(stored(format!("grow the pool {}", spec.path.display())))?;
        }
        let (slots, records) = Slots::open(&pool).map_err(|e| unreadable(what(), e))?;
        let store = Self { name, pool: Arc::new(pool), told, book: Mutex::new(Book { slots, records }), disk };
        store.follow(now)?;
        Ok(store)
    }

    /// Makes the pool larger, and its file before it; with 0 it takes in what its device or its file has grown by.
    pub(crate) fn grow(&self, bytes: u64) -> Result<()> {
        let what = || format!("make the pool {} larger", self.name);
        let failed = |error: io::Error| Error::new(Kind::Failed, what()).because(error);
        let before = self.disk.bytes().map_err(failed)?;
        if bytes != 0 && bytes < before {
            let what = format!("{}: it has {before} bytes, and a pool does not shrink", what());
            return Err(Error::new(Kind::Invalid, what));
        }
        if bytes > before && !self.disk.is_file() {
            let what = format!("{}: its device has {before} bytes; make that larger, and leave the size out", what());
            return Err(Error::new(Kind::Precondition, what));
        }
        self.disk.extend(bytes).map_err(failed)?;
        self.pool.grow().map_err(stored(what()))
    }

    /// What is told of it for metrics.
    pub(crate) fn figures(&self) -> PoolFigures {
        let (usage, told) = (self.pool.usage(), &self.told);
        PoolFigures {
            name: self.name.clone(),
            bytes: usage.blocks * BLOCK as u64,
            free_bytes: usage.free * BLOCK as u64,
            counts: self.pool.counts(),
            checkpoint: usage.checkpoint,
            damage: told.damage.load(Ordering::Relaxed),
            avoided: told.avoided.load(Ordering::Relaxed),
            scrubbed_bytes: told.scrubbed.load(Ordering::Relaxed),
            scrub_faults: told.scrub_faults.load(Ordering::Relaxed),
            scrubbed: self.recorded(|records| records.scrubbed).unwrap_or(0),
            is_full: told.is_full.load(Ordering::Relaxed),
            has_failed: told.has_failed.load(Ordering::Relaxed),
            volumes: self.volumes().len(),
            snapshots: self.pool.snapshots().len(),
        }
    }

    /// All volumes of users.
    pub(crate) fn volumes(&self) -> Vec<VolumeInfo> {
        self.pool.volumes().into_iter().filter(|volume| !volume.name.starts_with('.')).collect()
    }

    pub(crate) fn volume(&self, name: &str) -> Option<VolumeInfo> {
        self.volumes().into_iter().find(|volume| volume.name == name)
    }

    /// All snapshots of users with the names of the volumes that they were taken of.
    pub(crate) fn snapshots(&self) -> Vec<(String, SnapshotInfo)> {
        let mut snapshots = self.pool.snapshots();
        // Replicas and what is recorded have theirs for as long as they are there.
        let hidden = self.pool.volumes().into_iter().filter(|volume| volume.name.starts_with('.'));
        let hidden: BTreeSet<volume::VolumeId> = hidden.map(|volume| volume.id).collect();
        snapshots.retain(|snapshot| !hidden.contains(&snapshot.volume));
        let book = self.book();
        let named = |snapshot: SnapshotInfo| {
            let of = book.records.of(snapshot.id.0).of;
            (of.unwrap_or_else(|| format!("volume-{}", snapshot.volume.0)), snapshot)
        };
        snapshots.into_iter().map(named).collect()
    }

    pub(crate) fn snapshot(&self, volume: &str, name: &str) -> Option<SnapshotInfo> {
        let found = self.snapshots().into_iter().find(|(of, snapshot)| of == volume && snapshot.name == name);
        found.map(|(_, snapshot)| snapshot)
    }

    /// The snapshots that a state comes from, the oldest first. Those of another volume, which it was cloned from, have its name before theirs.
    pub(crate) fn line(&self, state: State) -> Vec<(String, SnapshotId)> {
        let snapshots = self.snapshots();
        let find = |id: SnapshotId| snapshots.iter().find(|(_, snapshot)| snapshot.id == id);
        let begin = match state {
            State::Volume(id) => {
                let volume = self.volumes().into_iter().find(|volume| volume.id == id);
                volume.map(|volume| (volume.name, volume.id, volume.epoch, volume.origin))
            }
            State::Snapshot(id) => find(id).map(|(of, s)| (of.clone(), s.volume, s.epoch, s.origin)),
        };
        let Some((name, mut line, mut before, mut origin)) = begin else { return Vec::new() };
        let mut found = Vec::new();
        loop {
            let older = snapshots.iter().filter(|(_, snapshot)| snapshot.volume == line && snapshot.epoch < before);
            found.extend(older.map(|(of, snapshot)| {
                let name = if *of == name { snapshot.name.clone() } else { format!("{of}@{}", snapshot.name) };
                (snapshot.epoch, name, snapshot.id)
            }));
            let Some((_, cloned)) = origin.and_then(find) else { break };
            // What it was cloned from is one of them.
            (line, before, origin) = (cloned.volume, Epoch(cloned.epoch.0 + 1), cloned.origin);
        }
        found.sort();
        found.into_iter().map(|(_, name, id)| (name, id)).collect()
    }

    pub(crate) fn record(&self, id: u64) -> Record {
        self.book().records.of(id)
    }

    /// Looks something up in the records.
    pub(crate) fn recorded<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        look(&self.book().records)
    }

    /// Changes the records, durably or not at all.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Records)) -> Result<()> {
        let mut book = self.book();
        let mut records = book.records.clone();
        change(&mut records);
        if records == book.records {
            return Ok(());
        }
        let what = || format!("write the records of the pool {}", self.name);
        book.slots.write(&self.pool, &records).map_err(|e| unreadable(what(), e))?;
        book.records = records;
        Ok(())
    }

    /// Brings the records in line with the pool after it was changed.
    pub(crate) fn follow(&self, now: u64) -> Result<()> {
        let (volumes, snapshots) = (self.pool.volumes(), self.pool.snapshots());
        self.note(|records| records.follow(&volumes, &snapshots, now))
    }

    /// Makes the next opening a quick one. Somebody who still uses the pool keeps it from that, and no harm is done.
    pub(crate) fn close(self) {
        let name = self.name;
        match Arc::into_inner(self.pool).map(Pool::close) {
            Some(Ok(())) => tracing::info!(pool = name, "closed"),
            Some(Err(error)) => tracing::error!(pool = name, %error, "closed without a last checkpoint"),
            None => tracing::warn!(pool = name, "still in use; closed without a last checkpoint"),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(what: String, error: RecordsError) -> Error {
    match error {
        RecordsError::Store(error) => stored(what)(error),
        other => Error::new(Kind::Failed, what).because(other),
    }
}

fn hear(name: &str, told: &Told, notice: Notice) {
    match notice {
        Notice::Full => {
            told.is_full.store(true, Ordering::Relaxed);
            tracing::error!(
                pool = name,
                "the pool is full: writes wait, nothing is lost; delete or discard something, or make the pool larger"
            );
        }
        Notice::Resumed => {
            told.is_full.store(false, Ordering::Relaxed);
            tracing::info!(pool = name, "there is room again, and the writes go on");
        }
        Notice::Deleted(id) => tracing::info!(pool = name, id, "what was deleted has given its room back"),
        Notice::Leaked(error) => {
            tracing::error!(pool = name, %error, "room of what was deleted is not given back; `orlop store repair` finds it")
        }
        Notice::Avoided { place, reason } => {
            told.avoided.fetch_add(1, Ordering::Relaxed);
            tracing::error!(pool = name, place, reason, "the device did not take data; it was written elsewhere");
        }
        Notice::Damage(error) => {
            told.damage.fetch_add(1, Ordering::Relaxed);
            tracing::error!(pool = name, %error, "damage was found");
        }
        Notice::Failed(error) => {
            told.has_failed.store(true, Ordering::Relaxed);
            tracing::error!(pool = name, %error, "the pool takes no more changes");
        }
    }
}

/// How many blocks hold so many bytes.
pub(crate) fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64)
}
