//! Making the files of a tree in order, on one thread.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::entry::{Attributes, Device, Entry, File, Kind};
use super::super::metadata::{Handle, Stat, open_directory};
use super::super::source::{BlobCache, Entries};
use super::super::stack::{DirectoryStack, open_below};
use super::super::walk::{WalkOptions, names_of_tree};
use super::super::{Error, TreePath};
use super::choose::Choice;
use super::fill::{Failure, Filled, Filler, Job, REUSED_FROM_BYTES, file_failure};
use super::{RestoreOptions, RestoreSummary};
use crate::{Counters, Progress, table};

/// Files that are filled at once. With blobs read ahead for each, enough to keep a disk and two cores busy, within
/// 64 MiB.
const FILLERS: usize = 4;

/// The mode of a directory until everything in it was made: only its owner may enter.
const UNFINISHED_DIRECTORY: u32 = 0o700;

/// The mode of everything else until it has its own.
const UNFINISHED_FILE: u32 = 0o600;

pub(super) struct Maker {
    target: PathBuf,
    options: RestoreOptions,
    stack: DirectoryStack,
    /// What the top and each directory of the stack get when they are left.
    attributes: Vec<Attributes>,
    /// A directory that could not be made; what is below it is passed over.
    unmade: Option<TreePath>,
    filler: Arc<Filler>,
    turns: Arc<Semaphore>,
    workers: JoinSet<Result<(TreePath, Filled), Failure>>,
    /// The files that the workers have.
    in_work: HashSet<TreePath>,
    summary: RestoreSummary,
}

