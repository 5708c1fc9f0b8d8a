//! Comparing a tree with a directory, side by side in the order of keys.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::content::DataRanges;
use super::super::entry::{Entry, File, Kind, Time};
use super::super::metadata::{Stat, restored_xattrs};
use super::super::source::{BlobCache, Entries};
use super::super::stack::open_below;
use super::super::walk::{Found, Place, Step, Walk};
use super::super::{Error, TreePath};
use super::VerifySummary;
use crate::{Counters, ErrorKind, Progress, table};

/// Files that are compared at once, as many as a restore fills.
const COMPARERS: usize = 4;

/// Bytes of a file that are read at once to see that a hole is one.
const HOLE_PIECE_BYTES: usize = 128 << 10;

/// Granularities of file systems' times in nanoseconds: a stored time may come back cut to one of them (NFS and SMB
/// servers, ext3, FAT).
const TIME_GRANULES_NS: [u32; 5] = [1, 100, 1_000, 1_000_000, 1_000_000_000];

/// A file, and in what it differs, if it does.
type Compared = Result<(TreePath, Option<String>), Error>;

pub(super) struct Comparison {
    shared: Arc<Shared>,
    root: Arc<OwnedFd>,
    turns: Arc<Semaphore>,
    workers: JoinSet<Compared>,
    summary: VerifySummary,
}

/// What the workers share.
struct Shared {
    runtime: Runtime,
    cache: Arc<BlobCache>,
    cancel: CancellationToken,
    progress: Arc<dyn Progress>,
}

/// Why a content was not found equal.
enum Unequal {
    Differs(String),
    Failed(Error),
}

impl From<Error> for Unequal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Comparison {
    pub(super) fn new(
        runtime: Runtime,
        cache: Arc<BlobCache>,
        cancel: CancellationToken,
        progress: Arc<dyn Progress>,
        root: Arc<OwnedFd>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared { runtime, cache, cancel, progress }),
            root,
            turns: Arc::new(Semaphore::new(COMPARERS)),
            workers: JoinSet::new(),
            summary: VerifySummary::default(),
        }
    }

    pub(super) fn run(mut self, reader: &table::Reader, walk: Walk) -> Result<VerifySummary, Error> {
        let shared = self.shared.clone();
        let mut entries = Entries::new(&shared.runtime, reader);
        let mut steps = walk.filter(|step| !matches!(step, Step::Skipped { .. })).peekable();
        while let Some((path, entry)) = entries.next()? {
            if shared.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            while let Some(step) = steps.next_if(|step| step.path() < &path) {
                self.take_extra(step);
            }
            self.summary.count(&entry);
            match steps.next_if(|step| step.path() == &path) {
                None => self.summary.differences.add(&path, "it is missing"),
                Some(Step::Found(found)) => self.compare(path, entry, found),
                Some(step) => self.take_extra(step),
            }
            while let Some(done) = self.workers.try_join_next() {
                self.take(done?)?;
            }
        }
        steps.for_each(|step| self.take_extra(step));
        while let Some(done) = shared.runtime.block_on(self.workers.join_next()) {
            self.take(done?)?;
        }
        Ok(self.summary)
    }

    fn take(&mut self, compared: Compared) -> Result<(), Error> {
        if let (path, Some(difference)) = compared? {
            self.summary.differences.add(&path, difference);
        }
        Ok(())
    }

    /// A step of the walk that belongs to no entry.
    fn take_extra(&mut self, step: Step) {
        match step {
            Step::Found(found) => self.summary.differences.add(&found.path, "it is not in the tree"),
            Step::Failed { path, action, error } => {
                self.summary.differences.add(&path, format!("{action} it: {}", std::io::Error::from(error)));
            }
            Step::Skipped { .. } => {}
        }
    }

    fn compare(&mut self, path: TreePath, entry: Entry, found: Found) {
        let difference = match &entry.kind {
            Kind::HardLink { first } => self.link_difference(&found.stat, first),
            _ => kind_difference(&entry.kind, &found).or_else(|| attribute_difference(&entry, &found)),
        };
        if let Some(difference) = difference {
            self.summary.differences.add(&path, difference);
            return;
        }
        let Kind::File(file) = entry.kind else {
            self.shared.progress.add(Counters { files: 1, ..Counters::default() });
            return;
        };
        let shared = self.shared.clone();
        let turn = shared.runtime.block_on(self.turns.clone().acquire_owned());
        let turn = turn.expect("the semaphore of a comparison is never closed");
        let runtime = shared.runtime.clone();
        let work = move || {
            let difference = shared.content_difference(&path, &file, &found);
            drop(turn);
            Ok((path, difference?))
        };
        self.workers.spawn_blocking_on(work, &runtime);
    }

    fn link_difference(&self, stat: &Stat, first: &TreePath) -> Option<String> {
        let (parent, name) = first.split()?;
        let of_first = open_below(&self.root, &parent).and_then(|directory| Stat::at(directory.as_fd(), name));
        match of_first {
            Ok(of_first) if of_first.is_same_file(stat) => None,
            _ => Some(format!("it is not the same file as {first}")),
        }
    }
}

