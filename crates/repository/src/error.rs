//! What can go wrong with a repository, told apart by what its owner should do about it.

use crate::ids::PointId;
use crate::keys::KeyError;
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
    /// No key of the repository opens with the passphrase, or with the key of the key management service.
    #[error("none of the {keys} keys of the repository opens with {with}")]
    WrongPassphrase {
        /// How many keys there are.
        keys: usize,
        /// What was given.
        with: String,
    },
    /// There is no key any more: they were erased, or lost.
    #[error("{place} holds a repository without keys: they were erased or lost, and nothing opens it any more")]
    NoKeys {
        /// The store.
        place: String,
    },
    /// Something about a key, or about the service that keeps it.
    #[error(transparent)]
    Key(#[from] KeyError),
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
    /// A recovery point that is pinned was to be forgotten, or pinned for another reason.
    #[error("recovery point {id} is pinned: {reason}")]
    Pinned {
        /// Its name.
        id: PointId,
        /// Why it is pinned.
        reason: String,
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
    /// The passphrase, or the key of the key management service, opens nothing.
    WrongPassphrase,
    /// Written by a newer program.
    Newer,
    /// Bytes were changed or lost in the store.
    Damaged,
    /// What was asked for is not there.
    NotFound,
    /// It is pinned, and must stay.
    Pinned,
    /// The store did not answer, or not in time, or too slowly.
    Unreachable,
    /// The store refuses these credentials.
    AccessDenied,
    /// The store is full.
    NoSpace,
    /// The store refuses to delete what is locked.
    Locked,
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
            Self::Damaged { .. } | Self::Missing { .. } | Self::NoKeys { .. } | Self::NotCollected { .. } => {
                ErrorKind::Damaged
            }
            Self::Key(error) => error.kind(),
            Self::NoSuchPoint { .. } => ErrorKind::NotFound,
            Self::Pinned { .. } => ErrorKind::Pinned,
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
                StoreErrorKind::Locked { .. } => ErrorKind::Locked,
            },
        }
    }

    /// Whether bytes in the store are lost or changed.
    pub fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::Damaged
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Interrupted | ErrorKind::Busy)
    }

    /// What its reader can do about it.
    pub fn guidance(&self) -> &'static str {
        match self {
            Self::Key(error) => return error.guidance(),
            Self::NoKeys { .. } => return "put the objects of its keys back from a copy of the store, if there is one",
            Self::NotCollected { .. } => {
                return "run `orlop repo check` to see what is damaged; restore what is named from a copy, or forget it";
            }
            _ => {}
        }
        match self.kind() {
            ErrorKind::Revoked => {
                "run the backup again, under a new name; if it was alive, prune with a longer --dead-after"
            }
            ErrorKind::Busy => "wait until the other run has ended, then try again",
            ErrorKind::NotARepository => "check the path or the bucket and its prefix, or create the repository first",
            ErrorKind::AlreadyExists => "use what is there, or choose another name",
            ErrorKind::WrongPassphrase => {
                "give the passphrase of a recipient, or the service's key that is one; `orlop repo key list` shows the recipients"
            }
            ErrorKind::Newer => "use the version of orlop that wrote the repository, or a newer one",
            ErrorKind::Damaged => {
                "run `orlop repo check --read-data` to see what is hit, and `orlop repo repair` to take what is lost from a copy or the source"
            }
            ErrorKind::Pinned => "keep it, or unpin it first: orlop repo unpin",
            ErrorKind::NotFound => "list what is there, and check the name",
            ErrorKind::Unreachable => "check that the endpoint is right and can be reached from here, then try again",
            ErrorKind::AccessDenied => {
                "check the access key, and that it may list, read, create and delete under the prefix"
            }
            ErrorKind::Locked => "wait until the lock has ended; that it cannot be ended before is what it is for",
            ErrorKind::NoSpace => "free space, or raise the quota, then try again",
            ErrorKind::Invalid => "correct what the message names",
            ErrorKind::Interrupted => "try again",
        }
    }
}
