//! A folder of a file system as a store.
//!
//! An object is written in four steps, and what a crash leaves after each is harmless:
//! 1. a file under `unfinished/` is made, locked and written: a leftover there, which `check` lists as foreign, and a collector clears away
//!    when nobody has it locked any more, or nobody has touched it for long;
//! 2. the file is synced: the same;
//! 3. it is moved to its name, which fails if the name is taken: the object is there, whole, or not there;
//! 4. the folder is synced: from here on the object survives a power failure. Only now is the creation reported, or that the name
//!    is taken.

use super::disk::{self, Disk, RealDisk};
use super::{ObjectAccess, ObjectInfo, StoreError, StoreErrorKind};
use crate::codec::to_hex;
use crate::layout::UNFINISHED;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct FileSystem {
    root: PathBuf,
    creator: Arc<Creator>,
}

/// What creates objects.
#[derive(Debug)]
struct Creator {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Folders that are known to be durable in the ones above: as many as a repository has, some 260.
    durable: Mutex<HashSet<PathBuf>>,
}

impl FileSystem {
    pub(super) fn new(root: PathBuf) -> Self {
        Self::on(RealDisk, root)
    }

    pub(super) fn on(disk: impl Disk, root: PathBuf) -> Self {
        let creator = Creator { root: root.clone(), disk: Box::new(disk), durable: Mutex::default() };
        Self { root, creator: Arc::new(creator) }
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

    /// Runs file work on a thread where it may block; `sort` tells what its error is.
    async fn blocking<T: Send + 'static, E: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        sort: fn(&'static str, &str, E) -> StoreError,
        work: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.path(operation, name)?;
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(result) => result.map_err(|error| sort(operation, name, error)),
            Err(error) => Err(StoreError::new(StoreErrorKind::Unreachable, operation, name).because(error)),
        }
    }
}

#[async_trait]
impl ObjectAccess for FileSystem {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let creator = Arc::clone(&self.creator);
        let sort = |operation, name: &str, failed| match failed {
            Failed::Call(error) => StoreError::io(operation, name, error),
            Failed::Sync(error) => StoreError::io_of_sync(operation, name, error),
        };
        self.blocking("create", name, sort, move |path| creator.create(path, &bytes)).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        let read = self.blocking("read", name, StoreError::io_of_read, move |path| {
            let mut file = File::open(path)?;
            let size = file.metadata()?.len();
            if size > limit {
                return Ok::<_, io::Error>(None);
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
        self.blocking("read", name, StoreError::io_of_read, read).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        let look = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        self.blocking("look at", name, StoreError::io_of_read, look).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let root = self.root.clone();
        let folder = prefix.to_owned();
        match tokio::task::spawn_blocking(move || list(&root, &folder)).await {
            Ok(result) => result.map_err(|error| StoreError::io("list", prefix, error)),
            Err(error) => Err(StoreError::new(StoreErrorKind::Unreachable, "list", prefix).because(error)),
        }
    }

    fn leaves_unfinished(&self) -> bool {
        true
    }

    async fn is_abandoned(&self, unfinished: &str) -> bool {
        let look = |path: &Path| disk::is_locked_by_nobody(path);
        self.blocking("look at", unfinished, StoreError::io_of_read, look).await.unwrap_or(false)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.blocking("delete", name, StoreError::io, |path| {
            fs::remove_file(path)?;
            path.parent().map_or(Ok(()), sync_folder)
        })
        .await
    }
}

/// Why an object was not created.
enum Failed {
    Call(io::Error),
    /// A sync: whoever repeats it may be told that all is well, although the bytes are lost.
    Sync(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Call(error)
    }
}

impl Creator {
    /// Creates an object. That its name is taken is told only when whatever is there is durable, because the caller may find that
    /// it is what he wants: an earlier process may have ended between the move and the sync.
    fn create(&self, path: &Path, bytes: &[u8]) -> Result<(), Failed> {
        let folder = path.parent().unwrap_or(&self.root);
        self.make_folder(folder)?;
        let unfinished = self.root.join(UNFINISHED.trim_end_matches('/'));
        self.make_folder(&unfinished)?;
        let token = crate::crypto::random::<16>().map_err(io::Error::other)?;
        let temporary = unfinished.join(to_hex(&token));
        // Kept open until it has its name, because it is locked as long.
        let written = self.write_synced(&temporary, bytes).and_then(|_open| {
            match self.move_to_free_name(&temporary, path) {
                // A collector took this process for dead, and cleared away what it was writing: it is written again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failed::Call(io::Error::other(error))),
                moved => Ok(moved?),
            }
        });
        match &written {
            Ok(()) => {}
            Err(Failed::Call(error)) if error.kind() == io::ErrorKind::AlreadyExists => self.clean_up(&temporary),
            Err(_) => {
                self.clean_up(&temporary);
                return written;
            }
        }
        self.disk.sync_folder(folder).map_err(Failed::Sync)?;
        written
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<File, Failed> {
        let file = self.disk.write_new(path, bytes)?;
        self.disk.sync_file(path, &file).map_err(Failed::Sync)?;
        Ok(file)
    }

    /// Moves a file to a name that must be free. Where that is not one step, it is given a second name, and loses the first.
    fn move_to_free_name(&self, from: &Path, to: &Path) -> io::Result<()> {
        let unknown = |error: &io::Error| {
            matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP))
        };
        match self.disk.move_to_free_name(from, to) {
            Err(error) if unknown(&error) => {}
            moved => return moved,
        }
        match self.disk.link(from, to) {
            // NFS repeats a request whose answer was lost, and then refuses what it has done itself.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_same_file(from, to) => {}
            linked => linked?,
        }
        self.clean_up(from);
        Ok(())
    }

    fn is_same_file(&self, one: &Path, other: &Path) -> bool {
        self.disk.is_same_file(one, other).unwrap_or(false)
    }

    /// Takes an unfinished file away; one that stays harms nobody.
    fn clean_up(&self, temporary: &Path) {
        if let Err(error) = self.disk.remove(temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %temporary.display(), %error, "an unfinished file stays behind");
        }
    }

