//! Buckets of Google Cloud Storage.

use super::client;
use super::config::Env;
use super::object::Objects;
use super::{StoreError, StoreErrorKind};
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// A bucket of Google Cloud Storage. Without a file of credentials, those of the user's login or of the machine are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoogleLocation {
    /// The bucket; it must exist.
    pub bucket: String,
    /// The names of all objects begin with this and a slash; empty for the whole bucket.
    #[serde(default)]
    pub prefix: String,
    /// The file with the credentials of a service account or of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// A server that stands in for Google's, and asks for no credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator: Option<String>,
    /// Certificates to trust beside those of the system, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl GoogleLocation {
    pub(super) fn from_env(bucket: String, prefix: String, env: Env<'_>) -> Result<Self, StoreError> {
        let emulator = env("STORAGE_EMULATOR_HOST").map(|host| {
            let url = if host.contains("://") { host } else { format!("http://{host}") };
            url.trim_end_matches('/').to_owned()
        });
        Ok(Self {
            bucket,
            prefix,
            credentials_file: env("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            emulator,
            ca_pem: client::certificates(env, "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE")?,
        })
    }

    pub(super) fn place(&self) -> String {
        client::place("gs", &self.bucket, &self.prefix)
    }

    pub(super) fn access(&self) -> Result<Objects<GoogleCloudStorage>, StoreError> {
        let invalid = |error| StoreError::new(StoreErrorKind::Invalid, "configure", self.place()).because(error);
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&self.bucket)
            .with_retry(client::no_retries())
            .with_client_options(client::options(self.ca_pem.as_deref())?)
            .with_http_connector(client::Bounded::default());
        if let Some(file) = &self.credentials_file {
            builder = builder.with_application_credentials(file.display().to_string());
        }
        if let Some(emulator) = &self.emulator {
            // The crate asks for credentials before some requests even if it does not use them.
            let nobody = GcpCredential { bearer: String::new() };
            let nobody = Arc::new(StaticCredentialProvider::new(nobody));
            builder = builder.with_base_url(emulator).with_skip_signature(true).with_credentials(nobody);
        }
        Objects::new(builder.build().map_err(invalid)?, &self.prefix)
    }
}
