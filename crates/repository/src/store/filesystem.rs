//! A folder of a file system as a store.
//!
//! An object is written in four steps, and what a crash leaves after each is harmless:
//! 1. a file under `unfinished/` is written: a leftover there, which `check` lists as foreign;
//! 2. the file is synced: the same;
//! 3. it is moved to its name, which fails if the name is taken: the object is there, whole, or not there;
//! 4. the folder is synced: from here on the object survives a power failure. Only now is the creation reported.

use super::{ObjectAccess, ObjectInfo, StoreError, StoreErrorKind};
use crate::codec::to_hex;
use crate::layout::UNFINISHED;
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct FileSystem {
    root: PathBuf,
}

impl FileSystem {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Refuses names that would leave the root.
    fn path(&self, operation: &'static str, name: &str) -> Result<PathBuf, StoreError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if name.split('/').all(plain) {
            Ok(self.root.join(name))
        } else {
            Err(StoreError::new(StoreErrorKind::Invalid, operation, name))
        }
    }

    /// Runs file work on a thread where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.path(operation, name)?;
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(result) => result.map_err(|error| StoreError::io(operation, name, error)),
            Err(error) => Err(StoreError::new(StoreErrorKind::Unreachable, operation, name).because(error)),
        }
    }
}

#[async_trait]
impl ObjectAccess for FileSystem {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let root = self.root.clone();
        self.blocking("create", name, move |path| create(&root, path, &bytes)).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        let read = self.blocking("read", name, move |path| {
            let mut file = File::open(path)?;
            let size = file.metadata()?.len();
            if size > limit {
                return Ok(None);
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            Read::take(&mut file, limit).read_to_end(&mut bytes)?;
            Ok(Some(Bytes::from(bytes)))
        });
        read.await?.ok_or_else(|| StoreError::new(StoreErrorKind::TooLarge, "read", name))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let read = move |path: &Path| {
            let mut file = File::open(path)?;
            let there = file.metadata()?.len().min(range.end).saturating_sub(range.start);
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::with_capacity(usize::try_from(there).unwrap_or(0));
            file.take(there).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        };
        self.blocking("read", name, read).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.blocking("look at", name, |path| fs::metadata(path).map(|metadata| metadata.len())).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let root = self.root.clone();
        let folder = prefix.to_owned();
        match tokio::task::spawn_blocking(move || list(&root, &folder)).await {
            Ok(result) => result.map_err(|error| StoreError::io("list", prefix, error)),
            Err(error) => Err(StoreError::new(StoreErrorKind::Unreachable, "list", prefix).because(error)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.blocking("delete", name, |path| {
            fs::remove_file(path)?;
            path.parent().map_or(Ok(()), sync_folder)
        })
        .await
    }
}

fn create(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(root);
    create_folder(folder)?;
    let unfinished = root.join(UNFINISHED);
    create_folder(&unfinished)?;
    let token = crate::crypto::random::<16>().map_err(io::Error::other)?;
    let temporary = unfinished.join(to_hex(&token));
    let written = write_synced(&temporary, bytes).and_then(|()| move_to_free_name(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover under `unfinished/` harms nobody.
        if let Err(leftover) = fs::remove_file(&temporary)
            && leftover.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %temporary.display(), error = %leftover, "an unfinished file stays behind");
        }
        return Err(error);
    }
    sync_folder(folder)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Moves a file to a name that must be free, in one step.
///
/// Not every file system can rename without replacing (NFS cannot); those can make a hard link.
fn move_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates a folder with those above it, each made durable in the one above.
fn create_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).ok_or(error)?;
            create_folder(above)?;
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => sync_folder(above),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Walks the tree under `folder` without recursion.
///
/// A folder that may not be read is listed as an object of no length when it cannot be the repository's own, because foreign
/// things at the place (`lost+found`) are none of our business.
fn list(root: &Path, folder: &str) -> io::Result<Vec<ObjectInfo>> {
    let mut objects = Vec::new();
    let mut folders = vec![folder.trim_end_matches('/').to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_foreign_folder(&folder) => {
                objects.push(ObjectInfo { name: folder, size: 0 });
                continue;
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(name),
                Ok(metadata) => objects.push(ObjectInfo { name, size: metadata.len() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(objects)
}

fn is_foreign_folder(folder: &str) -> bool {
    !folder.is_empty() && !["domains", "epochs"].contains(&folder.split('/').next().unwrap_or_default())
}
