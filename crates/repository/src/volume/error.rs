//! What can go wrong with a volume or a stream.

use std::io;
use std::path::{Path, PathBuf};

use super::ChangesError;

/// Why a volume was not stored, restored or compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository could not be read or written.
    #[error(transparent)]
    Repository(#[from] crate::Error),
    /// The image or the device did not do what was asked.
    #[error("{action} {path}", path = path.display())]
    Image {
        /// What was asked.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The image is shorter than it was when it was opened.
    #[error("{path} ends at {end}, before its size of {size} bytes; it must not change while it is read", path = path.display())]
    CutOff {
        /// The image.
        path: PathBuf,
        /// Where it ends.
        end: u64,
        /// Where it should end.
        size: u64,
    },
    /// The volume in the repository breaks a rule of its format.
    #[error("the volume is damaged in the repository: {what}; check the repository")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// A list of changes does not fit the volume.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// A list of changes was given, and nothing that it is a change of.
    #[error("a list of changes says nothing without the recovery point that it is the difference to: name the parent")]
    NoParent,
    /// The target is there, and must not be overwritten.
    #[error("{path} exists; name a new file, or allow it to be overwritten", path = path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// What is there is neither a file nor a block device.
    #[error("{path} is neither a file nor a block device; name one of these", path = path.display())]
    NotAnImage {
        /// Where.
        path: PathBuf,
    },
    /// The target is a device that is too small.
    #[error("{path} has {found} bytes, and the volume has {needed}", path = path.display())]
    TargetTooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size of the volume.
        needed: u64,
    },
    /// Standard input, or what else a stream is read from or written to, did not do what was asked.
    #[error("{action} the stream")]
    Stream {
        /// What was asked.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// What was asked for is not in the volume.
    #[error("the bytes from {start} to {end} are not in the volume, which has {size}")]
    OutOfRange {
        /// Where they begin.
        start: u64,
        /// Where they end.
        end: u64,
        /// How many bytes the volume has.
        size: u64,
    },
    /// What several readers waited for could not be read; each is told.
    #[error(transparent)]
    Shared(std::sync::Arc<Self>),
    /// The caller ended the work.
    #[error("the work was ended before it was complete; run it again")]
    Cancelled,
}

impl Error {
    /// Whether bytes in the repository are lost or changed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Repository(error) => error.kind() == crate::ErrorKind::Damaged,
            Self::Damaged { .. } => true,
            Self::Shared(error) => error.is_damage(),
            _ => false,
        }
    }

    pub(super) fn image(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Image { action, path, source }
    }

    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}
