//! Whether what is referred to can be read: where a reference says, or elsewhere.

use super::super::told;
use super::{KEPT_ANSWERS, Walk};
use crate::directories::Wrong;
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId, PointId};
use crate::index;
use crate::layout;
use std::collections::HashSet;

/// Where else than at the place that a reference names a blob is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Nowhere,
    /// Only in packs of which something else is damaged.
    InDamagedPack,
    InWholePack,
}

impl Walk<'_> {
    /// Checks that packs are there and that their directories have the blobs; gives those that can be read nowhere.
    pub(super) async fn check_references(&mut self, blobs: &[BlobRef], point: &PointId) -> Result<HashSet<BlobRef>> {
        self.references += blobs.len() as u64;
        let mut blobs = blobs.to_vec();
        blobs.sort_unstable();
        blobs.dedup();
        let mut hit = HashSet::new();
        for (blob, wrong) in self.directories.check(blobs.clone()).await {
            let found = self.elsewhere(&blob).await?;
            let elsewhere = found != Elsewhere::Nowhere;
            match wrong {
                Wrong::Pack(error) => {
                    let error = told(self.repo, error).await;
                    let gone = matches!(error, Error::Missing { .. });
                    // That a pack is gone is no damage when everything that is needed of it is elsewhere.
                    if !(gone && elsewhere) {
                        self.findings.add_lost_directory(blob.pack, error)?;
                    }
                }
                Wrong::Blob(_) if elsewhere => {}
                Wrong::Blob(what) => self.findings.add(&layout::pack(&blob.pack), &what.to_string(), Some(point)),
            }
            if !elsewhere || self.is_unsafe(found) {
                hit.insert(blob);
            }
        }
        for blob in blobs {
            if !self.findings.is_in_damaged_pack(&blob) {
                continue;
            }
            let found = self.elsewhere(&blob).await?;
            if self.findings.is_damaged(&blob) && found == Elsewhere::Nowhere {
                self.findings.hit(&blob, point);
                hit.insert(blob);
            } else if self.is_unsafe(found) {
                hit.insert(blob);
            }
        }
        Ok(hit)
    }

    /// Whether a repair, which clears damaged packs away, must store a blob again although a reader can have it.
    fn is_unsafe(&self, found: Elsewhere) -> bool {
        self.lost.is_some() && found != Elsewhere::InWholePack
    }

    /// Where a reader that cannot have a blob from its pack finds it.
    async fn elsewhere(&mut self, blob: &BlobRef) -> Result<Elsewhere> {
        if let Some(known) = self.elsewhere.get(&(blob.id, blob.pack)) {
            return Ok(*known);
        }
        let mut found = Elsewhere::Nowhere;
        for other in index::find(self.repo, &blob.id).await? {
            let differs = other.pack != blob.pack && other.plain_len == blob.plain_len;
            if !differs || self.findings.is_damaged(&other) || !self.directories.check(vec![other]).await.is_empty() {
                continue;
            }
            if !self.findings.is_in_damaged_pack(&other) {
                found = Elsewhere::InWholePack;
                break;
            }
            found = Elsewhere::InDamagedPack;
        }
        if self.elsewhere.len() >= KEPT_ANSWERS {
            self.elsewhere.clear();
        }
        self.elsewhere.insert((blob.id, blob.pack), found);
        Ok(found)
    }

    pub(super) fn check_pack_len(&mut self, id: &PackId, expected: u64) {
        // Whom it hits is told by the references: such a pack has no directory where one is looked for. The same is true of one that is gone.
        if let Some(len) = self.survey.pack_len(id).filter(|len| *len != expected) {
            self.findings.add(&layout::pack(id), &format!("it has {len} bytes instead of {expected}"), None);
        }
    }
}
