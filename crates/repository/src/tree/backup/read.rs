//! Reading one file: its attributes, and its content into the repository.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use futures::TryStreamExt;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Error;
use super::super::content::{Chunker, DataReader, Run};
use super::super::entry::{Attributes, Content, Entry, Extent, INLINE_EXTENTS, Kind, Time};
use super::super::metadata::{Handle, Stat};
use super::super::walk::{Found, Place};
use super::BackupOptions;
use crate::{BlobId, BlobKind, BlobRef, Counters, Progress, Repository, TableRef, Writer, table};

/// The greatest file that is bundled with others, in bytes. Half of a bundle: larger ones are blobs of a good size by
/// themselves.
pub(super) const SMALL_FILE_BYTES: u64 = 512 << 10;

/// How often a file is read when it changes meanwhile. Once more catches what was written in passing; a file that is
/// written all the time would change every time.
const READ_ATTEMPTS: usize = 2;

/// Chunks of one file that are on their way into packs while the next is cut. With two files at once four are compressed
/// beside each other, at 4 MiB at most each.
const CHUNKS_IN_FLIGHT: usize = 2;

/// Chunks of the parent's version that a changed file is compared with; a file of 128 GiB has as many. What a greater
/// file has after them is stored again where it was read again.
const KNOWN_CHUNKS: usize = 128 << 10;

/// What reading a file gave.
pub(super) enum Described {
    /// The entry is complete.
    Entry(Entry),
    /// A regular file that was read.
    File(FileRead),
}

pub(super) struct FileRead {
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) settled: bool,
    pub(super) data: Data,
    /// It was written while it was read, every time.
    pub(super) changed: bool,
    /// Its name was given to another file after the walk had come to it: other names of the walk's file are not of this one.
    pub(super) replaced: bool,
}

pub(super) enum Data {
    /// Small enough to be bundled; not yet stored.
    Small {
        bytes: Vec<u8>,
        runs: Vec<Run>,
    },
    Stored(Content),
}

/// Why a file was not read.
pub(super) enum ReadError {
    /// This file only.
    File { action: &'static str, error: Errno },
    /// The whole run.
    Run(Error),
}

impl<E: Into<Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

fn failed(action: &'static str) -> impl Fn(Errno) -> ReadError {
    move |error| ReadError::File { action, error }
}

/// What all readers of a run share. Its methods block.
pub(super) struct FileReader {
    pub(super) writer: Writer,
    pub(super) repository: Repository,
    pub(super) runtime: Runtime,
    pub(super) cancel: CancellationToken,
    /// The latest change, in milliseconds since 1970, after which a further one is sure to show.
    settled_before_ms: i64,
    progress: Arc<dyn Progress>,
}

impl FileReader {
    pub(super) fn new(
        writer: Writer,
        repository: Repository,
        runtime: Runtime,
        options: &BackupOptions,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let settle_ms = i64::try_from(options.settle.as_millis()).unwrap_or(i64::MAX);
        let settled_before_ms = options.started.as_millisecond().saturating_sub(settle_ms);
        Self { writer, repository, runtime, cancel: options.cancel.clone(), settled_before_ms, progress }
    }

    pub(super) fn add_progress(&self, files: u64, bytes: u64) {
        self.progress.add(Counters { files, bytes, ..Counters::default() });
    }

