//! Crypto-erase: what is in the store stays there, and nothing opens it any more.

use super::KeyError;
use super::find::key_ids;
use super::removal::announcements;
use crate::error::{Error, Result};
use crate::ids::{KeyId, RepositoryId};
use crate::layout;
use crate::repository;
use crate::store::Store;
use std::collections::BTreeSet;

/// How often keys are looked for and deleted: once, once to see that none is left, and some more for keys that come up meanwhile.
const ROUNDS: usize = 5;

/// The identity of the repository at a place, which needs no key.
pub async fn identity(store: &Store) -> Result<RepositoryId> {
    Ok(repository::locate(store.clone()).await?.1)
}

/// Deletes every key object, and tells which. It needs no key, as whoever may delete in the store can do it; so the caller says
/// which repository is meant.
///
/// Keys that an interrupted creation left and damaged ones are deleted too. It can be repeated, and must be after a failure. It
/// reaches no copies: see the guide.
pub async fn erase(store: &Store, repository: RepositoryId) -> Result<Vec<KeyId>> {
    let (store, found) = repository::locate(store.clone()).await?;
    if found != repository {
        return Err(Error::invalid(format!("the repository in {} is {found}, not {repository}", store.place())));
    }
    let mut erased = BTreeSet::new();
    for _ in 0..ROUNDS {
        let keys = key_ids(&store).await?;
        if keys.is_empty() {
            for (announcement, _) in announcements(&store).await? {
                store.delete(&announcement).await?;
            }
            return Ok(erased.into_iter().collect());
        }
        for id in keys {
            store.delete(&layout::key(&id)).await?;
            erased.insert(id);
        }
    }
    Err(KeyError::NotErased.into())
}