impl Shared {
    /// Compares byte by byte; damage in the repository is a difference of the file that it hits.
    fn content_difference(&self, path: &TreePath, file: &File, found: &Found) -> Result<Option<String>, Error> {
        match self.compare_content(path, file, found) {
            Ok(()) => Ok(None),
            Err(Unequal::Differs(what)) => Ok(Some(what)),
            Err(Unequal::Failed(Error::Repository(error))) if error.kind() == ErrorKind::Damaged => {
                Ok(Some(error.to_string()))
            }
            Err(Unequal::Failed(error)) => Err(error),
        }
    }

    fn compare_content(&self, path: &TreePath, file: &File, found: &Found) -> Result<(), Unequal> {
        let Place::Named { directory, name } = &found.place else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(directory, &name[..], flags, Mode::empty()).map_err(unreadable)?;
        let opened = opened.as_fd();
        forget_cached(opened);
        let mut end = 0;
        let mut piece = Vec::new();
        self.cache.read_file(&self.runtime, path, file, |offset, bytes| {
            if self.cancel.is_cancelled() {
                return Err(Unequal::Failed(Error::Cancelled));
            }
            check_hole(opened, end, offset)?;
            piece.resize(bytes.len(), 0);
            read_at(opened, &mut piece, offset)?;
            if piece != bytes {
                return Err(Unequal::Differs(format!("its content differs in the {} bytes at {offset}", bytes.len())));
            }
            end = offset + bytes.len() as u64;
            self.progress.add(Counters { bytes: bytes.len() as u64, ..Counters::default() });
            Ok(())
        })?;
        check_hole(opened, end, file.size)?;
        self.progress.add(Counters { files: 1, ..Counters::default() });
        Ok(())
    }
}

/// Lets the pages of a file that are in memory and on the disk go from memory, so that what is compared comes from the disk. Where
/// the file system does not do that, the comparison is of what it has in memory, and still sees all but a bad disk.
fn forget_cached(file: BorrowedFd<'_>) {
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(%error, "a file is compared without letting its pages go");
    }
}

fn unreadable(error: Errno) -> Unequal {
    Unequal::Differs(format!("read it: {}", std::io::Error::from(error)))
}

fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<(), Unequal> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[done..], at)).map_err(unreadable)? {
            0 => return Err(Unequal::Differs(format!("it ends at {at}"))),
            len => done += len,
        }
    }
    Ok(())
}

