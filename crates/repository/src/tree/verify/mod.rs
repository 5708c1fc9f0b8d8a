//! Checking a file tree: by itself, or against a directory.

mod compare;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;

use self::compare::Comparison;
use super::entry::{Entry, Kind};
use super::source::{BlobCache, Entries};
use super::walk::{Walk, WalkOptions};
use super::{Error, Incidents, TreePath, scoped};
use crate::directories::Directories;
use crate::{BlobRef, Progress, Repository, TableRef, table};

/// How a tree is checked.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// What of the directory is no part of the tree.
    pub walk: WalkOptions,
    /// Without a directory: whether every blob of content that is referred to must be in the directory of its pack too. So also
    /// what was taken over from earlier recovery points is known to be there, short of reading it.
    pub references: bool,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

/// What a check went over, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifySummary {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub bytes: u64,
    /// Files of the directory that are not as the tree says, are missing, or are not in the tree.
    pub differences: Incidents,
}

/// Checks that every page of a tree can be read and that its entries keep the rules of the format; breaking them is an
/// error. With a directory, compares every file with it as well: kind, owner, mode, modification time, extended
/// attributes, and each byte.
pub async fn verify(
    repository: &Repository,
    root: &TableRef,
    directory: Option<&Path>,
    options: &VerifyOptions,
    progress: Arc<dyn Progress>,
) -> Result<VerifySummary, Error> {
    let runtime = Runtime::current();
    let cache = Arc::new(BlobCache::new(repository.clone()));
    let reader = table::Reader::new(repository, *root);
    let repository = repository.clone();
    let (directory, mut options) = (directory.map(Path::to_owned), options.clone());
    let _ended_when_dropped = scoped(&mut options.cancel);
    let work = move || match directory {
        None => {
            let references = options.references.then(|| References::new(&runtime, &repository));
            check_structure(&runtime, &cache, &reader, references, &options.cancel)
        }
        Some(directory) => {
            let walk = Walk::open(&directory, options.walk)?;
            Comparison::new(runtime, cache, options.cancel, progress, walk.root().clone()).run(&reader, walk)
        }
    };
    tokio::task::spawn_blocking(work).await?
}

fn check_structure(
    runtime: &Runtime,
    cache: &BlobCache,
    reader: &table::Reader,
    mut references: Option<References>,
    cancel: &CancellationToken,
) -> Result<VerifySummary, Error> {
    let mut summary = VerifySummary::default();
    let mut entries = Entries::new(runtime, reader);
    while let Some((path, entry)) = entries.next()? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match &entry.kind {
            Kind::File(file) => cache.check_extents(runtime, &path, file, |blob| match &mut references {
                Some(references) => references.add(blob),
                None => Ok(()),
            })?,
            Kind::HardLink { first } => check_link(runtime, reader, &path, first)?,
            _ => {}
        }
        summary.count(&entry);
    }
    if let Some(references) = &mut references {
        references.check()?;
    }
    Ok(summary)
}

/// How many references are compared with the directories of their packs at once: 280 KiB, and with chunks of 1 MiB those of 4 GiB
/// of content.
const REFERENCES_AT_ONCE: usize = 4096;

/// References to content that wait to be compared with the directories of their packs.
struct References {
    runtime: Runtime,
    directories: Directories,
    waiting: Vec<BlobRef>,
}

impl References {
    fn new(runtime: &Runtime, repository: &Repository) -> Self {
        Self { runtime: runtime.clone(), directories: Directories::new(repository), waiting: Vec::new() }
    }

    fn add(&mut self, blob: BlobRef) -> Result<(), Error> {
        self.waiting.push(blob);
        if self.waiting.len() < REFERENCES_AT_ONCE { Ok(()) } else { self.check() }
    }

    fn check(&mut self) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        match self.runtime.block_on(self.directories.check(waiting)).into_iter().next() {
            Some((blob, wrong)) => Err(wrong.into_error(&blob).into()),
            None => Ok(()),
        }
    }
}

/// Another name must lead to the entry that has the content, directly.
fn check_link(runtime: &Runtime, reader: &table::Reader, path: &TreePath, first: &TreePath) -> Result<(), Error> {
    let Some(value) = runtime.block_on(reader.get(first.as_key()))? else {
        return Err(Error::damaged(path, format!("its first name {first} is missing")));
    };
    let entry = Entry::decode(&value).map_err(|error| Error::damaged(first, error.to_string()))?;
    match entry.kind {
        Kind::Directory | Kind::HardLink { .. } => {
            Err(Error::damaged(path, format!("its first name {first} holds no content")))
        }
        _ => Ok(()),
    }
}

impl VerifySummary {
    fn count(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::File(file) => {
                self.files += 1;
                self.bytes += file.size;
            }
            Kind::Directory => self.directories += 1,
            _ => self.others += 1,
        }
    }
}
