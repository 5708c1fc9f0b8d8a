//! One page: its level and its entries in strictly ascending order of their keys.

use super::{MAX_HEIGHT, MAX_KEY_LEN, MAX_VALUE_LEN};
use crate::codec::{Fields, Malformed};
use crate::ids::BlobRef;
use bytes::Bytes;
use std::ops::Range;

/// Level, three zero bytes, number of entries.
const HEADER_LEN: usize = 8;
/// Lengths of key and value.
const ENTRY_HEADER_LEN: usize = 8;

/// A page is not cut before it has this many bytes of entries.
const MIN_PAGE_LEN: usize = 32 << 10;
/// A page is cut before an entry that would bring it beyond this many bytes of entries.
const MAX_PAGE_LEN: usize = 256 << 10;
/// Beyond the least length, an entry of `n` bytes ends a page with the probability `n` / this.
const MEAN_REST_LEN: u64 = 32 << 10;
/// An inner page has at least this many children, or the tree would not become narrower towards its root.
const MIN_CHILDREN: u32 = 2;

/// A page that is being filled.
#[derive(Debug)]
pub(super) struct PageBuilder {
    level: u8,
    count: u32,
    bytes: Vec<u8>,
    first_key: Option<Bytes>,
    ends_here: bool,
}

impl PageBuilder {
    pub(super) fn new(level: u8) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[0] = level;
        Self { level, count: 0, bytes, first_key: None, ends_here: false }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether the page ends before an entry of these lengths.
    pub(super) fn ends_before(&self, key: &[u8], value: &[u8]) -> bool {
        let len = self.bytes.len() - HEADER_LEN + ENTRY_HEADER_LEN + key.len() + value.len();
        self.may_end() && len > MAX_PAGE_LEN
    }

    /// Whether the page ends with the entry that was pushed last.
    pub(super) fn ends_here(&self) -> bool {
        self.ends_here
    }

    fn may_end(&self) -> bool {
        self.count >= if self.level == 0 { 1 } else { MIN_CHILDREN }
    }

    pub(super) fn push(&mut self, key: &Bytes, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&narrow(key.len()).to_le_bytes());
        self.bytes.extend_from_slice(&narrow(value.len()).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.count += 1;
        self.first_key.get_or_insert_with(|| key.clone());
        let full = self.bytes.len() - HEADER_LEN >= MIN_PAGE_LEN;
        self.ends_here = full && self.may_end() && is_boundary(key, self.bytes.len() - start);
    }

    /// Gives the page and its first key, which is empty for an empty page, and begins the next one.
    pub(super) fn take(&mut self) -> (Bytes, Bytes) {
        let mut full = std::mem::replace(self, Self::new(self.level));
        full.bytes[4..8].copy_from_slice(&full.count.to_le_bytes());
        (full.first_key.unwrap_or_default(), Bytes::from(full.bytes))
    }
}

/// Whether a page ends after this entry: by the hash of its key, more likely for longer entries, so that pages have about the
/// same length whatever the entries are.
fn is_boundary(key: &[u8], entry_len: usize) -> bool {
    let hash = blake3::hash(key);
    let [a, b, c, d, ..] = *hash.as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d])) * MEAN_REST_LEN < (entry_len as u64) << 32
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("the builder refuses longer keys and values")
}

/// A page that was read.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    level: u8,
    bytes: Bytes,
    entries: Vec<(Range<usize>, Range<usize>)>,
}

impl Page {
    /// Reads a page; its keys must ascend, and an inner page must hold references.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(&bytes);
        let level = fields.u8()?;
        fields.expect(&[0; 3], "reserved part of a page")?;
        if level > MAX_HEIGHT {
            return Err(Malformed::new(format!("no page has level {level}")));
        }
        let count = fields.count(ENTRY_HEADER_LEN)?;
        if level > 0 && count == 0 {
            return Err(Malformed::new("an inner page has no children"));
        }
        let mut entries: Vec<(Range<usize>, Range<usize>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (key_len, value_len) = (fields.u32()? as usize, fields.u32()? as usize);
            if key_len > MAX_KEY_LEN || value_len > MAX_VALUE_LEN || (level > 0 && value_len != BlobRef::LEN) {
                return Err(Malformed::new(format!("a page has a key of {key_len} and a value of {value_len} bytes")));
            }
            let start = bytes.len() - fields.remaining();
            let key = fields.bytes(key_len)?;
            fields.bytes(value_len)?;
            if entries.last().is_some_and(|(last, _)| bytes[last.clone()] >= *key) {
                return Err(Malformed::new("the keys of a page do not ascend"));
            }
            entries.push((start..start + key_len, start + key_len..start + key_len + value_len));
        }
        fields.finish()?;
        Ok(Self { level, bytes, entries })
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn key(&self, index: usize) -> &[u8] {
        &self.bytes[self.entries[index].0.clone()]
    }

    pub(crate) fn value(&self, index: usize) -> &[u8] {
        &self.bytes[self.entries[index].1.clone()]
    }

    /// An entry that shares the page's memory.
    pub(crate) fn entry(&self, index: usize) -> (Bytes, Bytes) {
        let (key, value) = &self.entries[index];
        (self.bytes.slice(key.clone()), self.bytes.slice(value.clone()))
    }

    /// How many entries have keys below `key`.
    pub(crate) fn count_below(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|(range, _)| self.bytes[range.clone()] < *key)
    }

    /// The child of an inner page that holds `key` if the table does: the last one that begins at or before it, or the first.
    pub(crate) fn child_index(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|(range, _)| self.bytes[range.clone()] <= *key).saturating_sub(1)
    }

    /// The reference to a child of an inner page.
    pub(crate) fn child(&self, index: usize) -> Result<BlobRef, Malformed> {
        BlobRef::decode(&mut Fields::new(self.value(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_survives() {
        let mut builder = PageBuilder::new(0);
        builder.push(&Bytes::from_static(b"a"), b"1");
        builder.push(&Bytes::from_static(b"b"), b"");
        let (first, bytes) = builder.take();
        let page = Page::decode(bytes).unwrap();
        assert_eq!((first.as_ref(), page.level(), page.len()), (&b"a"[..], 0, 2));
        assert_eq!((page.key(1), page.value(0), page.value(1)), (&b"b"[..], &b"1"[..], &b""[..]));
        assert_eq!((page.count_below(b"b"), page.child_index(b"0"), page.child_index(b"az")), (1, 0, 0));
        assert_eq!(builder.count(), 0);
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused() {
        for keys in [[b"b", b"a"], [b"a", b"a"]] {
            let mut builder = PageBuilder::new(0);
            for key in keys {
                builder.push(&Bytes::from_static(key), b"");
            }
            assert!(Page::decode(builder.take().1).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Page::decode(Bytes::from(bytes));
        }
    }
}
