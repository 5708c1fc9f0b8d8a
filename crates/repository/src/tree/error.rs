//! What can go wrong with a file tree as a whole.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::TreePath;

/// Why a file tree was not stored, restored or compared.
///
/// What hits single files only is not here: it is collected in the summary, so that one file does not stop the rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository could not be read or written.
    #[error(transparent)]
    Repository(#[from] crate::Error),
    /// The directory at the top, or the file system as a whole, did not do what was asked.
    #[error("{action} {path}", path = path.display())]
    FileSystem { action: &'static str, path: PathBuf, source: io::Error },
    /// A directory that should be filled holds files already.
    #[error("{path} is not empty: it holds {found}; restore into an empty directory", path = path.display())]
    TargetNotEmpty { path: PathBuf, found: String },
    /// The tree in the repository breaks a rule of its format.
    #[error("the entry {path} of the file tree is damaged: {what}; check the repository")]
    Damaged { path: String, what: String },
    /// What was restored is not what was announced.
    #[error(
        "the file tree holds {found_files} files of {found_bytes} bytes, but {expected_files} files of {expected_bytes} bytes were announced"
    )]
    CountsDiffer { found_files: u64, found_bytes: u64, expected_files: u64, expected_bytes: u64 },
    /// A file was asked for that the tree does not have.
    #[error("there is no {path} in the file tree; list its directory to see what is there")]
    NoSuchEntry { path: String },
    /// The content was asked for of something that has none.
    #[error("{path} is not a file: only files have content")]
    NotAFile { path: String },
    /// The caller ended the work.
    #[error("the work was ended before it was complete; run it again")]
    Cancelled,
    /// A worker ended by a panic: a defect of this program.
    #[error("a worker ended unexpectedly; please report it")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    pub(super) fn file_system(action: &'static str, path: &Path, source: Errno) -> Self {
        Self::FileSystem { action, path: path.to_owned(), source: source.into() }
    }

    pub(super) fn damaged(path: &TreePath, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_string(), what: what.into() }
    }

    /// Whether bytes in the repository are lost or changed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Repository(error) => error.kind() == crate::ErrorKind::Damaged,
            Self::Damaged { .. } => true,
            _ => false,
        }
    }

    /// Whether the same call may work later without anybody changing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Repository(error) => error.is_retryable(),
            Self::Cancelled => true,
            Self::FileSystem { .. }
            | Self::TargetNotEmpty { .. }
            | Self::Damaged { .. }
            | Self::CountsDiffer { .. }
            | Self::NoSuchEntry { .. }
            | Self::NotAFile { .. }
            | Self::Worker(_) => false,
        }
    }
}
