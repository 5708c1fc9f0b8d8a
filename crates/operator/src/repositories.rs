//! Repositories, opened once per location, spec and Secrets.
//!
//! Opening costs a key derivation that is slow on purpose, so an opened repository is kept for as long as nothing that it was opened
//! with has changed: the location's generation and the versions of its Secrets are part of what it is found by.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use api::{BackupLocation, FieldError, SecretKeyRef};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, ResourceExt};
use repository::store::{RetryPolicy, Store, StoreConfig, StoreError};
use repository::{ErrorKind, Passphrase, Repository};

use crate::error::Error;
use crate::objects;

/// Entries of the credentials Secret.
const ACCESS_KEY_ID: &str = "access-key-id";
const SECRET_ACCESS_KEY: &str = "secret-access-key";
const SESSION_TOKEN: &str = "session-token";

/// Opened repositories that are kept. More locations than this are opened anew now and then: slower, not wrong.
const KEPT: usize = 64;

/// Why a location cannot be used; all of these are the location's, not the operator's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LocationProblem {
    /// There is no such location.
    #[error("there is no BackupLocation {namespace}/{name}; create it, or name another")]
    NoLocation {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Its spec is wrong.
    #[error("{}", join(.0))]
    InvalidSpec(Vec<FieldError>),
    /// A Secret that it names does not exist.
    #[error("there is no Secret {namespace}/{name}, which {field} names; create it")]
    SecretNotFound {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// A Secret lacks an entry, or the entry is not text.
    #[error("the Secret {name} has no entry {key:?} that is text and not empty, which {field} needs; add it")]
    NoSecretEntry {
        /// Its name.
        name: String,
        /// The entry.
        key: String,
        /// The field that needs it.
        field: &'static str,
    },
    /// The store or the repository in it.
    #[error("{0}: {guidance}", guidance = .0.guidance())]
    Repository(#[from] repository::Error),
    /// It did not answer in time.
    #[error(
        "{place} did not answer within {seconds} s; check that the endpoint is right and can be reached from this cluster"
    )]
    TooSlow {
        /// The store.
        place: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Another repository is where one was before.
    #[error(
        "the repository here is {found}, and was {expected}: somebody replaced it; bring the old one back, or create another BackupLocation \
         for the new one"
    )]
    OtherRepository {
        /// The identity that was found before.
        expected: String,
        /// The identity that is found now.
        found: String,
    },
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<StoreError> for LocationProblem {
    fn from(error: StoreError) -> Self {
        Self::Repository(error.into())
    }
}

impl LocationProblem {
    /// One word for conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoLocation { .. } => "LocationNotFound",
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::SecretNotFound { .. } | Self::NoSecretEntry { .. } => "SecretNotFound",
            Self::TooSlow { .. } => "Unreachable",
            Self::OtherRepository { .. } => "OtherRepository",
            Self::Repository(error) => match error.kind() {
                ErrorKind::NotARepository => "NotARepository",
                ErrorKind::WrongPassphrase => "WrongPassphrase",
                ErrorKind::Newer => "NewerFormat",
                ErrorKind::Damaged => "Damaged",
                ErrorKind::AccessDenied => "AccessDenied",
                ErrorKind::NoSpace => "NoSpace",
                ErrorKind::Invalid => "InvalidSpec",
                ErrorKind::AlreadyExists | ErrorKind::NotFound => "BucketNotFound",
                ErrorKind::Unreachable | ErrorKind::Interrupted => "Unreachable",
            },
        }
    }

    /// Whether it may pass without anybody changing what is there: then a run waits for a while. What is not there yet may come, since
    /// manifests are applied in any order.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoLocation { .. } | Self::SecretNotFound { .. } | Self::TooSlow { .. } => true,
            Self::InvalidSpec(_) | Self::NoSecretEntry { .. } | Self::OtherRepository { .. } => false,
            Self::Repository(error) => error.is_retryable() || error.kind() == ErrorKind::NotARepository,
        }
    }
}

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
    versions: Vec<String>,
}

/// How locations become stores; the product knows one way, tests have others.
pub trait Stores: Send + Sync {
    /// What movers are told, too.
    fn locate(&self, location: &BackupLocation, secrets: &LocationSecrets) -> StoreConfig;

    /// A store for the operator itself.
    ///
    /// # Errors
    /// The configuration makes no store.
    fn open(&self, config: &StoreConfig, retry: RetryPolicy) -> Result<Store, StoreError> {
        config.open(retry)
    }
}

/// Stores as the locations say.
#[derive(Clone, Copy, Debug)]
pub struct AsLocated;

impl Stores for AsLocated {
    fn locate(&self, location: &BackupLocation, secrets: &LocationSecrets) -> StoreConfig {
        let s3 = location.spec.s3.clone().unwrap_or_default();
        StoreConfig::S3 {
            bucket: location.spec.path.clone(),
            prefix: location.spec.prefix.clone().unwrap_or_default(),
            path_style: s3.force_path_style.unwrap_or(s3.endpoint.is_some()),
            endpoint: s3.endpoint,
            region: s3.region,
            access_key_id: secrets.access_key_id.clone(),
            secret_access_key: secrets.secret_access_key.clone(),
            session_token: secrets.session_token.clone(),
            ca_pem: secrets.ca_pem.clone(),
        }
    }
}

