//! Nodes of the map: pages of 4 KiB, of which each entry names the page or block below it, when it was written, and its checksum.
//!
//! A leaf has 256 entries of 16 bytes, one for each block; an inner node has 64 entries of 64 bytes, which tell besides which children of
//! the node below were written in its last epoch. So what a snapshot changed is mostly read from the level above the leaves, a sixty-fourth of
//! the map, whatever the changes were strewn over.

use super::bytes::{get32, get48, get64, put32, put48, put64};
use crate::checksum;
use crate::units::{BLOCK, Epoch, Place};
use std::sync::Arc;

/// Blocks of a volume to a leaf: 1 MiB of it.
pub(crate) const LEAF_ENTRIES: usize = 256;
/// Nodes to an inner node.
pub(crate) const INNER_ENTRIES: usize = 64;
const LEAF_BYTES: usize = 16;
pub(crate) const INNER_BYTES: usize = 64;
/// Levels that a map may have: five inner ones over leaves are 1 PiB.
pub(crate) const MOST_LEVEL: u8 = 5;

/// A node as it is on disk and in memory; a shared one is copied when it is changed.
pub(crate) type Page = Arc<[u8; BLOCK]>;

/// What an entry of a leaf says of a block: where it lies, in which epoch it was written, and what its bytes sum up to. A block that is
/// nowhere reads as zeros; its epoch is then that in which it was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) birth: Epoch,
    pub(crate) sum: u32,
}

impl Entry {
    pub(crate) fn hole(birth: Epoch) -> Self {
        Self { place: Place::NOWHERE, birth, sum: 0 }
    }

    fn get(bytes: &[u8], at: usize) -> Self {
        Self { place: Place(get48(bytes, at)), birth: Epoch(get48(bytes, at + 6)), sum: get32(bytes, at + 12) }
    }

    fn put(self, bytes: &mut [u8], at: usize) {
        put48(bytes, at, self.place.0);
        put48(bytes, at + 6, self.birth.0);
        put32(bytes, at + 12, self.sum);
    }
}

/// What an entry of an inner node says of the node below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// Where the node lies and its sum. Its birth is the epoch in which it was written, and nothing below it is younger. If it is nowhere,
    /// all below it are holes of this birth.
    pub(crate) node: Entry,
    /// The youngest birth among the node's entries that are not in `fresh`.
    pub(crate) older: Epoch,
    /// Which entries of the node have its own birth, a bit for each.
    pub(crate) fresh: [u64; 4],
}

impl Pointer {
    pub(crate) const BYTES: usize = INNER_BYTES;

    pub(crate) fn hole(birth: Epoch) -> Self {
        Self { node: Entry::hole(birth), older: Epoch(0), fresh: [0; 4] }
    }

    pub(crate) fn get(bytes: &[u8], at: usize) -> Self {
        let fresh = std::array::from_fn(|i| get64(bytes, at + 24 + 8 * i));
        Self { node: Entry::get(bytes, at), older: Epoch(get48(bytes, at + 16)), fresh }
    }

    pub(crate) fn put(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + Self::BYTES].fill(0);
        self.node.put(bytes, at);
        put48(bytes, at + 16, self.older.0);
        for (i, word) in self.fresh.into_iter().enumerate() {
            put64(bytes, at + 24 + 8 * i, word);
        }
    }

    /// The pointer to a node that is written to this place in this epoch.
    pub(crate) fn to(page: &[u8; BLOCK], level: u8, place: Place, birth: Epoch) -> Self {
        let mut pointer =
            Self { node: Entry { place, birth, sum: checksum::of(page) }, older: Epoch(0), fresh: [0; 4] };
        for (index, entry) in page.chunks_exact(width(level)).enumerate() {
            let born = Epoch(get48(entry, 6));
            if born == birth {
                pointer.fresh[index / 64] |= 1 << (index % 64);
            } else {
                pointer.older = pointer.older.max(born);
            }
        }
        pointer
    }
}

