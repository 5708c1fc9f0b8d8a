//! The walk: which entries are taken over from the parent, and which are read by whom.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::super::entry::{Content, Device, Entry, File, Kind};
use super::super::metadata::Stat;
use super::super::walk::{Found, Step, Walk};
use super::super::{Error, TreePath};
use super::parent::Parent;
use super::read::{Described, FileReader, ReadError, SMALL_FILE_BYTES};
use crate::TableRef;

/// Groups of small files that are read at once. Opening and looking waits for the disk or the network more than it computes.
const SMALL_READERS: usize = 8;

/// Small files of a group, and KiB of them, at which it is full: handing a file from thread to thread costs as much as opening it, and a
/// group must not keep the others from having work.
const GROUP_FILES: usize = 32;
const GROUP_KIB: u32 = 256;

/// Large files that are read at once, each with a buffer of 5 MiB and some chunks on their way: one keeps the cores busy,
/// the second fills the gaps at the ends of files.
const LARGE_READERS: usize = 2;

/// Bytes of small files that are read and not yet in a bundle, in KiB: 8 MiB, so that the readers stay ahead while the
/// collector waits for a large file.
const SMALL_BUDGET_KIB: u32 = 8 << 10;

/// Bytes of paths, and of what is kept with them, of files whose other names are still to come: 32 MiB, some 150,000 files. The
/// names of further ones are stored as files of their own, each whole.
const LINKED_BYTES: usize = 32 << 20;

/// What is kept of such a file besides its path.
const LINKED_FIXED_BYTES: usize = 96;

/// What the collector gets, in the order of keys.
pub(super) enum Item {
    /// An entry that needs no reading any more.
    Entry {
        path: TreePath,
        entry: Entry,
        unchanged: bool,
    },
    /// Entries that are being read.
    Reading {
        names: Vec<Name>,
        read: JoinHandle<Vec<Result<Described, ReadError>>>,
        budget: Option<OwnedSemaphorePermit>,
    },
    /// Another name of what was sent with the path `first`.
    Link {
        path: TreePath,
        stat: Stat,
        first: TreePath,
    },
    Skipped {
        path: TreePath,
        rule: &'static str,
    },
    Failed {
        path: TreePath,
        action: &'static str,
        error: Errno,
    },
}

/// The name of what is being read; `linked` when there are others.
pub(super) struct Name {
    pub(super) path: TreePath,
    pub(super) linked: bool,
}

/// What is read by one reader, one after the other.
#[derive(Default)]
struct Group {
    names: Vec<Name>,
    files: Vec<(Found, Option<Content>)>,
    kib: u32,
}

impl Group {
    fn add(&mut self, found: Found, parent: Option<Content>, linked: bool) {
        self.names.push(Name { path: found.path.clone(), linked });
        self.files.push((found, parent));
    }

    fn is_full(&self) -> bool {
        self.files.len() >= GROUP_FILES || self.kib >= GROUP_KIB
    }
}

/// Files with several names, until the last one was met.
struct Linked {
    files: HashMap<(Device, u64), Names>,
    /// What these take, in bytes, and what they may take.
    bytes: usize,
    limit: usize,
}

/// The names of a file that are still to come after its first.
struct Names {
    first: TreePath,
    left: u32,
}

impl Linked {
    fn new(limit: usize) -> Self {
        Self { files: HashMap::new(), bytes: 0, limit }
    }

    /// The name under which this file was met before, or nothing when this is the first that is known.
    fn first_name(&mut self, path: &TreePath, stat: &Stat) -> Option<TreePath> {
        use std::collections::hash_map::Entry;
        let bytes = |path: &TreePath| path.as_key().len() + LINKED_FIXED_BYTES;
        match self.files.entry((stat.device, stat.inode)) {
            Entry::Vacant(entry) => {
                if self.bytes + bytes(path) <= self.limit {
                    self.bytes += bytes(path);
                    entry.insert(Names { first: path.clone(), left: stat.links - 1 });
                }
                None
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().left = entry.get().left.saturating_sub(1);
                if entry.get().left > 0 {
                    return Some(entry.get().first.clone());
                }
                let first = entry.remove().first;
                self.bytes -= bytes(&first);
                Some(first)
            }
        }
    }
}

/// Walks, merges with the parent and starts the readers; runs on a thread of its own.
pub(super) struct Producer {
    reader: Arc<FileReader>,
    items: mpsc::Sender<Item>,
    small_readers: Arc<Semaphore>,
    large_readers: Arc<Semaphore>,
    small_budget: Arc<Semaphore>,
    linked: Linked,
    /// Small files that wait for a reader; they come before whatever is sent next.
    group: Group,
}

/// The collector has ended; its error is the one that counts.
struct Abandoned;

impl Producer {
    pub(super) fn new(reader: Arc<FileReader>, items: mpsc::Sender<Item>) -> Self {
        Self {
            reader,
            items,
            small_readers: Arc::new(Semaphore::new(SMALL_READERS)),
            large_readers: Arc::new(Semaphore::new(LARGE_READERS)),
            small_budget: Arc::new(Semaphore::new(SMALL_BUDGET_KIB as usize)),
            linked: Linked::new(LINKED_BYTES),
            group: Group::default(),
        }
    }

