//! Pages that were found to be clean with everything below them, so that no other recovery point that has them costs a request.

use crate::ids::BlobRef;
use crate::references::Values;
use crate::tree::TreePath;
use std::collections::HashMap;

/// How many bytes of memory are taken for it; when they are used up, all of it is forgotten, and pages are read again.
const MAX_BYTES: usize = 64 << 20;
/// How many of these the blobs of leaves may take; leaves without them are read again in segments that have changed.
const MAX_BLOB_BYTES: usize = 32 << 20;
/// What one page takes without its variable parts.
const PAGE_BYTES: usize = 200;

/// What is known of a clean page.
#[derive(Debug, Clone)]
pub(super) struct Clean {
    pub(super) values: Values,
    /// Within which span its extents were found to lie.
    pub(super) span: (u64, u64),
    /// Entries of its leaves.
    pub(super) entries: u64,
    pub(super) exit: Exit,
    /// The blobs of a leaf of a segment: the begin of the id, and the plain length.
    pub(super) blobs: Option<Box<[(u64, u32)]>>,
    /// The sums that were found right when this was the root of a segment.
    pub(super) sums: Option<(u64, u64)>,
}

/// Where a walk is when it leaves a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exit {
    Nowhere,
    /// In this directory.
    Directory(TreePath),
    /// Past the extents up to here, of which these bytes are covered by this page.
    Extents {
        first: u64,
        end: u64,
        bytes: u64,
    },
}

/// The clean pages.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pages: HashMap<BlobRef, Clean>,
    bytes: usize,
    blob_bytes: usize,
}

impl Seen {
    pub(super) fn get(&self, blob: &BlobRef) -> Option<&Clean> {
        self.pages.get(blob)
    }

    pub(super) fn insert(&mut self, blob: BlobRef, mut clean: Clean) {
        let blob_bytes = clean.blobs.as_ref().map_or(0, |blobs| blobs.len() * 16);
        if self.blob_bytes + blob_bytes > MAX_BLOB_BYTES {
            clean.blobs = None;
        } else {
            self.blob_bytes += blob_bytes;
        }
        let path = if let Exit::Directory(path) = &clean.exit { path.as_key().len() } else { 0 };
        self.bytes += PAGE_BYTES + path;
        if self.bytes + self.blob_bytes > MAX_BYTES {
            *self = Self::default();
        }
        self.pages.insert(blob, clean);
    }
}
