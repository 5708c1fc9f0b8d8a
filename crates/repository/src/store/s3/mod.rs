//! Buckets of S3 servers.

mod access;
mod calls;
mod profile;
mod versions;
mod xml;

use self::access::S3Objects;
use self::calls::SignedCalls;
use self::versions::FirstVersions;
use super::client::{self, first_of};
use super::config::Env;
use super::object::Objects;
use super::{StoreError, StoreErrorKind};
use crate::secret::Secret;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use serde::{Deserialize, Serialize};

/// The region that servers without regions accept.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket of an S3 server. Without any credentials, those of the machine that Amazon runs this on are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Location {
    /// The bucket; it must exist.
    pub bucket: String,
    /// The names of all objects begin with this and a slash; empty for the whole bucket.
    #[serde(default)]
    pub prefix: String,
    /// The server, if it is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region, where the server has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket is part of the path rather than of the host name; most servers but Amazon's want it.
    #[serde(default)]
    pub path_style: bool,
    /// The name of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret<String>>,
    /// The token that belongs to temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret<String>>,
    /// A role to take on by the token of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<WebIdentity>,
    /// Where a container is given keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_keys: Option<ContainerKeys>,
    /// Certificates to trust beside those of the system, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// A role that a workload may take on, and the token that proves which workload this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebIdentity {
    /// The file with the token; it is read anew for every set of keys.
    pub token_file: String,
    /// The role.
    pub role_arn: String,
    /// What the server's log calls the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
}

/// Where a container is given keys by what runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ContainerKeys {
    /// Below the address that Amazon's container service has.
    Relative(String),
    /// At an address of its own, to which a token in a file is shown.
    Full {
        /// The address.
        uri: String,
        /// The file.
        token_file: String,
    },
}

