//! Volumes and streams: block devices, images of them, and bytes of which only the order is known.
//!
//! A volume is cut into segments of a gibibyte, each with a table of extents; a table of segments is its root. So a segment in which
//! nothing changed costs one entry, and the cost of an incremental follows the change. docs/formats/volume.md gives every byte.
//!
//! [`backup()`] stores a volume, all of it or what has changed since a parent; [`restore()`] fills an image or a device; [`verify()`] compares
//! one with what is stored; [`store_stream()`] and [`read_stream()`] do the same for streams. [`VolumeReader`] reads either at
//! any place, as a block device is read. All of them need memory that does not depend on the size of the volume.

mod access;
mod backup;
mod changes;
mod check;
mod error;
mod execute;
mod image;
mod map;
mod plan;
mod restore;
mod segment;
mod stream;
mod verify;

pub use self::access::{Allocation, BlobCache, CacheError, DiskCache, Stretch, VolumeReader};
pub use self::backup::{BackupOptions, Parent, VolumeSummary, backup};
pub use self::changes::{Changes, ChangesError};
pub use self::check::check;
pub use self::error::Error;
pub use self::image::image_size;
pub use self::map::Map;
pub use self::restore::{RestoreOptions, RestoreSummary, restore};
pub use self::segment::Segment;
pub use self::stream::{StreamSummary, read_stream, store_stream, stretches};
pub use self::verify::{Difference, VerifySummary, verify};

use crate::ids::BlobRef;
use crate::tree::entry::Extent;
use std::collections::HashSet;
use std::ops::Range;

/// Bytes of a segment.
pub const SEGMENT_LEN: u64 = 1 << 30;
/// Bytes of a part: what is stored as one blob when all of it is new. At a mebibyte a random change of 5 % of the blocks would cost the
/// whole volume, at 16 KiB the map would be an eightieth of the data.
pub const PART_LEN: u64 = 64 << 10;
/// Bytes of a block: the least that changes.
pub const BLOCK_LEN: u64 = 4 << 10;

/// Bytes of a volume, or of a stream.
type Span = Range<u64>;

fn span_of(extent: &Extent) -> Span {
    extent.file_offset..extent.file_offset + u64::from(extent.len)
}

fn span_len(span: &Span) -> u64 {
    span.end - span.start
}

/// What two spans have in common; empty where they have nothing.
fn common(a: &Span, b: &Span) -> Span {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The piece of an extent that lies in `span`, which is within it.
fn piece(extent: &Extent, span: &Span) -> Extent {
    let before = narrow(span.start - extent.file_offset);
    Extent {
        file_offset: span.start,
        len: narrow(span_len(span)),
        blob_offset: extent.blob_offset + before,
        blob: extent.blob,
    }
}

/// Whether an extent is a blob as a whole, so that the id of the blob tells its content.
fn is_whole(extent: &Extent) -> bool {
    extent.blob_offset == 0 && extent.len == extent.blob.plain_len
}

fn narrow(len: u64) -> u32 {
    u32::try_from(len).expect("parts and extents are far shorter than 4 GiB")
}

/// The different blobs of a segment, by the first bytes of their ids: two that share these only make the sum a little wrong, and a segment
/// has at most 262,144.
#[derive(Default)]
pub(crate) struct Blobs {
    seen: HashSet<u64>,
    /// Their plain bytes.
    pub(crate) bytes: u64,
}

impl Blobs {
    pub(crate) fn add(&mut self, blob: &BlobRef) {
        self.add_known(Self::begin_of(blob), blob.plain_len);
    }

    /// Adds a blob of which only the begin of the id is known.
    pub(crate) fn add_known(&mut self, begin: u64, plain_len: u32) {
        if self.seen.insert(begin) {
            self.bytes += u64::from(plain_len);
        }
    }

    /// The first bytes of the id of a blob.
    pub(crate) fn begin_of(blob: &BlobRef) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = blob.id.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The different blobs of some extents.
fn blobs_of(extents: &[Extent]) -> Vec<BlobRef> {
    let mut blobs: Vec<_> = extents.iter().map(|extent| extent.blob).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}
