//! Reading past deletions: of every object, the first version.
//!
//! A repository creates each object once and never overwrites it, so the first version of a name is the true one, and whatever came
//! after it, other bytes or a deletion marker, is not the repository's. Nothing is written.

use super::super::{ObjectAccess, ObjectInfo, StoreError, StoreErrorKind};
use super::calls::{Call, SignedCalls};
use super::xml::{self, Version};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// How many first versions are remembered, some 150 bytes each. A first version never changes while it exists; when there are more,
/// all are forgotten and asked for again.
const REMEMBERED: usize = 65_536;
/// How many pages of a list are read at most, against a server that never ends: 100 million versions.
const MAX_PAGES: usize = 100_000;

/// The first versions of all objects.
#[derive(Debug)]
pub(in crate::store) struct FirstVersions {
    calls: SignedCalls,
    known: Mutex<HashMap<String, Version>>,
}

impl FirstVersions {
    pub(super) fn new(calls: SignedCalls) -> Self {
        Self { calls, known: Mutex::default() }
    }

    /// The first version of each name that begins with `start`; with `only`, of no other name than that one.
    async fn find(
        &self,
        operation: &'static str,
        start: &str,
        only: bool,
    ) -> Result<BTreeMap<String, Version>, StoreError> {
        let wrong = || StoreError::new(StoreErrorKind::Unreachable, operation, start);
        let full = format!("{}{start}", self.calls.prefix());
        let (mut found, mut marker) = (BTreeMap::new(), None::<(String, String)>);
        for _ in 0..MAX_PAGES {
            let mut query = vec![("versions", ""), ("prefix", full.as_str())];
            if let Some((key, version)) = &marker {
                query.push(("key-marker", key));
                if !version.is_empty() {
                    query.push(("version-id-marker", version));
                }
            }
            let answer = self.calls.send(Call { operation, query: &query, ..Call::default() }).await?;
            let page = xml::versions(&answer.body).ok_or_else(wrong)?;
            let is_past = only && page.versions.last().is_some_and(|version| version.key > full);
            for version in page.versions {
                let Some(name) = version.key.strip_prefix(self.calls.prefix()) else { continue };
                if !only || name == start {
                    keep_older(&mut found, name.to_owned(), version);
                }
            }
            let next = page.next_key_marker.map(|key| (key, page.next_version_id_marker.unwrap_or_default()));
            if !page.is_truncated || is_past {
                return Ok(found);
            }
            // A page that does not lead on would be asked for again for ever.
            if next.is_none() || next == marker {
                return Err(wrong());
            }
            marker = next;
        }
        Err(wrong())
    }

    async fn first(&self, operation: &'static str, name: &str) -> Result<Version, StoreError> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(known.clone());
        }
        let first = self.find(operation, name, true).await?.remove(name);
        let first = first.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, operation, name))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name.to_owned(), first.clone());
        Ok(first)
    }

    async fn read(&self, name: &str, version: &Version, range: Option<&str>, limit: u64) -> Result<Bytes, StoreError> {
        let query = [("versionId", version.version_id.as_str())];
        let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        let call = Call {
            operation: "read",
            name: Some(name),
            query: &query,
            headers: &headers,
            limit: Some(limit),
            ..Call::default()
        };
        Ok(self.calls.send(call).await?.body)
    }
}

/// Versions of one name come newest first, so of two with the same time the later one in the list is the older.
fn keep_older(found: &mut BTreeMap<String, Version>, name: String, version: Version) {
    let time = |version: &Version| version.last_modified.parse::<jiff::Timestamp>().ok();
    match found.get(&name) {
        Some(known) if time(known) < time(&version) => {}
        _ => _ = found.insert(name, version),
    }
}

fn read_only(operation: &'static str, name: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotSupported, operation, name).because(ReadOnly)
}

#[derive(Debug, thiserror::Error)]
#[error("what is opened as it was before deletions can only be read")]
struct ReadOnly;

#[async_trait]
impl ObjectAccess for FirstVersions {
    async fn put_new(&self, name: &str, _bytes: Bytes) -> Result<(), StoreError> {
        Err(read_only("create", name))
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        let version = self.first("read", name).await?;
        if version.size > limit {
            return Err(StoreError::new(StoreErrorKind::TooLarge, "read", name));
        }
        self.read(name, &version, None, limit).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let version = self.first("read", name).await?;
        let end = range.end.min(version.size);
        if range.start >= end {
            return Ok(Bytes::new());
        }
        let header = format!("bytes={}-{}", range.start, end - 1);
        self.read(name, &version, Some(&header), end - range.start).await
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.first("look at", name).await?.size)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let found = self.find("list", prefix, false).await?;
        Ok(found.into_iter().map(|(name, version)| ObjectInfo { name, size: version.size, modified: None }).collect())
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        Err(read_only("delete", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_version_counts() {
        let version = |id: &str, last_modified: &str| Version {
            key: "k".to_owned(),
            version_id: id.to_owned(),
            last_modified: last_modified.to_owned(),
            size: 1,
        };
        let mut found = BTreeMap::new();
        for (id, time) in [
            ("3", "2026-01-03T00:00:00Z"),
            ("1", "2026-01-01T00:00:00Z"),
            ("0", "2026-01-01T00:00:00Z"),
            ("2", "2026-01-02T00:00:00Z"),
        ] {
            keep_older(&mut found, "k".to_owned(), version(id, time));
        }
        assert_eq!(found["k"].version_id, "0");
    }
}
