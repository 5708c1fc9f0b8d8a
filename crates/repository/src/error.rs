//! What can go wrong with a repository, told apart by what its owner should do about it.

use crate::ids::PointId;
use crate::store::{StoreError, StoreErrorKind};
use std::sync::Arc;

/// The result of an operation on a repository.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a repository that did not succeed.
///
/// Cheap to clone, because the failure of one background upload is told to everybody who uses the session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The place can be read, and there is no repository.
    #[error("{place} holds no repository")]
    NotARepository {
        /// The store.
        place: String,
    },
    /// A repository was to be created where one is.
    #[error("{place} holds a repository already")]
    AlreadyExists {
        /// The store.
        place: String,
    },
    /// No key of the repository opens with the passphrase.
    #[error("none of the {keys} keys of the repository opens with this passphrase")]
    WrongPassphrase {
        /// How many keys were tried.
        keys: usize,
    },
    /// An object of a format that this program does not know yet.
    #[error("{object} has format version {found}, and this program reads versions up to {supported}")]
    Newer {
        /// The object.
        object: String,
        /// The version it has.
        found: u32,
        /// The greatest version that can be read.
        supported: u32,
    },
    /// An object is there, and its bytes are not what was written.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// An object that is referred to is not there.
    #[error("{object} is missing")]
    Missing {
        /// The object.
        object: String,
    },
    /// A recovery point that was asked for does not exist.
    #[error("there is no recovery point {id}")]
    NoSuchPoint {
        /// Its name.
        id: PointId,
    },
    /// A recovery point of this name has been published with other content.
    #[error("recovery point {id} has been published already, with other content")]
    PointExists {
        /// Its name.
        id: PointId,
    },
    /// A recovery point that was to be published never will be: a collector took the run for dead, or it was forgotten.
    #[error("recovery point {id} was revoked: it will never be published")]
    Revoked {
        /// Its name.
        id: PointId,
    },
    /// The store allows but one run at a time, and there is another.
    #[error("the run for recovery point {id} on {host} is under way, and this store allows but one at a time")]
    Busy {
        /// What the other works for.
        id: PointId,
        /// Where it runs.
        host: String,
    },
    /// Nothing was deleted, because it is not known what is needed.
    #[error("nothing was deleted, because {what}")]
    NotCollected {
        /// Why it is not known.
        what: String,
    },
    /// The caller asked for something that the format does not allow.
    #[error("{0}")]
    Invalid(String),
    /// The session has ended, or failed earlier; nothing more can be written by it.
    #[error("the writing session is over")]
    SessionOver {
        /// Why, unless it was finished properly.
        #[source]
        cause: Option<Arc<Error>>,
    },
    /// Work on another thread did not end: the program is being stopped, or there is a defect in it.
    #[error("work in the background was cut off: {0}")]
    Interrupted(String),
    /// The store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The kinds of errors that callers act upon differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no repository.
    NotARepository,
    /// There is a repository, or a recovery point, where there should be none.
    AlreadyExists,
    /// A run was given up by a collector.
    Revoked,
    /// Another run is under way, and there must be but one.
    Busy,
    /// The passphrase opens nothing.
    WrongPassphrase,
    /// Written by a newer program.
    Newer,
    /// Bytes were changed or lost in the store.
    Damaged,
    /// What was asked for is not there.
    NotFound,
    /// The store did not answer, or not in time, or too slowly.
    Unreachable,
    /// The store refuses these credentials.
    AccessDenied,
    /// The store is full.
    NoSpace,
    /// The request or the configuration is wrong.
    Invalid,
    /// The program was stopped, or has a defect.
    Interrupted,
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    /// Which of the kinds it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotARepository { .. } => ErrorKind::NotARepository,
            Self::AlreadyExists { .. } | Self::PointExists { .. } => ErrorKind::AlreadyExists,
            Self::WrongPassphrase { .. } => ErrorKind::WrongPassphrase,
            Self::Newer { .. } => ErrorKind::Newer,
            Self::Revoked { .. } => ErrorKind::Revoked,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Damaged { .. } | Self::Missing { .. } | Self::NotCollected { .. } => ErrorKind::Damaged,
            Self::NoSuchPoint { .. } => ErrorKind::NotFound,
            Self::Invalid(_) | Self::SessionOver { cause: None } => ErrorKind::Invalid,
            Self::SessionOver { cause: Some(cause) } => cause.kind(),
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Store(error) => match error.kind {
                StoreErrorKind::NotFound => ErrorKind::NotFound,
                StoreErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                StoreErrorKind::AccessDenied => ErrorKind::AccessDenied,
                StoreErrorKind::NoSpace => ErrorKind::NoSpace,
                // What is written again, is written under new names.
                StoreErrorKind::Unreachable | StoreErrorKind::NotDurable => ErrorKind::Unreachable,
                StoreErrorKind::Unreadable | StoreErrorKind::TooShort | StoreErrorKind::TooLarge => ErrorKind::Damaged,
                StoreErrorKind::NotSupported | StoreErrorKind::Invalid => ErrorKind::Invalid,
            },
        }
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Interrupted | ErrorKind::Busy)
    }

    /// What its reader can do about it.
    pub fn guidance(&self) -> &'static str {
        if let Self::NotCollected { .. } = self {
            return "run `orlop repo check` to see what is damaged; restore what is named from a copy, or forget it";
        }
        match self.kind() {
            ErrorKind::Revoked => {
                "run the backup again, under a new name; if it was alive, prune with a longer --dead-after"
            }
            ErrorKind::Busy => "wait until the other run has ended, then try again",
            ErrorKind::NotARepository => "check the path or the bucket and its prefix, or create the repository first",
            ErrorKind::AlreadyExists => "use what is there, or choose another name",
            ErrorKind::WrongPassphrase => "give the passphrase that the repository was created with",
            ErrorKind::Newer => "use the version of orlop that wrote the repository, or a newer one",
            ErrorKind::Damaged => {
                "run `orlop repo check --read-data` to see what is hit; restore the object from a copy if there is one"
            }
            ErrorKind::NotFound => "list what is there, and check the name",
            ErrorKind::Unreachable => "check that the endpoint is right and can be reached from here, then try again",
            ErrorKind::AccessDenied => {
                "check the access key, and that it may list, read, create and delete under the prefix"
            }
            ErrorKind::NoSpace => "free space, or raise the quota, then try again",
            ErrorKind::Invalid => "correct what the message names",
            ErrorKind::Interrupted => "try again",
        }
    }
}
