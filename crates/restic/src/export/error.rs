//! What ends an export.

use ::repository::{tree, volume};

use crate::format;

/// Why recovery points were not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The restic repository could not be read or written.
    #[error(transparent)]
    Target(#[from] format::Error),
    /// The repository that holds the recovery point could not be read.
    #[error(transparent)]
    Source(#[from] ::repository::Error),
    /// A file tree could not be read.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// What is stored breaks a rule of its format.
    #[error("{what} of the recovery point is damaged: {why}; check the repository")]
    Damaged { what: String, why: String },
    /// The caller ended the work.
    #[error("the export was ended before it was complete; run it again, what is stored will not be stored twice")]
    Cancelled,
    /// The worker ended by a panic: a defect of this program.
    #[error("a worker ended unexpectedly; please report it")]
    Worker(#[from] tokio::task::JoinError),
}
