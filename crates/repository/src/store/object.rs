//! Everything that the `object_store` crate can reach, as a store.

use super::{ObjectAccess, ObjectInfo, StoreError, StoreErrorKind};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fmt;
use std::ops::Range;

/// Objects under one prefix of a bucket.
pub(super) struct Objects<S> {
    store: S,
    prefix: Path,
}

impl<S: ObjectStore> fmt::Debug for Objects<S> {
    /// What the crate shows of a store for debugging has its keys; its name has not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.prefix)
    }
}

impl<S: ObjectStore> Objects<S> {
    pub(super) fn new(store: S, prefix: &str) -> Result<Self, StoreError> {
        let prefix = Path::parse(prefix)
            .map_err(|error| StoreError::new(StoreErrorKind::Invalid, "use the prefix", prefix).because(error))?;
        Ok(Self { store, prefix })
    }

    fn path(&self, operation: &'static str, name: &str) -> Result<Path, StoreError> {
        let full = if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(full).map_err(|error| StoreError::new(StoreErrorKind::Invalid, operation, name).because(error))
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectAccess for Objects<S> {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path("create", name)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store.put_opts(&path, PutPayload::from(bytes), options).await.map_err(sort("create", name))?;
        Ok(())
    }

    async fn put_where_nothing_is(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path("create", name)?;
        self.store.put(&path, PutPayload::from(bytes)).await.map_err(sort("create", name))?;
        Ok(())
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        let path = self.path("read", name)?;
        let found = self.store.get(&path).await.map_err(sort("read", name))?;
        if found.meta.size > limit {
            return Err(StoreError::new(StoreErrorKind::TooLarge, "read", name));
        }
        read_up_to(found, limit, name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path("read", name)?;
        let (start, len) = (range.start, range.end.saturating_sub(range.start));
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let error = match self.store.get_opts(&path, options).await {
            Ok(found) => return read_up_to(found, len, name).await,
            Err(error) => sort("read", name)(error),
        };
        // Stores refuse a range beyond the end in many ways; the length of the object tells.
        if !matches!(error.kind, StoreErrorKind::Invalid | StoreErrorKind::Unreachable) {
            return Err(error);
        }
        match self.store.head(&path).await {
            Ok(meta) if meta.size <= start => Ok(Bytes::new()),
            Ok(_) => Err(error),
            // What passes says nothing of the range; asked again, both may be answered.
            Err(unanswered) => {
                let unanswered = sort("read", name)(unanswered);
                Err(if unanswered.kind == StoreErrorKind::Unreachable { unanswered } else { error })
            }
        }
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        let path = self.path("look at", name)?;
        Ok(self.store.head(&path).await.map_err(sort("look at", name))?.size)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.list_up_to(prefix, usize::MAX).await
    }

    async fn list_up_to(&self, prefix: &str, most: usize) -> Result<Vec<ObjectInfo>, StoreError> {
        let folder = match prefix.trim_end_matches('/') {
            "" => self.prefix.clone(),
            folder => self.path("list", folder)?,
        };
        let above = if self.prefix.as_ref().is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let mut found = self.store.list(Some(&folder)).map_ok(|meta| {
            let name = meta.location.as_ref();
            let name = name.strip_prefix(&above).unwrap_or(name).to_owned();
            let modified = jiff::Timestamp::from_nanosecond(
                i128::from(meta.last_modified.timestamp()) * 1_000_000_000
                    + i128::from(meta.last_modified.timestamp_subsec_nanos()),
            );
            ObjectInfo { name, size: meta.size, modified: modified.ok() }
        });
        let (mut listed, mut bytes) = (Vec::new(), 0);
        while let Some(object) = found.try_next().await.map_err(sort("list", prefix))? {
            bytes += object.footprint();
            if bytes > most {
                return Err(StoreError::new(StoreErrorKind::TooLarge, "list", prefix).because(TooMany(most)));
            }
            listed.push(object);
        }
        Ok(listed)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path("delete", name)?;
        self.store.delete(&path).await.map_err(sort("delete", name))
    }
}

/// A list that does not end, or is of more than anybody stores.
#[derive(Debug, thiserror::Error)]
#[error("there are more objects than fit into {0} bytes of memory; name a prefix that holds this repository alone")]
struct TooMany(usize);

/// Reads an answer to its end, which comes after so many bytes at most: a server need not keep to what it says of its length.
async fn read_up_to(found: GetResult, limit: u64, name: &str) -> Result<Bytes, StoreError> {
    let (mut chunks, mut bytes) = (found.into_stream(), BytesMut::new());
    while let Some(chunk) = chunks.try_next().await.map_err(sort("read", name))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(StoreError::new(StoreErrorKind::TooLarge, "read", name));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Sorts an error of the crate into our kinds.
fn sort(operation: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> StoreError {
    use object_store::Error as E;
    move |error| {
        let kind = sort_answer(&error).unwrap_or(match &error {
            E::NotFound { .. } => StoreErrorKind::NotFound,
            E::AlreadyExists { .. } | E::Precondition { .. } => StoreErrorKind::AlreadyExists,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreErrorKind::AccessDenied,
            E::NotSupported { .. } | E::NotImplemented { .. } => StoreErrorKind::NotSupported,
            E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => StoreErrorKind::Invalid,
            _ => StoreErrorKind::Unreachable,
        });
        StoreError::new(kind, operation, name).because(error)
    }
}

/// What the crate writes before the status that a server answered with.
const STATUS: &str = "status code: ";
/// What the crate writes before an error in the body of an answer whose status was good.
const ERROR_BODY: &str = "Server returned error response: ";

/// Looks for the server's answer among the causes, because it says more than the crate's own kinds.
///
/// The crate keeps the type of that cause to itself, so its text is all there is; a test holds it to that text.
fn sort_answer(error: &(dyn std::error::Error + 'static)) -> Option<StoreErrorKind> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if let Some((_, answer)) = text.split_once(STATUS) {
            let (status, body) = answer.split_at_checked(3)?;
            return status.parse().ok().map(|status| sort_status(status, body));
        }
        if let Some((_, body)) = text.split_once(ERROR_BODY) {
            return Some(sort_status(500, body));
        }
        cause = current.source();
    }
    None
}

/// The words of Amazon's S3 for "somebody else writes this right now: try again".
const CONFLICT: [&str; 2] = ["ConditionalRequestConflict", "OperationAborted"];
/// The words with which servers say that they are full: MinIO, Ceph and Garage, and servers with quotas.
const FULL: [&str; 4] = ["StorageFull", "QuotaExceeded", "EntityTooLargeForQuota", "No space left"];

/// The code of Amazon's S3 for a client that sent its bytes too slowly, with the status 400.
const TOO_SLOW: &str = "<Code>RequestTimeout</Code>";
/// The code for a header or a request that a server does not know; most send it with the status 501.
const NOT_IMPLEMENTED: &str = "<Code>NotImplemented</Code>";

/// Sorts an answer that is no success.
pub(super) fn sort_status(status: u16, body: &str) -> StoreErrorKind {
    match status {
        501 => StoreErrorKind::NotSupported,
        _ if body.contains(NOT_IMPLEMENTED) => StoreErrorKind::NotSupported,
        400 if body.contains(TOO_SLOW) => StoreErrorKind::Unreachable,
        507 => StoreErrorKind::NoSpace,
        _ if FULL.iter().any(|word| body.contains(word)) => StoreErrorKind::NoSpace,
        409 if CONFLICT.iter().any(|word| body.contains(word)) => StoreErrorKind::Unreachable,
        401 | 403 => StoreErrorKind::AccessDenied,
        404 => StoreErrorKind::NotFound,
        409 | 412 => StoreErrorKind::AlreadyExists,
        408 | 429 | 500..=599 => StoreErrorKind::Unreachable,
        300..=499 => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted() {
        let cases = [
            (403, "<Code>SignatureDoesNotMatch</Code>", StoreErrorKind::AccessDenied),
            (507, "", StoreErrorKind::NoSpace),
            (403, "<Code>QuotaExceeded</Code>", StoreErrorKind::NoSpace),
            (500, "<Code>XMinioStorageFull</Code>", StoreErrorKind::NoSpace),
            (503, "<Code>SlowDown</Code>", StoreErrorKind::Unreachable),
            (429, "", StoreErrorKind::Unreachable),
            (400, "<Code>InvalidRequest</Code>", StoreErrorKind::Invalid),
            (400, "<Code>RequestTimeout</Code>", StoreErrorKind::Unreachable),
            (501, "", StoreErrorKind::NotSupported),
            (400, "<Code>NotImplemented</Code>", StoreErrorKind::NotSupported),
            (416, "<Code>InvalidRange</Code>", StoreErrorKind::Invalid),
            (412, "", StoreErrorKind::AlreadyExists),
            (409, "<Code>ConditionalRequestConflict</Code>", StoreErrorKind::Unreachable),
        ];
        for (status, body, expected) in cases {
            assert_eq!(sort_status(status, body), expected, "{status} {body}");
        }
    }
}