impl S3Location {
    /// Keys are looked for in the variables, in a profile, as a web identity, as those of a container; the machine's own come last.
    pub(super) fn from_env(bucket: String, prefix: String, env: Env<'_>) -> Result<Self, StoreError> {
        let profile = profile::read(env)?;
        let endpoint = first_of(env, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]).or(profile.endpoint);
        let mut location = Self {
            bucket,
            prefix,
            path_style: path_style(env)?.unwrap_or(endpoint.is_some()),
            endpoint,
            region: first_of(env, &["AWS_REGION", "AWS_DEFAULT_REGION"]).or(profile.region),
            ca_pem: client::certificates(env, "AWS_CA_BUNDLE")?,
            ..Self::default()
        };
        match (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(key)) => location.take_keys(id, key, env("AWS_SESSION_TOKEN")),
            (Some(_), None) => return Err(StoreError::configuration("AWS_SECRET_ACCESS_KEY is not set")),
            (None, Some(_)) => return Err(StoreError::configuration("AWS_ACCESS_KEY_ID is not set")),
            (None, None) => match profile.keys {
                Some((id, key, token)) => location.take_keys(id, key, token),
                None => location.be_who_the_machine_says(profile.web_identity, env)?,
            },
        }
        Ok(location)
    }

    fn take_keys(&mut self, id: String, key: String, token: Option<String>) {
        self.access_key_id = Some(id);
        self.secret_access_key = Some(Secret::new(key));
        self.session_token = token.map(Secret::new);
    }

    fn be_who_the_machine_says(&mut self, profile: Option<WebIdentity>, env: Env<'_>) -> Result<(), StoreError> {
        let session_name = env("AWS_ROLE_SESSION_NAME");
        let of_env = env("AWS_WEB_IDENTITY_TOKEN_FILE")
            .zip(env("AWS_ROLE_ARN"))
            .map(|(token_file, role_arn)| WebIdentity { token_file, role_arn, session_name });
        self.web_identity = of_env.or(profile);
        let full = || {
            let (uri, file) = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
            env(uri).zip(env(file)).map(|(uri, token_file)| ContainerKeys::Full { uri, token_file })
        };
        let relative = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(ContainerKeys::Relative);
        self.container_keys = relative.or_else(full).filter(|_| self.web_identity.is_none());
        let machine_is_asked = self.web_identity.is_none() && self.container_keys.is_none();
        let is_disabled = env("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        // The keys that a machine has are for Amazon, and not to be shown to other servers.
        let is_amazon = self.endpoint.as_deref().is_none_or(|endpoint| endpoint.contains(".amazonaws.com"));
        if machine_is_asked && (is_disabled || !is_amazon) {
            return Err(StoreError::configuration(
                "AWS_ACCESS_KEY_ID is not set, and there is neither a profile with keys nor a web identity",
            ));
        }
        Ok(())
    }

    pub(super) fn place(&self) -> String {
        client::place("s3", &self.bucket, &self.prefix)
    }

    pub(super) fn access(&self) -> Result<S3Objects, StoreError> {
        let store = self.build()?;
        let calls = self.calls(&store)?;
        Ok(S3Objects::new(Objects::new(store, &self.prefix)?, calls))
    }

    /// The first versions of everything, whatever was deleted or overwritten since.
    pub(super) fn first_versions(&self) -> Result<FirstVersions, StoreError> {
        Ok(FirstVersions::new(self.calls(&self.build()?)?))
    }

    fn build(&self) -> Result<AmazonS3, StoreError> {
        let invalid = |error| StoreError::new(StoreErrorKind::Invalid, "configure", self.place()).because(error);
        self.builder()?.build().map_err(invalid)
    }

    /// Calls that the crate does not have, with its credentials and its client.
    fn calls(&self, store: &AmazonS3) -> Result<SignedCalls, StoreError> {
        let options = client::options(self.ca_pem.as_deref())?;
        SignedCalls::new(store.credentials().clone(), self.region(), self.bucket_url()?, &self.prefix, &options)
    }

    fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(DEFAULT_REGION)
    }

    /// The address of the bucket.
    fn bucket_url(&self) -> Result<String, StoreError> {
        let amazon = || format!("https://s3.{}.amazonaws.com", self.region());
        let endpoint = self.endpoint.clone().unwrap_or_else(amazon);
        if self.path_style {
            Ok(format!("{}/{}", endpoint.trim_end_matches('/'), self.bucket))
        } else {
            Ok(with_bucket(&endpoint, &self.bucket)?.trim_end_matches('/').to_owned())
        }
    }

    fn builder(&self) -> Result<AmazonS3Builder, StoreError> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(self.region())
            .with_virtual_hosted_style_request(!self.path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // Each deletion by itself: in an answer to many, a refusal is hidden in a success.
            .with_disable_bulk_delete(true)
            .with_retry(client::no_retries())
            .with_client_options(client::options(self.ca_pem.as_deref())?)
            .with_http_connector(client::Bounded::default());
        if let Some(endpoint) = &self.endpoint {
            let endpoint = if self.path_style { endpoint.clone() } else { with_bucket(endpoint, &self.bucket)? };
            builder = builder.with_endpoint(endpoint);
        }
        let mut set = |key: AmazonS3ConfigKey, value: Option<&String>| {
            if let Some(value) = value {
                builder = std::mem::take(&mut builder).with_config(key, value);
            }
        };
        set(AmazonS3ConfigKey::AccessKeyId, self.access_key_id.as_ref());
        set(AmazonS3ConfigKey::SecretAccessKey, self.secret_access_key.as_ref().map(Secret::expose));
        set(AmazonS3ConfigKey::Token, self.session_token.as_ref().map(Secret::expose));
        if let Some(identity) = &self.web_identity {
            set(AmazonS3ConfigKey::WebIdentityTokenFile, Some(&identity.token_file));
            set(AmazonS3ConfigKey::RoleArn, Some(&identity.role_arn));
            set(AmazonS3ConfigKey::RoleSessionName, identity.session_name.as_ref());
        }
        match &self.container_keys {
            Some(ContainerKeys::Relative(uri)) => set(AmazonS3ConfigKey::ContainerCredentialsRelativeUri, Some(uri)),
            Some(ContainerKeys::Full { uri, token_file }) => {
                set(AmazonS3ConfigKey::ContainerCredentialsFullUri, Some(uri));
                set(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, Some(token_file));
            }
            None => {}
        }
        Ok(builder)
    }
}

/// What the variable says about where the bucket is named.
fn path_style(env: Env<'_>) -> Result<Option<bool>, StoreError> {
    const VARIABLE: &str = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST";
    match env(VARIABLE).map(|text| text.to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true" | "1") => Ok(Some(false)),
        Some("false" | "0") => Ok(Some(true)),
        Some(other) => Err(StoreError::configuration(format!("{VARIABLE} is {other:?}; write true or false"))),
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

    fn location(endpoint: Option<&str>, path_style: bool) -> S3Location {
        let key = Some(Secret::new("k".to_owned()));
        let endpoint = endpoint.map(str::to_owned);
        S3Location {
            bucket: "b".into(),
            endpoint,
            path_style,
            access_key_id: Some("i".into()),
            secret_access_key: key,
            ..S3Location::default()
        }
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
        for (style, expected) in [(false, "https://b.s3.example.com"), (true, "https://s3.example.com")] {
            let builder = location(Some("https://s3.example.com"), style).builder().unwrap();
            assert_eq!(builder.get_config_value(&AmazonS3ConfigKey::Endpoint).as_deref(), Some(expected));
        }
    }

    #[test]
    fn our_own_calls_go_to_the_same_place() {
        let cases = [
            (None, false, "https://b.s3.us-east-1.amazonaws.com"),
            (None, true, "https://s3.us-east-1.amazonaws.com/b"),
            (Some("http://127.0.0.1:9000/"), true, "http://127.0.0.1:9000/b"),
            (Some("https://s3.example.com"), false, "https://b.s3.example.com"),
        ];
        for (endpoint, style, expected) in cases {
            assert_eq!(location(endpoint, style).bucket_url().unwrap(), expected);
        }
    }
}
