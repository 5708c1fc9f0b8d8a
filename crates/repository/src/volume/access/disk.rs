//! A cache on a disk: blobs as they lie in packs, sealed, each in a file that is named by where it lies.
//!
//! ```text
//! <folder>/lock              held while a process uses the cache
//! <folder>/<2 digits>/<pack id, 48 hex digits>-<offset, 8 hex digits>
//! <folder>/unfinished-<number>
//! ```
//! Nothing in it is in clear, and nothing in it is trusted: what is read is opened and verified as if it came from the store, and dropped if
//! it is not what it was. So no file is synced. What was used longest ago goes first; after a restart, what was written longest ago. When
//! the disk takes no more, the cache stays as it is, and the work goes on; now and then it is tried again whether there is room.

use super::lru::Lru;
use crate::codec::{from_hex, to_hex};
use crate::ids::{BlobRef, PackId};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Bytes that a file takes at least, whatever its length: the unit in which file systems give room.
const FILE_UNIT: u64 = 4 << 10;

const UNFINISHED: &str = "unfinished-";

/// Of so many blobs that a full disk is spared one is tried: seldom enough to cost nothing, often enough that a volume that is read finds
/// soon that there is room again.
const TRIED_OF: u64 = 64;

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Another process has it.
    #[error("another process uses the cache in {path}; name another folder", path = .0.display())]
    InUse(PathBuf),
    /// The folder did not do what was asked.
    #[error("{action} {path}", path = path.display())]
    Folder {
        /// What was asked.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Where a blob lies, which is what its sealing is bound to.
type Place = (PackId, u32);

/// Blobs on a disk, up to a number of bytes.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    index: Mutex<Lru<Place, ()>>,
    /// Blobs that were not kept since the disk takes no more; none while it does.
    passed_over: AtomicU64,
    unfinished: AtomicU64,
    /// Its lock ends with it.
    _lock: File,
}

impl DiskCache {
    /// Opens the cache in a folder, which is made if it is missing; it has up to `most` bytes.
    pub fn open(folder: &Path, most: u64) -> Result<Self, CacheError> {
        let failed = |action| move |source| CacheError::Folder { action, path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed("make the folder"))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(failed("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(CacheError::InUse(folder.to_owned())),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        let cache = Self {
            folder: folder.to_owned(),
            index: Mutex::new(Lru::new(most)),
            passed_over: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            _lock: lock,
        };
        cache.take_stock().map_err(failed("look through the cache in"))?;
        Ok(cache)
    }

    /// Learns what earlier processes have left, and removes what is too much or was not finished.
    fn take_stock(&self) -> io::Result<()> {
        let mut found: Vec<(SystemTime, Place, u64)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            } else if name.len() == 2 && entry.file_type()?.is_dir() {
                take_stock_of(&entry.path(), &mut found)?;
            }
        }
        found.sort_unstable_by_key(|(time, place, _)| (*time, *place));
        for (_, place, len) in found {
            self.remember(place, len);
        }
        Ok(())
    }

    fn remember(&self, place: Place, len: u64) {
        let gone = self.index().insert(place, (), len.next_multiple_of(FILE_UNIT));
        for place in gone {
            self.remove_file(&place);
        }
    }

    fn index(&self) -> MutexGuard<'_, Lru<Place, ()>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, place: &Place) -> PathBuf {
        let name = format!("{}-{:08x}", to_hex(&place.0.encode()), place.1);
        // The sequence of a pack is in its last bytes, so that neighbours do not all fall into one folder.
        let spread = blake3::hash(name.as_bytes()).as_bytes()[0];
        self.folder.join(to_hex(&[spread])).join(name)
    }

    /// The sealed bytes of a blob, if they are there; whether they are what they were, must be seen.
    pub(super) fn get(&self, blob: &BlobRef) -> Option<Vec<u8>> {
        let place = (blob.pack, blob.offset);
        self.index().get(&place)?;
        let mut sealed = Vec::new();
        let file = File::open(self.path(&place));
        let read = file.and_then(|file| file.take(u64::from(blob.stored_len) + 1).read_to_end(&mut sealed));
        match read {
            Ok(len) if len == blob.stored_len as usize => Some(sealed),
            // Somebody has cleared the folder, or the disk fails: the store has it.
            _ => {
                self.drop_damaged(blob);
                None
            }
        }
    }

    /// Takes out what is not what it was.
    pub(super) fn drop_damaged(&self, blob: &BlobRef) {
        let place = (blob.pack, blob.offset);
        self.index().remove(&place);
        self.remove_file(&place);
    }

    /// Keeps the sealed bytes of a blob, if there is room on the disk.
    pub(super) fn put(&self, blob: &BlobRef, sealed: &[u8]) {
        let place = (blob.pack, blob.offset);
        if self.index().contains(&place) || self.is_spared() {
            return;
        }
        let folder = self.folder.display();
        match self.write(&place, sealed) {
            Ok(()) => {
                self.remember(place, sealed.len() as u64);
                if self.passed_over.swap(0, Ordering::Relaxed) > 0 {
                    tracing::info!(%folder, "the cache takes more again");
                }
            }
            Err(error) => {
                if self.passed_over.fetch_max(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%folder, %error, "the cache takes no more for now; the work goes on with what is in it");
                }
            }
        }
    }

    /// Whether the disk is full, and it is not time to see whether it still is.
    fn is_spared(&self) -> bool {
        let count = |passed: u64| (passed > 0).then(|| passed.wrapping_add(1).max(1));
        let passed = self.passed_over.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        passed.is_ok_and(|passed| passed % TRIED_OF != 0)
    }

    fn write(&self, place: &Place, sealed: &[u8]) -> io::Result<()> {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{UNFINISHED}{number}"));
        let path = self.path(place);
        let written = fs::write(&unfinished, sealed).and_then(|()| match fs::rename(&unfinished, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::rename(&unfinished, &path)
            }
            renamed => renamed,
        });
        if written.is_err() {
            // A part of a file on a full disk must not stay.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn remove_file(&self, place: &Place) {
        match fs::remove_file(self.path(place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "a file of the cache could not be removed");
            }
            _ => {}
        }
    }
}

fn take_stock_of(folder: &Path, found: &mut Vec<(SystemTime, Place, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What has another name is not ours.
        if let Some(place) = entry.file_name().to_str().and_then(parse) {
            let metadata = entry.metadata()?;
            found.push((metadata.modified()?, place, metadata.len()));
        }
    }
    Ok(())
}

fn parse(name: &str) -> Option<Place> {
    let (pack, offset) = name.split_once('-')?;
    let pack = PackId::decode(&mut crate::Fields::new(&from_hex::<{ PackId::LEN }>(pack)?)).ok()?;
    let offset = (offset.len() == 8).then(|| u32::from_str_radix(offset, 16).ok())??;
    Some((pack, offset))
}