/// What no extent covers must read as zeros; holes of the file are not read.
fn check_hole(file: BorrowedFd<'_>, start: u64, end: u64) -> Result<(), Unequal> {
    let mut ranges = DataRanges::new(file, start, end);
    let mut piece = Vec::new();
    while let Some((mut at, range_end)) = ranges.next().map_err(unreadable)? {
        while at < range_end {
            let len = usize::try_from(range_end - at).unwrap_or(usize::MAX).min(HOLE_PIECE_BYTES);
            piece.resize(len, 0);
            read_at(file, &mut piece, at)?;
            if piece.iter().any(|&byte| byte != 0) {
                return Err(Unequal::Differs(format!("it holds data at {at}, where the tree has a hole")));
            }
            at += len as u64;
        }
    }
    Ok(())
}

fn kind_difference(kind: &Kind, found: &Found) -> Option<String> {
    let stat = &found.stat;
    let expected = match kind {
        Kind::Directory => FileType::Directory,
        Kind::File(_) => FileType::RegularFile,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::CharacterDevice(_) => FileType::CharacterDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
        Kind::HardLink { .. } => return None,
    };
    if stat.kind != expected {
        return Some(format!("it is a {:?}, not a {expected:?}", stat.kind));
    }
    match (kind, &found.place) {
        (Kind::File(file), _) if file.size != stat.size => {
            Some(format!("it has {} bytes, not {}", stat.size, file.size))
        }
        (Kind::CharacterDevice(device) | Kind::BlockDevice(device), _) if *device != stat.represents => {
            Some(format!("it is device {:?}, not {device:?}", stat.represents))
        }
        (Kind::Symlink { target }, Place::Named { directory, name }) => {
            match rustix::fs::readlinkat(directory, &name[..], Vec::new()) {
                Ok(found) if found.as_bytes() == target => None,
                Ok(found) => Some(format!("it leads to {}", found.as_bytes().escape_ascii())),
                Err(error) => Some(format!("read it: {}", std::io::Error::from(error))),
            }
        }
        _ => None,
    }
}

fn attribute_difference(entry: &Entry, found: &Found) -> Option<String> {
    let (wanted, stat) = (&entry.attributes, &found.stat);
    if (wanted.uid, wanted.gid) != (stat.uid, stat.gid) {
        return Some(format!("its owner is {}:{}, not {}:{}", stat.uid, stat.gid, wanted.uid, wanted.gid));
    }
    if wanted.mode != stat.mode && stat.kind != FileType::Symlink {
        return Some(format!("its mode is {:o}, not {:o}", stat.mode, wanted.mode));
    }
    if !is_same_time(wanted.mtime, stat.mtime) {
        return Some(format!("its modification time is {:?}, not {:?}", stat.mtime, wanted.mtime));
    }
    match found.handle().xattrs() {
        Err(error) => Some(format!("read its extended attributes: {}", std::io::Error::from(error))),
        Ok(xattrs) if restored_xattrs(&xattrs).eq(restored_xattrs(&wanted.xattrs)) => None,
        Ok(_) => Some("its extended attributes differ".to_owned()),
    }
}

fn is_same_time(stored: Time, found: Time) -> bool {
    let cut_to = |granule| stored.nanoseconds - stored.nanoseconds % granule;
    stored.seconds == found.seconds && TIME_GRANULES_NS.iter().any(|&granule| cut_to(granule) == found.nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

    /// Whether the first byte is in memory; none where the kernel cannot say.
    fn is_cached(file: &std::fs::File) -> Option<bool> {
        let mut byte = [0];
        let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut buffers, 0, rustix::io::ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn a_comparison_reads_from_the_disk() {
        let mut file = tempfile::tempfile().unwrap();
        if rustix::fs::fstatfs(&file).unwrap().f_type == TMPFS_MAGIC {
            sandbox::skip!("the temporary folder is in memory, so nothing is read from a disk");
        }
        file.write_all(&[1; 8192]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(is_cached(&file), Some(true));
        forget_cached(file.as_fd());
        assert_eq!(is_cached(&file), Some(false));
    }
}
