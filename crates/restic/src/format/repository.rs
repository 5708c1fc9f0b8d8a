//! A repository that is being written: opened or made, locked, and filled with blobs, indexes and snapshots, in this order.
//!
//! | step | what a crash after it leaves |
//! |---|---|
//! | 1. the folders, a key, then `config` | before `config` nothing that counts: the next creation removes the key |
//! | 2. packs | packs that no index names; `restic prune` removes them |
//! | 3. an index | blobs that the next export does not store again |
//! | 4. the snapshot | a whole export |
//!
//! A crash leaves our lock, too, which `restic unlock`, or the next export on this machine, removes.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::crypto::{Key, random};
use super::error::{Error, Result};
use super::folder::{FileKind, Folder};
use super::index::{Index, IndexedPack};
use super::known::Known;
use super::lock::Lock;
use super::pack::Builder;
use super::password::KeyFile;
use super::{BlobKind, Id, Snapshot, polynomial, sealed};

/// The version that is written.
const VERSION: u32 = 2;

/// The file `config`.
#[derive(Debug, Serialize, Deserialize)]
struct Config {
    version: u32,
    id: String,
    chunker_polynomial: String,
}

/// What was written so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of blobs that were not there before.
    pub new_bytes: u64,
    /// Bytes that these take in packs.
    pub stored_bytes: u64,
}

/// An open repository. All of its work blocks.
pub struct Repository {
    folder: Folder,
    key: Key,
    lock: Lock,
    data: Store,
    trees: Store,
    index: Index,
    written: Written,
}

/// The blobs of one kind.
struct Store {
    known: Known,
    pack: Builder,
}

impl Repository {
    /// Opens the repository in a folder, or makes one where there is none, and takes a lock in the name of `host`.
    pub fn open_or_create(path: &Path, password: &[u8], host: &str) -> Result<Self> {
        let folder = Folder::new(path);
        let config = folder.config();
        let found = config.try_exists().map_err(Error::io("look at", &config))?;
        let key = if found { open(&folder, password)? } else { create(&folder, password, host)? };
        folder.make()?;
        let unfinished = folder.unfinished();
        let lock = Lock::take(&folder, &key, host)?;
        if lock.is_alone(&folder)? {
            // Whatever cannot be removed is no harm.
            unfinished.iter().for_each(|path| drop(fs::remove_file(path)));
        }
        let store = |kind| {
            let known = Known::new(folder.scratch()?).map_err(scratch(&folder))?;
            Ok::<_, Error>(Store { known, pack: Builder::new(kind) })
        };
        let (data, trees) = (store(BlobKind::Data)?, store(BlobKind::Tree)?);
        let (index, written) = (Index::default(), Written::default());
        let mut repository = Self { folder, key, lock, data, trees, index, written };
        match repository.read_indexes() {
            Ok(()) => Ok(repository),
            Err(error) => {
                repository.lock.release(&repository.folder)?;
                Err(error)
            }
        }
    }

    fn read_indexes(&mut self) -> Result<()> {
        for id in self.folder.list(FileKind::Index)? {
            let index: Index = self.read_document(FileKind::Index, &id)?;
            for blob in index.packs.iter().flat_map(|pack| &pack.blobs) {
                self.note(blob.kind, &blob.id)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: BlobKind, id: &Id) -> Result<()> {
        let folder = self.folder.clone();
        let new_file = || folder.scratch().map_err(std::io::Error::other);
        let known = &mut self.store(kind).known;
        known.insert(id, new_file).map_err(scratch(&folder))
    }

    fn store(&mut self, kind: BlobKind) -> &mut Store {
        match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        }
    }

    /// Whether a blob is there, or waits to be written.
    pub fn has(&self, kind: BlobKind, id: &Id) -> Result<bool> {
        let store = match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        };
        store.known.has(id).map_err(scratch(&self.folder))
    }

    /// Stores a blob, unless it is there.
    pub fn put(&mut self, kind: BlobKind, plain: &[u8]) -> Result<Id> {
        let id = Id::of(plain);
        if self.has(kind, &id)? {
            return Ok(id);
        }
        self.lock.keep(&self.folder, &self.key)?;
        let pack = match kind {
            BlobKind::Data => &mut self.data.pack,
            BlobKind::Tree => &mut self.trees.pack,
        };
        let stored = pack.add(&self.key, id, plain)?;
        let full = pack.is_full();
        self.written.new_bytes += plain.len() as u64;
        self.written.stored_bytes += stored;
        self.note(kind, &id)?;
        if full {
            self.write_pack(kind)?;
        }
        Ok(id)
    }

