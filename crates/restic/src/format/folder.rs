//! The files of a repository in a folder: each is written under another name, synced, and gets its own when it is whole.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Id;
use super::error::{Error, Result};

/// The longest file that is read as a whole, in bytes; packs are never read.
const MOST_LEN: u64 = 256 << 20;
/// What the names of unfinished files begin with, so that only ours are ever removed.
const UNFINISHED: &str = "orlop-";

/// What a file is; each kind has a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Pack,
    Index,
    Snapshot,
    Key,
    Lock,
}

impl FileKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Pack => "data",
            Self::Index => "index",
            Self::Snapshot => "snapshots",
            Self::Key => "keys",
            Self::Lock => "locks",
        }
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing, or an empty folder, or what a creation that was cut off has left.
    pub(super) fn is_free(&self) -> Result<bool> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io("list", &self.path)(error)),
        };
        let ours = ["data", "index", "snapshots", "keys", "locks", "tmp"];
        for entry in entries {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            if !ours.iter().any(|folder| name == *folder) {
                return Ok(false);
            }
        }
        let used = |kind| Ok::<_, Error>(!self.list(kind)?.is_empty());
        Ok(!used(FileKind::Snapshot)? && !used(FileKind::Index)? && !self.has_packs())
    }

    fn has_packs(&self) -> bool {
        for first in 0..=u8::MAX {
            let folder = self.path.join("data").join(format!("{first:02x}"));
            if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
                return true;
            }
        }
        false
    }

    /// Makes the folders, durably.
    pub(super) fn make(&self) -> Result<()> {
        let packs = self.path.join("data");
        fs::create_dir_all(&packs).map_err(Error::io("make", &packs))?;
        for first in 0..=u8::MAX {
            make_one(&packs.join(format!("{first:02x}")))?;
        }
        for folder in ["index", "snapshots", "keys", "locks", "tmp"] {
            make_one(&self.path.join(folder))?;
        }
        sync(&packs)?;
        sync(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
            _ => Ok(()),
        }
    }

    pub(super) fn path_of(&self, kind: FileKind, id: &Id) -> PathBuf {
        let (folder, name) = (self.path.join(kind.folder()), id.to_string());
        match kind {
            FileKind::Pack => folder.join(&name[..2]).join(name),
            _ => folder.join(name),
        }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join("config")
    }

    /// Writes a file that is named by its bytes.
    pub(super) fn write(&self, kind: FileKind, bytes: &[u8]) -> Result<Id> {
        let id = Id::of(bytes);
        self.write_to(&self.path_of(kind, &id), bytes)?;
        Ok(id)
    }

    /// Writes a file; it is there as a whole and durable when this returns, or not there.
    pub(super) fn write_to(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let unfinished = self.path.join("tmp");
        make_one(&unfinished)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&unfinished)
            .map_err(Error::io("make a file in", &unfinished))?;
        file.write_all(bytes).map_err(Error::io("write", file.path()))?;
        file.as_file().sync_all().map_err(Error::io("sync", file.path()))?;
        if let Some(folder) = path.parent() {
            make_one(folder)?;
            file.persist(path).map_err(|error| Error::io("write", path)(error.error))?;
            sync(folder)?;
        }
        Ok(())
    }

    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut bytes = Vec::new();
        file.take(MOST_LEN + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        if bytes.len() as u64 > MOST_LEN {
            return Err(Error::damaged(path, format!("it is longer than {MOST_LEN} bytes")));
        }
        Ok(bytes)
    }

    /// Removes a file; one that is gone already is a success.
    pub(super) fn remove(&self, kind: FileKind, id: &Id) -> Result<()> {
        let path = self.path_of(kind, id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The files of a kind, but packs; what has another name is not of the repository.
    pub(super) fn list(&self, kind: FileKind) -> Result<Vec<Id>> {
        let folder = self.path.join(kind.folder());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &folder)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("list", &folder))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<Id>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The unfinished files that are there; when nobody else has a lock afterwards, their writers are dead.
    pub(super) fn unfinished(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join("tmp")).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
            .map(|entry| entry.path())
            .collect()
    }

    /// A file without a name, for what need not stay.
    pub(super) fn scratch(&self) -> Result<File> {
        let folder = self.path.join("tmp");
        tempfile::tempfile_in(&folder).map_err(Error::io("make a file in", &folder))
    }
}

fn make_one(path: &Path) -> Result<()> {
    // As private as restic makes them.
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("make", path)(error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("sync", folder))
}
