//! Objects in a bucket, with the locks and versions that S3 servers have beside what all object stores have.

use super::super::lock::{LockMode, Retention};
use super::super::object::Objects;
use super::super::{Abilities, ObjectAccess, ObjectInfo, ObjectLock, StoreError, StoreErrorKind};
use super::calls::{Call, SignedCalls};
use super::xml;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use object_store::aws::AmazonS3;
use std::ops::Range;

const LOCK_MODE: &str = "x-amz-object-lock-mode";
const LOCK_UNTIL: &str = "x-amz-object-lock-retain-until-date";

/// Objects in a bucket.
#[derive(Debug)]
pub(in crate::store) struct S3Objects {
    objects: Objects<AmazonS3>,
    calls: SignedCalls,
}

impl S3Objects {
    pub(super) fn new(objects: Objects<AmazonS3>, calls: SignedCalls) -> Self {
        Self { objects, calls }
    }

    /// Asks the bucket about itself; nothing where the server does not know the question, or does not answer it to us.
    async fn ask_bucket(&self, what: &str) -> Result<Option<Bytes>, StoreError> {
        let query = [(what, "")];
        let call = Call { operation: "ask about", query: &query, ..Call::default() };
        match self.calls.send(call).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(error) if error.is_retryable() => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn look_at(&self, name: &str) -> Result<super::calls::Answer, StoreError> {
        let call = Call { method: Method::HEAD, operation: "look at", name: Some(name), ..Call::default() };
        self.calls.send(call).await
    }
}

#[async_trait]
impl ObjectAccess for S3Objects {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.objects.put_new(name, bytes).await
    }

    async fn put_where_nothing_is(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.objects.put_where_nothing_is(name, bytes).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        self.objects.get(name, limit).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.objects.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.objects.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.objects.list(prefix).await
    }

    async fn list_up_to(&self, prefix: &str, most: usize) -> Result<Vec<ObjectInfo>, StoreError> {
        self.objects.list_up_to(prefix, most).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects.delete(name).await
    }

    async fn put_locked(
        &self,
        name: &str,
        bytes: Bytes,
        retention: Retention,
        conditional: bool,
    ) -> Result<(), StoreError> {
        let until = retention.until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let headers = [(LOCK_MODE, retention.mode.of_s3()), (LOCK_UNTIL, until.as_str()), ("if-none-match", "*")];
        let headers = if conditional { &headers[..] } else { &headers[..2] };
        let call = Call {
            method: Method::PUT,
            operation: "create",
            name: Some(name),
            headers,
            body: bytes,
            ..Call::default()
        };
        self.calls.send(call).await.map(drop)
    }

    async fn retain(&self, name: &str, retention: Retention) -> Result<(), StoreError> {
        let body = xml::retention(retention);
        let query = [("retention", "")];
        let call = Call {
            method: Method::PUT,
            operation: "lock",
            name: Some(name),
            query: &query,
            body: body.into(),
            ..Call::default()
        };
        self.calls.send(call).await.map(drop)
    }

    async fn locked_until(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let answer = self.look_at(name).await?;
        let Some(text) = answer.header(LOCK_UNTIL) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|error| StoreError::new(StoreErrorKind::Invalid, "ask for the lock of", name).because(error))
    }

    /// With versions, a deletion only hides an object. So its version is deleted where that is allowed.
    async fn delete_for_good(&self, name: &str) -> Result<(), StoreError> {
        let answer = self.look_at(name).await?;
        let Some(version) = answer.header("x-amz-version-id").filter(|version| *version != "null") else {
            return self.delete(name).await;
        };
        let query = [("versionId", version)];
        let call =
            Call { method: Method::DELETE, operation: "delete", name: Some(name), query: &query, ..Call::default() };
        match self.calls.send(call).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == StoreErrorKind::AccessDenied => self.delete(name).await,
            Err(error) => Err(error),
        }
    }

    async fn abilities(&self) -> Result<Abilities, StoreError> {
        let versions = match self.ask_bucket("versioning").await? {
            Some(body) => xml::versioning(&body),
            None => None,
        };
        let lock = match self.ask_bucket("object-lock").await? {
            Some(body) => xml::object_lock(&body),
            None => None,
        };
        let object_lock = lock.map(|rule| {
            let default_mode = rule.as_ref().and_then(|rule| LockMode::from_s3(&rule.mode));
            ObjectLock { default_mode, default_days: rule.and_then(|rule| rule.days()) }
        });
        Ok(Abilities { versions, object_lock })
    }
}