    fn write_pack(&mut self, kind: BlobKind) -> Result<()> {
        let builder = match kind {
            BlobKind::Data => &mut self.data.pack,
            BlobKind::Tree => &mut self.trees.pack,
        };
        if builder.is_empty() {
            return Ok(());
        }
        let pack = builder.take(&self.key)?;
        let id = self.folder.write(FileKind::Pack, &pack.bytes)?;
        self.index.packs.push(IndexedPack { id, blobs: pack.blobs });
        if self.index.is_full() { self.write_index() } else { Ok(()) }
    }

    fn write_index(&mut self) -> Result<()> {
        let index = std::mem::take(&mut self.index);
        if !index.packs.is_empty() {
            self.folder.write(FileKind::Index, &sealed::write(&self.key, &index)?)?;
        }
        Ok(())
    }

    /// Makes everything durable that was put, and names it in an index.
    pub fn flush(&mut self) -> Result<()> {
        // Without the lock, packs that no index names yet may be gone.
        self.lock.keep(&self.folder, &self.key)?;
        self.write_pack(BlobKind::Data)?;
        self.write_pack(BlobKind::Tree)?;
        self.write_index()
    }

    /// Writes a snapshot, after everything that it needs.
    pub fn put_snapshot(&mut self, snapshot: &Snapshot) -> Result<Id> {
        self.flush()?;
        self.lock.keep(&self.folder, &self.key)?;
        self.folder.write(FileKind::Snapshot, &sealed::write(&self.key, snapshot)?)
    }

    /// All snapshots.
    pub fn snapshots(&self) -> Result<Vec<(Id, Snapshot)>> {
        let ids = self.folder.list(FileKind::Snapshot)?;
        ids.into_iter().map(|id| Ok((id, self.read_document(FileKind::Snapshot, &id)?))).collect()
    }

    fn read_document<T: serde::de::DeserializeOwned>(&self, kind: FileKind, id: &Id) -> Result<T> {
        let path = self.folder.path_of(kind, id);
        let bytes = self.folder.read(&path)?;
        sealed::read(&self.key, &bytes).map_err(|what| Error::damaged(&path, what))
    }

    /// What was written so far.
    pub fn written(&self) -> Written {
        self.written
    }

    /// A file for what need not stay.
    pub fn scratch(&self) -> Result<fs::File> {
        self.folder.scratch()
    }

    /// Ends the work; what was put and not flushed is given up.
    pub fn close(self) -> Result<()> {
        self.lock.release(&self.folder)
    }
}

/// Finds the key that the password opens, and looks whether the repository is one that we can write.
fn open(folder: &Folder, password: &[u8]) -> Result<Key> {
    let (mut keys, mut damage) = (0, None);
    for id in folder.list(FileKind::Key)? {
        let path = folder.path_of(FileKind::Key, &id);
        let file = serde_json::from_slice::<KeyFile>(&folder.read(&path)?).map_err(|error| error.to_string());
        keys += 1;
        match file.and_then(|file| file.unwrap_with(password)) {
            Ok(Some(key)) => return check_config(folder, &key).map(|()| key),
            Ok(None) => {}
            Err(what) => damage = Some(Error::damaged(&path, what)),
        }
    }
    Err(damage.unwrap_or_else(|| Error::WrongPassword { path: folder.path().join("keys"), keys }))
}

fn check_config(folder: &Folder, key: &Key) -> Result<()> {
    let path = folder.config();
    let config: Value = sealed::read(key, &folder.read(&path)?).map_err(|what| Error::damaged(&path, what))?;
    let version = config.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(found) => Err(Error::OtherVersion { path: folder.path().to_owned(), found }),
        None => Err(Error::damaged(&path, "it has no version")),
    }
}

fn create(folder: &Folder, password: &[u8], host: &str) -> Result<Key> {
    if !folder.is_free()? {
        return Err(Error::NotARepository { path: folder.path().to_owned() });
    }
    folder.make()?;
    // A creation that was cut off has left a key that fits nothing, and restic would try it.
    for id in folder.list(FileKind::Key)? {
        folder.remove(FileKind::Key, &id)?;
    }
    let key = Key::random()?;
    let file = KeyFile::wrap(&key, password, host, Timestamp::now())?;
    let json = serde_json::to_vec(&file).map_err(|_| Error::Crypto("JSON"))?;
    folder.write(FileKind::Key, &json)?;
    let id = Id::from_bytes(random()?).to_string();
    let config = Config { version: VERSION, id, chunker_polynomial: format!("{:x}", polynomial::draw()?) };
    folder.write_to(&folder.config(), &sealed::write_plainly(&key, &config)?)?;
    Ok(key)
}

fn scratch(folder: &Folder) -> impl FnOnce(std::io::Error) -> Error {
    Error::io("use a temporary file in", folder.path())
}
