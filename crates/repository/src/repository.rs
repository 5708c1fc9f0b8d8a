//! Creating and opening a repository, and reading blobs.
//!
//! Creation writes, in this order, the first epoch, a key, and the configuration. A crash before the last leaves an epoch that
//! is the same for every repository and a key that names a repository which never came to be; creating again is right.

use crate::background;
use crate::checked_json;
use crate::codec::Malformed;
use crate::crypto::{DomainKeys, Key, SealingKey};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BlobRef, PackId, RepositoryId};
use crate::index::{self, Lookups};
use crate::keys::{self, NewKey, Recipient};
use crate::layout;
use crate::pack;
use crate::store::{Abilities, Lock, ObjectLock, Store, StoreErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FORMAT: &str = "orlop-repository";
const EPOCH_FORMAT: &str = "orlop-epoch";
/// The version of the format that is written, and the greatest that is read.
pub const FORMAT_VERSION: u32 = 1;
/// The longest configuration or epoch object that is read, in bytes.
pub(crate) const MAX_PLAIN_OBJECT_LEN: u64 = 16 << 10;
/// What the key is called that a repository is created with.
const FIRST_LABEL: &str = "first";
/// The first epoch; collectors open further ones.
const FIRST_EPOCH: u64 = 1;

/// The object that makes a place a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    format: String,
    version: u32,
    repository: RepositoryId,
    /// Whether the store was found to refuse the creation of what exists.
    conditional_create: bool,
    /// Whether the store keeps versions, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    versions: Option<bool>,
    /// That the store can lock objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object_lock: Option<ObjectLock>,
    /// How the objects of the repository are locked, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<Lock>,
}

impl Config {
    fn known(&self) -> Known {
        let abilities = Abilities { versions: self.versions, object_lock: self.object_lock };
        Known { conditional_create: self.conditional_create, abilities, lock: self.lock }
    }
}

/// What a repository has recorded about its store when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Whether the store refuses to create what exists.
    pub conditional_create: bool,
    /// What the store said about itself.
    pub abilities: Abilities,
    /// How the objects of the repository are locked, if they are.
    pub lock: Option<Lock>,
}

/// The object that opens an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EpochObject {
    format: String,
    version: u32,
    epoch: u64,
}

impl EpochObject {
    pub(crate) fn new(epoch: u64) -> Self {
        Self { format: EPOCH_FORMAT.to_owned(), version: FORMAT_VERSION, epoch }
    }
}

/// An open repository; cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    id: RepositoryId,
    known: Known,
    keys: DomainKeys,
    lookups: Lookups,
}

impl Repository {
    /// Makes a repository in a place that has none; other objects there do not matter.
    pub async fn create(store: Store, with: impl Into<Recipient>) -> Result<Self> {
        Self::create_locked(store, with, None).await
    }

    /// Makes a repository whose objects cannot be deleted before a time after they were last needed, where the store can do that.
    pub async fn create_locked(store: Store, with: impl Into<Recipient>, lock: Option<Lock>) -> Result<Self> {
        let recipient = with.into();
        if read_config(&store).await?.is_some() {
            return Err(Error::AlreadyExists { place: store.place().to_owned() });
        }
        let features = store.probe().await?;
        if lock.is_some() && features.abilities.object_lock.is_none() {
            return Err(Error::invalid(format!(
                "{} cannot lock objects, or does not let these credentials see whether it can; a bucket gets object lock when it is made",
                store.place()
            )));
        }
        let store = store.with_conditional_create(features.conditional_create).with_lock(lock);
        write_first_epoch(&store).await?;
        let id = RepositoryId(crate::crypto::random().map_err(in_memory)?);
        let master = write_first_key(&store, id, &recipient).await?;
        let config = Config {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            repository: id,
            conditional_create: features.conditional_create,
            versions: features.abilities.versions,
            object_lock: features.abilities.object_lock,
            lock,
        };
        let bytes = checked_json::write(&config).map_err(in_memory)?;
        match store.put_new(layout::CONFIG, Bytes::from(bytes)).await {
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists { place: store.place().to_owned() });
            }
            other => other?,
        }
        // Where the store does not refuse, another creator may have been faster than our look; whoever is read, has won.
        if read_config(&store).await?.is_none_or(|stored| stored != config) {
            return Err(Error::AlreadyExists { place: store.place().to_owned() });
        }
        Ok(Self::assemble(store, &config, &master))
    }

    /// Opens the repository that is there.
    pub async fn open(store: Store, with: impl Into<Recipient>) -> Result<Self> {
        let recipient = with.into();
        let (store, config) = configured(store).await?;
        let found = keys::find(&store, config.repository, &recipient).await?;
        Ok(Self::assemble(store, &config, &found.master))
    }

    /// Opens the repository that is there, or makes one if there is none.
    pub async fn open_or_create(store: Store, with: impl Into<Recipient>) -> Result<Self> {
        let recipient = with.into();
        match Self::open(store.clone(), &recipient).await {
            Err(error) if error.kind() == ErrorKind::NotARepository => {}
            other => return other,
        }
        match Self::create(store.clone(), &recipient).await {
            Err(Error::AlreadyExists { .. }) => Self::open(store, &recipient).await,
            other => other,
        }
    }

    fn assemble(store: Store, config: &Config, master: &Key) -> Self {
        let (id, known) = (config.repository, config.known());
        let (keys, lookups) = (DomainKeys::derive(master), Lookups::default());
        Self { inner: Arc::new(Inner { store, id, known, keys, lookups }) }
    }

    /// What was recorded about the store when the repository was made.
    pub fn known(&self) -> Known {
        self.inner.known
    }

    /// The identity of the repository.
    pub fn id(&self) -> RepositoryId {
        self.inner.id
    }

    /// Where it is.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn keys(&self) -> &DomainKeys {
        &self.inner.keys
    }

    pub(crate) fn lookups(&self) -> &Lookups {
        &self.inner.lookups
    }

    /// Reads a blob, and checks it down to its identity.
    ///
    /// When it cannot be read from its pack, because either is gone or damaged, the index is asked whether the blob is elsewhere.
    pub async fn read_blob(&self, blob: &BlobRef) -> Result<Bytes> {
        let error = match self.read_blob_at(blob).await {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        self.read_elsewhere(blob).await?.ok_or(error)
    }

    /// Reads a blob from another place that the index knows; none if there is no place where it is whole.
    async fn read_elsewhere(&self, blob: &BlobRef) -> Result<Option<Bytes>> {
        if self.lookups().is_lost(&blob.id) {
            return Ok(None);
        }
        for other in index::find(self, &blob.id).await?.iter().filter(|other| other.pack != blob.pack) {
            match self.read_blob_at(other).await {
                Err(error) if error.is_damage() => {}
                result => return result.map(Some),
            }
        }
        self.lookups().lose(blob.id);
        Ok(None)
    }

    /// Reads a blob from the place that a reference names, and from no other.
    pub(crate) async fn read_blob_at(&self, blob: &BlobRef) -> Result<Bytes> {
        let name = layout::pack(&blob.pack);
        pack::check_lengths(blob).map_err(|what| what.in_object(&name))?;
        let range = u64::from(blob.offset)..u64::from(blob.offset) + u64::from(blob.stored_len);
        let sealed = match self.store().get_range(&name, range).await {
            Ok(sealed) => sealed,
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(Error::Missing { object: name });
            }
            Err(error) if error.kind == StoreErrorKind::TooShort => {
                return Err(Malformed::new(format!("it ends before the blob at {}", blob.offset)).in_object(name));
            }
            Err(error) => return Err(error.into()),
        };
        let (repo, blob) = (self.clone(), *blob);
        background::run(move || pack::open_blob(&blob, &sealed, &repo.pack_key(&blob.pack), repo.keys()))
            .await?
            .map(Bytes::from)
            .map_err(|what| what.in_object(name))
    }

    pub(crate) fn pack_key(&self, id: &PackId) -> SealingKey {
        self.keys().pack(id)
    }
}

