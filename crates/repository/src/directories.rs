//! The sealed directories of packs, to see whether what is referred to is there without reading it.

use crate::codec::Malformed;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BlobRef, PackId};
use crate::layout;
use crate::pack;
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use futures::{StreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;

/// How many entries of pack directories are kept in memory, at 76 bytes each: 20 MiB, the directories of some thousand packs.
const MAX_KEPT_ENTRIES: usize = 1 << 18;
/// How many directories are read at once: each takes a few small requests, one after the other.
const READS: usize = 4;

/// The entries of a pack in the order of their offsets, or why there are none.
type Directory = Result<Vec<pack::Entry>>;

/// What is wrong with a reference.
#[derive(Debug, Clone)]
pub(crate) enum Wrong {
    /// The pack is gone, or cannot say what it has: that hits whoever refers to it.
    Pack(Error),
    /// The pack is whole, and does not have the blob.
    Blob(Malformed),
}

impl Wrong {
    /// The error that tells of it.
    pub(crate) fn into_error(self, blob: &BlobRef) -> Error {
        match self {
            Self::Pack(error) => error,
            Self::Blob(what) => what.in_object(layout::pack(&blob.pack)),
        }
    }
}

/// The directories that were read, each once while there is room for it.
#[derive(Debug)]
pub(crate) struct Directories {
    repo: Repository,
    known: HashMap<PackId, Arc<Directory>>,
    kept_entries: usize,
}

impl Directories {
    pub(crate) fn new(repo: &Repository) -> Self {
        Self { repo: repo.clone(), known: HashMap::new(), kept_entries: 0 }
    }

    /// Compares references with the directories of their packs; gives those that are wrong.
    pub(crate) async fn check(&mut self, mut blobs: Vec<BlobRef>) -> Vec<(BlobRef, Wrong)> {
        blobs.sort_unstable_by_key(|blob| (blob.pack, blob.offset));
        let groups: Vec<&[BlobRef]> = blobs.chunk_by(|one, next| one.pack == next.pack).collect();
        let reads: Vec<_> = groups.iter().map(|group| self.directory(group[0].pack)).collect();
        let mut reads = stream::iter(reads).buffered(READS);
        let mut wrong = Vec::new();
        let mut groups = groups.into_iter();
        while let Some(directory) = reads.next().await {
            let group = groups.next().unwrap_or_default();
            wrong.extend(group.iter().filter_map(|blob| Some((*blob, judge(&directory, blob)?))));
            if let Some(blob) = group.first() {
                self.keep(blob.pack, directory);
            }
        }
        wrong
    }

    /// The directory of a pack: the one that is known, or the work that reads it.
    fn directory(&self, id: PackId) -> impl Future<Output = Arc<Directory>> + Send + use<> {
        let (known, repo) = (self.known.get(&id).cloned(), self.repo.clone());
        async move {
            match known {
                Some(directory) => directory,
                None => Arc::new(read(&repo, id).await),
            }
        }
    }

    fn keep(&mut self, id: PackId, directory: Arc<Directory>) {
        if self.known.contains_key(&id) {
            return;
        }
        if self.kept_entries > MAX_KEPT_ENTRIES {
            self.known.clear();
            self.kept_entries = 0;
        }
        self.kept_entries += directory.as_ref().as_ref().map_or(1, Vec::len);
        self.known.insert(id, directory);
    }
}

fn judge(directory: &Directory, blob: &BlobRef) -> Option<Wrong> {
    let entries = match directory {
        Ok(entries) => entries,
        Err(error) => return Some(Wrong::Pack(error.clone())),
    };
    let found = entries.binary_search_by_key(&blob.offset, |entry| entry.blob.offset).ok();
    let what = || format!("its directory does not have the blob at {} that is referred to", blob.offset);
    match found.and_then(|index| entries.get(index)) {
        Some(entry) if entry.blob == *blob => None,
        _ => Some(Wrong::Blob(Malformed::new(what()))),
    }
}

/// Reads a directory; the pack must be there with the length that its trailer says.
async fn read(repo: &Repository, id: PackId) -> Directory {
    let name = layout::pack(&id);
    let missing = || Error::Missing { object: name.clone() };
    let len = match repo.store().head(&name).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => return Err(missing()),
        len => len?,
    };
    match pack::read_directory(repo.store(), id, len, repo.keys()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
        directory => directory,
    }
}
