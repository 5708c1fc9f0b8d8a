//! What can go wrong with a restic repository.

use std::io;
use std::path::{Path, PathBuf};

/// The result of an operation on a restic repository.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a restic repository could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{action} {path}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// There are files, and they are no restic repository.
    #[error(
        "{path} is not empty and holds no restic repository; name an empty folder, or one that restic or an earlier export has made",
        path = path.display()
    )]
    NotARepository { path: PathBuf },
    /// A repository of another version.
    #[error(
        "{path} is a restic repository of version {found}, and only version 2 is written; `restic migrate upgrade_repo_v2` brings one of version 1 to it",
        path = path.display()
    )]
    OtherVersion { path: PathBuf, found: u32 },
    /// No key opens with the password.
    #[error("none of the {keys} keys in {path} opens with this password", path = path.display())]
    WrongPassword { path: PathBuf, keys: usize },
    /// Somebody works on the repository alone, such as `restic prune`.
    #[error(
        "{path} is locked by process {pid} on {host} since {since}; wait for it, or run `restic unlock` if it is known to be dead",
        path = path.display()
    )]
    Locked { path: PathBuf, host: String, pid: u32, since: String },
    /// Our own lock could not be kept, so somebody may have removed what was written.
    #[error("the lock of {path} could not be renewed in time; run the export again", path = path.display())]
    LockLost { path: PathBuf },
    /// A file of the repository is not what it should be.
    #[error("{path} is damaged: {what}; `restic check` tells more", path = path.display())]
    Damaged { path: PathBuf, what: String },
    /// Something does not fit into the format.
    #[error("{what} cannot be written into a restic repository: {why}")]
    DoesNotFit { what: String, why: String },
    /// The machine gives no random numbers, or refuses a cipher.
    #[error("a part of the machine's cryptography does not work: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// What a failed call of the file system becomes.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}
