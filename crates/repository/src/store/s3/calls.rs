//! Requests to an S3 server that the `object_store` crate does not make: locks, and versions.
//!
//! They are signed with the crate's signatures, by the same credentials, and go through the same client.

use super::super::client::MAX_ANSWER_LEN;
use super::super::object::sort_status;
use super::super::{StoreError, StoreErrorKind};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, Method, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use std::fmt::Write;
use std::sync::Arc;

/// A client that signs.
#[derive(Debug, Clone)]
pub(super) struct SignedCalls {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: Arc<str>,
    bucket_url: Arc<str>,
    /// Empty, or ending with a slash.
    prefix: Arc<str>,
}

/// What is asked.
#[derive(Debug, Default)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// What is being done, as a verb, for messages.
    pub(super) operation: &'static str,
    /// The object relative to the store; none for the bucket.
    pub(super) name: Option<&'a str>,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'static str, &'a str)],
    pub(super) body: Bytes,
    /// The longest body that is taken; none for that of small answers.
    pub(super) limit: Option<u64>,
}

/// What was answered, with a status that is a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl SignedCalls {
    pub(super) fn new(
        credentials: AwsCredentialProvider,
        region: &str,
        bucket_url: String,
        prefix: &str,
        options: &ClientOptions,
    ) -> Result<Self, StoreError> {
        let client = ReqwestConnector::default().connect(options);
        let client = client.map_err(|error| {
            StoreError::new(StoreErrorKind::Invalid, "configure", bucket_url.clone()).because(error)
        })?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { client, credentials, region: region.into(), bucket_url: bucket_url.into(), prefix: prefix.into() })
    }

    /// The prefix of the store in the bucket; empty, or ending with a slash.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Asks once.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, StoreError> {
        let object = call.name.unwrap_or_default().to_owned();
        let failed = |kind| StoreError::new(kind, call.operation, object.clone());
        let request = self.signed(&call).await?;
        let unanswered = |error| failed(StoreErrorKind::Unreachable).because(error);
        let answer = self.client.execute(request).await.map_err(unanswered)?;
        let (parts, body) = answer.into_parts();
        let limit = call.limit.filter(|_| parts.status.is_success()).unwrap_or(MAX_ANSWER_LEN);
        let mut chunks = body.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.try_next().await.map_err(unanswered)? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(failed(StoreErrorKind::TooLarge));
            }
            bytes.extend_from_slice(&chunk);
        }
        if parts.status.is_success() {
            return Ok(Answer { headers: parts.headers, body: bytes.freeze() });
        }
        let refusal = Refusal { status: parts.status, body: String::from_utf8_lossy(&bytes).into_owned() };
        Err(failed(sort_status(refusal.status.as_u16(), &refusal.body)).because(refusal))
    }

    async fn signed(&self, call: &Call<'_>) -> Result<HttpRequest, StoreError> {
        let failed = |kind| StoreError::new(kind, call.operation, call.name.unwrap_or_default());
        let mut request = http::Request::builder().method(&call.method).uri(self.url(call.name, call.query));
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        if !call.body.is_empty() {
            // Amazon's server wants one for everything that has to do with locks.
            let sum = BASE64_STANDARD.encode(crc32c::crc32c(&call.body).to_be_bytes());
            request = request.header("x-amz-checksum-crc32c", sum).header("x-amz-sdk-checksum-algorithm", "CRC32C");
        }
        let body = if call.body.is_empty() { HttpRequestBody::empty() } else { call.body.clone().into() };
        let mut request = request.body(body).map_err(|error| failed(StoreErrorKind::Invalid).because(error))?;
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| failed(StoreErrorKind::Unreachable).because(error))?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        let authorized = authorizer.try_authorize(&mut request, None);
        authorized.map_err(|error| failed(StoreErrorKind::Invalid).because(error))?;
        Ok(request)
    }

    fn url(&self, name: Option<&str>, query: &[(&str, &str)]) -> String {
        let mut url = format!("{}/", self.bucket_url);
        if let Some(name) = name {
            escape(&mut url, &format!("{}{name}", self.prefix), true);
        }
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            escape(&mut url, name, false);
            url.push('=');
            escape(&mut url, value, false);
        }
        url
    }
}

/// Writes text as a part of an address, as signatures want it.
fn escape(url: &mut String, text: &str, keep_slashes: bool) {
    for byte in text.bytes() {
        let stays = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/');
        if stays {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status}: {body}")]
struct Refusal {
    status: StatusCode,
    body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        let mut url = String::new();
        escape(&mut url, "a b/ü+~", true);
        escape(&mut url, "/&", false);
        assert_eq!(url, "a%20b/%C3%BC%2B~%2F%26");
    }
}
