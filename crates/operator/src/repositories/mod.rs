//! Repositories, opened once per location, spec and Secrets.
//!
//! Opening costs a key derivation that is slow on purpose, so an opened repository is kept for as long as nothing that it was opened
//! with has changed: the location's generation and the versions of its Secrets are part of what it is found by.

mod problem;
mod secrets;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use api::BackupLocation;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use repository::store::{RetryPolicy, S3Location, Store, StoreConfig, StoreError};
use repository::{Passphrase, Repository};

use crate::error::Error;
use crate::objects;

pub use problem::LocationProblem;
pub use secrets::{LocationSecrets, secret_names};

/// Opened repositories that are kept. More locations than this are opened anew now and then: slower, not wrong.
const KEPT: usize = 64;

/// Bytes of memory that a list of objects of one store takes at most: of a quarter of a million. The operator lists recovery points, sessions, keys and runs of the index, and several
/// locations at once, with 512 MiB in all.
const MAX_LISTED: usize = 32 << 20;

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
        StoreConfig::S3(S3Location {
            bucket: location.spec.path.clone(),
            prefix: location.spec.prefix.clone().unwrap_or_default(),
            path_style: s3.force_path_style.unwrap_or(s3.endpoint.is_some()),
            endpoint: s3.endpoint,
            region: s3.region,
            access_key_id: Some(secrets.access_key_id.clone()),
            secret_access_key: Some(secrets.secret_access_key.clone()),
            session_token: secrets.session_token.clone(),
            ca_pem: secrets.ca_pem.clone(),
            ..S3Location::default()
        })
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
    /// Namespace and name of the location.
    pub location: String,
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
    /// Namespace and name of the location.
    location: String,
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
        let secrets = match secrets::read(client, location).await? {
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
        let title = format!("{}/{}", location.namespace().unwrap_or_default(), location.name_any());
        Ok(Ok(Access { store, passphrase: secrets.passphrase, location: title, key }))
    }

    /// The store of a location. With brief retries: who waits for a probe wants an answer.
    ///
    /// # Errors
    /// The configuration makes no store.
    pub fn store(&self, access: &Access, retry: RetryPolicy) -> Result<Store, LocationProblem> {
        Ok(self.stores.open(&access.store, retry)?.with_lists_up_to(MAX_LISTED))
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
        let Access { store, passphrase, location, .. } = access.clone();
        let opened = Opened { repository, store, passphrase, location };
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
