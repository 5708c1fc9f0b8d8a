//! Why a mover did not do its job.

use std::io;
use std::path::PathBuf;

use repository::{ErrorKind, tree, volume};
use serde::{Deserialize, Serialize};

/// What ends a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read the job {path}", path = path.display())]
    JobFile { path: PathBuf, source: io::Error },
    #[error("understand the job {path}", path = path.display())]
    JobFormat { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(transparent)]
    Store(#[from] repository::StoreError),
    #[error(transparent)]
    Tree(#[from] tree::Error),
    #[error(transparent)]
    Image(#[from] volume::Error),
    #[error("{action} {path}", path = path.display())]
    Volume { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the volume holds the unfinished restore of tree {found}; {advice}")]
    UnfinishedRestore { found: String, advice: &'static str },
    #[error("{count} files could not be read, the first is {first}")]
    Missed { count: u64, first: String },
    #[error("{count} files could not be restored, the first is {first}")]
    NotRestored { count: u64, first: String },
    #[error("{count} files differ from the repository after the restore, the first is {first}")]
    Different { count: u64, first: String },
    #[error("the tree that was stored has {found} files and directories, but {expected} were counted")]
    StoredOtherwise { found: u64, expected: u64 },
    #[error("the device {path} has no bytes: it is attached to nothing", path = path.display())]
    NoBytes { path: PathBuf },
    #[error(
        "the device has {found} bytes, and the image needs {needed}; nothing was written to it. Have the claim ask for {needed} bytes or more, by a \
         transformation of it or with another storage class"
    )]
    TooSmall { found: u64, needed: u64 },
    #[error("{bytes} bytes of the device differ from the image after the restore, the first at {first}")]
    ImageDifferent { bytes: u64, first: u64 },
    #[error("the mover was told to stop")]
    Stopped,
}

impl Error {
    /// Whether the repository has lost or changed something that was taken over from a parent.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Tree(error) => error.is_damage(),
            Self::Image(error) => error.is_damage(),
            _ => false,
        }
    }
}

/// A failure as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// What happened, to what, and what to do; with all causes.
    pub error: String,
    pub kind: FailureKind,
    /// Whether another mover with the same job may succeed.
    pub retryable: bool,
}

/// Failures that an operator treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The job cannot be read: a defect of whoever wrote it.
    Job,
    /// The mover was told to stop.
    Stopped,
    NotARepository,
    WrongPassphrase,
    /// The repository is of a newer version.
    Newer,
    /// The store cannot be reached.
    Unreachable,
    AccessDenied,
    /// The store or the volume is full.
    NoSpace,
    /// The repository has lost or changed bytes.
    Damaged,
    /// Another error of the repository.
    Repository,
    /// The volume that is to be filled holds something.
    VolumeNotEmpty,
    /// The volume that is to be stored, or filled from another tree, was never completely filled.
    UnfinishedRestore,
    /// The device that is to be filled is smaller than the image.
    TooSmall,
    /// The volume cannot be read or written.
    Volume,
    /// Some files were not stored or not restored; the rest was.
    Incomplete,
    /// What was restored or stored is not what it should be.
    Different,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (kind, retryable) = classify(error);
        Self { error: with_causes(error), kind, retryable }
    }
}

fn classify(error: &Error) -> (FailureKind, bool) {
    match error {
        Error::JobFile { .. } | Error::JobFormat { .. } => (FailureKind::Job, false),
        Error::Repository(error) => (of_repository(error), error.is_retryable()),
        Error::Store(error) => {
            let error = repository::Error::from(error.clone());
            (of_repository(&error), error.is_retryable())
        }
        Error::Tree(error) => (of_tree(error), error.is_retryable()),
        Error::Image(error) => of_image(error),
        Error::Volume { source, .. } => (of_io(source), false),
        Error::NoBytes { .. } => (FailureKind::Volume, true),
        Error::TooSmall { .. } => (FailureKind::TooSmall, false),
        Error::UnfinishedRestore { .. } => (FailureKind::UnfinishedRestore, false),
        Error::Missed { .. } | Error::NotRestored { .. } => (FailureKind::Incomplete, false),
        Error::Different { .. } | Error::StoredOtherwise { .. } | Error::ImageDifferent { .. } => {
            (FailureKind::Different, true)
        }
        Error::Stopped => (FailureKind::Stopped, true),
    }
}

fn of_repository(error: &repository::Error) -> FailureKind {
    match error.kind() {
        ErrorKind::NotARepository => FailureKind::NotARepository,
        ErrorKind::WrongPassphrase => FailureKind::WrongPassphrase,
        ErrorKind::Newer => FailureKind::Newer,
        ErrorKind::Unreachable => FailureKind::Unreachable,
        ErrorKind::AccessDenied => FailureKind::AccessDenied,
        ErrorKind::NoSpace => FailureKind::NoSpace,
        ErrorKind::Damaged => FailureKind::Damaged,
        _ => FailureKind::Repository,
    }
}

fn of_tree(error: &tree::Error) -> FailureKind {
    match error {
        tree::Error::Repository(error) => of_repository(error),
        tree::Error::FileSystem { source, .. } => of_io(source),
        tree::Error::TargetNotEmpty { .. } => FailureKind::VolumeNotEmpty,
        tree::Error::Damaged { .. } => FailureKind::Damaged,
        tree::Error::CountsDiffer { .. } => FailureKind::Different,
        tree::Error::Cancelled => FailureKind::Stopped,
        _ => FailureKind::Repository,
    }
}

fn of_image(error: &volume::Error) -> (FailureKind, bool) {
    match error {
        volume::Error::Repository(error) => (of_repository(error), error.is_retryable()),
        volume::Error::Shared(error) => of_image(error),
        volume::Error::Image { source, .. } => (of_io(source), false),
        volume::Error::Damaged { .. } => (FailureKind::Damaged, false),
        volume::Error::Cancelled => (FailureKind::Stopped, true),
        _ => (FailureKind::Volume, false),
    }
}

fn of_io(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureKind::NoSpace,
        _ => FailureKind::Volume,
    }
}

/// The error and what led to it, in one line, and what to do where the repository knows it.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let guidance = match error {
        Error::Repository(error)
        | Error::Tree(tree::Error::Repository(error))
        | Error::Image(volume::Error::Repository(error)) => Some(error.guidance()),
        _ => None,
    };
    match guidance {
        Some(guidance) => format!("{text}; {guidance}"),
        None => text,
    }
}
