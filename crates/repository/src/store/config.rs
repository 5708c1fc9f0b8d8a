//! Where a store is, and how to get in.

use super::filesystem::FileSystem;
use super::object::Objects;
use super::{RetryPolicy, Store, StoreError, StoreErrorKind};
use crate::secret::Secret;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::memory::InMemory;
use object_store::{Certificate, ClientOptions, RetryConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection to a server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while an answer is awaited or read.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one request may take in all: a full pack of 32 MiB at 112 KiB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// The region that servers without regions accept.
const DEFAULT_REGION: &str = "us-east-1";

/// Where a store is, and how to get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields, tag = "type")]
pub enum StoreConfig {
    /// A folder; made when the repository is created.
    #[serde(rename = "filesystem")]
    FileSystem {
        /// The folder.
        path: PathBuf,
    },
    /// A bucket of an S3 server.
    S3 {
        /// The bucket; it must exist.
        bucket: String,
        /// The names of all objects begin with this and a slash; empty for the whole bucket.
        #[serde(default)]
        prefix: String,
        /// The server, if it is not Amazon's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// The region, where the server has any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// Whether the bucket is part of the path rather than of the host name; most servers but Amazon's want it.
        #[serde(default)]
        path_style: bool,
        /// The name of the key.
        access_key_id: String,
        /// The key.
        secret_access_key: Secret<String>,
        /// The token that belongs to temporary keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<Secret<String>>,
        /// Certificates to trust beside those of the system, in PEM form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_pem: Option<String>,
    },
    /// Memory of this process, empty at each opening; for tests.
    Memory,
}

impl StoreConfig {
    /// Understands `file:///path` and `s3://bucket/prefix`, the latter with the `AWS_…` variables that other tools use.
    pub fn from_url(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Self::FileSystem { path: PathBuf::from(path) })
            } else {
                Err(StoreError::configuration(format!("{url:?} has no absolute path; write file:///path")))
            };
        }
        let Some(place) = url.strip_prefix("s3://") else {
            return Err(StoreError::configuration(format!("{url:?} is neither file:///path nor s3://bucket/prefix")));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(StoreError::configuration(format!("{url:?} names no bucket")));
        }
        let need = |name: &str| {
            env(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| StoreError::configuration(format!("{name} is not set")))
        };
        let endpoint = env("AWS_ENDPOINT_URL_S3").or_else(|| env("AWS_ENDPOINT_URL")).filter(|value| !value.is_empty());
        let ca_pem = match env("AWS_CA_BUNDLE") {
            Some(path) => Some(
                std::fs::read_to_string(&path)
                    .map_err(|error| StoreError::io("read the certificates in", &path, error))?,
            ),
            None => None,
        };
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            path_style: endpoint.is_some(),
            endpoint,
            region: env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION")),
            access_key_id: need("AWS_ACCESS_KEY_ID")?,
            secret_access_key: Secret::new(need("AWS_SECRET_ACCESS_KEY")?),
            session_token: env("AWS_SESSION_TOKEN").map(Secret::new),
            ca_pem,
        })
    }

    /// Opens the store; nothing is asked of it yet.
    pub fn open(&self, retry: RetryPolicy) -> Result<Store, StoreError> {
        match self {
            Self::FileSystem { path } => {
                Ok(Store::new(FileSystem::new(path.clone()), &path.display().to_string(), retry))
            }
            Self::Memory => Ok(Store::new(Objects::new(InMemory::new(), "")?, "memory", retry)),
            Self::S3 { bucket, prefix, .. } => {
                let invalid = |error| {
                    StoreError::new(StoreErrorKind::Invalid, "configure", format!("s3://{bucket}")).because(error)
                };
                let store = self.s3_builder()?.build().map_err(invalid)?;
                let place = format!("s3://{bucket}/{prefix}");
                Ok(Store::new(Objects::new(store, prefix)?, place.trim_end_matches('/'), retry))
            }
        }
    }

    /// Retries are ours, because only we know that a creation that meets its own object has succeeded.
    fn s3_builder(&self) -> Result<AmazonS3Builder, StoreError> {
        let Self::S3 {
            bucket,
            endpoint,
            region,
            path_style,
            access_key_id,
            secret_access_key,
            session_token,
            ca_pem,
            ..
        } = self
        else {
            return Err(StoreError::configuration("not an S3 store"));
        };
        let mut client = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_allow_http(true);
        if let Some(pem) = ca_pem {
            let bundle = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| StoreError::configuration(format!("the certificates are not PEM: {error}")))?;
            client = bundle.into_iter().fold(client, ClientOptions::with_root_certificate);
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region.as_deref().unwrap_or(DEFAULT_REGION))
            .with_virtual_hosted_style_request(!path_style)
            .with_access_key_id(access_key_id)
            .with_secret_access_key(secret_access_key.expose())
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // Each deletion by itself: in an answer to many, a refusal is hidden in a success.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(client);
        if let Some(endpoint) = endpoint {
            let endpoint = if *path_style { endpoint.clone() } else { with_bucket(endpoint, bucket)? };
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = session_token {
            builder = builder.with_token(token.expose());
        }
        Ok(builder)
    }
}

