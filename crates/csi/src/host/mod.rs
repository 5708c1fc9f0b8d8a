//! What is asked of this machine: its table of mounts, and file systems.
//!
//! Each call is one step: a process that dies is dead before, within or after one of them, and every one can be made again.

mod linux;
mod mounts;
mod probe;

pub use linux::Linux;
pub use mounts::Mount;
pub use probe::Content;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file system that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// What the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The smallest that it is made in.
    #[must_use]
    pub fn least(self) -> u64 {
        match self {
            Self::Ext4 => 1 << 20,
            // What mkfs.xfs takes since its version 5.19.
            Self::Xfs => 300 << 20,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes: all, used, and free for who is not root.
    pub bytes: (u64, u64, u64),
    /// The same of files.
    pub files: (u64, u64, u64),
}

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, major and minor.
    pub number: (u32, u32),
    /// Its size.
    pub bytes: u64,
}

/// What is there under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Nothing,
    /// A folder.
    Folder,
    /// A block device, by its number.
    Device((u32, u32)),
    /// A file or something else.
    Other,
}

/// A machine that volumes are used on.
pub trait Host: Send + Sync + 'static {
    /// All mounts that this process sees, the latest last.
    ///
    /// # Errors
    ///
    /// If the table cannot be read or understood.
    fn mounts(&self) -> Result<Vec<Mount>, HostError>;

    /// The path that the table of mounts has for this one: without symbolic links.
    ///
    /// # Errors
    ///
    /// If it cannot be looked at; what is not there is as it is.
    fn canonical(&self, path: &Path) -> Result<PathBuf, HostError>;

    /// What is there.
    ///
    /// # Errors
    ///
    /// If it cannot be looked at.
    fn look(&self, path: &Path) -> Result<Place, HostError>;

    /// What a block device is.
    ///
    /// # Errors
    ///
    /// If it is none.
    fn device(&self, path: &Path) -> Result<DeviceInfo, HostError>;

    /// What a block device has on it, by what is written there.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn probe(&self, device: &Path) -> Result<Content, HostError>;

    /// Makes a file system on a device, over whatever is on it.
    ///
    /// # Errors
    ///
    /// If somebody uses the device, or it is not done.
    fn format(&self, fs: FileSystem, device: &Path) -> Result<(), HostError>;

    /// Mounts a device on a folder.
    ///
    /// # Errors
    ///
    /// If the kernel does not do it, for the options too.
    fn mount(
        &self,
        fs: FileSystem,
        device: &Path,
        at: &Path,
        flags: &[String],
        read_only: bool,
    ) -> Result<(), HostError>;

    /// Shows a folder or device in another place, too.
    ///
    /// # Errors
    ///
    /// If the kernel does not do it.
    fn bind(&self, from: &Path, at: &Path) -> Result<(), HostError>;

    /// Says whether what is shown in a place can be written there.
    ///
    /// # Errors
    ///
    /// If the kernel does not do it.
    fn rebind(&self, at: &Path, read_only: bool) -> Result<(), HostError>;

    /// Takes the topmost mount of a place away.
    ///
    /// # Errors
    ///
    /// If somebody uses it.
    fn unmount(&self, at: &Path) -> Result<(), HostError>;

    /// Says whether a device can be written.
    ///
    /// # Errors
    ///
    /// If the kernel does not do it.
    fn protect(&self, device: &Path, read_only: bool) -> Result<(), HostError>;

    /// A file system of this kind can be made larger here while it is mounted.
    fn grows_mounted(&self, fs: FileSystem) -> bool;

    /// Lets a file system that is not mounted fill its device, after it has been checked.
    ///
    /// # Errors
    ///
    /// If it is damaged, or it is not done.
    fn grow_unmounted(&self, fs: FileSystem, device: &Path) -> Result<(), HostError>;

    /// Lets a mounted file system fill its device.
    ///
    /// # Errors
    ///
    /// If it is not done.
    fn grow(&self, fs: FileSystem, device: &Path, at: &Path) -> Result<(), HostError>;

    /// Lets a group have all of a folder, unless the folder itself says that it has.
    ///
    /// # Errors
    ///
    /// If it is not done.
    fn give(&self, folder: &Path, group: u32) -> Result<(), HostError>;

    /// How full the file system of a folder is.
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    fn room(&self, folder: &Path) -> Result<Room, HostError>;

    /// Makes a folder, or an empty file, with the folders above it; what is there already is a success.
    ///
    /// # Errors
    ///
    /// If it is not done.
    fn make(&self, path: &Path, folder: bool) -> Result<(), HostError>;

    /// Removes an empty folder, or a file without bytes; what is not there is a success.
    ///
    /// # Errors
    ///
    /// If it has something in it.
    fn remove(&self, path: &Path) -> Result<(), HostError>;
}

/// Why this machine did not do something.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Somebody uses what is to be changed.
    #[error("{action}: it is in use; ask again when that has ended")]
    Busy {
        /// What was to be done.
        action: String,
    },
    /// The kernel does not take what was asked for.
    #[error("{action}: the kernel refuses it, and its log has the reason: {said}")]
    Refused {
        /// What was to be done.
        action: String,
        /// What was said.
        said: String,
    },
    /// A program is not there.
    #[error("{program} is not on this node; install {package}")]
    Missing {
        /// Which.
        program: &'static str,
        /// What it comes with.
        package: &'static str,
    },
    /// A program has ended with an error.
    #[error("{action}: {said}")]
    Program {
        /// What was to be done.
        action: String,
        /// What it said, and how it ended.
        said: String,
    },
    /// The system said no.
    #[error("{action}")]
    System {
        /// What was to be done.
        action: String,
        /// What it said.
        source: io::Error,
    },
}

impl HostError {
    /// Says what was to be done when the system said no.
    pub fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    /// The whole story in one line.
    #[must_use]
    pub fn story(&self) -> String {
        crate::status::story(self)
    }
}
