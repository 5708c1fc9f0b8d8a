//! Reading the map of a volume or a stream, with the rules of the format checked, and the bytes that it leads to.

use super::{Error, SEGMENT_LEN, Segment, Span, blobs_of, common, piece, span_len, span_of};
use crate::fetch;
use crate::ids::TableRef;
use crate::repository::Repository;
use crate::table::Reader;
use crate::tree::entry::Extent;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::task::AbortOnDropHandle;

/// Extents in ascending order, without overlap, each within what it belongs to.
pub(super) type Extents = BoxStream<'static, Result<Extent, Error>>;

/// Bytes of a volume that are put together at once. Blocks that several parts share are read once for a window, so a larger one saves work,
/// and a few windows must fit into the memory of a restore.
pub(super) const WINDOW_LEN: u64 = 8 << 20;

/// What a volume or a stream is made of.
#[derive(Debug, Clone)]
pub struct Map {
    pub(super) repo: Repository,
    pub(super) table: TableRef,
    size: u64,
    pub(super) is_volume: bool,
}

/// A stretch of a volume with its bytes.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Map {
    /// The map of a volume of `size` bytes.
    #[must_use]
    pub fn volume(repo: &Repository, table: TableRef, size: u64) -> Self {
        Self { repo: repo.clone(), table, size, is_volume: true }
    }

    /// The map of a stream of `size` bytes.
    #[must_use]
    pub fn stream(repo: &Repository, table: TableRef, size: u64) -> Self {
        Self { repo: repo.clone(), table, size, is_volume: false }
    }

    /// How many bytes the volume or the stream has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The segments of a volume that hold anything, in order.
    pub(super) fn segments(&self) -> BoxStream<'static, Result<Segment, Error>> {
        let count = self.size.div_ceil(SEGMENT_LEN);
        let decode = move |(key, value): (Bytes, Bytes)| {
            let segment = Segment::decode(&key, &value).map_err(|what| Error::damaged(what.to_string()))?;
            if u64::from(segment.number) < count {
                Ok(segment)
            } else {
                Err(Error::damaged(format!("it has {count} segments, and there is one of number {}", segment.number)))
            }
        };
        let entries = Reader::new(&self.repo, self.table).scan(&[]).map_err(Error::from);
        entries.and_then(move |entry| std::future::ready(decode(entry))).boxed()
    }

    /// The extents of one segment.
    pub(super) fn extents_of(&self, segment: &Segment) -> Extents {
        let span = segment.start()..(segment.start() + SEGMENT_LEN).min(self.size);
        extents(&self.repo, segment.extents, span)
    }

    /// All extents in order.
    pub(super) fn extents(&self) -> Extents {
        if !self.is_volume {
            return extents(&self.repo, self.table, 0..self.size);
        }
        let map = self.clone();
        self.segments().map_ok(move |segment| map.extents_of(&segment)).try_flatten().boxed()
    }

    /// The stretches of this length that hold anything, in order, with their extents; one that lies in two is cut. Where extents are smaller than
    /// blocks, stretches are shorter.
    pub(super) fn stretches(&self, len: u64) -> BoxStream<'static, Result<(Span, Vec<Extent>), Error>> {
        let start = Cutter { extents: self.extents(), pending: None, len, size: self.size, end: 0 };
        stream::try_unfold(start, |mut cutter| async move {
            let stretch = cutter.next().await?;
            Ok(stretch.map(|stretch| (stretch, cutter)))
        })
        .boxed()
    }

    /// The windows that hold anything, in order, their bytes read and verified; a few are read ahead.
    pub(super) fn windows(&self) -> BoxStream<'static, Result<Window, Error>> {
        const AHEAD: usize = 2;
        let repo = self.repo.clone();
        // A task of its own for each, so that the next are read while the first is used.
        self.stretches(WINDOW_LEN)
            .map_ok(move |(span, extents)| {
                let task = AbortOnDropHandle::new(tokio::spawn(read(repo.clone(), span, extents)));
                async move { task.await.map_err(|error| crate::Error::Interrupted(error.to_string()))? }
            })
            .try_buffered(AHEAD)
            .boxed()
    }
}

/// Reads a table of extents; they must lie within `span`.
fn extents(repo: &Repository, table: TableRef, span: Span) -> Extents {
    let mut end = span.start;
    let mut decode = move |(key, value): (Bytes, Bytes)| {
        let extent = Extent::decode(&key, &value).map_err(|what| Error::damaged(what.to_string()))?;
        let lies = extent.end_after(end, span.end);
        end = lies.ok_or_else(|| Error::damaged(format!("the extent at {} lies wrongly", extent.file_offset)))?;
        Ok(extent)
    };
    let entries = Reader::new(repo, table).scan(&[]).map_err(Error::from);
    entries.and_then(move |entry| std::future::ready(decode(entry))).boxed()
}

/// Sorts extents into stretches of one length.
struct Cutter {
    extents: Extents,
    pending: Option<Extent>,
    len: u64,
    size: u64,
    /// Where the last stretch ended.
    end: u64,
}

/// Extents of a stretch at most, at 100 bytes each: as many as there are blocks in the longest.
const STRETCH_EXTENTS: usize = 8192;

impl Cutter {
    /// The next stretch that holds anything, and its extents.
    async fn next(&mut self) -> Result<Option<(Span, Vec<Extent>)>, Error> {
        let mut stretch: Option<(Span, Vec<Extent>)> = None;
        loop {
            let extent = match self.pending.take() {
                Some(extent) => Some(extent),
                None => self.extents.try_next().await?,
            };
            let Some(extent) = extent else { break };
            let span = span_of(&extent);
            let (limits, extents) = stretch.get_or_insert_with(|| {
                let first = span.start / self.len * self.len;
                (first.max(self.end)..(first + self.len).min(self.size), Vec::new())
            });
            let here = common(&span, limits);
            if !here.is_empty() {
                extents.push(piece(&extent, &here));
            }
            if span.end > limits.end {
                let rest = span.start.max(limits.end)..span.end;
                self.pending = Some(piece(&extent, &rest));
                break;
            }
            if extents.len() == STRETCH_EXTENTS {
                limits.end = span.end;
                break;
            }
        }
        self.end = stretch.as_ref().map_or(self.end, |(span, _)| span.end);
        Ok(stretch)
    }
}

/// Puts a window together.
async fn read(repo: Repository, span: Span, extents: Vec<Extent>) -> Result<Window, Error> {
    let len = usize::try_from(span_len(&span)).expect("a window has some MiB");
    let bytes = Arc::new(Mutex::new(vec![0; len]));
    let mut pieces: HashMap<_, Vec<Extent>> = HashMap::new();
    let blobs = blobs_of(&extents);
    for extent in extents {
        pieces.entry(extent.blob).or_default().push(extent);
    }
    let target = bytes.clone();
    let start = span.start;
    let take = move |blob: &_, plain: &[u8]| {
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        for extent in pieces.get(blob).into_iter().flatten() {
            let to = usize::try_from(extent.file_offset - start).expect("it lies in the window");
            let (from, len) = (extent.blob_offset as usize, extent.len as usize);
            target[to..to + len].copy_from_slice(&plain[from..from + len]);
        }
        Ok::<_, Error>(())
    };
    fetch::fetch(&repo, blobs, take).await?;
    let bytes = std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Window { start: span.start, bytes })
}
