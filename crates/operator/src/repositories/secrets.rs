//! The Secrets of a location.

use std::collections::HashMap;

use api::{BackupLocation, SecretKeyRef};
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, ResourceExt};
use repository::Passphrase;

use super::LocationProblem;
use crate::error::Error;
use crate::objects;

/// Entries of the credentials Secret.
const ACCESS_KEY_ID: &str = "access-key-id";
const SECRET_ACCESS_KEY: &str = "secret-access-key";
const SESSION_TOKEN: &str = "session-token";

/// What the Secrets of a location hold.
#[derive(Clone, Debug)]
pub struct LocationSecrets {
    /// Who we are to the store.
    pub access_key_id: String,
    /// The proof of it.
    pub secret_access_key: repository::Secret<String>,
    /// For credentials that are lent.
    pub session_token: Option<repository::Secret<String>>,
    /// Authorities that the service's certificate may be signed by.
    pub ca_pem: Option<String>,
    /// The passphrase of the repository.
    pub passphrase: Passphrase,
    /// The versions of all of them.
    pub(super) versions: Vec<String>,
}

/// Secrets that a location names, read once each.
struct SecretReader<'a> {
    client: &'a Client,
    namespace: String,
    read: HashMap<String, Secret>,
}

impl SecretReader<'_> {
    async fn secret(&mut self, name: &str, field: &'static str) -> Result<Result<(), LocationProblem>, Error> {
        if self.read.contains_key(name) {
            return Ok(Ok(()));
        }
        match objects::read::<Secret>(self.client, &self.namespace, name).await? {
            Some(secret) => {
                self.read.insert(name.to_owned(), secret);
                Ok(Ok(()))
            }
            None => {
                let (namespace, name) = (self.namespace.clone(), name.to_owned());
                Ok(Err(LocationProblem::SecretNotFound { namespace, name, field }))
            }
        }
    }

    fn optional(&self, name: &str, key: &str) -> Option<String> {
        let bytes = &self.read.get(name)?.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
    }

    fn entry(&self, name: &str, key: &str, field: &'static str) -> Result<String, LocationProblem> {
        let missing = || LocationProblem::NoSecretEntry { name: name.to_owned(), key: key.to_owned(), field };
        self.optional(name, key).ok_or_else(missing)
    }

    fn versions(&self) -> Vec<String> {
        let version = |s: &Secret| format!("{}@{}", s.name_any(), s.resource_version().unwrap_or_default());
        let mut versions: Vec<String> = self.read.values().map(version).collect();
        versions.sort();
        versions
    }
}

pub(super) async fn read(
    client: &Client,
    location: &BackupLocation,
) -> Result<Result<LocationSecrets, LocationProblem>, Error> {
    let mut reader = SecretReader { client, namespace: location.namespace().unwrap_or_default(), read: HashMap::new() };
    for (name, field) in secret_names(location) {
        if let Err(problem) = reader.secret(name, field).await? {
            return Ok(Err(problem));
        }
    }
    Ok(assemble(&reader, location))
}

fn assemble(reader: &SecretReader<'_>, location: &BackupLocation) -> Result<LocationSecrets, LocationProblem> {
    let credentials = location.spec.credentials_secret.as_str();
    let phrase = &location.spec.encryption.secret_ref;
    let ca_pem = match ca(location) {
        Some(ca) => Some(reader.entry(&ca.name, &ca.key, "spec.s3.caSecretRef")?),
        None => None,
    };
    let secret_access_key = reader.entry(credentials, SECRET_ACCESS_KEY, "spec.credentialsSecret")?;
    Ok(LocationSecrets {
        access_key_id: reader.entry(credentials, ACCESS_KEY_ID, "spec.credentialsSecret")?,
        secret_access_key: repository::Secret::new(secret_access_key),
        session_token: reader.optional(credentials, SESSION_TOKEN).map(repository::Secret::new),
        ca_pem,
        passphrase: passphrase(&phrase.name, &phrase.key, reader)?,
        versions: reader.versions(),
    })
}

/// Read as from a file, so that the same content opens the same repository wherever it lies: without line breaks at its end.
fn passphrase(name: &str, key: &str, reader: &SecretReader<'_>) -> Result<Passphrase, LocationProblem> {
    let field = "spec.encryption.secretRef";
    let content = reader.entry(name, key, field)?.into_bytes();
    Passphrase::from_content(content.into()).map_err(|_| LocationProblem::NoSecretEntry {
        name: name.to_owned(),
        key: key.to_owned(),
        field,
    })
}

fn ca(location: &BackupLocation) -> Option<&SecretKeyRef> {
    location.spec.s3.as_ref()?.ca_secret_ref.as_ref()
}

/// The Secrets that a location names, with the fields that name them.
pub fn secret_names(location: &BackupLocation) -> Vec<(&str, &'static str)> {
    let mut names = vec![
        (location.spec.credentials_secret.as_str(), "spec.credentialsSecret"),
        (location.spec.encryption.secret_ref.name.as_str(), "spec.encryption.secretRef"),
    ];
    names.extend(ca(location).map(|ca| (ca.name.as_str(), "spec.s3.caSecretRef")));
    names
}
