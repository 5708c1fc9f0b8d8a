//! The end of the line: bundles small files, and writes the table in the order of the walk.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::content::Run;
use super::super::entry::{Content, Entry, File, Kind};
use super::super::metadata::Stat;
use super::super::stack::open_below;
use super::super::walk::{Found, Place};
use super::super::{Error, Incidents, TreePath};
use super::TreeSummary;
use super::produce::{Item, Name};
use super::read::{Data, Described, FileRead, FileReader, ReadError, extents_of, table_builder};
use crate::{BlobKind, BlobRef, TableRef, Writer, table};

/// Plain bytes of a bundle of small files, at which it is closed. A frame of this length compresses as well as a large
/// one, and a restore of one file reads not much more than it needs.
const BUNDLE_BYTES: usize = 1 << 20;

/// Entries that wait for one bundle at most. When few files have changed, a bundle is closed before it is full, because
/// the unchanged entries between them wait too, in memory.
const BATCH_ENTRIES: usize = 4096;

/// Encoded bytes of extended attributes and inline extents that wait for one bundle at most, about.
const BATCH_ENTRY_BYTES: usize = 4 << 20;

/// Closed bundles that are on their way into packs while the next is filled.
const BUNDLES_IN_FLIGHT: usize = 3;

/// Entries in the order of keys, and the small files among them.
#[derive(Default)]
struct Batch {
    entries: Vec<(TreePath, Entry, Option<Placement>)>,
    entry_bytes: usize,
    bundle: Vec<u8>,
}

/// Where the data of a small file is in its bundle.
struct Placement {
    offset: u32,
    runs: Vec<Run>,
}

struct Closed {
    entries: Vec<(TreePath, Entry, Option<Placement>)>,
    bundle: Option<JoinHandle<crate::Result<BlobRef>>>,
}

/// Takes items in the order of keys; the only one who writes the table of the tree.
pub(super) struct Collector<'a> {
    writer: &'a Writer,
    reader: Arc<FileReader>,
    root: Arc<OwnedFd>,
    table: table::Builder,
    open: Batch,
    closed: VecDeque<Closed>,
    counts: Counts,
    /// Files with several names whose first could not be read or was given to another file, and the name that holds the content
    /// instead.
    lost_firsts: HashMap<TreePath, Option<TreePath>>,
}