    /// Reads whatever `found` is. `parent` is where the content of its earlier version is.
    pub(super) fn describe(&self, found: &Found, parent: Option<&Content>) -> Result<Described, ReadError> {
        if let (FileType::RegularFile, Place::Named { directory, name }) = (found.stat.kind, &found.place) {
            return self.read_file(directory.as_fd(), name, &found.stat, parent).map(Described::File);
        }
        let kind = match (found.stat.kind, &found.place) {
            (FileType::Symlink, Place::Named { directory, name }) => {
                let target =
                    rustix::fs::readlinkat(directory, &name[..], Vec::new()).map_err(failed("read symlink"))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            (FileType::Directory, _) => Kind::Directory,
            (FileType::Fifo, _) => Kind::Fifo,
            (FileType::CharacterDevice, _) => Kind::CharacterDevice(found.stat.represents),
            (FileType::BlockDevice, _) => Kind::BlockDevice(found.stat.represents),
            _ => return Err(failed("recognise the kind of")(Errno::OPNOTSUPP)),
        };
        let xattrs = found.handle().xattrs().map_err(|error| match (error, &found.place) {
            // Through procfs, a missing file and a missing procfs give the same error.
            (Errno::NOENT, Place::Named { directory, name }) if Stat::at(directory.as_fd(), name).is_ok() => {
                failed("find, with /proc mounted, the extended attributes of")(Errno::NOSYS)
            }
            _ => failed("read the extended attributes of")(error),
        })?;
        self.add_progress(1, 0);
        Ok(Described::Entry(Entry { attributes: found.stat.attributes(xattrs), kind }))
    }

    fn read_file(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        found: &Stat,
        parent: Option<&Content>,
    ) -> Result<FileRead, ReadError> {
        let file = open_for_reading(directory, name).map_err(failed("open"))?;
        let mut attempt = 1;
        loop {
            let before = Stat::of(file.as_fd()).map_err(failed("look at"))?;
            if before.kind != FileType::RegularFile {
                return Err(failed("read, replaced meanwhile by something else,")(Errno::STALE));
            }
            let xattrs = Handle::Open(file.as_fd()).xattrs().map_err(failed("read the extended attributes of"))?;
            let (data, size) = self.read_content(file.as_fd(), before.size, parent, attempt == 1)?;
            let after = Stat::of(file.as_fd()).map_err(failed("look at"))?;
            let changed = !before.is_same_content(&after);
            if changed && attempt < READ_ATTEMPTS {
                attempt += 1;
                continue;
            }
            self.add_progress(1, 0);
            let settled = !changed && self.is_settled(before.ctime);
            let replaced = !before.is_same_file(found);
            return Ok(FileRead { attributes: before.attributes(xattrs), size, settled, data, changed, replaced });
        }
    }

    /// Whether a change after the file was read would show in its change time.
    fn is_settled(&self, ctime: Time) -> bool {
        let ctime_ms = ctime.seconds.saturating_mul(1_000).saturating_add(i64::from(ctime.nanoseconds / 1_000_000));
        ctime_ms < self.settled_before_ms
    }

    /// The content and its true size, which is smaller than `size` when the file was cut meanwhile.
    fn read_content(
        &self,
        file: BorrowedFd<'_>,
        size: u64,
        parent: Option<&Content>,
        counts: bool,
    ) -> Result<(Data, u64), ReadError> {
        let mut reader = DataReader::new(file, size);
        let progress = |len: u64| {
            if counts {
                self.add_progress(0, len)
            }
        };
        if size <= SMALL_FILE_BYTES {
            let (mut bytes, mut runs) = (Vec::new(), Vec::new());
            reader.fill(&mut bytes, usize::MAX, &mut runs).map_err(failed("read"))?;
            progress(size);
            return Ok((Data::Small { bytes, runs }, reader.cut_at().unwrap_or(size)));
        }
        let known = parent.map(|content| self.known_chunks(content)).unwrap_or_default();
        let parent_table = parent.and_then(Content::table);
        let mut chunker = Chunker::new(reader);
        let mut content = ContentWriter::new(self, known, parent_table);
        let mut reported = 0;
        while let Some(chunk) = chunker.next().map_err(failed("read"))? {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            let end = chunk.runs.last().map_or(reported, |run| run.file_offset + u64::from(run.len));
            content.push(chunk.bytes, chunk.runs)?;
            progress(end - reported);
            reported = end;
        }
        let size = chunker.cut_at().unwrap_or(size);
        progress(size.saturating_sub(reported));
        Ok((Data::Stored(content.finish()?), size))
    }

    /// The chunks that the parent has of this file. Those that cannot be read are only not known.
    fn known_chunks(&self, content: &Content) -> HashMap<BlobId, BlobRef> {
        let table = match content {
            Content::Extents(extents) => return extents.iter().map(|extent| (extent.blob.id, extent.blob)).collect(),
            Content::Table(table) => *table,
        };
        let mut known = HashMap::new();
        if let Err(error) = self.runtime.block_on(self.read_chunks(table, &mut known)) {
            tracing::warn!(%error, "read the chunks of an earlier version; they are stored again");
        }
        known
    }

    async fn read_chunks(&self, table: TableRef, known: &mut HashMap<BlobId, BlobRef>) -> crate::Result<()> {
        let reader = table::Reader::new(&self.repository, table);
        let mut extents = std::pin::pin!(reader.scan(&[]));
        while known.len() < KNOWN_CHUNKS
            && let Some((key, value)) = extents.try_next().await?
        {
            let extent = Extent::decode(&key, &value).map_err(|what| what.in_object("a table of extents"))?;
            known.insert(extent.blob.id, extent.blob);
        }
        Ok(())
    }
}

/// Opens a file so that nothing waits, nothing is followed and, where that is allowed, no access time changes.
fn open_for_reading(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Stores the chunks of one file, several at once, and writes down in order where they are.
struct ContentWriter<'a> {
    reader: &'a FileReader,
    /// Chunks of the earlier version, which need not be stored.
    known: Arc<HashMap<BlobId, BlobRef>>,
    in_flight: VecDeque<(Vec<Run>, JoinHandle<crate::Result<BlobRef>>)>,
    extents: Vec<Extent>,
    parent_table: Option<TableRef>,
    /// Used as soon as there are more extents than an entry may hold.
    table: Option<table::Builder>,
}

impl<'a> ContentWriter<'a> {
    fn new(reader: &'a FileReader, known: HashMap<BlobId, BlobRef>, parent_table: Option<TableRef>) -> Self {
        let known = Arc::new(known);
        Self { reader, known, in_flight: VecDeque::new(), extents: Vec::new(), parent_table, table: None }
    }

