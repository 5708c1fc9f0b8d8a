//! Removing a key so that one always remains, whoever else removes keys at the same time, and wherever one of them crashes.
//!
//! | step | a crash leaves | recovery |
//! |---|---|---|
//! | 1. announce: create an object that names the key, under a name of one's own | a key that does not count as one that remains | remove it again |
//! | 2. list the announcements, then the keys; one that is proven and not announced must be there, else withdraw | the same | the same |
//! | 3. delete the key | an announcement of a key that is gone | remove it again, or leave it |
//! | 4. list the keys; if none is left, put the key back | the same, or nothing left where listings lag | – |
//! | 5. delete the announcements of the key | – | – |
//!
//! Why one remains: look at the key `k` that let a removal of `r` pass step 2. Whoever removes `k` announces it. If he did before
//! the announcements were listed, he was seen, or he was at his end: then `k` was gone when the keys were listed, because the
//! announcements are listed first. Else he lists after `r` was announced, and needs a third key. Step 4 is for stores whose
//! listings lag behind, such as network file systems.

use super::KeyError;
use super::object::MAX_KEY_OBJECT_LEN;
use super::ring::KeyRing;
use crate::checked_json;
use crate::codec::Malformed;
use crate::crypto;
use crate::error::{Error, Result};
use crate::ids::{KeyId, RepositoryId};
use crate::layout::{self, ObjectName};
use crate::repository::FORMAT_VERSION;
use crate::store::{Store, StoreError, StoreErrorKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const FORMAT: &str = "orlop-key-removal";

/// The object that announces a removal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Announcement {
    format: String,
    version: u32,
    repository: RepositoryId,
    key: KeyId,
}

impl Announcement {
    fn new(repository: RepositoryId, key: KeyId) -> Self {
        Self { format: FORMAT.to_owned(), version: FORMAT_VERSION, repository, key }
    }
}

/// Whether the bytes announce the removal of this key.
pub(crate) fn verify_announcement(bytes: &[u8], key: KeyId) -> Result<(), Malformed> {
    let read: Announcement = checked_json::read(bytes)?;
    if read == Announcement::new(read.repository, key) {
        Ok(())
    } else {
        Err(Malformed::new("it is not that announcement"))
    }
}

/// The names of all announcements, with the keys that they are about. Names alone count, so a damaged one still protects.
pub(super) async fn announcements(store: &Store) -> Result<Vec<(String, KeyId)>> {
    let objects = store.list(&layout::domain_folder("removals")).await?;
    let keys = objects.into_iter().filter_map(|object| match layout::parse(&object.name) {
        ObjectName::Removal(key, _) => Some((object.name, key)),
        _ => None,
    });
    Ok(keys.collect())
}

/// The keys whose removal was begun.
pub(super) async fn announced(store: &Store) -> Result<BTreeSet<KeyId>> {
    Ok(announcements(store).await?.into_iter().map(|(_, key)| key).collect())
}

/// Removes a key that may be removed.
pub(super) async fn remove(ring: &KeyRing, id: KeyId) -> Result<()> {
    let in_memory = |what: Malformed| Error::invalid(what.to_string());
    let own = layout::removal(&id, &KeyId(crypto::random().map_err(in_memory)?));
    let bytes = checked_json::write(&Announcement::new(ring.repository, id)).map_err(in_memory)?;
    ring.store.put_new(&own, Bytes::from(bytes)).await?;
    let announced = announced(&ring.store).await?;
    if !ring.another_remains(id, &announced).await? {
        ring.store.delete(&own).await?;
        return Err(KeyError::Contended { id }.into());
    }
    let name = layout::key(&id);
    let bytes = match ring.store.get(&name, MAX_KEY_OBJECT_LEN).await {
        Ok(bytes) => Some(bytes),
        // Too large or unreadable: it opens nothing, and need not be put back.
        Err(StoreError {
            kind:
                StoreErrorKind::NotFound | StoreErrorKind::TooLarge | StoreErrorKind::TooShort | StoreErrorKind::Unreadable,
            ..
        }) => None,
        Err(error) => return Err(error.into()),
    };
    ring.store.delete(&name).await?;
    if let Some(bytes) = bytes
        && !ring.another_remains(id, &BTreeSet::new()).await?
    {
        ring.store.put_new(&name, bytes).await?;
        ring.store.delete(&own).await?;
        return Err(KeyError::PutBack { id }.into());
    }
    for (announcement, _) in announcements(&ring.store).await?.iter().filter(|(_, key)| *key == id) {
        ring.store.delete(announcement).await?;
    }
    Ok(())
}
