//! What can go wrong with a store.

use jiff::Timestamp;
use rustix::io::Errno;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// The kinds of failures of a store, the same for all stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// An object to be created exists.
    AlreadyExists,
    /// The credentials are not accepted, or do not allow the request.
    AccessDenied,
    /// The store is full, or its quota is used up.
    NoSpace,
    /// The store could not be reached, did not answer in time, or asked to slow down.
    Unreachable,
    /// The object is there, and its medium does not give it.
    Unreadable,
    /// What was written could not be made to survive a power failure. Final: a second attempt to sync may succeed although the
    /// bytes are lost.
    NotDurable,
    /// The object is locked: the store refuses to delete it before a time, whoever asks.
    Locked {
        /// That time.
        until: Timestamp,
    },
    /// The object ends before the bytes that were asked for.
    TooShort,
    /// The object is larger than any object of its kind may be.
    TooLarge,
    /// The store does not know this kind of request.
    NotSupported,
    /// The request or the configuration makes no sense to the store.
    Invalid,
}

/// A request to a store that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {}: {}", name(.object), describe(.kind))]
pub struct StoreError {
    /// What kind of failure it was.
    pub kind: StoreErrorKind,
    /// What was being done, as a verb.
    pub operation: &'static str,
    /// The object; empty for the store itself.
    pub object: String,
    /// What the store, or the system, said.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

fn name(object: &str) -> &str {
    if object.is_empty() { "the store" } else { object }
}

fn describe(kind: &StoreErrorKind) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        StoreErrorKind::Locked { until } => return Cow::Owned(format!("it is locked until {until}")),
        StoreErrorKind::NotFound => "it does not exist",
        StoreErrorKind::AlreadyExists => "it exists already",
        StoreErrorKind::AccessDenied => "access is denied",
        StoreErrorKind::NoSpace => "there is no space left",
        StoreErrorKind::Unreachable => "the store did not answer properly",
        StoreErrorKind::Unreadable => "it cannot be read",
        StoreErrorKind::NotDurable => "it could not be made durable",
        StoreErrorKind::TooShort => "it is shorter than it should be",
        StoreErrorKind::TooLarge => "it is larger than it may be",
        StoreErrorKind::NotSupported => "the store does not support the request",
        StoreErrorKind::Invalid => "the request is not valid",
    })
}

impl StoreError {
    /// An error that has no cause below it.
    pub fn new(kind: StoreErrorKind, operation: &'static str, object: impl Into<String>) -> Self {
        Self { kind, operation, object: object.into(), source: None }
    }

    /// Keeps what lies below.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What is wrong with the object, without its name.
    pub(crate) fn what(&self) -> String {
        let kind = describe(&self.kind);
        self.source.as_ref().map_or_else(|| kind.to_string(), |source| format!("{kind}: {source}"))
    }

    /// A configuration that cannot work; says why.
    pub(crate) fn configuration(what: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, "configure", "").because(ConfigurationError(what.into()))
    }

    /// Sorts an error of the file system.
    pub(crate) fn io(operation: &'static str, object: &str, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => StoreErrorKind::AlreadyExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::AccessDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreErrorKind::NoSpace
            }
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename | io::ErrorKind::IsADirectory => {
                StoreErrorKind::Invalid
            }
            _ => StoreErrorKind::Unreachable,
        };
        Self::new(kind, operation, object).because(error)
    }

    /// Sorts an error that was met while an object was read: a bad sector, or a file system that finds its own checksums wrong,
    /// is damage of that object and no other.
    pub(crate) fn io_of_read(operation: &'static str, object: &str, error: io::Error) -> Self {
        let errno = Errno::from_io_error(&error);
        let mut sorted = Self::io(operation, object, error);
        if let Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG) = errno {
            sorted.kind = StoreErrorKind::Unreadable;
        }
        sorted
    }

    /// Sorts an error of a sync.
    pub(crate) fn io_of_sync(operation: &'static str, object: &str, error: io::Error) -> Self {
        let mut sorted = Self::io(operation, object, error);
        if sorted.kind == StoreErrorKind::Unreachable {
            sorted.kind = StoreErrorKind::NotDurable;
        }
        sorted
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unreachable | StoreErrorKind::Unreadable)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConfigurationError(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_bad_medium_is_told_from_a_store_that_is_away() {
        let read = |errno: Errno| StoreError::io_of_read("read", "x", errno.into()).kind;
        for errno in [Errno::IO, Errno::UCLEAN, Errno::BADMSG] {
            assert_eq!(read(errno), StoreErrorKind::Unreadable, "{errno}");
            assert_eq!(
                crate::Error::from(StoreError::io_of_read("read", "x", errno.into())).kind(),
                ErrorKind::Damaged
            );
        }
        assert_eq!(read(Errno::STALE), StoreErrorKind::Unreachable);
        assert_eq!(read(Errno::NOENT), StoreErrorKind::NotFound);
        let sync = |errno: Errno| StoreError::io_of_sync("create", "x", errno.into());
        assert_eq!((sync(Errno::IO).kind, sync(Errno::IO).is_retryable()), (StoreErrorKind::NotDurable, false));
        assert_eq!(sync(Errno::NOSPC).kind, StoreErrorKind::NoSpace);
    }
}
