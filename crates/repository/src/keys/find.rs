//! Reading keys, and finding the one that a recipient opens.

use super::object::{KeyObject, MAX_KEY_OBJECT_LEN};
use super::{MAX_KEYS, Recipient};
use crate::codec::Malformed;
use crate::crypto::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{KeyId, RepositoryId};
use crate::layout::{self, ObjectName};
use crate::store::Store;

/// The master key, and the key that gave it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) master: Key,
    pub(crate) key: KeyId,
}

/// The ids of all objects that may be keys, in order.
pub(super) async fn key_ids(store: &Store) -> Result<Vec<KeyId>> {
    let objects = store.list(&layout::domain_folder("keys")).await?;
    let ids = objects.iter().filter_map(|object| match layout::parse(&object.name) {
        ObjectName::Key(id) => Some(id),
        _ => None,
    });
    Ok(ids.collect())
}

/// Reads one key; `None` when it is of another repository, which an interrupted creation leaves, or of another domain.
pub(super) async fn read_key(store: &Store, id: &KeyId, repository: RepositoryId) -> Result<Option<KeyObject>> {
    let name = layout::key(id);
    let bytes = store.get(&name, MAX_KEY_OBJECT_LEN).await?;
    match KeyObject::from_bytes(&bytes) {
        Ok(Some(key)) if key.head.repository != repository => Ok(None),
        Ok(Some(key)) if key.head.key != *id => Err(Malformed::new("it is another key").in_object(name)),
        Ok(key) => Ok(key),
        Err(what) => Err(what.in_object(name)),
    }
}

/// Whether an error says that the store is not to be had now, and nothing about one object.
pub(super) fn is_of_the_store(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::AccessDenied)
}

/// Tries the recipient's secret on every key of the repository.
///
/// A key that is damaged, cannot be read or is gone does not stand in the way of another that opens; it is reported only when none does.
pub(crate) async fn find(store: &Store, repository: RepositoryId, recipient: &Recipient) -> Result<Found> {
    let (mut keys, mut tried, mut damage, mut refused) = (0, 0, None, None);
    for id in key_ids(store).await? {
        let object = match read_key(store, &id, repository).await {
            Ok(Some(object)) => object,
            Ok(None) => continue,
            Err(error) if is_of_the_store(&error) => return Err(error),
            Err(error) => {
                damage = Some(error);
                continue;
            }
        };
        keys += 1;
        if tried == MAX_KEYS || !object.is_for(recipient) {
            continue;
        }
        tried += 1;
        match object.open(recipient, &layout::key(&id)).await {
            Ok(Some(master)) => return Ok(Found { master, key: id }),
            Ok(None) => {}
            Err(error @ Error::Damaged { .. }) => damage = Some(error),
            // Some services refuse where the key that was used is another one. Else it says nothing about this object.
            Err(error @ Error::Key(_)) if object.is_by_another_key(recipient) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(match damage.or(refused) {
        Some(error) => error,
        None if keys == 0 => Error::NoKeys { place: store.place().to_owned() },
        None => Error::WrongPassphrase { keys, with: recipient.describe() },
    })
}
