//! Bringing recovery points into a restic repository.
//!
//! The work is done on one blocking thread, front to back: read and verify, cut, look whether it is there, compress, seal. What is in memory
//! at once is a window of a volume or some blobs of a file, a pack of data and one of listings, and the listings of the folders that are open.

mod application;
mod content;
mod error;
mod links;
mod places;
mod point;
mod stack;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use ::repository::tree::{ContentReader, Incidents, TreePath};
use ::repository::{Progress, RecoveryPoint, Repository as Source};
use serde::Serialize;
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;

pub use self::error::Error;
use crate::format::{self, Id};

/// Where recovery points are exported to, and what opens it.
pub struct Options {
    /// The folder of the restic repository; made if there is none.
    pub path: PathBuf,
    /// Its password.
    pub password: String,
    /// The machine that exports, for locks and keys.
    pub host: String,
    /// The program that exports, with its version.
    pub program: String,
    /// Ends the work early, with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

/// What became of one recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// The recovery point.
    pub recovery_point: String,
    /// The name of the snapshot, all of it.
    pub snapshot: String,
    /// Whether the snapshot was there already, so that nothing was done.
    pub existed: bool,
    /// Files, hard links not counted.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that the restic repository did not have.
    pub new_bytes: u64,
    /// Bytes that these take there.
    pub stored_bytes: u64,
    /// What a restic repository cannot hold as it was.
    pub changed: Incidents,
}

/// Exports recovery points, in the order in which they are given; `done` is told of each when its snapshot is durable.
///
/// What was exported before an error stays.
pub async fn export(
    source: &Source,
    points: Vec<RecoveryPoint>,
    options: Options,
    progress: Arc<dyn Progress>,
    mut done: impl FnMut(Exported) + Send + 'static,
) -> Result<(), Error> {
    let (source, runtime) = (source.clone(), Runtime::current());
    let work = move || {
        let password = options.password.as_bytes();
        let mut target = format::Repository::open_or_create(&options.path, password, &options.host)?;
        let result = points.iter().try_for_each(|point| {
            let mut run = Run::new(&source, point, &mut target, &options, &*progress, &runtime);
            done(run.point()?);
            Ok(())
        });
        finish(target, result)
    };
    tokio::task::spawn_blocking(work).await?
}

/// Names what was stored in an index even after a failure, so that the next run finds it, and gives the lock back.
fn finish(mut target: format::Repository, result: Result<(), Error>) -> Result<(), Error> {
    let flushed = target.flush();
    let closed = target.close();
    result.and(flushed.map_err(Error::from)).and(closed.map_err(Error::from))
}

/// The export of one recovery point.
struct Run<'a> {
    source: &'a Source,
    point: &'a RecoveryPoint,
    target: &'a mut format::Repository,
    options: &'a Options,
    progress: &'a dyn Progress,
    runtime: &'a Runtime,
    contents: Arc<ContentReader>,
    files: u64,
    bytes: u64,
    changed: Incidents,
}

impl<'a> Run<'a> {
    fn new(
        source: &'a Source,
        point: &'a RecoveryPoint,
        target: &'a mut format::Repository,
        options: &'a Options,
        progress: &'a dyn Progress,
        runtime: &'a Runtime,
    ) -> Self {
        let contents = Arc::new(ContentReader::new(source));
        let changed = Incidents::default();
        Self { source, point, target, options, progress, runtime, contents, files: 0, bytes: 0, changed }
    }

    /// Ends the work if the caller wants that; asked between any two blobs.
    fn check_cancelled(&self) -> Result<(), Error> {
        if self.options.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Notes what is not as it was.
    fn note(&mut self, path: &TreePath, what: impl Into<String>) {
        self.changed.add(path, what);
    }
}

/// What a folder or a file became: a name is put before it where it belongs.
struct Finished {
    body: Vec<u8>,
    /// The listing, of a folder.
    tree: Option<Id>,
}
