//! The open directories from the root of a tree down to where a walk is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::TreePath;
use super::metadata::{Stat, open_directory};

/// Most directories that a walk keeps open. Deeper ones close the outer ones, which are opened again on the way back: a
/// tree may be deeper than a process may have open files (1,024 by default).
const OPEN_DIRECTORIES: usize = 128;

/// The way from the root to the current directory, each step opened relative to the one before and never through a
/// symlink. So a path cannot lead out of the root, however the file system is changed meanwhile.
pub(super) struct DirectoryStack {
    root: Arc<OwnedFd>,
    frames: Vec<Frame>,
    path: TreePath,
}

struct Frame {
    /// Of the path that holds it. A whole path for each level would be the square of the depth.
    parent_len: usize,
    name: Vec<u8>,
    /// Closed while the walk is far below.
    opened: Option<Arc<OwnedFd>>,
    stat: Stat,
}

impl DirectoryStack {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), frames: Vec::new(), path: TreePath::root() }
    }

    /// The path of the current directory.
    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// Opens the entry `name` of the current directory and goes into it.
    pub(super) fn enter(&mut self, name: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        let opened = Arc::new(open_directory(self.current()?, name)?);
        let stat = Stat::of(opened.as_fd())?;
        let parent_len = self.path.as_key().len();
        self.path.push(name);
        self.frames.push(Frame { parent_len, name: name.to_vec(), opened: Some(opened.clone()), stat });
        if let Some(far) = self.frames.len().checked_sub(OPEN_DIRECTORIES + 1) {
            self.frames[far].opened = None;
        }
        Ok(opened)
    }

    /// Goes back to the directory that holds the current one; does nothing at the root.
    pub(super) fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.parent_len);
        }
    }

    /// The current directory. It fails where a directory had to be opened again and is not the same any more.
    pub(super) fn current(&mut self) -> Result<Arc<OwnedFd>, Errno> {
        let Some(last) = self.frames.last() else { return Ok(self.root.clone()) };
        if let Some(opened) = &last.opened {
            return Ok(opened.clone());
        }
        let mut directory = self.root.clone();
        for frame in &self.frames {
            directory = match &frame.opened {
                Some(opened) => opened.clone(),
                None => Arc::new(open_directory(&*directory, &frame.name)?),
            };
        }
        let last = self.frames.last_mut().expect("the stack was found not to be empty above");
        if !Stat::of(directory.as_fd())?.is_same_file(&last.stat) {
            return Err(Errno::NOENT);
        }
        last.opened = Some(directory.clone());
        Ok(directory)
    }
}

/// Opens the directory at `path` below `root`, step by step and never through a symlink.
pub(super) fn open_below(root: &Arc<OwnedFd>, path: &TreePath) -> Result<Arc<OwnedFd>, Errno> {
    let mut directory = root.clone();
    for name in path.components() {
        directory = Arc::new(open_directory(&*directory, name)?);
    }
    Ok(directory)
}

/// Opens the file at `path` below `root`, step by step and never through a symlink; what is no file is opened without waiting.
pub(crate) fn open_file(root: &Path, path: &TreePath) -> std::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = Arc::new(rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?);
    let Some((parent, name)) = path.split() else { return Err(Errno::ISDIR.into()) };
    let directory = open_below(&root, &parent)?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(&*directory, name, flags, Mode::empty())?.into())
}
