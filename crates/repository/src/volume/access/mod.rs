//! Reading a volume or a stream at any place, as a block device is read.
//!
//! A [`VolumeReader`] answers reads of any offset and length and tells holes from data. Holes cost no reading of data. What is read comes
//! through a [`BlobCache`], which is bounded in bytes, and may have a second, larger part on a disk. Who reads in sequence is read ahead for.

mod ahead;
mod blobs;
mod disk;
mod lookup;
mod lru;

pub use self::disk::{CacheError, DiskCache};

use self::ahead::ReadAhead;
use self::blobs::Blobs;
use self::lookup::Lookup;
use super::map::Map;
use super::{Error, Span, blobs_of, common, piece, span_len, span_of};
use crate::ids::BlobRef;
use crate::repository::Repository;
use crate::tree::entry::Extent;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a read that are put together at once.
const WINDOW_LEN: u64 = 1 << 20;
/// Plain bytes of the blobs that are in memory together for one window: one of the longest, or all of a window whose blocks of 4 KiB lie in as
/// many blobs of 64 KiB. A hostile map may ask for more, and then gets it in turn.
const GROUP_LEN: u64 = 16 << 20;
/// Windows of one read that are read at once.
const WINDOWS: usize = 3;
/// Bytes that are read ahead at most: two requests of the longest kind, which an object store answers while a client takes the first.
const AHEAD_LEN: u64 = 8 << 20;

/// Blobs in memory, and perhaps on a disk, for several readers of one repository; cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobCache {
    blobs: Arc<Blobs>,
    ahead: u64,
}

impl BlobCache {
    /// Bytes that are kept in memory where nothing else is said: four readers in sequence, each with what is read ahead for it.
    pub const DEFAULT_MEMORY: u64 = 32 << 20;

    /// A cache of up to `memory` bytes, besides those of requests that are being answered.
    #[must_use]
    pub fn new(repo: &Repository, memory: u64, disk: Option<Arc<DiskCache>>) -> Self {
        // What is read ahead must not push itself out of the cache before it is used.
        Self { blobs: Blobs::new(repo, memory, disk), ahead: AHEAD_LEN.min(memory / 4) }
    }
}

/// A stretch of what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stretch {
    /// Bytes that are stored.
    Data(Bytes),
    /// So many bytes of a hole, which read as zeros.
    Zeros(u64),
}

/// A stretch of which all or nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// How long it is, in bytes.
    pub len: u64,
    /// Whether it is stored; else it reads as zeros.
    pub is_data: bool,
}

/// Reads a volume or a stream at any place; cheap to clone, may be used from several tasks at once.
#[derive(Debug, Clone)]
pub struct VolumeReader {
    lookup: Arc<Lookup>,
    blobs: Arc<Blobs>,
    ahead: Arc<Mutex<ReadAhead>>,
}

impl VolumeReader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(map: Map, cache: &BlobCache) -> Self {
        Self {
            lookup: Arc::new(Lookup::new(map, cache.blobs.clone())),
            blobs: cache.blobs.clone(),
            ahead: Arc::new(Mutex::new(ReadAhead::new(cache.ahead))),
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.lookup.size()
    }

    /// Reads a range: stretches in order that together are as long as it.
    pub async fn read(&self, range: Span) -> Result<Vec<Stretch>, Error> {
        self.check(&range)?;
        self.read_ahead(&range);
        let starts = (range.start / WINDOW_LEN..range.end.div_ceil(WINDOW_LEN)).map(|number| number * WINDOW_LEN);
        let windows = starts.map(|start| common(&(start..start + WINDOW_LEN), &range));
        // A vector, since a stream over a lazy iterator would have to be of any lifetime.
        let reads: Vec<_> = windows.map(|window| self.clone().window(window)).collect();
        let windows: Vec<Vec<Stretch>> = stream::iter(reads).buffered(WINDOWS).try_collect().await?;
        Ok(windows.into_iter().flatten().collect())
    }

