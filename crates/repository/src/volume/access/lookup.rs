//! Finding the extents at any offset of a volume or a stream, with the rules of the format checked.
//!
//! A lookup goes down from the root to one leaf. Leaves are kept as they were decoded; each is checked in itself when it is decoded, and
//! against its place in the map whenever it is used.

use super::blobs::Blobs;
use super::lru::Lru;
use crate::ids::{BlobRef, TableRef};
use crate::layout;
use crate::table::{Bounds, MAX_HEIGHT, Page};
use crate::tree::entry::Extent;
use crate::volume::map::Map;
use crate::volume::{Error, SEGMENT_LEN, Segment, Span, span_of};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of decoded pages that are kept: the map of about two GiB in 64 KiB extents, whose leaves have up to 256 KiB.
const MOST_NODES: u64 = 8 << 20;

/// What is known of a volume from some offset on.
#[derive(Debug)]
pub(super) struct Known {
    extents: Arc<[Extent]>,
    /// The first of them that does not end before the offset.
    first: usize,
    /// Up to here there is nothing else.
    pub(super) end: u64,
}

impl Known {
    /// The extents that end after the offset, in order.
    pub(super) fn extents(&self) -> &[Extent] {
        &self.extents[self.first..]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Segments,
    Extents,
}

/// A page, and for a leaf what is in it.
#[derive(Debug, Clone)]
struct Node {
    page: Arc<Page>,
    entries: Entries,
}

#[derive(Debug, Clone)]
enum Entries {
    Pages,
    Segments(Arc<[Segment]>),
    Extents(Arc<[Extent]>),
}

#[derive(Debug)]
pub(super) struct Lookup {
    map: Map,
    blobs: Arc<Blobs>,
    nodes: Mutex<Lru<(BlobRef, Kind), Node>>,
}

impl Lookup {
    pub(super) fn new(map: Map, blobs: Arc<Blobs>) -> Self {
        Self { map, blobs, nodes: Mutex::new(Lru::new(MOST_NODES)) }
    }

    pub(super) fn size(&self) -> u64 {
        self.map.size()
    }

    /// What is known from `at` on, at least of the byte there, which lies in the volume.
    pub(super) async fn known(&self, at: u64) -> Result<Known, Error> {
        if !self.map.is_volume {
            return self.known_of(self.map.table, 0..self.size(), at).await;
        }
        let number = u32::try_from(at / SEGMENT_LEN).map_err(|_| Error::damaged("it is too large for its map"))?;
        let (node, end_key) = self.leaf(&self.map.table, &number.to_be_bytes(), Kind::Segments).await?;
        let Entries::Segments(segments) = node.entries else {
            return Err(Error::damaged("a page of its map is of another kind"));
        };
        let count = self.size().div_ceil(SEGMENT_LEN);
        if let Some(last) = segments.last().filter(|last| u64::from(last.number) >= count) {
            return Err(Error::damaged(format!("it has {count} segments, and there is one of number {}", last.number)));
        }
        let next = segments.get(segments.partition_point(|segment| segment.number < number));
        match next {
            Some(segment) if segment.number == number => {
                let span = segment.start()..(segment.start() + SEGMENT_LEN).min(self.size());
                self.known_of(segment.extents, span, at).await
            }
            Some(segment) => Ok(nothing_until(segment.start())),
            None => {
                let after = end_key.map(|key| fixed(&key).map(u32::from_be_bytes)).transpose()?;
                let end = after.map_or(u64::MAX, |number| u64::from(number) * SEGMENT_LEN);
                Ok(nothing_until(end.min(self.size())))
            }
        }
    }

    /// What a table of extents that lie in `span` has from `at` on.
    async fn known_of(&self, table: TableRef, span: Span, at: u64) -> Result<Known, Error> {
        let (node, end_key) = self.leaf(&table, &at.to_be_bytes(), Kind::Extents).await?;
        let Entries::Extents(extents) = node.entries else {
            return Err(Error::damaged("a page of its map is of another kind"));
        };
        let end_key = end_key.map(|key| fixed(&key).map(u64::from_be_bytes)).transpose()?;
        let end = end_key.unwrap_or(span.end).min(span.end);
        let begins = extents.first().is_none_or(|first| first.file_offset >= span.start);
        let ends = extents.last().is_none_or(|last| span_of(last).end <= end);
        if !begins || !ends || end <= at {
            return Err(Error::damaged(format!("the extents around {at} lie wrongly")));
        }
        let first = extents.partition_point(|extent| span_of(extent).end <= at);
        Ok(Known { extents, first, end })
    }

