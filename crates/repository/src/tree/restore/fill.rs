//! Filling one file, on a worker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;

use super::super::entry::{Attributes, File};
use super::super::metadata::Handle;
use super::super::source::BlobCache;
use super::super::{Error, TreePath};
use crate::{Counters, ErrorKind, Progress};

/// Files from this size on are synced one by one, by the worker that filled them, so that the pages that wait for the disk
/// stay few and an error is told with the file's name. Smaller ones are written by the sync of the whole file system at
/// the end: a sync for each would cost more than the files.
const SYNC_FROM_BYTES: u64 = 1 << 20;

/// What all workers share.
pub(super) struct Filler {
    pub(super) runtime: Runtime,
    pub(super) cache: Arc<BlobCache>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) cancel: CancellationToken,
}

/// A file that was made, still empty.
pub(super) struct Job {
    pub(super) path: TreePath,
    pub(super) opened: OwnedFd,
    pub(super) directory: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) file: File,
}

/// Why a file was not restored.
pub(super) enum Failure {
    /// This file only.
    File { path: TreePath, what: String },
    /// The whole run.
    Run(Error),
}

/// Why a file was not filled.
enum Broken {
    Repository(Error),
    FileSystem(&'static str, Errno),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Repository(error)
    }
}

impl Filler {
    /// Fills a file and gives it its attributes; gives its size. A file that did not get all of its content is removed,
    /// so that nobody takes it for whole.
    pub(super) fn fill(&self, job: Job) -> Result<u64, Failure> {
        let broken = match self.write_content(&job) {
            Err(broken) => broken,
            Ok(()) => {
                let set = Handle::Open(job.opened.as_fd()).apply(&job.attributes);
                let Err((action, error)) = set else { return Ok(job.file.size) };
                return Err(file_failure(job.path, action, error));
            }
        };
        let removed = rustix::fs::unlinkat(&job.directory, &job.name[..], AtFlags::empty());
        let mut failure = classify(job.path, broken);
        if let (Failure::File { what, .. }, Err(error)) = (&mut failure, removed) {
            what.push_str(&format!("; what there is of it could not be removed: {error}"));
        }
        Err(failure)
    }

    fn write_content(&self, job: &Job) -> Result<(), Broken> {
        let opened = job.opened.as_fd();
        rustix::fs::ftruncate(opened, job.file.size).map_err(|error| Broken::FileSystem("set the size of", error))?;
        self.cache.read_file(&self.runtime, &job.path, &job.file, |offset, bytes| {
            if self.cancel.is_cancelled() {
                return Err(Broken::Repository(Error::Cancelled));
            }
            self.progress.add(Counters { bytes: bytes.len() as u64, ..Counters::default() });
            write_all_at(opened, bytes, offset).map_err(|error| Broken::FileSystem("write", error))
        })?;
        if job.file.size >= SYNC_FROM_BYTES {
            rustix::fs::fsync(opened).map_err(|error| Broken::FileSystem("sync", error))?;
        }
        self.progress.add(Counters { files: 1, ..Counters::default() });
        Ok(())
    }
}

fn write_all_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))? {
            0 => return Err(Errno::IO),
            written => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
        }
    }
    Ok(())
}

/// Damage in the repository hits the files whose bytes are damaged; the others are restored.
fn classify(path: TreePath, broken: Broken) -> Failure {
    match broken {
        Broken::FileSystem(action, error) => file_failure(path, action, error),
        Broken::Repository(Error::Repository(error)) if error.kind() == ErrorKind::Damaged => {
            Failure::File { path, what: error.to_string() }
        }
        Broken::Repository(error @ Error::Damaged { .. }) => Failure::File { path, what: error.to_string() },
        Broken::Repository(error) => Failure::Run(error),
    }
}

/// Whether the next file would fail for the same reason.
pub(super) fn file_failure(path: TreePath, action: &'static str, error: Errno) -> Failure {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO | Errno::NFILE | Errno::MFILE => {
            Failure::Run(Error::FileSystem { action, path: path.to_string().into(), source: error.into() })
        }
        _ => Failure::File { path, what: format!("{action} it: {}", std::io::Error::from(error)) },
    }
}
