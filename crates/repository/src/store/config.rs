//! Where a store is, and how to get in.

use super::azure::AzureLocation;
use super::filesystem::FileSystem;
use super::google::GoogleLocation;
use super::object::Objects;
use super::s3::S3Location;
use super::{RetryPolicy, Store, StoreError};
use object_store::memory::InMemory;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Gives the value of an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a location may look like, for messages.
const FORMS: &str = "file:///path, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix";

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
    S3(S3Location),
    /// A container of an Azure storage account.
    Azure(AzureLocation),
    /// A bucket of Google Cloud Storage.
    Google(GoogleLocation),
    /// Memory of this process, empty at each opening; for tests.
    Memory,
}

impl StoreConfig {
    /// Understands `file:///path`, `s3://bucket/prefix`, `az://container/prefix` and `gs://bucket/prefix`, the latter three with the
    /// variables that other tools of their ecosystems use.
    pub fn from_url(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        // A variable that is empty is one that is not set.
        let env: Env<'_> = &|name| env(name).filter(|value| !value.is_empty());
        let Some((scheme, place)) = url.split_once("://") else {
            return Err(StoreError::configuration(format!("{url:?} is none of {FORMS}")));
        };
        if scheme == "file" {
            return if place.starts_with('/') {
                Ok(Self::FileSystem { path: PathBuf::from(place) })
            } else {
                Err(StoreError::configuration(format!("{url:?} has no absolute path; write file:///path")))
            };
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        let kind = if scheme == "az" { "container" } else { "bucket" };
        let named = !bucket.is_empty();
        match scheme {
            "s3" | "az" | "gs" if !named => Err(StoreError::configuration(format!("{url:?} names no {kind}"))),
            "s3" => Ok(Self::S3(S3Location::from_env(bucket, prefix, env)?)),
            "az" => Ok(Self::Azure(AzureLocation::from_env(bucket, prefix, env)?)),
            "gs" => Ok(Self::Google(GoogleLocation::from_env(bucket, prefix, env)?)),
            _ => Err(StoreError::configuration(format!("{url:?} is none of {FORMS}"))),
        }
    }

    /// Opens the store; nothing is asked of it yet.
    pub fn open(&self, retry: RetryPolicy) -> Result<Store, StoreError> {
        match self {
            Self::FileSystem { path } => {
                Ok(Store::new(FileSystem::new(path.clone()), &path.display().to_string(), retry))
            }
            Self::Memory => Ok(Store::new(Objects::new(InMemory::new(), "")?, "memory", retry)),
            Self::S3(location) => Ok(Store::new(location.access()?, &location.place(), retry)),
            Self::Azure(location) => Ok(Store::new(location.access()?, &location.place(), retry)),
            Self::Google(location) => Ok(Store::new(location.access()?, &location.place(), retry)),
        }
    }

    /// Opens the store as it was before anybody deleted or overwrote anything, for reading only: of every object that any version is
    /// left of, the first version.
    ///
    /// Nothing is ever overwritten in a repository, so the first version of an object is the true one. This needs no right that the
    /// credentials of every day lack, and changes nothing; taking deletion markers away would need the right to delete versions,
    /// which nobody should have who may be an attacker.
    pub fn open_past_deletions(&self, retry: RetryPolicy) -> Result<Store, StoreError> {
        match self {
            Self::S3(location) => Ok(Store::new(location.first_versions()?, &location.place(), retry)),
            _ => Err(StoreError::configuration(
                "deleted objects can be read in S3 buckets only, those that keep versions",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::s3::WebIdentity;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "AWS_ACCESS_KEY_ID" => "id",
            "AWS_SECRET_ACCESS_KEY" => "key",
            "AWS_ENDPOINT_URL" => "http://127.0.0.1:9000",
            "AZURE_STORAGE_ACCOUNT" => "account",
            "AZURE_STORAGE_KEY" => "a2V5",
            "STORAGE_EMULATOR_HOST" => "127.0.0.1:4443",
            "AWS_SESSION_TOKEN" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn s3(url: &str, env: Env<'_>) -> S3Location {
        match StoreConfig::from_url(url, env).unwrap() {
            StoreConfig::S3(location) => location,
            other => panic!("{other:?} is not S3"),
        }
    }

    fn problem(url: &str, env: Env<'_>) -> String {
        StoreConfig::from_url(url, env).unwrap_err().source.unwrap().to_string()
    }

    #[test]
    fn urls_are_understood() {
        let folder = StoreConfig::from_url("file:///backup", &env).unwrap();
        assert_eq!(folder, StoreConfig::FileSystem { path: "/backup".into() });
        let location = s3("s3://b/p/q/", &env);
        assert_eq!((location.bucket.as_str(), location.prefix.as_str(), location.path_style), ("b", "p/q", true));
        assert_eq!(location.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(location.session_token, None);
        let StoreConfig::Azure(location) = StoreConfig::from_url("az://c/p", &env).unwrap() else {
            panic!("not Azure")
        };
        assert_eq!(
            (location.container.as_str(), location.prefix.as_str(), location.account.as_str()),
            ("c", "p", "account")
        );
        let StoreConfig::Google(location) = StoreConfig::from_url("gs://b", &env).unwrap() else {
            panic!("not Google")
        };
        assert_eq!((location.bucket.as_str(), location.prefix.as_str()), ("b", ""));
        assert_eq!(location.emulator.as_deref(), Some("http://127.0.0.1:4443"));
    }

    #[test]
    fn bad_urls_are_named() {
        let cases = [
            ("backup", format!("\"backup\" is none of {FORMS}")),
            ("ftp://b/p", format!("\"ftp://b/p\" is none of {FORMS}")),
            ("file://backup", "\"file://backup\" has no absolute path; write file:///path".to_owned()),
            ("s3://", "\"s3://\" names no bucket".to_owned()),
            ("az://", "\"az://\" names no container".to_owned()),
            ("gs:///p", "\"gs:///p\" names no bucket".to_owned()),
        ];
        for (url, expected) in cases {
            assert_eq!(problem(url, &env), expected);
        }
        assert!(problem("az://c", &|_| None).starts_with("AZURE_STORAGE_ACCOUNT is not set"));
    }

    #[test]
    fn credentials_of_s3_are_found_where_other_tools_have_them() {
        let only = |names: &'static [(&'static str, &'static str)]| {
            move |name: &str| names.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(problem("s3://b", &only(&[("AWS_ACCESS_KEY_ID", "id")])), "AWS_SECRET_ACCESS_KEY is not set");
        assert_eq!(problem("s3://b", &only(&[("AWS_SECRET_ACCESS_KEY", "x")])), "AWS_ACCESS_KEY_ID is not set");
        // The machine's own credentials are Amazon's, and no other server's.
        let elsewhere = problem("s3://b", &only(&[("AWS_ENDPOINT_URL", "http://minio")]));
        assert!(elsewhere.starts_with("AWS_ACCESS_KEY_ID is not set"), "{elsewhere}");
        assert!(problem("s3://b", &only(&[("AWS_EC2_METADATA_DISABLED", "true")])).starts_with("AWS_ACCESS_KEY_ID"));
        assert_eq!(s3("s3://b", &only(&[])).access_key_id, None);
        let role = only(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:x")]);
        let expected = WebIdentity { token_file: "/token".into(), role_arn: "arn:x".into(), session_name: None };
        assert_eq!(s3("s3://b", &role).web_identity, Some(expected));
        let virtual_host = only(&[
            ("AWS_ACCESS_KEY_ID", "i"),
            ("AWS_SECRET_ACCESS_KEY", "k"),
            ("AWS_ENDPOINT_URL", "https://s3.example.com"),
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        ]);
        assert!(!s3("s3://b", &virtual_host).path_style);
    }

    #[test]
    fn a_configuration_survives_json_and_hides_its_secrets() {
        for url in ["s3://b/p", "az://b/p", "gs://b/p"] {
            let config = StoreConfig::from_url(url, &env).unwrap();
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<StoreConfig>(&json).unwrap(), config);
            let shown = format!("{config:?}");
            assert!(!shown.contains("\"key\"") && !shown.contains("a2V5"), "{shown}");
            let unknown = json.replacen('{', "{\"more\":1,", 1);
            assert!(serde_json::from_str::<StoreConfig>(&unknown).is_err(), "{unknown}");
        }
        let json = serde_json::to_string(&StoreConfig::from_url("s3://b/p", &env).unwrap()).unwrap();
        assert!(json.contains("\"type\":\"s3\"") && json.contains("\"secretAccessKey\":\"key\""), "{json}");
    }
}
