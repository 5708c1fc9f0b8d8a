//! The master key in hand: listing, adding and rotating recipients.

use super::find::{Found, find, is_of_the_store, key_ids, read_key};
use super::object::{KeyObject, Method, wrap};
use super::removal::{self, announced};
use super::{Cost, KeyError, MAX_KEYS, NewKey, Recipient};
use crate::crypto::{DomainKeys, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyId, RepositoryId};
use crate::layout;
use crate::repository;
use crate::store::{Store, StoreErrorKind};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// A repository's keys, and the right to change them.
#[derive(Debug)]
pub struct KeyRing {
    pub(super) store: Store,
    pub(super) repository: RepositoryId,
    /// The key that opened it.
    in_use: KeyId,
    master: Key,
    pub(super) keys: DomainKeys,
}

/// A key as it is listed.
#[derive(Debug, Clone)]
pub struct KeyEntry {
    /// Its id.
    pub id: KeyId,
    /// Its removal was begun, and is going on or was cut off.
    pub being_removed: bool,
    /// What it says, or why it cannot be read.
    pub info: Result<KeyInfo>,
}

/// What a key says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Whose it is.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// How it is wrapped.
    pub method: KeyMethod,
    /// Whether it is, as it is, from somebody who had the master key; unknown to who has not.
    pub proven: Option<bool>,
    /// It is the one that opened the repository just now.
    pub in_use: bool,
}

/// How a key is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMethod {
    /// With a passphrase.
    Passphrase {
        /// What Argon2id costs.
        cost: Cost,
    },
    /// By a key management service.
    Kms {
        /// The kind of service.
        provider: String,
        /// Its key.
        key: String,
    },
    /// In a way that this program does not know.
    Other(String),
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The new key.
    pub added: KeyId,
    /// The key that was in use.
    pub removed: KeyId,
}

/// Lists the keys of a repository without having one; none is proven then.
pub async fn list(store: &Store) -> Result<Vec<KeyEntry>> {
    let (store, repository) = repository::locate(store.clone()).await?;
    entries(&store, repository, None).await
}

async fn entries(store: &Store, repository: RepositoryId, ring: Option<&KeyRing>) -> Result<Vec<KeyEntry>> {
    let announced = announced(store).await?;
    let mut entries = Vec::new();
    for id in key_ids(store).await? {
        let info = match read_key(store, &id, repository).await {
            Ok(None) => continue,
            Ok(Some(object)) => Ok(KeyInfo::new(object, ring)),
            Err(error) if is_of_the_store(&error) => return Err(error),
            // Removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(error),
        };
        entries.push(KeyEntry { id, being_removed: announced.contains(&id), info });
    }
    Ok(entries)
}

impl KeyInfo {
    fn new(object: KeyObject, ring: Option<&KeyRing>) -> Self {
        let proven = ring.map(|ring| object.is_proven(&ring.keys));
        let method = match object.method {
            Method::Passphrase { cost, .. } => KeyMethod::Passphrase { cost },
            Method::Kms { provider, kms_key, .. } => KeyMethod::Kms { provider, key: kms_key },
            Method::Other => KeyMethod::Other(object.head.method),
        };
        let in_use = ring.is_some_and(|ring| ring.in_use == object.head.key);
        Self { label: object.head.label, created: object.head.created, method, proven, in_use }
    }
}

impl KeyRing {
    /// Opens a repository for its keys to be changed.
    pub async fn open(store: Store, with: impl Into<Recipient>) -> Result<Self> {
        let recipient = with.into();
        let (store, repository) = repository::locate(store).await?;
        let Found { master, key } = find(&store, repository, &recipient).await?;
        let keys = DomainKeys::derive(&master);
        Ok(Self { store, repository, in_use: key, master, keys })
    }

    #[cfg(test)]
    pub(super) fn master_bytes(&self) -> impl Iterator<Item = u8> {
        self.master.bytes().iter().copied()
    }