impl Maker {
    pub(super) fn open(
        target: &Path,
        options: RestoreOptions,
        runtime: Runtime,
        cache: Arc<BlobCache>,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, Error> {
        let failed = |action| move |source| Error::FileSystem { action, path: target.to_owned(), source };
        std::fs::create_dir_all(target).map_err(failed("make directory"))?;
        if !options.replace {
            refuse_used(target, &options.ignore_at_top)?;
        }
        let root = open_target(target)?;
        let filler = Filler { runtime, cache, progress, cancel: options.cancel.clone() };
        Ok(Self {
            target: target.to_owned(),
            options,
            stack: DirectoryStack::new(root),
            attributes: Vec::new(),
            unmade: None,
            filler: Arc::new(filler),
            turns: Arc::new(Semaphore::new(FILLERS)),
            workers: JoinSet::new(),
            in_work: HashSet::new(),
            summary: RestoreSummary::default(),
        })
    }

    /// Makes everything. It does not return while a worker still writes.
    pub(super) fn run(mut self, reader: &table::Reader) -> Result<RestoreSummary, Error> {
        let made = self.make_all(reader);
        let ended = self.wait_while(|maker| !maker.workers.is_empty());
        made.and(ended)?;
        let synced = rustix::fs::syncfs(self.stack.root());
        synced.map_err(|error| Error::file_system("sync the file system of", &self.target, error))?;
        Ok(self.summary)
    }

    fn make_all(&mut self, reader: &table::Reader) -> Result<(), Error> {
        let mut entries = Entries::new(&self.filler.runtime, reader);
        let mut choice = Choice::new(self.options.only.clone());
        while let Some((path, entry)) = entries.next()? {
            if self.options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let Some(entry) = choice.choose(&self.filler.runtime, reader, &path, entry)? else { continue };
            if let Err(failure) = self.make(path, entry) {
                self.take_failure(failure)?;
            }
            self.take_ended()?;
        }
        while !self.attributes.is_empty() {
            self.finish_directory()?;
        }
        Ok(())
    }

    fn make(&mut self, path: TreePath, entry: Entry) -> Result<(), Failure> {
        let Some((parent, name)) = path.split() else {
            self.attributes.push(entry.attributes);
            self.summary.directories += 1;
            return Ok(());
        };
        if self.unmade.as_ref().is_some_and(|unmade| path.is_below(unmade)) {
            return Err(Failure::File { path, what: "its directory was not made".to_owned() });
        }
        while *self.stack.path() != parent {
            self.finish_directory().map_err(Failure::Run)?;
        }
        let failed = |action| {
            let path = path.clone();
            move |error| file_failure(path, action, error)
        };
        let directory = self.stack.current().map_err(failed("open the directory of"))?;
        match entry.kind {
            Kind::Directory => {
                let made = self.make_directory(&directory, name);
                if let Err(error) = made {
                    self.unmade = Some(path.clone());
                    return Err(file_failure(path, "make directory", error));
                }
                self.attributes.push(entry.attributes);
                self.summary.directories += 1;
                return Ok(());
            }
            Kind::File(file) => {
                let name = name.to_vec();
                return self.start_filling(path, directory, name, entry.attributes, file);
            }
            Kind::HardLink { first } => {
                self.make_link(&path, &directory, name, &first)?;
                self.count_other();
                return Ok(());
            }
            Kind::Symlink { target } => {
                self.make_new(&directory, name, || rustix::fs::symlinkat(&target[..], &directory, name))
                    .map_err(failed("make symlink"))?;
            }
            Kind::Fifo => {
                self.make_node(&directory, name, FileType::Fifo, Device::default()).map_err(failed("make fifo"))?
            }
            Kind::CharacterDevice(device) => self
                .make_node(&directory, name, FileType::CharacterDevice, device)
                .map_err(failed("make, with the capability MKNOD, the character device"))?,
            Kind::BlockDevice(device) => self
                .make_node(&directory, name, FileType::BlockDevice, device)
                .map_err(failed("make, with the capability MKNOD, the block device"))?,
        }
        let handle = Handle::Named { directory: directory.as_fd(), name };
        handle.apply(&entry.attributes).map_err(|(action, error)| failed(action)(error))?;
        self.count_other();
        Ok(())
    }

    fn count_other(&mut self) {
        self.summary.others += 1;
        self.filler.progress.add(Counters { files: 1, ..Counters::default() });
    }

    /// Makes a directory and goes into it; one that is there already is used.
    fn make_directory(&mut self, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(UNFINISHED_DIRECTORY);
        let make = || match rustix::fs::mkdirat(directory, name, mode) {
            Err(Errno::EXIST) if open_directory(directory, name).is_ok() => Ok(()),
            made => made,
        };
        self.make_new(directory, name, make)?;
        let opened = self.stack.enter(name)?;
        let result = rustix::fs::fchmod(&opened, mode);
        if result.is_err() {
            self.stack.leave();
        }
        result
    }

    fn make_node(&self, directory: &OwnedFd, name: &[u8], kind: FileType, device: Device) -> Result<(), Errno> {
        let (mode, device) = (Mode::from_raw_mode(UNFINISHED_FILE), makedev(device.major, device.minor));
        self.make_new(directory, name, || rustix::fs::mknodat(directory, name, kind, mode, device))
    }

    fn make_link(
        &mut self,
        path: &TreePath,
        directory: &OwnedFd,
        name: &[u8],
        first: &TreePath,
    ) -> Result<(), Failure> {
        let Some((first_parent, first_name)) = first.split() else {
            return Err(Failure::Run(Error::damaged(path, "it links to the top of the tree")));
        };
        // A worker that fails removes the first name only, so the other names wait until it is done.
        self.wait_while(|maker| maker.in_work.contains(first)).map_err(Failure::Run)?;
        let make = || {
            let first_directory = open_below(self.stack.root(), &first_parent)?;
            rustix::fs::linkat(first_directory, first_name, directory, name, AtFlags::empty())
        };
        self.make_new(directory, name, make).map_err(|error| file_failure(path.clone(), "link", error))
    }

    /// Makes an entry of a directory, in place of another one where that is allowed.
    fn make_new<T>(&self, directory: &OwnedFd, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) if self.options.replace => {
                match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?,
                    removed => removed?,
                }
                make()
            }
            made => made,
        }
    }

    fn start_filling(
        &mut self,
        path: TreePath,
        directory: Arc<OwnedFd>,
        name: Vec<u8>,
        attributes: Attributes,
        file: File,
    ) -> Result<(), Failure> {
        let runtime = self.filler.runtime.clone();
        let turn = runtime.block_on(self.turns.clone().acquire_owned());
        let turn = turn.expect("the semaphore of a restore is never closed");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(UNFINISHED_FILE);
        let is_reused = self.options.resume && file.size >= REUSED_FROM_BYTES;
        let there = if is_reused { reusable(&directory, &name) } else { None };
        let is_new = there.is_none();
        let opened = match there {
            Some(there) => there,
            None => self
                .make_new(&directory, &name, || rustix::fs::openat(&directory, &name[..], flags, mode))
                .map_err(|error| file_failure(path.clone(), "make", error))?,
        };
        self.in_work.insert(path.clone());
        let filler = self.filler.clone();
        let job = Job { path: path.clone(), opened, is_new, directory, name, attributes, file };
        let work = move || {
            let filled = filler.fill(job);
            drop(turn);
            filled.map(|filled| (path, filled))
        };
        self.workers.spawn_blocking_on(work, &runtime);
        Ok(())
    }

    /// Gives the current directory its attributes and goes back to the one that holds it.
    fn finish_directory(&mut self) -> Result<(), Error> {
        let Some(attributes) = self.attributes.pop() else { return Ok(()) };
        let applied = match self.stack.current() {
            Ok(directory) => Handle::Open(directory.as_fd()).apply(&attributes),
            Err(error) => Err(("open directory", error)),
        };
        let path = self.stack.path().clone();
        self.stack.leave();
        match applied {
            Ok(()) => Ok(()),
            Err((action, error)) => self.take_failure(file_failure(path, action, error)),
        }
    }

    /// Takes the results of the workers that are done.
    fn take_ended(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.workers.try_join_next() {
            self.take_result(ended?)?;
        }
        Ok(())
    }

    /// Waits for workers while `unfinished`; goes on after an error, to give the first one at the end.
    fn wait_while(&mut self, unfinished: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let runtime = self.filler.runtime.clone();
        let mut result = Ok(());
        while unfinished(self) {
            let Some(ended) = runtime.block_on(self.workers.join_next()) else { break };
            let taken = ended.map_err(Error::from).and_then(|ended| self.take_result(ended));
            result = result.and(taken);
        }
        result
    }

    fn take_result(&mut self, ended: Result<(TreePath, Filled), Failure>) -> Result<(), Error> {
        match ended {
            Ok((path, filled)) => {
                self.in_work.remove(&path);
                self.summary.files += 1;
                self.summary.bytes += filled.size;
                self.summary.kept_bytes += filled.kept;
                Ok(())
            }
            Err(failure) => self.take_failure(failure),
        }
    }

    fn take_failure(&mut self, failure: Failure) -> Result<(), Error> {
        match failure {
            Failure::File { path, what } => {
                self.in_work.remove(&path);
                self.summary.failed.add(&path, what);
                Ok(())
            }
            Failure::Run(error) => Err(error),
        }
    }
}

/// A file that is there, if it can be filled where it lies: it has no other name, under which somebody would see it change.
fn reusable(directory: &OwnedFd, name: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = Stat::of(opened.as_fd()).ok()?;
    (stat.kind == FileType::RegularFile && stat.links == 1).then_some(opened)
}

fn open_target(target: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(target, flags, Mode::empty());
    opened.map_err(|error| Error::file_system("open directory", target, error))
}

/// Refuses a directory that holds anything that is not part of an empty file system.
pub fn refuse_used(target: &Path, ignored: &[Vec<u8>]) -> Result<(), Error> {
    let options = WalkOptions { ignore_at_top: ignored.to_vec(), ..WalkOptions::default() };
    let names = names_of_tree(open_target(target)?.as_fd(), &options);
    let mut names = names.map_err(|error| Error::file_system("list directory", target, error))?;
    match names.next() {
        None => Ok(()),
        Some(name) => {
            let found = TreePath::root().child(&name).to_string();
            Err(Error::TargetNotEmpty { path: target.to_owned(), found })
        }
    }
}
