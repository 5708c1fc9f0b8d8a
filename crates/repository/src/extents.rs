//! Extents of a file, a volume or a stream, whoever wrote them, and the bytes that they stand for.

use crate::error::{Error, Result};
use crate::fetch;
use crate::ids::{BlobRef, TableRef};
use crate::layout;
use crate::repository::Repository;
use crate::table::Reader;
use crate::tree::entry::Extent;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// All extents of a table in order, as they are; whether they lie rightly is for the caller to see.
pub(crate) fn scan(repo: &Repository, table: TableRef) -> BoxStream<'static, Result<Extent>> {
    let entries = Reader::new(repo, table).scan(&[]);
    entries.and_then(move |(key, value)| std::future::ready(decode(&table, &key, &value))).boxed()
}

/// Reads one entry of a table of extents.
pub(crate) fn decode(table: &TableRef, key: &[u8], value: &[u8]) -> Result<Extent> {
    Extent::decode(key, value).map_err(|what| what.in_object(layout::pack(&table.root.pack)))
}

/// What of an extent lies in `span`; none if nothing does, or if it lies wrongly in its blob.
pub(crate) fn clip(extent: &Extent, span: &Range<u64>) -> Option<Extent> {
    let end = extent.end_after(0, u64::MAX)?.min(span.end);
    let start = extent.file_offset.max(span.start);
    let (before, len) = (start - extent.file_offset, end.checked_sub(start).filter(|len| *len > 0)?);
    Some(Extent {
        file_offset: start,
        len: u32::try_from(len).ok()?,
        blob_offset: extent.blob_offset + u32::try_from(before).ok()?,
        blob: extent.blob,
    })
}

/// The bytes of a span, of which these are the extents; what none covers is zeros. Every byte is verified.
pub(crate) async fn read(repo: &Repository, span: &Range<u64>, extents: &[Extent]) -> Result<Vec<u8>> {
    let len = usize::try_from(span.end.saturating_sub(span.start))
        .map_err(|_| Error::invalid("a span is longer than the memory"))?;
    let target = Arc::new(Mutex::new(vec![0; len]));
    let mut pieces: HashMap<BlobRef, Vec<Extent>> = HashMap::new();
    for extent in extents.iter().filter_map(|extent| clip(extent, span)) {
        pieces.entry(extent.blob).or_default().push(extent);
    }
    let blobs: Vec<_> = pieces.keys().copied().collect();
    let (filled, start) = (target.clone(), span.start);
    let take = move |blob: &BlobRef, plain: &[u8]| {
        let mut target = filled.lock().unwrap_or_else(PoisonError::into_inner);
        for extent in pieces.get(blob).into_iter().flatten() {
            let to = usize::try_from(extent.file_offset - start).unwrap_or(usize::MAX);
            let (from, len) = (extent.blob_offset as usize, extent.len as usize);
            let parts = target.get_mut(to..to.saturating_add(len)).zip(plain.get(from..from + len));
            if let Some((target, plain)) = parts {
                target.copy_from_slice(plain);
            }
        }
        Ok::<_, Error>(())
    };
    fetch::fetch(repo, blobs, take).await?;
    Ok(std::mem::take(&mut *target.lock().unwrap_or_else(PoisonError::into_inner)))
}
