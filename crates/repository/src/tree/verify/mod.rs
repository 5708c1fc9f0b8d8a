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
use super::{Error, Incidents, TreePath};
use crate::{Progress, Repository, TableRef, table};

/// How a tree is checked.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// What of the directory is no part of the tree.
    pub walk: WalkOptions,
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
    let (directory, options) = (directory.map(Path::to_owned), options.clone());
    let work = move || match directory {
        None => check_structure(&runtime, &cache, &reader, &options.cancel),
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
    cancel: &CancellationToken,
) -> Result<VerifySummary, Error> {
    let mut summary = VerifySummary::default();
    let mut entries = Entries::new(runtime, reader);
    while let Some((path, entry)) = entries.next()? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match &entry.kind {
            Kind::File(file) => cache.check_extents(runtime, &path, file)?,
            Kind::HardLink { first } => check_link(runtime, reader, &path, first)?,
            _ => {}
        }
        summary.count(&entry);
    }
    Ok(summary)
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
