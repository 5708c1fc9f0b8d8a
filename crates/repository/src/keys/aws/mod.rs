//! AWS KMS, and services that speak its language.
//!
//! Two requests are used, `Encrypt` and `Decrypt`, each with the encryption context, so the key must be a symmetric one. The key
//! is named in both: a repository cannot make this program use another key that its credentials may use.

mod answer;
mod client;

pub use client::AwsKms;

use super::kms::{KmsError, KmsErrorKind};
use crate::secret::Secret;
use std::net::IpAddr;

/// What the name of a key begins with.
const SCHEME: &str = "aws:";
/// The only service whose keys can be used.
const SERVICE: &str = "kms";

/// A key of AWS KMS, and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKmsConfig {
    /// Its ARN, or its id or `alias/…` in the region.
    key: String,
    region: String,
    /// With its scheme.
    endpoint: String,
    access_key_id: String,
    secret_access_key: Secret<String>,
    session_token: Option<Secret<String>>,
    /// Certificates to trust beside those of the system, in PEM form.
    ca_pem: Option<String>,
}

impl AwsKmsConfig {
    /// Understands `aws:ARN`, and `aws:` before an id or alias in the region `AWS_REGION`. The rest comes from the variables that
    /// other tools use: `AWS_ENDPOINT_URL_KMS` or `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`, `AWS_CA_BUNDLE`.
    pub fn from_name(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, KmsError> {
        let invalid = |what: String| KmsError::new(KmsErrorKind::Invalid, "use the key", name).because(what);
        let set = |variable: &str| env(variable).filter(|value| !value.is_empty());
        let need = |variable: &str| {
            let value = set(variable).ok_or_else(|| invalid(format!("{variable} is not set")))?;
            // They go into headers as they are.
            match value.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok(value),
                false => Err(invalid(format!("{variable} has characters other than visible ones of ASCII"))),
            }
        };
        let key =
            name.strip_prefix(SCHEME).filter(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let key = key.ok_or_else(|| invalid("it is not aws: and the ARN of a key".to_owned()))?;
        let (partition, region) = match key.strip_prefix("arn:") {
            Some(rest) => {
                let what = || {
                    invalid("the ARN of a key is arn:PARTITION:kms:REGION:ACCOUNT:key/ID or …:alias/NAME".to_owned())
                };
                place_of(rest).ok_or_else(what)?
            }
            None => {
                let region = if set("AWS_REGION").is_some() { "AWS_REGION" } else { "AWS_DEFAULT_REGION" };
                ("aws", need(region)?)
            }
        };
        let endpoint = match set("AWS_ENDPOINT_URL_KMS").or_else(|| set("AWS_ENDPOINT_URL")) {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None if partition == "aws-cn" => format!("https://kms.{region}.amazonaws.com.cn"),
            None => format!("https://kms.{region}.amazonaws.com"),
        };
        check_endpoint(&endpoint).map_err(invalid)?;
        let session_token = set("AWS_SESSION_TOKEN").map(|_| need("AWS_SESSION_TOKEN")).transpose()?;
        let ca_pem = match set("AWS_CA_BUNDLE") {
            Some(path) => Some(
                std::fs::read_to_string(&path)
                    .map_err(|error| invalid(format!("read the certificates in {path}: {error}")))?,
            ),
            None => None,
        };
        Ok(Self {
            key: key.to_owned(),
            region,
            endpoint,
            access_key_id: need("AWS_ACCESS_KEY_ID")?,
            secret_access_key: Secret::new(need("AWS_SECRET_ACCESS_KEY")?),
            session_token: session_token.map(Secret::new),
            ca_pem,
        })
    }
}

/// Partition and region of an ARN, of which the first part is cut off.
fn place_of(arn: &str) -> Option<(&str, String)> {
    let mut parts = arn.splitn(5, ':');
    let (partition, service, region) = (parts.next()?, parts.next()?, parts.next()?);
    let (_account, resource) = (parts.next()?, parts.next()?);
    let is_key = resource.starts_with("key/") || resource.starts_with("alias/");
    let is_region = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (service == SERVICE && is_key && is_region).then(|| (partition, region.to_owned()))
}

/// Keys go over this connection, so only a server on this machine may be spoken to in the clear.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: http::Uri = endpoint.parse().map_err(|error| format!("the endpoint {endpoint:?} is no URL: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if is_here => Ok(()),
        Some("http") => Err(format!("the endpoint {endpoint:?} is not encrypted: write https://")),
        _ => Err(format!("the endpoint {endpoint:?} has no https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "aws:arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

    fn config(name: &str, more: &[(&str, &str)]) -> Result<AwsKmsConfig, String> {
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
        let env = |wanted: &str| {
            let found = more.iter().chain(&keys).find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        AwsKmsConfig::from_name(name, &env).map_err(|error| error.source.unwrap().to_string())
    }

    #[test]
    fn the_region_is_that_of_the_key() {
        let config_of = |name: &str, more: &[(&str, &str)]| {
            let config = config(name, more).unwrap();
            (config.key, config.region, config.endpoint)
        };
        let check = |name: &str, more: &[(&str, &str)], region: &str, endpoint: &str| {
            let expected = (name[4..].to_owned(), region.to_owned(), endpoint.to_owned());
            assert_eq!(config_of(name, more), expected, "{name}");
        };
        check(ARN, &[("AWS_REGION", "us-east-1")], "eu-central-1", "https://kms.eu-central-1.amazonaws.com");
        check("aws:alias/backup", &[("AWS_REGION", "us-east-1")], "us-east-1", "https://kms.us-east-1.amazonaws.com");
        check("aws:alias/backup", &[("AWS_DEFAULT_REGION", "x-1")], "x-1", "https://kms.x-1.amazonaws.com");
        let china = "aws:arn:aws-cn:kms:cn-north-1:1:alias/a:b";
        check(china, &[], "cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn");
        let own = [("AWS_ENDPOINT_URL", "https://b"), ("AWS_ENDPOINT_URL_KMS", "https://a:8443/")];
        check(ARN, &own, "eu-central-1", "https://a:8443");
        check(ARN, &own[..1], "eu-central-1", "https://b");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |name: &str, more: &[(&str, &str)], said: &str| {
            let error = config(name, more).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        };
        for name in ["gcp:x", "aws:", "arn:aws:kms:r:1:key/x", "aws:a b"] {
            check(name, &[], "it is not aws: and the ARN of a key");
        }
        for name in [
            "aws:arn:aws:s3:r:1:key/x",
            "aws:arn:aws:kms:r:1",
            "aws:arn:aws:kms::1:key/x",
            "aws:arn:aws:kms:r/:1:key/x",
        ] {
            check(name, &[], "the ARN of a key is");
        }
        check("aws:alias/backup", &[], "AWS_DEFAULT_REGION is not set");
        check(ARN, &[("AWS_SECRET_ACCESS_KEY", "")], "AWS_SECRET_ACCESS_KEY is not set");
        check(ARN, &[("AWS_SESSION_TOKEN", "a\nb")], "AWS_SESSION_TOKEN has characters other than");
        check(ARN, &[("AWS_CA_BUNDLE", "/nowhere")], "read the certificates in /nowhere");
    }

    #[test]
    fn keys_do_not_go_over_the_network_in_the_clear() {
        for (endpoint, good) in [
            ("https://kms.example.com", true),
            ("http://127.0.0.1:5000", true),
            ("http://localhost:5000", true),
            ("http://[::1]:5000", true),
            ("http://kms.example.com", false),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("kms.example.com", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(config(ARN, &[("AWS_ENDPOINT_URL_KMS", endpoint)]).is_ok(), good, "{endpoint}");
        }
    }

    #[test]
    fn a_configuration_hides_its_secrets() {
        let config = config(ARN, &[("AWS_SESSION_TOKEN", "covert")]).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("hidden") && !shown.contains("covert") && shown.contains("1234abcd"), "{shown}");
    }
}