/// An opened repository, with what a mover needs to open it too.
#[derive(Clone)]
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Where it is, for movers.
    pub store: StoreConfig,
    /// What opens it, for movers.
    pub passphrase: Passphrase,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("repository", &self.repository.id()).finish_non_exhaustive()
    }
}

/// A location, ready to be opened: what its spec and its Secrets say.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where the store is.
    pub store: StoreConfig,
    /// What opens the repository.
    pub passphrase: Passphrase,
    key: CacheKey,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    uid: String,
    generation: i64,
    secrets: Vec<String>,
    /// What was last written to have it probed: a new value makes the last probe, and what was opened, not count any more.
    asked: Option<String>,
}

/// How a probe went.
#[derive(Clone, Copy, Debug)]
pub struct LastProbe {
    /// When.
    pub at: Timestamp,
    /// Whether it got through.
    pub ready: bool,
}

/// The opened repositories.
pub struct Repositories {
    stores: Arc<dyn Stores>,
    opened: Mutex<HashMap<CacheKey, Opened>>,
    /// By uid of the location: what it was probed with, and how that went.
    probes: Mutex<HashMap<String, (CacheKey, LastProbe)>>,
}

impl Repositories {
    /// None yet.
    #[must_use]
    pub fn new(stores: Arc<dyn Stores>) -> Self {
        Self { stores, opened: Mutex::default(), probes: Mutex::default() }
    }

    /// Reads what a location needs to be opened. The outer error is to be tried again, the inner one is the location's.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn access(
        &self,
        client: &Client,
        location: &BackupLocation,
    ) -> Result<Result<Access, LocationProblem>, Error> {
        let wrong = location.spec.validate();
        if !wrong.is_empty() {
            return Ok(Err(LocationProblem::InvalidSpec(wrong)));
        }
        let secrets = match read_secrets(client, location).await? {
            Ok(secrets) => secrets,
            Err(problem) => return Ok(Err(problem)),
        };
        let key = CacheKey {
            uid: objects::uid(location)?,
            generation: location.metadata.generation.unwrap_or_default(),
            secrets: secrets.versions.clone(),
            asked: location.annotations().get(api::CHECK_REQUESTED).cloned(),
        };
        let store = self.stores.locate(location, &secrets);
        Ok(Ok(Access { store, passphrase: secrets.passphrase, key }))
    }

    /// The store of a location. With brief retries: who waits for a probe wants an answer.
    ///
    /// # Errors
    /// The configuration makes no store.
    pub fn store(&self, access: &Access, retry: RetryPolicy) -> Result<Store, LocationProblem> {
        Ok(self.stores.open(&access.store, retry)?)
    }

    /// The repository of a location, opened now or before. It is not made: that is the location's business.
    ///
    /// # Errors
    /// What is wrong with the store or the repository.
    pub async fn open(&self, access: &Access) -> Result<Opened, LocationProblem> {
        let opened = self.lock().get(&access.key).cloned();
        match opened {
            Some(opened) => Ok(opened),
            None => self.reopen(access, false).await,
        }
    }

    /// The repository of a location, opened now, whatever was opened before; made if it is not there and `create` is set.
    ///
    /// # Errors
    /// What is wrong with the store or the repository.
    pub async fn reopen(&self, access: &Access, create: bool) -> Result<Opened, LocationProblem> {
        let store = self.store(access, RetryPolicy::default())?;
        let repository = if create {
            Repository::open_or_create(store, &access.passphrase).await?
        } else {
            Repository::open(store, &access.passphrase).await?
        };
        let opened = Opened { repository, store: access.store.clone(), passphrase: access.passphrase.clone() };
        let mut kept = self.lock();
        kept.retain(|key, _| key.uid != access.key.uid);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(access.key.clone(), opened.clone());
        Ok(opened)
    }

    /// Opens the repository of the location of that name, as runs do: it is not made.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn open_named(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Result<Opened, LocationProblem>, Error> {
        let Some(location) = objects::read::<BackupLocation>(client, namespace, name).await? else {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            return Ok(Err(LocationProblem::NoLocation { namespace, name }));
        };
        match self.access(client, &location).await? {
            Ok(access) => Ok(self.open(&access).await),
            Err(problem) => Ok(Err(problem)),
        }
    }

    /// Forgets an opened repository, so that the next use opens it anew: after a probe that did not get through.
    pub fn forget(&self, location_uid: &str) {
        self.lock().retain(|key, _| key.uid != location_uid);
    }

    /// How the last probe went, if it was of the same spec and the same Secrets.
    pub fn last_probe(&self, access: &Access) -> Option<LastProbe> {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.get(&access.key.uid).filter(|(key, _)| *key == access.key).map(|(_, probe)| *probe)
    }

    /// Notes how a probe went.
    pub fn probed(&self, access: &Access, at: Timestamp, ready: bool) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.insert(access.key.uid.clone(), (access.key.clone(), LastProbe { at, ready }));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CacheKey, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

async fn read_secrets(
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
        passphrase: Passphrase::new(reader.entry(&phrase.name, &phrase.key, "spec.encryption.secretRef")?),
        versions: reader.versions(),
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