/// Words for what fails before there is any object.
fn in_memory(what: Malformed) -> Error {
    Error::invalid(what.to_string())
}

async fn write_first_epoch(store: &Store) -> Result<()> {
    let bytes = checked_json::write(&EpochObject::new(FIRST_EPOCH)).map_err(in_memory)?;
    match store.put_new(&layout::epoch(FIRST_EPOCH), Bytes::from(bytes)).await {
        Err(error) if error.kind == StoreErrorKind::AlreadyExists => Ok(()),
        other => Ok(other?),
    }
}

async fn write_first_key(store: &Store, id: RepositoryId, recipient: &Recipient) -> Result<Key> {
    let master = Key::random().map_err(in_memory)?;
    let new = NewKey { label: FIRST_LABEL.to_owned(), created: jiff::Timestamp::now() };
    let (key, bytes) = keys::wrap(&master, id, recipient, &new).await?;
    store.put_new(&layout::key(&key), Bytes::from(bytes)).await?;
    Ok(master)
}

/// The repository that is at a place, and the store as it is to be used for it; no key is needed.
pub(crate) async fn locate(store: Store) -> Result<(Store, RepositoryId)> {
    let (store, config) = configured(store).await?;
    Ok((store, config.repository))
}

/// The store as its repository wants it to be used.
async fn configured(store: Store) -> Result<(Store, Config)> {
    let Some(config) = read_config(&store).await? else {
        return Err(Error::NotARepository { place: store.place().to_owned() });
    };
    Ok((store.with_conditional_create(config.conditional_create).with_lock(config.lock), config))
}

/// Reads the configuration; `None` when there is no object of that name.
async fn read_config(store: &Store) -> Result<Option<Config>> {
    match store.get(layout::CONFIG, MAX_PLAIN_OBJECT_LEN).await {
        Ok(bytes) => check_config(&bytes).map(Some),
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_config(bytes: &[u8]) -> Result<Config> {
    let damaged = |what: Malformed| what.in_object(layout::CONFIG);
    let value: serde_json::Value = checked_json::read(bytes).map_err(damaged)?;
    let found =
        value.get("version").and_then(serde_json::Value::as_u64).and_then(|version| u32::try_from(version).ok());
    match found {
        Some(found) if found > FORMAT_VERSION => {
            return Err(Error::Newer { object: layout::CONFIG.to_owned(), found, supported: FORMAT_VERSION });
        }
        _ => {}
    }
    let config: Config = serde_json::from_value(value).map_err(|error| damaged(Malformed::new(error.to_string())))?;
    if config.format == FORMAT && config.version == FORMAT_VERSION {
        Ok(config)
    } else {
        Err(damaged(Malformed::new(format!("it is no {FORMAT} of version {FORMAT_VERSION}"))))
    }
}

/// Whether the bytes are those of the configuration of this repository.
pub(crate) fn verify_config(bytes: &[u8], id: RepositoryId) -> Result<()> {
    if check_config(bytes)?.repository == id {
        Ok(())
    } else {
        Err(Malformed::new("it is that of another repository").in_object(layout::CONFIG))
    }
}

/// Whether the bytes open this epoch.
pub(crate) fn verify_epoch(bytes: &[u8], epoch: u64) -> Result<(), Malformed> {
    let expected = EpochObject::new(epoch);
    if checked_json::read::<EpochObject>(bytes)? == expected {
        Ok(())
    } else {
        Err(Malformed::new("it is not that epoch"))
    }
}
