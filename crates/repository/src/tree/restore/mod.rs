//! Filling a directory from a file tree.
//!
//! One thread makes the files in the order of keys, so that a directory exists before what is in it; a few workers fill
//! them. A directory gets its owner, mode and times when everything in it was made, so the deepest come first; until
//! then only its owner may enter it. Nothing outside of the target is touched, whatever the tree says: names are
//! checked, and every step goes from an open directory into an entry that is not a symlink.

mod choose;
mod fill;
mod make;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::make::Maker;
pub use self::make::refuse_used;
use super::source::BlobCache;
use super::{Error, Incidents, TreePath, scoped};
use crate::{Progress, Repository, TableRef};

/// How a directory is filled.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Whether files that are there already are replaced. Without, a target that holds anything is refused. Set it to go
    /// on after an interruption: what was made before is made again, with the same result.
    pub replace: bool,
    /// Whether what files that are there have already is kept and not fetched again, if they are large: small ones come many at once anyway. What they have
    /// is read, and compared with what they should have. Only with `replace`.
    pub resume: bool,
    /// Names at the top of the target that are not looked at and not part of the tree; an empty `lost+found` always is.
    pub ignore_at_top: Vec<Vec<u8>>,
    /// Only this entry and what is below it, with the directories that lead there.
    pub only: Option<TreePath>,
    /// What must come out; anything else is an error.
    pub expected: Option<ExpectedCounts>,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

/// What the summary of the backup announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedCounts {
    pub files: u64,
    pub bytes: u64,
}

/// What was restored, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreSummary {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    /// The sizes of the files, holes included.
    pub bytes: u64,
    /// Bytes of files that were there already, and not written.
    #[serde(default)]
    pub kept_bytes: u64,
    /// Files that could not be made, filled, or given their attributes. A file without its whole content is taken away.
    pub failed: Incidents,
}

/// Fills `target` with the files of a tree. The directory is made if it is missing.
///
/// What hits one file is collected in the summary; a store that cannot be reached, a full disk or a tree that breaks the
/// rules of its format ends the work. When it returns, the file system has written everything.
pub async fn restore(
    repository: &Repository,
    root: &TableRef,
    target: &Path,
    options: &RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<RestoreSummary, Error> {
    let runtime = tokio::runtime::Handle::current();
    let cache = Arc::new(BlobCache::new(repository.clone()));
    let reader = crate::table::Reader::new(repository, *root);
    let (target, mut options) = (target.to_owned(), options.clone());
    let _ended_when_dropped = scoped(&mut options.cancel);
    let expected = options.expected;
    let work = move || Maker::open(&target, options, runtime, cache, progress)?.run(&reader);
    let summary = tokio::task::spawn_blocking(work).await??;
    check_counts(&summary, expected)?;
    Ok(summary)
}

/// Compares with what was announced, unless files failed: then the summary says so already.
fn check_counts(summary: &RestoreSummary, expected: Option<ExpectedCounts>) -> Result<(), Error> {
    let found = ExpectedCounts { files: summary.files, bytes: summary.bytes };
    match expected {
        Some(expected) if summary.failed.is_empty() && expected != found => Err(Error::CountsDiffer {
            found_files: found.files,
            found_bytes: found.bytes,
            expected_files: expected.files,
            expected_bytes: expected.bytes,
        }),
        _ => Ok(()),
    }
}
