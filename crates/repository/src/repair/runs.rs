//! What packs have that no index run names.

use crate::error::Result;
use crate::ids::PackId;
use crate::pack::{self, Entry};
use crate::repository::Repository;

/// The entries of a pack by its directory; none if the pack is gone or cannot say what it has.
pub(super) async fn entries_of(repo: &Repository, pack: PackId, len: u64) -> Result<Option<Vec<Entry>>> {
    match pack::read_directory(repo.store(), pack, len, repo.keys()).await {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.is_damage() || error.kind() == crate::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