    /// The leaf that has `key` if the table does, and the key before which it ends.
    async fn leaf(&self, table: &TableRef, key: &[u8], kind: Kind) -> Result<(Node, Option<Bytes>), Error> {
        if table.height > MAX_HEIGHT {
            return Err(Error::damaged(format!("no table has a height of {}", table.height)));
        }
        let (mut blob, mut bounds, mut end_key) = (table.root, Bounds::of_root(), None);
        for level in (1..=table.height).rev() {
            let page = self.node(&blob, level, kind).await?.page;
            bounds.check(&page, &blob)?;
            let index = page.child_index(key);
            if index + 1 < page.len() {
                end_key = Some(page.entry(index + 1).0);
            }
            bounds = Bounds::of_child(&bounds, &page, index);
            blob = page.child(index).map_err(|what| what.in_object(layout::pack(&blob.pack)))?;
        }
        let node = self.node(&blob, 0, kind).await?;
        bounds.check(&node.page, &blob)?;
        Ok((node, end_key))
    }

    async fn node(&self, blob: &BlobRef, level: u8, kind: Kind) -> Result<Node, Error> {
        let key = (*blob, kind);
        let kept = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(&key);
        let node = match kept {
            Some(node) => node,
            None => {
                let bytes = self.blobs.get(&[*blob]).await?.pop().unwrap_or_default();
                let node = decode(bytes, kind, blob)?;
                let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
                nodes.insert(key, node.clone(), weight(&node));
                node
            }
        };
        if node.page.level() == level {
            return Ok(node);
        }
        Err(Error::damaged(format!("a page of its map has level {} instead of {level}", node.page.level())))
    }
}

fn nothing_until(end: u64) -> Known {
    Known { extents: Arc::new([]), first: 0, end }
}

fn fixed<const N: usize>(key: &[u8]) -> Result<[u8; N], Error> {
    key.try_into().map_err(|_| Error::damaged(format!("a key of its map has {} bytes instead of {N}", key.len())))
}

/// About what a node takes: the page, where its entries lie, and what was made of them.
fn weight(node: &Node) -> u64 {
    let made = match &node.entries {
        Entries::Pages => 0,
        Entries::Segments(segments) => size_of_val(&**segments),
        Entries::Extents(extents) => size_of_val(&**extents),
    };
    let pages: usize =
        (0..node.page.len()).map(|index| 48 + node.page.key(index).len() + node.page.value(index).len()).sum();
    (made + pages) as u64
}

fn decode(bytes: Bytes, kind: Kind, blob: &BlobRef) -> Result<Node, Error> {
    let page = Page::decode(bytes).map_err(|what| what.in_object(layout::pack(&blob.pack)))?;
    let malformed = |what: crate::Malformed| Error::damaged(what.to_string());
    let entries = match (page.level(), kind) {
        (0, Kind::Segments) => {
            let decode = |index| Segment::decode(page.key(index), page.value(index)).map_err(malformed);
            Entries::Segments((0..page.len()).map(decode).collect::<Result<_, _>>()?)
        }
        (0, Kind::Extents) => Entries::Extents(decode_extents(&page)?),
        _ => Entries::Pages,
    };
    Ok(Node { page: Arc::new(page), entries })
}

fn decode_extents(page: &Page) -> Result<Arc<[Extent]>, Error> {
    let mut end = 0;
    let decode = |index| {
        let extent =
            Extent::decode(page.key(index), page.value(index)).map_err(|what| Error::damaged(what.to_string()))?;
        let lies = extent.end_after(end, u64::MAX);
        end = lies.ok_or_else(|| Error::damaged(format!("the extent at {} lies wrongly", extent.file_offset)))?;
        Ok(extent)
    };
    (0..page.len()).map(decode).collect()
}
