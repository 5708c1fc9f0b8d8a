//! Creating and opening a repository, and reading blobs.
//!
//! Creation writes, in this order, the first epoch, a key, and the configuration. A crash before the last leaves an epoch that
//! is the same for every repository and a key that names a repository which never came to be; creating again is right.

use crate::background;
use crate::checked_json;
use crate::codec::Malformed;
use crate::crypto::{DomainKeys, Key, MAX_KEY_OBJECT_LEN, SealingKey, WrappedKey};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{BlobRef, PackId, RepositoryId};
use crate::index::{self, Lookups};
use crate::layout::{self, ObjectName};
use crate::pack;
use crate::secret::Passphrase;
use crate::store::{Store, StoreErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FORMAT: &str = "orlop-repository";
const EPOCH_FORMAT: &str = "orlop-epoch";
/// The version of the format that is written, and the greatest that is read.
pub const FORMAT_VERSION: u32 = 1;
/// The longest configuration or epoch object that is read, in bytes.
pub(crate) const MAX_PLAIN_OBJECT_LEN: u64 = 16 << 10;
/// How many keys are tried at most; each costs a second or so of a hostile repository's choosing.
const MAX_KEYS: usize = 64;
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
    keys: DomainKeys,
    lookups: Lookups,
}

impl Repository {
    /// Makes a repository in a place that has none; other objects there do not matter.
    pub async fn create(store: Store, passphrase: &Passphrase) -> Result<Self> {
        if read_config(&store).await?.is_some() {
            return Err(Error::AlreadyExists { place: store.place().to_owned() });
        }
        let features = store.probe().await?;
        let store = store.with_conditional_create(features.conditional_create);
        write_first_epoch(&store).await?;
        let id = RepositoryId(crate::crypto::random().map_err(in_memory)?);
        let master = write_key(&store, id, passphrase).await?;
        let config = Config {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            repository: id,
            conditional_create: features.conditional_create,
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
        Ok(Self::assemble(store, id, &master))
    }

    /// Opens the repository that is there.
    pub async fn open(store: Store, passphrase: &Passphrase) -> Result<Self> {
        let Some(config) = read_config(&store).await? else {
            return Err(Error::NotARepository { place: store.place().to_owned() });
        };
        let store = store.with_conditional_create(config.conditional_create);
        let master = find_master_key(&store, config.repository, passphrase).await?;
        Ok(Self::assemble(store, config.repository, &master))
    }

    /// Opens the repository that is there, or makes one if there is none.
    pub async fn open_or_create(store: Store, passphrase: &Passphrase) -> Result<Self> {
        match Self::open(store.clone(), passphrase).await {
            Err(error) if error.kind() == ErrorKind::NotARepository => {}
            other => return other,
        }
        match Self::create(store.clone(), passphrase).await {
            Err(Error::AlreadyExists { .. }) => Self::open(store, passphrase).await,
            other => other,
        }
    }

    fn assemble(store: Store, id: RepositoryId, master: &Key) -> Self {
        let (keys, lookups) = (DomainKeys::derive(master), Lookups::default());
        Self { inner: Arc::new(Inner { store, id, keys, lookups }) }
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
    /// When the pack is gone, the index is asked whether the blob is elsewhere.
    pub async fn read_blob(&self, blob: &BlobRef) -> Result<Bytes> {
        match self.read_blob_at(blob).await {
            Err(Error::Missing { object }) if self.lookups().is_lost(&blob.id) => Err(Error::Missing { object }),
            Err(Error::Missing { object }) => {
                let others = index::find(self, &blob.id).await?;
                for other in others.iter().filter(|other| other.pack != blob.pack) {
                    match self.read_blob_at(other).await {
                        Err(Error::Missing { .. }) => {}
                        result => return result,
                    }
                }
                self.lookups().lose(blob.id);
                Err(Error::Missing { object })
            }
            result => result,
        }
    }

    async fn read_blob_at(&self, blob: &BlobRef) -> Result<Bytes> {
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

async fn write_key(store: &Store, id: RepositoryId, passphrase: &Passphrase) -> Result<Key> {
    let passphrase = passphrase.clone();
    let made = background::run(move || {
        let master = Key::random()?;
        let wrapped = WrappedKey::wrap(&master, &passphrase, id)?;
        Ok::<_, Malformed>((master, wrapped.key, wrapped.to_bytes()?))
    });
    let (master, key, bytes) = made.await?.map_err(in_memory)?;
    store.put_new(&layout::key(&key), Bytes::from(bytes)).await?;
    Ok(master)
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

/// Tries the passphrase on every key of the repository.
///
/// A key that is damaged, cannot be read or is gone does not stand in the way of another that opens; it is reported only when none does.
async fn find_master_key(store: &Store, id: RepositoryId, passphrase: &Passphrase) -> Result<Key> {
    let (mut tried, mut damage) = (0, None);
    for object in store.list(&layout::domain_folder("keys")).await? {
        if !matches!(layout::parse(&object.name), ObjectName::Key(_)) {
            continue;
        }
        let bytes = match store.get(&object.name, MAX_KEY_OBJECT_LEN).await.map_err(Error::from) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::AccessDenied) => {
                return Err(error);
            }
            Err(error) => {
                damage = Some(error);
                continue;
            }
        };
        let wrapped = match WrappedKey::from_bytes(&bytes) {
            Ok(wrapped) if wrapped.repository == id => wrapped,
            Ok(_) => continue,
            Err(what) => {
                damage = Some(what.in_object(&object.name));
                continue;
            }
        };
        tried += 1;
        if tried > MAX_KEYS {
            break;
        }
        let passphrase = passphrase.clone();
        match background::run(move || wrapped.unwrap_with(&passphrase)).await? {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => {}
            Err(what) => damage = Some(what.in_object(&object.name)),
        }
    }
    Err(match damage {
        Some(damage) => damage,
        None if tried == 0 => Error::Missing { object: layout::domain_folder("keys") },
        None => Error::WrongPassphrase { keys: tried },
    })
}
