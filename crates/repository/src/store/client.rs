//! What all servers that are reached by HTTP have in common.

use super::StoreError;
use super::config::Env;
use async_trait::async_trait;
use bytes::BytesMut;
use futures::TryStreamExt;
use http::Method;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{Certificate, ClientOptions, RetryConfig};
use std::time::Duration;

/// The longest answer that is not an object, in bytes: a page of 1000 names or versions has some 1,500 bytes for each at most.
pub(super) const MAX_ANSWER_LEN: u64 = 8 << 20;

/// How long a connection to a server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while an answer is awaited or read.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one request may take in all: a full pack of 32 MiB at 112 KiB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// A client with our times, which trusts the given certificates beside those of the system.
///
/// Proxies are those of the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, which the client heeds by itself.
pub(super) fn options(ca_pem: Option<&str>) -> Result<ClientOptions, StoreError> {
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(true);
    let Some(pem) = ca_pem else { return Ok(client) };
    let bundle = Certificate::from_pem_bundle(pem.as_bytes())
        .map_err(|error| StoreError::configuration(format!("the certificates are not PEM: {error}")))?;
    if bundle.is_empty() {
        return Err(StoreError::configuration("the certificates are not PEM: there is none"));
    }
    Ok(bundle.into_iter().fold(client, ClientOptions::with_root_certificate))
}

/// Connections of the crate whose answers end: it takes whatever a server has to say, but for objects, of which we ask how long they are.
#[derive(Debug, Default)]
pub(super) struct Bounded(ReqwestConnector);

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(BoundedService(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct BoundedService(HttpClient);

#[async_trait]
impl HttpService for BoundedService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // All servers say so in the query when they are to list.
        let lists = request.uri().query().is_some_and(|query| query.contains("list"));
        let is_for_an_object = request.method() == Method::GET && !lists;
        let (parts, body) = self.0.execute(request).await?.into_parts();
        if is_for_an_object && parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let (mut chunks, mut bytes) = (body.bytes_stream(), BytesMut::new());
        while let Some(chunk) = chunks.try_next().await? {
            if (bytes.len() + chunk.len()) as u64 > MAX_ANSWER_LEN {
                return Err(HttpError::new(HttpErrorKind::Decode, TooLong));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(HttpResponse::from_parts(parts, bytes.freeze().into()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the answer of the server is longer than {MAX_ANSWER_LEN} bytes")]
struct TooLong;

/// Retries are ours, because only we know that a creation that meets its own object has succeeded.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The certificates in the file that a variable names.
pub(super) fn certificates(env: Env<'_>, variable: &str) -> Result<Option<String>, StoreError> {
    let Some(path) = env(variable) else { return Ok(None) };
    let read = std::fs::read_to_string(&path);
    read.map(Some).map_err(|error| StoreError::io("read the certificates in", &path, error))
}

/// The first of some variables that is set.
pub(super) fn first_of(env: Env<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env(name))
}

/// The address of a place in messages.
pub(super) fn place(scheme: &str, bucket: &str, prefix: &str) -> String {
    format!("{scheme}://{bucket}/{prefix}").trim_end_matches('/').to_owned()
}