    fn push(&mut self, bytes: bytes::Bytes, runs: Vec<Run>) -> Result<(), Error> {
        if self.in_flight.len() == CHUNKS_IN_FLIGHT {
            self.land()?;
        }
        let (writer, known) = (self.reader.writer.clone(), self.known.clone());
        let find = move |id: &BlobId| known.get(id).copied();
        let put = async move { writer.put_blob_unless(BlobKind::Data, bytes, find).await };
        self.in_flight.push_back((runs, self.reader.runtime.spawn(put)));
        Ok(())
    }

    /// Waits for the oldest chunk on its way.
    fn land(&mut self) -> Result<(), Error> {
        let Some((runs, put)) = self.in_flight.pop_front() else { return Ok(()) };
        let blob = self.reader.runtime.block_on(put)??;
        self.extents.extend(extents_of(&runs, 0, blob));
        if self.extents.len() > INLINE_EXTENTS || self.table.is_some() {
            let (writer, parent) = (&self.reader.writer, self.parent_table.as_ref());
            let table = self.table.get_or_insert_with(|| table_builder(writer, parent));
            for extent in self.extents.drain(..) {
                self.reader.runtime.block_on(table.push(&extent.encode_key(), &extent.encode_value()))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Content, Error> {
        while !self.in_flight.is_empty() {
            self.land()?;
        }
        match self.table {
            None => Ok(Content::Extents(self.extents)),
            Some(table) => Ok(Content::Table(self.reader.runtime.block_on(table.finish())?)),
        }
    }
}

/// Begins a table whose pages are shared with the parent where they are equal.
pub(super) fn table_builder(writer: &Writer, parent: Option<&TableRef>) -> table::Builder {
    match parent {
        None => table::Builder::new(writer),
        Some(parent) => table::Builder::with_parent(writer, parent),
    }
}

/// The extents of data that came from `runs` and lies in `blob` from `blob_offset` on.
pub(super) fn extents_of(runs: &[Run], blob_offset: u32, blob: BlobRef) -> impl Iterator<Item = Extent> {
    runs.iter().scan(blob_offset, move |next, run| {
        let extent = Extent { file_offset: run.file_offset, len: run.len, blob_offset: *next, blob };
        *next += run.len;
        Some(extent)
    })
}
