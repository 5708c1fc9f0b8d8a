//! Filling one file, on a worker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Advice, AtFlags, FallocateFlags};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio_util::sync::CancellationToken;

use super::super::entry::{Attributes, Extent, File};
use super::super::metadata::Handle;
use super::super::source::BlobCache;
use super::super::{Error, TreePath};
use crate::{Counters, ErrorKind, Progress, pack};

/// Files from this size on are synced one by one, by the worker that filled them, so that the pages that wait for the disk
/// stay few and an error is told with the file's name. Smaller ones are written by the sync of the whole file system at
/// the end: a sync for each would cost more than the files.
const SYNC_FROM_BYTES: u64 = 1 << 20;

/// Files from this size on have blobs of their own, whose ids tell what a file that is there has of them.
pub(super) const REUSED_FROM_BYTES: u64 = 1 << 20;

/// What all workers share.
pub(super) struct Filler {
    pub(super) runtime: Runtime,
    pub(super) cache: Arc<BlobCache>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) cancel: CancellationToken,
}

/// A file to fill.
pub(super) struct Job {
    pub(super) path: TreePath,
    pub(super) opened: OwnedFd,
    /// It is empty; else it may have some of what it is to have.
    pub(super) is_new: bool,
    pub(super) directory: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) file: File,
}

/// A file that was restored.
pub(super) struct Filled {
    pub(super) size: u64,
    /// Bytes that it had already.
    pub(super) kept: u64,
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
    /// Fills a file and gives it its attributes. A file that did not get all of its content is removed, so that nobody takes it for whole.
    pub(super) fn fill(&self, job: Job) -> Result<Filled, Failure> {
        let broken = match self.write_content(&job) {
            Err(broken) => broken,
            Ok(kept) => {
                let set = Handle::Open(job.opened.as_fd()).apply(&job.attributes);
                let Err((action, error)) = set else { return Ok(Filled { size: job.file.size, kept }) };
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

    /// Gives how many bytes were there already.
    fn write_content(&self, job: &Job) -> Result<u64, Broken> {
        let opened = job.opened.as_fd();
        let failed = |action| move |error| Broken::FileSystem(action, error);
        let reused = !job.is_new && can_be_reused(opened, job.file.size).map_err(failed("look at what there is of"))?;
        if !job.is_new && !reused {
            rustix::fs::ftruncate(opened, 0).map_err(failed("empty"))?;
        }
        rustix::fs::ftruncate(opened, job.file.size).map_err(failed("set the size of"))?;
        let (mut kept, mut end, mut buffer) = (0, 0, Vec::new());
        let has = |extent: &Extent| reused && self.is_there(opened, extent, &mut buffer);
        self.cache.read_lacking(&self.runtime, &job.path, &job.file, has, |extent, bytes| {
            if self.cancel.is_cancelled() {
                return Err(Broken::Repository(Error::Cancelled));
            }
            let (start, len) = (extent.file_offset, u64::from(extent.len));
            if reused {
                make_hole(opened, end, start).map_err(failed("make a hole in"))?;
                end = start + len;
            }
            self.progress.add(Counters { bytes: len, ..Counters::default() });
            match bytes {
                Some(bytes) => return write_all_at(opened, bytes, start).map_err(failed("write")),
                None => kept += len,
            }
            Ok(())
        })?;
        if reused {
            make_hole(opened, end, job.file.size).map_err(failed("make a hole in"))?;
        }
        if job.file.size >= SYNC_FROM_BYTES {
            rustix::fs::fsync(opened).map_err(|error| Broken::FileSystem("sync", error))?;
        }
        self.progress.add(Counters { files: 1, ..Counters::default() });
        Ok(kept)
    }

    /// Whether a file has an extent. Of a piece of a blob nobody knows without the rest, and what cannot be read is written anew.
    fn is_there(&self, file: BorrowedFd<'_>, extent: &Extent, buffer: &mut Vec<u8>) -> bool {
        let is_whole = extent.blob_offset == 0 && extent.len == extent.blob.plain_len;
        if !is_whole || pack::check_lengths(&extent.blob).is_err() {
            return false;
        }
        buffer.resize(extent.len as usize, 0);
        read_all_at(file, buffer, extent.file_offset) && self.cache.identify(buffer) == extent.blob.id
    }
}

/// Makes sure that what there is of a file is read from the disk: after a write that failed, the cache has what the disk has not. Not where no holes can be made,
/// since there may be something where one belongs.
fn can_be_reused(file: BorrowedFd<'_>, size: u64) -> Result<bool, Errno> {
    rustix::fs::fdatasync(file)?;
    match rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    match make_hole(file, size, size + 1) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

fn make_hole(file: BorrowedFd<'_>, start: u64, end: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if start < end { rustix::fs::fallocate(file, flags, start, end - start) } else { Ok(()) }
}

fn read_all_at(file: BorrowedFd<'_>, mut bytes: &mut [u8], mut offset: u64) -> bool {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *bytes, offset)) {
            Ok(0) | Err(_) => return false,
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    true
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
