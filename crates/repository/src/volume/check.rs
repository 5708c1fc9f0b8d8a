//! Checking what a volume or a stream is made of, without reading its data.

use super::map::{Extents, Map};
use super::{Blobs, Error};
use crate::directories::Directories;
use crate::ids::BlobRef;
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

/// How many references are compared with the directories of their packs at once: 280 KiB of memory.
const REFERENCES_AT_ONCE: usize = 4096;

/// Checks that all extents can be read and keep the rules of the format; breaking them is an error. With `references`, every blob that is
/// referred to must also be in the directory of its pack, so that what was taken over from earlier recovery points is known to be there, short
/// of reading it.
pub async fn check(map: &Map, references: bool, cancel: &CancellationToken) -> Result<(), Error> {
    let directories = references.then(|| Directories::new(&map.repo));
    let mut checker = Checker { directories, waiting: Vec::new(), cancel };
    if map.is_volume {
        let mut segments = map.segments();
        while let Some(segment) = segments.try_next().await? {
            let (bytes, read) = checker.extents(map.extents_of(&segment)).await?;
            if (bytes, read) != (segment.bytes, segment.read) {
                return Err(Error::damaged(format!("segment {} has other sums than its extents", segment.number)));
            }
        }
    } else {
        checker.extents(map.extents()).await?;
    }
    checker.compare().await
}

struct Checker<'a> {
    directories: Option<Directories>,
    /// References that wait to be compared.
    waiting: Vec<BlobRef>,
    cancel: &'a CancellationToken,
}

impl Checker<'_> {
    /// Goes over extents; gives how many bytes they have, and their different blobs.
    async fn extents(&mut self, mut extents: Extents) -> Result<(u64, u64), Error> {
        let (mut bytes, mut blobs) = (0, Blobs::default());
        while let Some(extent) = extents.try_next().await? {
            bytes += u64::from(extent.len);
            blobs.add(&extent.blob);
            if self.waiting.last() != Some(&extent.blob) {
                self.waiting.push(extent.blob);
            }
            if self.waiting.len() >= REFERENCES_AT_ONCE {
                self.compare().await?;
            }
        }
        Ok((bytes, blobs.bytes))
    }

    async fn compare(&mut self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let Some(directories) = &mut self.directories else { return Ok(()) };
        match directories.check(waiting).await.into_iter().next() {
            Some((blob, wrong)) => Err(wrong.into_error(&blob).into()),
            None => Ok(()),
        }
    }
}
