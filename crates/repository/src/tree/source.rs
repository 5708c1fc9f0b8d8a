//! Reading a tree out of the repository: its entries in order, and the content of its files.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Handle as Runtime;
use tokio::sync::OnceCell;

use super::entry::{Content, Entry, Extent, File, Kind};
use super::{Error, TreePath};
use crate::{BlobId, BlobRef, Repository, TableRef, table};

/// Plain bytes of blobs that are kept after they were read: neighbours in a directory share a bundle, and files are
/// filled out of order by a few workers.
const CACHE_BYTES: usize = 8 << 20;

/// Blobs of one file that are read ahead of the one that is written, to hide the latency of an object store.
const READ_AHEAD_BLOBS: usize = 3;

/// The entries of a tree in the order of their keys, each with the rules of the format checked that can be checked
/// while going forward: names, and that a directory comes before what is in it.
pub(super) struct Entries {
    runtime: Runtime,
    entries: BoxStream<'static, crate::Result<(Bytes, Bytes)>>,
    places: Places,
}

impl Entries {
    pub(super) fn new(runtime: &Runtime, reader: &table::Reader) -> Self {
        Self { runtime: runtime.clone(), entries: reader.scan(&[]).boxed(), places: Places::default() }
    }

    /// The next entry; blocks.
    pub(super) fn next(&mut self) -> Result<Option<(TreePath, Entry)>, Error> {
        let Some((key, value)) = self.runtime.block_on(self.entries.next()).transpose()? else { return Ok(None) };
        let path = TreePath::from_key(&key)?;
        let entry = Entry::decode(&value).map_err(|error| Error::damaged(&path, error.to_string()))?;
        self.places.check(&path, &entry)?;
        Ok(Some((path, entry)))
    }
}

/// Where a walk over the entries of a tree is, to see that each has its directory before it.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The directory that the last entry is or is in.
    directory: Option<TreePath>,
}

impl Places {
    pub(crate) fn directory(&self) -> Option<&TreePath> {
        self.directory.as_ref()
    }

    /// Goes on to the next entry.
    pub(crate) fn check(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let is_directory = entry.kind == Kind::Directory;
        match (path.split(), &mut self.directory) {
            (None, _) if is_directory => {}
            (None, _) => return Err(Error::damaged(path, "the top of the tree is not a directory")),
            (Some(_), None) => return Err(Error::damaged(path, "it comes before the top of the tree")),
            (Some((parent, _)), Some(directory)) => {
                while *directory != parent {
                    let Some((outer, _)) = directory.split() else {
                        return Err(Error::damaged(path, "its directory is missing"));
                    };
                    *directory = outer;
                }
            }
        }
        if is_directory {
            self.directory = Some(path.clone());
        }
        match &entry.kind {
            Kind::HardLink { first } if first >= path => Err(Error::damaged(path, "its first name comes later")),
            _ => Ok(()),
        }
    }

    /// Goes over entries that were checked in another tree, of which the first has this key, to where they ended there: what follows the
    /// first depends on it alone. False if the first has no place here.
    pub(crate) fn pass(&mut self, first_key: &[u8], exit: &TreePath) -> bool {
        let Ok(first) = TreePath::from_key(first_key) else { return false };
        let fits = match (first.split(), &self.directory) {
            (None, directory) => directory.is_none(),
            (Some(_), None) => false,
            (Some((parent, _)), Some(directory)) => *directory == parent || directory.is_below(&parent),
        };
        if fits {
            self.directory = Some(exit.clone());
        }
        fits
    }
}

/// Blobs that were read lately. Whoever asks for one that is being read waits for that read.
pub(super) struct BlobCache {
    repository: Repository,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// Oldest first; few, so that looking through them costs nothing beside reading a blob.
    recent: VecDeque<(BlobRef, Arc<OnceCell<Bytes>>)>,
    bytes: usize,
}

impl BlobCache {
    pub(super) fn new(repository: Repository) -> Self {
        Self { repository, slots: Mutex::default() }
    }