    /// Goes over the whole tree. Gives the reason if the parent could not be read to its end.
    pub(super) fn run(mut self, walk: Walk, parent: Option<TableRef>) -> Result<Option<String>, Error> {
        let mut parent_lost = None;
        let open = |root| Parent::open(&self.reader.runtime, &self.reader.repository, root);
        let mut parent = match parent.map(open).transpose() {
            Ok(parent) => parent,
            Err(error) => {
                parent_lost = Some(lost_parent(&error));
                None
            }
        };
        for step in walk {
            if self.reader.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let sent = match step {
                Step::Skipped { path, rule } => self.send(Item::Skipped { path, rule }),
                Step::Failed { path, action, error } => self.send(Item::Failed { path, action, error }),
                Step::Found(found) => {
                    let earlier = parent.as_mut().map_or(Ok(None), |parent| parent.find(&found.path));
                    let earlier = earlier.unwrap_or_else(|error| {
                        parent_lost = Some(lost_parent(&error));
                        parent = None;
                        None
                    });
                    self.handle(found, earlier)
                }
            };
            if sent.is_err() {
                return Ok(parent_lost);
            }
        }
        // Whoever has abandoned this has an error of its own to tell.
        let _ = self.read_group();
        Ok(parent_lost)
    }

    fn send(&mut self, item: Item) -> Result<(), Abandoned> {
        self.read_group()?;
        self.items.blocking_send(item).map_err(|_| Abandoned)
    }

    fn handle(&mut self, found: Found, earlier: Option<Entry>) -> Result<(), Abandoned> {
        let linked = found.stat.kind != FileType::Directory && found.stat.links > 1;
        if linked && let Some(first) = self.linked.first_name(&found.path, &found.stat) {
            return self.send(Item::Link { path: found.path, stat: found.stat, first });
        }
        if let Some(entry) = earlier.as_ref().and_then(|earlier| unchanged(&found.stat, earlier)) {
            self.reader.add_progress(1, found.stat.size);
            return self.send(Item::Entry { path: found.path, entry, unchanged: true });
        }
        let content = earlier.and_then(|entry| match entry.kind {
            Kind::File(file) => Some(file.content),
            _ => None,
        });
        self.start_reading(found, content, linked)
    }

    fn start_reading(&mut self, found: Found, parent: Option<Content>, linked: bool) -> Result<(), Abandoned> {
        let is_file = found.stat.kind == FileType::RegularFile;
        if is_file && found.stat.size > SMALL_FILE_BYTES {
            self.read_group()?;
            let mut alone = Group::default();
            alone.add(found, parent, linked);
            return self.read(alone, &self.large_readers.clone());
        }
        // What is no file counts too: it has attributes, and a place in the queue.
        let bytes = if is_file { found.stat.size } else { 0 };
        self.group.kib += u32::try_from(bytes / 1024 + 1).expect("a small file has less than 1 MiB");
        self.group.add(found, parent, linked);
        if self.group.is_full() { self.read_group() } else { Ok(()) }
    }

    /// Starts to read the small files that wait.
    fn read_group(&mut self) -> Result<(), Abandoned> {
        if self.group.files.is_empty() {
            return Ok(());
        }
        let group = std::mem::take(&mut self.group);
        self.read(group, &self.small_readers.clone())
    }

    /// Starts to read. Leave to start is given in the order of the walk, and what a reader needs to end does not wait for the collector, so
    /// nothing can wait in a circle.
    fn read(&self, group: Group, readers: &Arc<Semaphore>) -> Result<(), Abandoned> {
        let Group { names, files, kib } = group;
        let budget = (kib > 0).then(|| self.wait_for(&self.small_budget, kib));
        let turn = self.wait_for(readers, 1);
        let reader = self.reader.clone();
        let read = self.reader.runtime.spawn_blocking(move || {
            let described = files.iter().map(|(found, parent)| reader.describe(found, parent.as_ref())).collect();
            drop(turn);
            described
        });
        self.items.blocking_send(Item::Reading { names, read, budget }).map_err(|_| Abandoned)
    }

    fn wait_for(&self, semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
        let acquired = self.reader.runtime.block_on(semaphore.clone().acquire_many_owned(permits));
        acquired.expect("the semaphores of a run are never closed")
    }
}

/// The entry of the parent with what may differ without a change, if the file's times prove that its content and
/// attributes are the stored ones. Every change of content or attributes sets the change time.
fn unchanged(stat: &Stat, earlier: &Entry) -> Option<Entry> {
    let Kind::File(File { size, settled: true, .. }) = earlier.kind else { return None };
    let known = (size, earlier.attributes.mtime, earlier.attributes.ctime, earlier.attributes.inode);
    let same = stat.kind == FileType::RegularFile && (stat.size, stat.mtime, stat.ctime, stat.inode) == known;
    same.then(|| {
        let mut entry = earlier.clone();
        entry.attributes.device = stat.device;
        entry
    })
}

fn lost_parent(error: &Error) -> String {
    tracing::warn!(%error, "read the parent tree; the rest of the files is read whether changed or not");
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_of_more_files_than_are_kept_are_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let stat = |name: &str| Stat::of(File::create(folder.path().join(name)).unwrap().as_fd()).unwrap();
        let (one, other) = (Stat { links: 3, ..stat("one") }, Stat { links: 2, ..stat("other") });
        let path = |name: &str| TreePath::root().child(name.as_bytes());
        let mut linked = Linked::new(LINKED_FIXED_BYTES + 1);
        assert_eq!(linked.first_name(&path("a"), &one), None);
        assert_eq!(linked.first_name(&path("b"), &other), None);
        assert_eq!(linked.first_name(&path("c"), &other), None, "there was no room for it");
        assert_eq!(linked.first_name(&path("d"), &one), Some(path("a")));
        assert_eq!(linked.first_name(&path("e"), &one), Some(path("a")));
        assert_eq!(linked.bytes, 0, "all names of it were met");
        assert_eq!(linked.first_name(&path("f"), &other), None);
        assert_eq!(linked.first_name(&path("g"), &other), Some(path("f")));
    }
}
