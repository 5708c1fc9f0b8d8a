//! The packs that a mover wrote, in a form that fits into a termination message.

use futures::TryStreamExt;
use repository::{Fields, Malformed, PackId, PackInfo, PointId, Repository, SessionId, TableRef, table};
use serde::{Deserialize, Serialize};

use crate::failure::Error;

/// Most packs that an outcome names itself: at some 80 bytes each they leave room for the rest of its 4,096 bytes.
/// Eight packs are 256 MiB of new data.
const LISTED_PACKS: usize = 8;

/// The packs of a run. Few are listed here; many are listed in a table in the repository, of which the root is here.
///
/// The key of the table is the encoded pack id, the value its length in bytes as a little-endian `u64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackList {
    /// How many packs there are in all.
    pub count: u64,
    /// Their lengths in bytes.
    pub bytes: u64,
    /// All packs, or with a table, those that hold the table.
    pub listed: Vec<PackInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableRef>,
}

impl PackList {
    /// Makes the list; stores what is too long for it, in a session of its own, which it gives.
    pub(crate) async fn store(
        repository: &Repository,
        point: &PointId,
        mut packs: Vec<PackInfo>,
    ) -> Result<(Self, Option<SessionId>), Error> {
        if packs.len() <= LISTED_PACKS {
            return Ok((Self::of(packs.iter(), None, packs.clone()), None));
        }
        packs.sort_by_key(|pack| pack.id.encode());
        let writer = repository.writer(point).await?;
        let mut table = table::Builder::new(&writer);
        for pack in &packs {
            table.push(&pack.id.encode(), &pack.bytes.to_le_bytes()).await?;
        }
        let table = table.finish().await?;
        let written = writer.finish().await?;
        repository.verify_packs(&written.packs).await?;
        let list = Self::of(packs.iter().chain(&written.packs), Some(table), written.packs.clone());
        Ok((list, Some(written.session)))
    }

    fn of<'a>(packs: impl Iterator<Item = &'a PackInfo>, table: Option<TableRef>, listed: Vec<PackInfo>) -> Self {
        let (count, bytes) = packs.fold((0, 0), |(count, bytes), pack| (count + 1, bytes + pack.bytes));
        Self { count, bytes, listed, table }
    }

    /// All packs, for the recovery point.
    pub async fn read(&self, repository: &Repository) -> Result<Vec<PackInfo>, repository::Error> {
        let mut packs = self.listed.clone();
        let Some(table) = self.table else { return Ok(packs) };
        let malformed = |what: Malformed| what.in_object("the table of packs of a mover");
        let reader = table::Reader::new(repository, table);
        let mut entries = std::pin::pin!(reader.scan(&[]));
        while let Some((key, value)) = entries.try_next().await? {
            let id = PackId::decode(&mut Fields::new(&key)).map_err(malformed)?;
            let bytes = Fields::new(&value).u64().map_err(malformed)?;
            packs.push(PackInfo { id, bytes });
        }
        Ok(packs)
    }
}

#[cfg(test)]
mod tests {
    use repository::{Passphrase, RetryPolicy, StoreConfig, WriterId};

    use super::*;

    #[tokio::test]
    async fn lists_of_any_length_come_back() {
        let store = StoreConfig::Memory.open(RetryPolicy::default()).unwrap();
        let repository = Repository::create(store, &Passphrase::new("secret")).await.unwrap();
        let pack = |sequence: u32| PackInfo {
            id: PackId { epoch: 1, writer: WriterId([7; 12]), sequence },
            bytes: u64::from(sequence) + 100,
        };
        for count in [0, 1, 8, 9, 5_000] {
            let packs: Vec<_> = (0..count).map(pack).collect();
            let point = "run".parse().unwrap();
            let (list, session) = PackList::store(&repository, &point, packs.clone()).await.unwrap();
            assert_eq!(session.is_some(), count > 8, "{count}");
            assert_eq!(list.table.is_some(), count > 8, "{count}");
            assert!(serde_json::to_string(&list).unwrap().len() < 2_000, "{count}");
            let mut read = list.read(&repository).await.unwrap();
            assert_eq!(read.len() as u64, list.count, "{count}");
            assert_eq!(read.iter().map(|pack| pack.bytes).sum::<u64>(), list.bytes, "{count}");
            // The packs of the list itself are in it, and can be read back.
            read.retain(|pack| !packs.contains(pack));
            assert_eq!(read.len(), usize::from(count > 8), "{count}");
            repository.verify_packs(&read).await.unwrap();
        }
    }
}
