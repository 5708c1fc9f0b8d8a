//! Finding all packs that recovery points refer to, each page of their tables once.
//!
//! What is held grows with distinct pages (some 40 bytes each) and with packs, not with blobs: of a leaf only the packs are kept.

use crate::error::Result;
use crate::ids::{BlobId, BlobRef, PackId};
use crate::layout;
use crate::point::RecoveryPoint;
use crate::references::{self, Referred, Values};
use crate::repository::Repository;
use crate::table;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashSet};

/// How many pages are read at once, at up to 256 KiB each, or one value of up to 8 MiB.
const READS: usize = 8;

/// A page to be read.
#[derive(Debug, Clone, Copy)]
struct Visit {
    blob: BlobRef,
    level: u8,
    values: Values,
}

/// Remembers the pages that were followed, so that recovery points that share them cost little.
#[derive(Debug, Default)]
pub(crate) struct Marker {
    seen: HashSet<(BlobId, Values)>,
}

impl Marker {
    /// The packs that a recovery point refers to; those of pages that an earlier one shares were given with that one.
    pub(crate) async fn follow(&mut self, repo: &Repository, point: &RecoveryPoint) -> Result<BTreeSet<PackId>> {
        // Also packs of which nothing is used any more: the recovery point says that it has them.
        let mut packs: BTreeSet<PackId> = point.packs.iter().map(|pack| pack.id).collect();
        self.follow_blobs(repo, point, |blob| _ = packs.insert(blob.pack)).await?;
        Ok(packs)
    }

    /// Gives the blobs that a recovery point refers to; those below pages that an earlier one shares were given with that one.
    pub(crate) async fn follow_blobs(
        &mut self,
        repo: &Repository,
        point: &RecoveryPoint,
        take: impl FnMut(BlobRef) + Send,
    ) -> Result<()> {
        let followed = self.walk(repo, point, take).await;
        if followed.is_err() {
            // Pages were noted whose children were not read.
            self.seen.clear();
        }
        followed
    }

    async fn walk(
        &mut self,
        repo: &Repository,
        point: &RecoveryPoint,
        mut take: impl FnMut(BlobRef) + Send,
    ) -> Result<()> {
        let mut visits = Vec::new();
        for (table, values) in references::tables_of(point) {
            visits.push(Visit { blob: table.root, level: table.height, values });
        }
        while !visits.is_empty() {
            let next = visits.split_off(visits.len().saturating_sub(READS));
            next.iter().for_each(|visit| take(visit.blob));
            let new: Vec<_> =
                next.into_iter().filter(|visit| self.seen.insert((visit.blob.id, visit.values))).collect();
            let reads = new.into_iter().map(|visit| async move {
                table::read_page(repo, &visit.blob, visit.level).await.map(|page| (visit, page))
            });
            let mut pages = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(READS);
            while let Some((visit, page)) = pages.try_next().await? {
                let go_on = |referred| match referred {
                    Referred::Page(blob, level) => visits.push(Visit { blob, level, values: visit.values }),
                    Referred::Blob(blob) => take(blob),
                    Referred::Table(table, values) => {
                        visits.push(Visit { blob: table.root, level: table.height, values });
                    }
                };
                let taken = references::of_page(&page, visit.values, go_on);
                taken.map_err(|what| what.in_object(layout::pack(&visit.blob.pack)))?;
            }
        }
        Ok(())
    }
}