    /// Tells holes from data, from the begin of a range on: at most `most` stretches, neighbours of different kinds; they may end before the
    /// range does.
    pub async fn extents(&self, range: Span, most: usize) -> Result<Vec<Allocation>, Error> {
        self.check(&range)?;
        let mut found: Vec<Allocation> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let known = self.lookup.known(at).await?;
            let beyond = known.end..u64::MAX;
            for extent in known.extents().iter().map(span_of).chain(std::iter::once(beyond)) {
                let data = common(&extent, &(at..known.end.min(range.end)));
                let hole = at..extent.start.min(known.end).min(range.end).max(at);
                for (span, is_data) in [(hole, false), (data, true)] {
                    if !span.is_empty() {
                        at = span.end;
                        push(&mut found, Allocation { len: span_len(&span), is_data });
                    }
                }
                if found.len() > most {
                    found.truncate(most);
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    fn check(&self, range: &Span) -> Result<(), Error> {
        if range.start <= range.end && range.end <= self.size() {
            return Ok(());
        }
        Err(Error::OutOfRange { start: range.start, end: range.end, size: self.size() })
    }

    async fn window(self, window: Span) -> Result<Vec<Stretch>, Error> {
        let extents = self.pieces(&window).await?;
        if extents.is_empty() {
            return Ok(assemble(&window, &extents, &Bytes::new()));
        }
        let mut bytes = vec![0; in_memory(span_len(&window))];
        let mut pieces: HashMap<_, Vec<&Extent>> = HashMap::new();
        extents.iter().for_each(|extent| pieces.entry(extent.blob).or_default().push(extent));
        for group in groups(&blobs_of(&extents)) {
            for (blob, plain) in group.iter().zip(self.blobs.get(group).await?) {
                for extent in pieces.get(blob).into_iter().flatten() {
                    let to = in_memory(extent.file_offset - window.start);
                    let (from, len) = (extent.blob_offset as usize, extent.len as usize);
                    // Each was checked to lie in its blob, and each blob to have the length that its reference says.
                    bytes[to..to + len].copy_from_slice(&plain[from..from + len]);
                }
            }
        }
        Ok(assemble(&window, &extents, &bytes.into()))
    }

    /// The pieces of extents that lie in a range.
    async fn pieces(&self, range: &Span) -> Result<Vec<Extent>, Error> {
        let (mut pieces, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let known = self.lookup.known(at).await?;
            for extent in known.extents() {
                let here = common(&span_of(extent), &(at..range.end));
                if here.is_empty() {
                    break;
                }
                pieces.push(piece(extent, &here));
            }
            at = known.end;
        }
        Ok(pieces)
    }

    /// Has read what this reader will probably want next.
    fn read_ahead(&self, range: &Span) {
        let size = self.size();
        let Some(next) = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).after(range, size) else { return };
        let reader = self.clone();
        tokio::spawn(async move {
            // The read itself will tell what is wrong.
            if let Ok(pieces) = reader.pieces(&next).await {
                reader.blobs.ahead(&blobs_of(&pieces));
            }
        });
    }
}

fn push(found: &mut Vec<Allocation>, next: Allocation) {
    match found.last_mut() {
        Some(last) if last.is_data == next.is_data => last.len += next.len,
        _ => found.push(next),
    }
}

/// Blobs that are in memory together for one window.
fn groups(blobs: &[BlobRef]) -> Vec<&[BlobRef]> {
    let (mut groups, mut start, mut len) = (Vec::new(), 0, 0);
    for (index, blob) in blobs.iter().enumerate() {
        len += u64::from(blob.plain_len);
        if len > GROUP_LEN && index > start {
            groups.push(&blobs[start..index]);
            (start, len) = (index, u64::from(blob.plain_len));
        }
    }
    groups.extend((start < blobs.len()).then(|| &blobs[start..]));
    groups
}

/// The stretches of a window whose bytes are put together: each run of extents that touch is one.
fn assemble(window: &Span, extents: &[Extent], bytes: &Bytes) -> Vec<Stretch> {
    let (mut stretches, mut at) = (Vec::new(), window.start);
    for run in extents.chunk_by(|a, b| span_of(a).end == b.file_offset) {
        let (start, end) = (run[0].file_offset, span_of(&run[run.len() - 1]).end);
        if at < start {
            stretches.push(Stretch::Zeros(start - at));
        }
        stretches.push(Stretch::Data(bytes.slice(in_memory(start - window.start)..in_memory(end - window.start))));
        at = end;
    }
    if at < window.end {
        stretches.push(Stretch::Zeros(window.end - at));
    }
    stretches
}

fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a window is a MiB long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlobId, PackId, WriterId};

    #[test]
    fn a_window_has_no_more_in_memory_than_a_group_whatever_it_is_made_of() {
        let pack = PackId { epoch: 1, writer: WriterId([0; 12]), sequence: 0 };
        let blob = |plain_len| BlobRef { id: BlobId([0; 32]), pack, offset: 40, stored_len: 100, plain_len };
        let check = |lens: &[u32], expected: &[usize]| {
            let blobs: Vec<_> = lens.iter().copied().map(blob).collect();
            assert_eq!(groups(&blobs).iter().map(|group| group.len()).collect::<Vec<_>>(), expected, "{lens:?}");
        };
        check(&[], &[]);
        check(&[64 << 10; 256], &[256]);
        check(&[16 << 20, 16 << 20, 1], &[1, 1, 1]);
        check(&[1, 16 << 20, 1, 2], &[1, 1, 2]);
    }
}