    /// The identity of the repository.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The key that opened it.
    pub fn in_use(&self) -> KeyId {
        self.in_use
    }

    /// Lists the keys, in order of their ids.
    pub async fn list(&self) -> Result<Vec<KeyEntry>> {
        entries(&self.store, self.repository, Some(self)).await
    }

    /// Wraps the master key for a further recipient.
    ///
    /// That the recipient's secret opens what was wrapped is tried before it is written, and that it was written is read back.
    pub async fn add(&self, recipient: &Recipient, new: &NewKey) -> Result<KeyId> {
        self.check_addition().await?;
        let (id, bytes) = wrap(&self.master, self.repository, recipient, new).await?;
        let name = layout::key(&id);
        let object = KeyObject::from_bytes(&bytes).map_err(|what| what.in_object(&name))?;
        let opened = match object {
            Some(object) if object.is_proven(&self.keys) => object.open(recipient, &name).await?,
            _ => None,
        };
        if opened.is_none_or(|master| master.bytes() != self.master.bytes()) {
            return Err(KeyError::DoesNotOpen.into());
        }
        let bytes = Bytes::from(bytes);
        self.store.put_new(&name, bytes.clone()).await?;
        match self.store.get(&name, bytes.len() as u64).await {
            Ok(read) if read == bytes => Ok(id),
            Ok(_) => Err(Error::Damaged { object: name, what: "it is not what was written".to_owned() }),
            Err(error) if error.kind == StoreErrorKind::NotFound => Err(Error::Missing { object: name }),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a key can be added; changes nothing.
    pub async fn check_addition(&self) -> Result<()> {
        let keys = self.list().await?.len();
        if keys < MAX_KEYS { Ok(()) } else { Err(KeyError::TooMany.into()) }
    }

    /// Exchanges the key in use for a new one: adds the new one, then removes the old one. A crash between leaves both.
    pub async fn rotate(self, recipient: &Recipient, new: &NewKey) -> Result<Rotated> {
        let added = self.add(recipient, new).await?;
        self.remove(self.in_use, true).await?;
        Ok(Rotated { added, removed: self.in_use })
    }

    /// Whether a key can be removed; changes nothing.
    pub async fn check_removal(&self, id: KeyId, even_in_use: bool) -> Result<()> {
        if id == self.in_use && !even_in_use {
            return Err(KeyError::InUse { id }.into());
        }
        let is_there = match read_key(&self.store, &id, self.repository).await {
            Ok(key) => key.is_some(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            // One that is damaged can be removed.
            Err(error) if error.kind() == ErrorKind::Damaged => true,
            Err(error) => return Err(error),
        };
        if !is_there {
            return Err(KeyError::NoSuchKey { id }.into());
        }
        let announced = announced(&self.store).await?;
        if self.another_remains(id, &announced).await? {
            return Ok(());
        }
        let others_are_removed = self.another_remains(id, &BTreeSet::new()).await?;
        Err(if others_are_removed { KeyError::Contended { id } } else { KeyError::LastKey { id } }.into())
    }

    /// Removes a key; the steps are in [`removal`].
    pub async fn remove(&self, id: KeyId, even_in_use: bool) -> Result<()> {
        self.check_removal(id, even_in_use).await?;
        removal::remove(self, id).await
    }

    /// Whether a key is there, other than this one and those whose removal was announced, that is proven to open the repository.
    pub(super) async fn another_remains(&self, id: KeyId, announced: &BTreeSet<KeyId>) -> Result<bool> {
        for other in key_ids(&self.store).await? {
            if other == id || announced.contains(&other) {
                continue;
            }
            match read_key(&self.store, &other, self.repository).await {
                Ok(Some(object)) if object.is_proven(&self.keys) => return Ok(true),
                Ok(_) => {}
                Err(error) if is_of_the_store(&error) => return Err(error),
                // Damaged or gone: it cannot be relied on.
                Err(_) => {}
            }
        }
        Ok(false)
    }
}
