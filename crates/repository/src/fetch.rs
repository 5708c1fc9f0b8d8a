//! Reading many blobs with few requests.
//!
//! Blobs that lie close together in a pack are read at once, up to [`READ_LEN`]; each is opened and handed over on a thread where that may
//! take its time. So what a restore holds in memory is a few requests, however large the volume is.

use crate::background;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::BlobRef;
use crate::layout;
use crate::pack;
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// How long one request is at most, in bytes, unless a single blob is longer: long enough for the latency of an object store not to matter.
const READ_LEN: u64 = 2 << 20;
/// Bytes between two blobs that are read and thrown away rather than making two requests: less than a store takes to answer one.
const GAP_LEN: u64 = 64 << 10;
/// How many requests are on their way at once.
const READS: usize = 3;

/// Takes a blob that was read and verified; called on several threads at once.
pub(crate) trait Take<E>: Fn(&BlobRef, &[u8]) -> Result<(), E> + Send + Sync + 'static {}

impl<E, F: Fn(&BlobRef, &[u8]) -> Result<(), E> + Send + Sync + 'static> Take<E> for F {}

/// Reads every blob once and hands it over, in no order.
pub(crate) async fn fetch<E, F>(repo: &Repository, mut blobs: Vec<BlobRef>, take: F) -> Result<(), E>
where
    E: From<Error> + Send + 'static,
    F: Take<E>,
{
    blobs.sort_unstable_by_key(|blob| (blob.pack, blob.offset, blob.id));
    blobs.dedup();
    let take = Arc::new(take);
    let reads = requests(&blobs).into_iter().map(|blobs| read(repo.clone(), blobs, take.clone()));
    stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(READS).try_collect::<()>().await
}

/// Cuts sorted blobs into those that are read at once.
pub(crate) fn requests(blobs: &[BlobRef]) -> Vec<Vec<BlobRef>> {
    let mut requests: Vec<Vec<BlobRef>> = Vec::new();
    for blob in blobs {
        let end = u64::from(blob.offset) + u64::from(blob.stored_len);
        match requests.last_mut() {
            Some(request) if joins(request, blob, end) => request.push(*blob),
            _ => requests.push(vec![*blob]),
        }
    }
    requests
}

fn joins(request: &[BlobRef], blob: &BlobRef, end: u64) -> bool {
    let (first, last) = (&request[0], &request[request.len() - 1]);
    let last_end = u64::from(last.offset) + u64::from(last.stored_len);
    first.pack == blob.pack
        && u64::from(blob.offset).saturating_sub(last_end) <= GAP_LEN
        && end.saturating_sub(u64::from(first.offset)) <= READ_LEN
}

async fn read<E, F>(repo: Repository, blobs: Vec<BlobRef>, take: Arc<F>) -> Result<(), E>
where
    E: From<Error> + Send + 'static,
    F: Take<E>,
{
    let name = layout::pack(&blobs[0].pack);
    for blob in &blobs {
        pack::check_lengths(blob).map_err(|what| E::from(what.in_object(&name)))?;
    }
    let start = u64::from(blobs[0].offset);
    let end = blobs.iter().map(|blob| u64::from(blob.offset) + u64::from(blob.stored_len)).max().unwrap_or(start);
    let sealed = match repo.store().get_range(&name, start..end).await {
        Ok(sealed) => sealed,
        // One by one: a blob of a pack that is gone may be elsewhere, and of one that is cut off some are still there.
        Err(error) if Error::from(error.clone()).is_damage() || error.kind == StoreErrorKind::NotFound => {
            return one_by_one(&repo, &blobs, &take).await;
        }
        Err(error) => return Err(Error::from(error).into()),
    };
    let (opener, taker) = (repo.clone(), take.clone());
    let damaged =
        background::run(move || open_all(&opener, &name, &blobs, &sealed, &*taker)).await.map_err(E::from)??;
    one_by_one(&repo, &damaged, &take).await
}

/// Opens blobs that were read and hands them over; gives those that are damaged, which may be whole elsewhere.
fn open_all<E: From<Error>>(
    repo: &Repository,
    name: &str,
    blobs: &[BlobRef],
    sealed: &Bytes,
    take: &impl Take<E>,
) -> Result<Vec<BlobRef>, E> {
    let key = repo.pack_key(&blobs[0].pack);
    let mut damaged = Vec::new();
    let mut opener = pack::Opener::new(&key, repo.keys());
    for blob in blobs {
        let at = (blob.offset - blobs[0].offset) as usize;
        let part = sealed.get(at..at + blob.stored_len as usize);
        let part = part.ok_or_else(|| E::from(Malformed::new("the pack is cut off").in_object(name)))?;
        match opener.open(blob, part) {
            Ok(plain) => take(blob, plain)?,
            Err(_) => damaged.push(*blob),
        }
    }
    Ok(damaged)
}

async fn one_by_one<E, F>(repo: &Repository, blobs: &[BlobRef], take: &Arc<F>) -> Result<(), E>
where
    E: From<Error> + Send + 'static,
    F: Take<E>,
{
    for blob in blobs {
        let plain = repo.read_blob(blob).await.map_err(E::from)?;
        let (blob, take) = (*blob, take.clone());
        background::run(move || take(&blob, &plain)).await.map_err(E::from)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlobId, PackId, WriterId};

    fn blob(sequence: u32, offset: u32, stored_len: u32) -> BlobRef {
        let pack = PackId { epoch: 1, writer: WriterId([0; 12]), sequence };
        BlobRef { id: BlobId([0; 32]), pack, offset, stored_len, plain_len: 1 }
    }

    #[test]
    fn blobs_that_are_close_are_read_at_once() {
        let check = |blobs: &[BlobRef], expected: &[usize]| {
            assert_eq!(requests(blobs).iter().map(Vec::len).collect::<Vec<_>>(), expected, "{blobs:?}");
        };
        let near = u32::try_from(GAP_LEN).unwrap();
        check(&[], &[]);
        check(&[blob(0, 40, 100), blob(0, 140, 100), blob(0, 240 + near, 100)], &[3]);
        check(&[blob(0, 40, 100), blob(0, 141 + near, 100)], &[1, 1]);
        check(&[blob(0, 40, 100), blob(1, 140, 100)], &[1, 1]);
        let long = u32::try_from(READ_LEN).unwrap();
        check(&[blob(0, 40, 100), blob(0, 140, long)], &[1, 1]);
        check(&[blob(0, 40, long + 1), blob(0, 41 + long, 5)], &[1, 1]);
    }
}
