//! A walk over the files of a directory, in the order of a tree's keys.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::metadata::Stat;
use super::names::{Names, NamesBuilder};
use super::stack::DirectoryStack;
use super::{Error, TreePath};
use crate::table::MAX_KEY_LEN;

/// What file systems of the ext family keep at their top for `fsck`.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What a walk leaves out.
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    /// Whether to go into file systems that are mounted below the top.
    pub cross_mounts: bool,
    /// Names at the top that are no part of the tree.
    pub ignore_at_top: Vec<Vec<u8>>,
}

/// A file that a walk came to.
pub(super) struct Found {
    pub(super) path: TreePath,
    pub(super) stat: Stat,
    pub(super) place: Place,
}

/// How a found file is reached.
pub(super) enum Place {
    /// A directory that the walk has gone into.
    Opened(Arc<OwnedFd>),
    /// Anything else: a name in an open directory.
    Named { directory: Arc<OwnedFd>, name: Vec<u8> },
}

/// One step of a walk.
pub(super) enum Step {
    Found(Found),
    /// A named rule leaves the file out.
    Skipped {
        path: TreePath,
        rule: &'static str,
    },
    /// The file, or what is below the directory, could not be read.
    Failed {
        path: TreePath,
        action: &'static str,
        error: Errno,
    },
}

impl Step {
    pub(super) fn path(&self) -> &TreePath {
        match self {
            Self::Found(found) => &found.path,
            Self::Skipped { path, .. } | Self::Failed { path, .. } => path,
        }
    }
}

/// Walks without recursion: memory is one list of names for each directory between the root and the current one.
pub(super) struct Walk {
    stack: DirectoryStack,
    /// The names that are still to come, for the root and for each directory of the stack.
    names: Vec<Names>,
    root: Found,
    started: bool,
    /// Steps that are found already, to be given before the walk goes on.
    ready: VecDeque<Step>,
    options: WalkOptions,
}

impl Walk {
    pub(super) fn open(root: &Path, options: WalkOptions) -> Result<Self, Error> {
        let failed = |error| Error::file_system("open directory", root, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
        let stat = Stat::of(opened.as_fd()).map_err(failed)?;
        let stack = DirectoryStack::new(opened);
        let place = Place::Opened(stack.root().clone());
        let found = Found { path: TreePath::root(), stat, place };
        Ok(Self { stack, names: Vec::new(), root: found, started: false, ready: VecDeque::new(), options })
    }

    /// The directory at the top.
    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        self.stack.root()
    }

    fn start(&mut self) -> Step {
        self.started = true;
        let opened = self.stack.root().clone();
        let names = self.list(&opened, &TreePath::root());
        self.names.push(names);
        let place = Place::Opened(opened);
        Step::Found(Found { path: TreePath::root(), stat: self.root.stat, place })
    }

    /// The sorted names in a directory. What cannot be listed is told after the directory itself.
    fn list(&mut self, directory: &OwnedFd, path: &TreePath) -> Names {
        let names = read_names(directory.as_fd());
        let mut names = names.unwrap_or_else(|error| {
            self.ready.push_back(Step::Failed { path: path.clone(), action: "list directory", error });
            Names::default()
        });
        if path == &TreePath::root() {
            names.retain(|name| !self.options.ignore_at_top.iter().any(|ignored| ignored == name));
        }
        names
    }

    /// Looks at one name of the current directory.
    fn visit(&mut self, name: Vec<u8>) -> Step {
        let path = self.stack.path().child(&name);
        let failed = |action, error| Step::Failed { path: path.clone(), action, error };
        if path.as_key().len() > MAX_KEY_LEN {
            return failed("store, with a path of more than 64 KiB,", Errno::NAMETOOLONG);
        }
        let directory = match self.stack.current() {
            Ok(directory) => directory,
            Err(error) => return failed("open the directory of", error),
        };
        let stat = match Stat::at(directory.as_fd(), &name) {
            Ok(stat) => stat,
            Err(error) => return failed("look at", error),
        };
        if let Some(rule) = self.skip_rule(&path, &name, &stat, directory.as_fd()) {
            return Step::Skipped { path, rule };
        }
        if stat.kind != FileType::Directory {
            return Step::Found(Found { path, stat, place: Place::Named { directory, name } });
        }
        let opened = match self.stack.enter(&name) {
            Ok(opened) => opened,
            Err(error) => return failed("open directory", error),
        };
        let names = self.list(&opened, &path);
        self.names.push(names);
        Step::Found(Found { path, stat, place: Place::Opened(opened) })
    }

    fn skip_rule(&self, path: &TreePath, name: &[u8], stat: &Stat, directory: BorrowedFd<'_>) -> Option<&'static str> {
        if stat.kind == FileType::Socket {
            return Some("sockets live only while a program listens");
        }
        if !self.options.cross_mounts && stat.is_beyond(&self.root.stat) {
            return Some("another file system is mounted here");
        }
        if path.components().count() == 1 && is_empty_lost_and_found(directory, name) {
            return Some("the file system's own lost+found, empty");
        }
        None
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if !self.started {
            return Some(self.start());
        }
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            match self.names.last_mut()?.next() {
                Some(name) => return Some(self.visit(name)),
                None => {
                    self.names.pop();
                    self.stack.leave();
                }
            }
        }
    }
}

impl Found {
    /// The way to its attributes: through the open directory, or by its name where it is not open.
    pub(super) fn handle(&self) -> super::metadata::Handle<'_> {
        match &self.place {
            Place::Opened(opened) => super::metadata::Handle::Open(opened.as_fd()),
            Place::Named { directory, name } => super::metadata::Handle::Named { directory: directory.as_fd(), name },
        }
    }
}

/// The names in a directory except `.` and `..`.
pub(super) fn read_names(directory: BorrowedFd<'_>) -> Result<Names, Errno> {
    let mut names = NamesBuilder::default();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name)?,
        }
    }
    Ok(names.finish())
}

/// The names at the top of a tree: without those that the options and the rule of an empty `lost+found` leave out.
pub(super) fn names_of_tree(root: BorrowedFd<'_>, options: &WalkOptions) -> Result<Names, Errno> {
    let mut names = read_names(root)?;
    let ignored = |name: &[u8]| options.ignore_at_top.iter().any(|ignored| ignored == name);
    names.retain(|name| !ignored(name) && !is_empty_lost_and_found(root, name));
    Ok(names)
}

fn is_empty_lost_and_found(root: BorrowedFd<'_>, name: &[u8]) -> bool {
    let names = || super::metadata::open_directory(root, name).and_then(|opened| read_names(opened.as_fd()));
    name == LOST_AND_FOUND && names().is_ok_and(|names| names.is_empty())
}