#[derive(Default)]
struct Counts {
    files: u64,
    directories: u64,
    others: u64,
    bytes: u64,
    unchanged_files: u64,
    changed_while_read: Incidents,
    vanished: Incidents,
    skipped: Incidents,
    missed: Incidents,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        writer: &'a Writer,
        reader: Arc<FileReader>,
        root: Arc<OwnedFd>,
        parent: Option<&TableRef>,
    ) -> Self {
        Self {
            writer,
            reader,
            root,
            table: table_builder(writer, parent),
            open: Batch::default(),
            closed: VecDeque::new(),
            counts: Counts::default(),
            lost_firsts: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Item>) -> Result<TreeSummary, Error> {
        let before = self.writer.stats().await.new_bytes;
        while let Some(item) = queue.recv().await {
            if self.reader.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.take(item).await?;
            if self.open.is_full() {
                self.close().await?;
            }
        }
        self.close().await?;
        while !self.closed.is_empty() {
            self.land().await?;
        }
        let root = self.table.finish().await?;
        let counts = self.counts;
        Ok(TreeSummary {
            root,
            files: counts.files,
            directories: counts.directories,
            others: counts.others,
            bytes: counts.bytes,
            new_bytes: self.writer.stats().await.new_bytes - before,
            unchanged_files: counts.unchanged_files,
            changed_while_read: counts.changed_while_read,
            vanished: counts.vanished,
            skipped: counts.skipped,
            missed: counts.missed,
            parent_lost: None,
        })
    }

    async fn take(&mut self, item: Item) -> Result<(), Error> {
        match item {
            Item::Entry { path, entry, unchanged } => {
                self.counts.unchanged_files += u64::from(unchanged);
                self.add(path, entry, None);
            }
            Item::Reading { names, read, budget } => {
                for (Name { path, linked }, read) in names.into_iter().zip(read.await?) {
                    let stored = self.take_described(path.clone(), read)?;
                    if linked && !stored {
                        self.lost_firsts.insert(path, None);
                    }
                    if self.open.is_full() {
                        self.close().await?;
                    }
                }
                drop(budget);
            }
            Item::Link { path, stat, first } => self.take_link(path, stat, first).await?,
            Item::Skipped { path, rule } => self.counts.skipped.add(&path, rule),
            Item::Failed { path, action, error } => self.counts.fail(&path, action, error),
        }
        Ok(())
    }

    /// Says whether there is an entry of the file that the walk found.
    fn take_described(&mut self, path: TreePath, described: Result<Described, ReadError>) -> Result<bool, Error> {
        match described {
            Ok(Described::Entry(entry)) => self.add(path, entry, None),
            Ok(Described::File(file)) => {
                let found = !file.replaced;
                self.add_file(path, file);
                return Ok(found);
            }
            Err(ReadError::File { action, error }) => {
                self.counts.fail(&path, action, error);
                return Ok(false);
            }
            Err(ReadError::Run(error)) => return Err(error),
        }
        Ok(true)
    }

    /// Another name of a file. When the first name could not be read (moved away meanwhile, say, or given to another file), this
    /// one is read.
    async fn take_link(&mut self, path: TreePath, stat: Stat, first: TreePath) -> Result<(), Error> {
        let first = match self.lost_firsts.get(&first) {
            None => first,
            Some(Some(instead)) => instead.clone(),
            Some(None) => {
                let read = self.read_again(path.clone(), stat).await?;
                if self.take_described(path.clone(), read)? {
                    self.lost_firsts.insert(first, Some(path));
                }
                return Ok(());
            }
        };
        let attributes = stat.attributes(Vec::new());
        self.reader.add_progress(1, 0);
        self.add(path, Entry { attributes, kind: Kind::HardLink { first } }, None);
        Ok(())
    }

    async fn read_again(&self, path: TreePath, stat: Stat) -> Result<Result<Described, ReadError>, Error> {
        let (reader, root) = (self.reader.clone(), self.root.clone());
        let read = move || {
            let Some((parent, name)) = path.split() else {
                return Err(ReadError::File { action: "read", error: Errno::ISDIR });
            };
            let directory = open_below(&root, &parent)
                .map_err(|error| ReadError::File { action: "open the directory of", error })?;
            let place = Place::Named { directory, name: name.to_vec() };
            reader.describe(&Found { path: path.clone(), stat, place }, None)
        };
        Ok(tokio::task::spawn_blocking(read).await?)
    }

    fn add_file(&mut self, path: TreePath, file: FileRead) {
        if file.changed {
            self.counts.changed_while_read.add(&path, "it was written while it was read");
        }
        let (content, placement) = match file.data {
            Data::Stored(content) => (content, None),
            Data::Small { bytes, runs } => {
                let offset = u32::try_from(self.open.bundle.len()).expect("a bundle is closed at 1 MiB");
                self.open.bundle.extend_from_slice(&bytes);
                (Content::Extents(Vec::new()), Some(Placement { offset, runs }))
            }
        };
        let kind = Kind::File(File { size: file.size, settled: file.settled, content });
        self.add(path, Entry { attributes: file.attributes, kind }, placement);
    }

    fn add(&mut self, path: TreePath, entry: Entry, placement: Option<Placement>) {
        match &entry.kind {
            Kind::File(file) => {
                self.counts.files += 1;
                self.counts.bytes += file.size;
            }
            Kind::Directory => self.counts.directories += 1,
            _ => self.counts.others += 1,
        }
        self.open.entry_bytes += size_of::<Entry>() + path.as_key().len() + variable_bytes(&entry);
        self.open.entries.push((path, entry, placement));
    }

    /// Sends the open bundle on its way and starts another.
    async fn close(&mut self) -> Result<(), Error> {
        while self.closed.len() >= BUNDLES_IN_FLIGHT {
            self.land().await?;
        }
        let batch = std::mem::take(&mut self.open);
        let bundle = (!batch.bundle.is_empty()).then(|| {
            let writer = self.writer.clone();
            tokio::spawn(async move { writer.put_blob(BlobKind::Data, batch.bundle.into()).await })
        });
        self.closed.push_back(Closed { entries: batch.entries, bundle });
        Ok(())
    }

    /// Waits for the oldest closed bundle and writes its entries.
    async fn land(&mut self) -> Result<(), Error> {
        let Some(closed) = self.closed.pop_front() else { return Ok(()) };
        let blob = match closed.bundle {
            None => None,
            Some(put) => Some(put.await??),
        };
        for (path, mut entry, placement) in closed.entries {
            if let (Some(blob), Some(placement), Kind::File(file)) = (blob, placement, &mut entry.kind) {
                file.content = Content::Extents(extents_of(&placement.runs, placement.offset, blob).collect());
            }
            self.table.push(path.as_key(), &entry.encode()).await?;
        }
        Ok(())
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bundle.len() >= BUNDLE_BYTES
            || self.entries.len() >= BATCH_ENTRIES
            || self.entry_bytes >= BATCH_ENTRY_BYTES
    }
}

impl Counts {
    fn fail(&mut self, path: &TreePath, action: &'static str, error: Errno) {
        match error {
            Errno::NOENT => self.vanished.add(path, "it was gone when its turn came"),
            error => self.missed.add(path, format!("{action} it: {}", std::io::Error::from(error))),
        }
    }
}

/// What an entry takes in memory besides its fixed fields.
fn variable_bytes(entry: &Entry) -> usize {
    let xattrs: usize = entry.attributes.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    let extents = match &entry.kind {
        Kind::File(File { content: Content::Extents(extents), .. }) => size_of_val(&extents[..]),
        _ => 0,
    };
    xattrs + extents
}