/// How many entries a node of this level has.
pub(crate) fn entries(level: u8) -> usize {
    if level == 0 { LEAF_ENTRIES } else { INNER_ENTRIES }
}

/// How many blocks of a volume a node of this level stands for.
pub(crate) fn span(level: u8) -> u64 {
    (LEAF_ENTRIES as u64) << (6 * u32::from(level))
}

/// The level of the root of a map for so many blocks.
pub(crate) fn level_for(blocks: u64) -> u8 {
    (0..MOST_LEVEL).find(|level| span(*level) >= blocks).unwrap_or(MOST_LEVEL)
}

/// A node of which all is holes of one birth.
pub(crate) fn hollow(level: u8, birth: Epoch) -> Page {
    let mut page = [0; BLOCK];
    if birth != Epoch(0) {
        for index in 0..entries(level) {
            match level {
                0 => set_entry(&mut page, index, Entry::hole(birth)),
                _ => set_pointer(&mut page, index, Pointer::hole(birth)),
            }
        }
    }
    Arc::new(page)
}

/// The birth of all below, if the node is holes of one birth and nothing else.
pub(crate) fn hollow_birth(page: &[u8; BLOCK], level: u8) -> Option<Epoch> {
    let birth = get48(page, 6);
    // Both kinds of entries begin with the place and the birth.
    let is_hole = |entry: &[u8]| get48(entry, 0) == Place::NOWHERE.0 && get48(entry, 6) == birth;
    page.chunks_exact(width(level)).all(is_hole).then_some(Epoch(birth))
}

/// Bytes of an entry.
fn width(level: u8) -> usize {
    if level == 0 { LEAF_BYTES } else { INNER_BYTES }
}

pub(crate) fn entry(page: &[u8; BLOCK], index: usize) -> Entry {
    Entry::get(page, index * LEAF_BYTES)
}

pub(crate) fn set_entry(page: &mut [u8; BLOCK], index: usize, entry: Entry) {
    entry.put(page, index * LEAF_BYTES);
}

pub(crate) fn pointer(page: &[u8; BLOCK], index: usize) -> Pointer {
    Pointer::get(page, index * INNER_BYTES)
}

pub(crate) fn set_pointer(page: &mut [u8; BLOCK], index: usize, pointer: Pointer) {
    pointer.put(page, index * INNER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fill_pages_exactly() {
        assert_eq!(LEAF_ENTRIES * LEAF_BYTES, BLOCK);
        assert_eq!(INNER_ENTRIES * INNER_BYTES, BLOCK);
        assert_eq!((span(0), span(1), span(5)), (256, 16_384, 256 << 30));
        assert_eq!((level_for(1), level_for(256), level_for(257), level_for(1 << 20)), (0, 0, 1, 2));
    }

    #[test]
    fn what_is_put_is_got() {
        let mut page = [0xFF; BLOCK];
        let node = Entry { place: Place(0xFEDC_BA98_7654), birth: Epoch(0x1234_5678_9ABC), sum: 0xDEAD_BEEF };
        set_entry(&mut page, 255, node);
        assert_eq!(entry(&page, 255), node);
        let put = Pointer { node, older: Epoch(77), fresh: [1, u64::MAX, 3, 1 << 63] };
        set_pointer(&mut page, 63, put);
        assert_eq!(pointer(&page, 63), put);
        assert_eq!(page[BLOCK - 8..], [0; 8], "what is reserved is zeros");
    }

    #[test]
    fn a_pointer_tells_which_children_are_fresh() {
        let mut page = *hollow(0, Epoch(3));
        set_entry(&mut page, 70, Entry { place: Place(9), birth: Epoch(8), sum: 1 });
        let pointer = Pointer::to(&page, 0, Place(50), Epoch(8));
        assert_eq!((pointer.older, pointer.fresh), (Epoch(3), [0, 1 << 6, 0, 0]));
        assert_eq!(hollow_birth(&page, 0), None);
        assert_eq!(hollow_birth(&hollow(2, Epoch(9)), 2), Some(Epoch(9)));
    }
}
