//! Storing a directory as a file tree.
//!
//! ```text
//!  walk, in key order ──► merge with the parent tree ──► queue, in key order ──► batches ──► table
//!  (one thread)            │ unchanged: its entry         ▲                        │ bundle of small files
//!                          └ else: a reader (threads) ────┘                        └► writer
//! ```
//!
//! Everything between the walk and the table is bounded: entries in the queue, bytes of small files that were read and
//! not yet bundled, large files that are read at once and chunks of each that are on their way into packs. Results are
//! used in the order of the walk, so equal directories give equal bundles and equal pages.

mod collect;
mod parent;
mod produce;
mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::collect::Collector;
use self::produce::Producer;
use self::read::FileReader;
use super::walk::{Walk, WalkOptions};
use super::{Error, Incidents, scoped};
use crate::{Progress, Repository, TableRef, Writer};

/// Items between the walk and the table, each an entry of some hundred bytes, or a group that is being read and has its share of a budget. Enough
/// to keep the readers busy past a large file.
const QUEUE_ITEMS: usize = 512;

/// The time after which a file that was written without new times has them. What is written through a memory mapping changes the
/// times once, and then not until the kernel has written the page to the disk: with its defaults that is begun 30 to 35 seconds
/// after the first change. The rest is for the writing, and for clocks that tick in seconds.
pub const SETTLE: Duration = Duration::from_secs(60);

/// How a directory is stored.
#[derive(Clone)]
pub struct BackupOptions {
    /// When the run started, by the clock of the machine that writes the files. A file that was changed at or after that,
    /// or just before, may change again without new times, so its times prove nothing to the next run.
    pub started: jiff::Timestamp,
    /// How old a change must be at the start for a file's times to prove its content.
    pub settle: Duration,
    /// What is left out.
    pub walk: WalkOptions,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

impl BackupOptions {
    /// One file system, everything in it.
    #[must_use]
    pub fn new(started: jiff::Timestamp) -> Self {
        Self { started, settle: SETTLE, walk: WalkOptions::default(), cancel: CancellationToken::new() }
    }
}

/// What was stored, and what was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TreeSummary {
    pub root: TableRef,
    /// Regular files, each counted once however many names it has.
    pub files: u64,
    pub directories: u64,
    /// Symlinks, fifos, devices and further names of files.
    pub others: u64,
    /// The sizes of the files, holes included.
    pub bytes: u64,
    /// Bytes of content and of the tree itself that the writer took as new, before compression.
    pub new_bytes: u64,
    /// Files taken over from the parent without reading them.
    pub unchanged_files: u64,
    /// Files that were written while they were read, also the second time: their content may never have existed.
    pub changed_while_read: Incidents,
    /// Files that were gone when their turn came.
    pub vanished: Incidents,
    /// Files that a named rule leaves out.
    pub skipped: Incidents,
    /// Files that could not be read: the tree lacks them.
    pub missed: Incidents,
    /// Why the parent could not be used to the end, if so; everything from there on was read.
    pub parent_lost: Option<String>,
}

impl TreeSummary {
    /// Whether the tree holds everything that was to be stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missed.is_empty()
    }
}

/// Stores the files below `directory` as a tree.
///
/// What is unchanged since `parent` by kind, size, times and inode is not read. The tree is in the repository for good
/// only once the writer is finished.
pub async fn backup(
    writer: &Writer,
    repository: &Repository,
    directory: &Path,
    parent: Option<&TableRef>,
    options: &BackupOptions,
    progress: Arc<dyn Progress>,
) -> Result<TreeSummary, Error> {
    let mut options = options.clone();
    let _ended_when_dropped = scoped(&mut options.cancel);
    let walk_options = options.walk.clone();
    let top = directory.to_owned();
    let walk = tokio::task::spawn_blocking(move || Walk::open(&top, walk_options)).await??;
    let runtime = tokio::runtime::Handle::current();
    let reader = Arc::new(FileReader::new(writer.clone(), repository.clone(), runtime, &options, progress));
    let (items, queue) = tokio::sync::mpsc::channel(QUEUE_ITEMS);
    let collector = Collector::new(writer, reader.clone(), walk.root().clone(), parent);
    let producer = Producer::new(reader, items);
    let parent = parent.copied();
    let produced = tokio::task::spawn_blocking(move || producer.run(walk, parent));
    // The collector goes first: when it fails, its end of the queue is gone, and so the producer ends too.
    let collected = collector.run(queue).await;
    let parent_lost = produced.await??;
    let mut summary = collected?;
    summary.parent_lost = parent_lost;
    Ok(summary)
}