    /// Makes a folder of the store with those above it, each durable in the one above before there is anything in it.
    ///
    /// A folder that is there already may have been made by a process that ended before it synced, or by one that is about to:
    /// it is made durable once by each process.
    fn make_folder(&self, folder: &Path) -> Result<(), Failed> {
        let Some(above) = above(folder) else { return Ok(()) };
        if folder != self.root {
            self.make_folder(above)?;
        }
        let made = match self.disk.make_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder == self.root => {
                self.make_above_root(above)?;
                self.disk.make_folder(folder)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_durable(folder) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        if folder == self.root { self.sync_above_root() } else { self.disk.sync_folder(above) }
            .map_err(Failed::Sync)?;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    /// Makes the folders that lead to the store.
    fn make_above_root(&self, folder: &Path) -> io::Result<()> {
        let Some(above) = above(folder) else { return Ok(()) };
        match self.disk.make_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_above_root(above)?;
                self.disk.make_folder(folder)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Makes the folders that lead to the store durable, each in the one above: any of them may have been made by a process that ended before
    /// it synced. Those that may not be read, or that their file system does not sync, were not made for a store.
    fn sync_above_root(&self) -> io::Result<()> {
        let mut next = above(&self.root);
        while let Some(folder) = next {
            match self.disk.sync_folder(folder) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::ROFS)) => {}
                synced => synced?,
            }
            next = above(folder).filter(|above| *above != folder);
        }
        Ok(())
    }

    fn is_durable(&self, folder: &Path) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }
}

/// The folder that holds a folder; none above the root of all.
fn above(folder: &Path) -> Option<&Path> {
    folder.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above })
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
                objects.push(ObjectInfo { name: folder, size: 0, modified: None });
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
                Ok(metadata) => objects.push(info(name, &metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(objects)
}

/// The time is that of the content: a link or a move leaves it as it was.
fn info(name: String, metadata: &fs::Metadata) -> ObjectInfo {
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    ObjectInfo { name, size: metadata.len(), modified }
}

fn is_foreign_folder(folder: &str) -> bool {
    !folder.is_empty() && !["domains", "epochs"].contains(&folder.split('/').next().unwrap_or_default())
}