/// Puts the bucket in front of the host, where servers look for it that have virtual hosts: the crate takes an endpoint as it is.
fn with_bucket(endpoint: &str, bucket: &str) -> Result<String, StoreError> {
    let (scheme, rest) = endpoint
        .split_once("://")
        .ok_or_else(|| StoreError::configuration(format!("the endpoint {endpoint:?} has no https:// or http://")))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(StoreError::configuration(format!(
            "the endpoint {endpoint:?} is an address, so the bucket cannot be part of its host name; use path-style requests"
        )));
    }
    if host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.')) {
        return Ok(endpoint.to_owned());
    }
    Ok(format!("{scheme}://{bucket}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "AWS_ACCESS_KEY_ID" => "id",
            "AWS_SECRET_ACCESS_KEY" => "key",
            "AWS_ENDPOINT_URL" => "http://127.0.0.1:9000",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn urls_are_understood() {
        let folder = StoreConfig::from_url("file:///backup", &env).unwrap();
        assert_eq!(folder, StoreConfig::FileSystem { path: "/backup".into() });
        let StoreConfig::S3 { bucket, prefix, path_style, endpoint, .. } =
            StoreConfig::from_url("s3://b/p/q/", &env).unwrap()
        else {
            panic!("not S3");
        };
        assert_eq!((bucket.as_str(), prefix.as_str(), path_style), ("b", "p/q", true));
        assert_eq!(endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    }

    #[test]
    fn bad_urls_are_named() {
        let cases = [
            ("backup", "\"backup\" is neither file:///path nor s3://bucket/prefix"),
            ("file://backup", "\"file://backup\" has no absolute path; write file:///path"),
            ("s3://", "\"s3://\" names no bucket"),
        ];
        for (url, expected) in cases {
            let error = StoreConfig::from_url(url, &env).unwrap_err();
            assert_eq!(error.source.unwrap().to_string(), expected);
        }
        let error = StoreConfig::from_url("s3://b", &|_| None).unwrap_err();
        assert_eq!(error.source.unwrap().to_string(), "AWS_ACCESS_KEY_ID is not set");
    }

    #[test]
    fn a_configuration_survives_json_and_hides_its_key() {
        let config = StoreConfig::from_url("s3://b/p", &env).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains("\"type\":\"s3\"") && json.contains("\"secretAccessKey\":\"key\""), "{json}");
        assert_eq!(serde_json::from_str::<StoreConfig>(&json).unwrap(), config);
        assert!(!format!("{config:?}").contains("\"key\""));
    }

    #[test]
    fn the_bucket_becomes_a_part_of_the_host() {
        let cases = [
            ("https://s3.example.com", Some("https://b.s3.example.com")),
            ("https://s3.example.com:9000/", Some("https://b.s3.example.com:9000/")),
            ("https://b.s3.example.com", Some("https://b.s3.example.com")),
            ("https://bb.example.com", Some("https://b.bb.example.com")),
            ("http://127.0.0.1:9000", None),
            ("http://[::1]:9000", None),
            ("s3.example.com", None),
        ];
        for (endpoint, expected) in cases {
            assert_eq!(with_bucket(endpoint, "b").ok().as_deref(), expected, "{endpoint}");
        }
    }

    #[test]
    fn the_client_is_told_where_the_bucket_is() {
        use object_store::aws::AmazonS3ConfigKey;
        for (style, expected) in [(false, "https://b.s3.example.com"), (true, "https://s3.example.com")] {
            let mut config = StoreConfig::from_url("s3://b/p", &env).unwrap();
            let StoreConfig::S3 { path_style, endpoint, .. } = &mut config else { panic!("not S3") };
            (*path_style, *endpoint) = (style, Some("https://s3.example.com".to_owned()));
            let builder = config.s3_builder().unwrap();
            assert_eq!(builder.get_config_value(&AmazonS3ConfigKey::Endpoint).as_deref(), Some(expected));
        }
    }
}