    async fn read(&self, blob: BlobRef) -> crate::Result<Bytes> {
        let slot = self.slot(blob);
        slot.get_or_try_init(|| self.repository.read_blob(&blob)).await.cloned()
    }

    fn slot(&self, blob: BlobRef) -> Arc<OnceCell<Bytes>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = slots.recent.iter().find(|(known, _)| *known == blob) {
            return slot.clone();
        }
        let slot = Arc::new(OnceCell::new());
        slots.recent.push_back((blob, slot.clone()));
        slots.bytes += blob.plain_len as usize;
        while slots.bytes > CACHE_BYTES && slots.recent.len() > 1 {
            if let Some((oldest, _)) = slots.recent.pop_front() {
                slots.bytes -= oldest.plain_len as usize;
            }
        }
        slot
    }

    /// Gives the data of a file, extent by extent in order, verified; blocks. `take` gets the offset and the bytes.
    pub(super) fn read_file<E: From<Error>>(
        &self,
        runtime: &Runtime,
        path: &TreePath,
        file: &File,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let take =
            |extent: &Extent, bytes: Option<&[u8]>| bytes.map_or(Ok(()), |bytes| take(extent.file_offset, bytes));
        self.read_lacking(runtime, path, file, |_| false, take)
    }

    /// The same without what the caller `has`; of this, `take` gets no bytes.
    pub(super) fn read_lacking<E: From<Error>>(
        &self,
        runtime: &Runtime,
        path: &TreePath,
        file: &File,
        mut has: impl FnMut(&Extent) -> bool + Send,
        mut take: impl FnMut(&Extent, Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let extents = match &file.content {
            Content::Extents(extents) => futures::stream::iter(extents.iter().cloned().map(Ok)).boxed(),
            Content::Table(table) => self.table_extents(path, *table),
        };
        let read = |extent: Extent| {
            let is_there = has(&extent);
            async move {
                let bytes = if is_there { None } else { Some(self.read(extent.blob).await?) };
                Ok::<_, Error>((extent, bytes))
            }
        };
        let mut data = extents.map_ok(read).try_buffered(READ_AHEAD_BLOBS).boxed();
        let mut end = 0;
        while let Some((extent, bytes)) = runtime.block_on(data.next()).transpose()? {
            let damaged = || Error::damaged(path, format!("its extent at {} lies wrongly", extent.file_offset));
            end = extent.end_after(end, file.size).ok_or_else(damaged)?;
            let start = extent.blob_offset as usize;
            match &bytes {
                Some(bytes) => {
                    let part = bytes.get(start..start + extent.len as usize).ok_or_else(damaged)?;
                    take(&extent, Some(part))?;
                }
                None => take(&extent, None)?,
            }
        }
        Ok(())
    }

    /// Identifies bytes as a blob is.
    pub(super) fn identify(&self, bytes: &[u8]) -> BlobId {
        self.repository.keys().identify(bytes)
    }

    /// Checks the extents of a file without reading its data, and names the blob of each; blocks.
    pub(super) fn check_extents(
        &self,
        runtime: &Runtime,
        path: &TreePath,
        file: &File,
        mut name: impl FnMut(BlobRef) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let table = match &file.content {
            // Checked when the entry was decoded.
            Content::Extents(extents) => return extents.iter().try_for_each(|extent| name(extent.blob)),
            Content::Table(table) => *table,
        };
        let mut extents = self.table_extents(path, table);
        let mut end = 0;
        while let Some(extent) = runtime.block_on(extents.next()).transpose()? {
            end = extent
                .end_after(end, file.size)
                .ok_or_else(|| Error::damaged(path, format!("its extent at {} lies wrongly", extent.file_offset)))?;
            name(extent.blob)?;
        }
        Ok(())
    }

    fn table_extents<'a>(&self, path: &'a TreePath, table: TableRef) -> BoxStream<'a, Result<Extent, Error>> {
        let decode = |(key, value): (Bytes, Bytes)| {
            std::future::ready(Extent::decode(&key, &value).map_err(|error| Error::damaged(path, error.to_string())))
        };
        table::Reader::new(&self.repository, table).scan(&[]).map_err(Error::from).and_then(decode).boxed()
    }
}
