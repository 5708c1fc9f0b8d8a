//! What lies where in a pool.
//!
//! A pool is cut into regions of 128 MiB, for each of which one page of bits tells which blocks are used. Eight blocks at the begin of each
//! region are set aside, so that a pool grows by appending regions and no map of free space ever needs to be moved:
//!
//! ```text
//! block of a region   0 1 2 3          4 5                 6 7              8 …
//!                     superblocks      directory pages     pages of bits    region 0: the log; then, and elsewhere: data and nodes
//!                     (region 0 only)  (every 512th region)
//! ```

use crate::units::{BLOCK_BYTES, Place, Run};

/// Blocks of a region: one bit each in a page.
pub(crate) const REGION: u64 = 32_768;
/// Blocks at the begin of each region that are never allocated.
pub(crate) const HEAD: u64 = 8;
/// Regions to a page of the directory.
pub(crate) const GROUP: u64 = 512;
/// Pages of the directory that a superblock has room for.
pub(crate) const MOST_GROUPS: u64 = 448;
/// The largest pool: 28 TiB.
pub(crate) const MOST_BLOCKS: u64 = REGION * GROUP * MOST_GROUPS;
/// The smallest pool: 4 MiB. Less leaves no room beside what is set aside.
pub(crate) const LEAST_BLOCKS: u64 = 1024;
/// The longest log: 64 MiB, so that it lies in the first region and is read at once when a pool is opened.
pub(crate) const MOST_LOG: u64 = 16_384;

/// The shortest log: 256 KiB. Records of a sixteenth of it have room for all that is written to a leaf at once.
pub(crate) const LEAST_LOG: u64 = 64;
/// Pages that the catalog may have, with sixteen volumes or snapshots each: 1,048,576 of them, which are all in memory.
pub(crate) const MOST_CATALOG_PAGES: u64 = 65_536;
/// How many changed nodes there may be at least, and at most, before a checkpoint.
pub(crate) const NODES: std::ops::RangeInclusive<u32> = 16..=1 << 20;
/// Counters of checkpoints, openings, records and ids stay below this, so that none can run over while a pool is open.
pub(crate) const MOST_COUNT: u64 = 1 << 62;
/// The same for epochs, which have 48 bits in maps.
pub(crate) const MOST_EPOCH: u64 = 1 << 47;

/// The longest log of a pool of this size: a quarter.
pub(crate) fn most_log(blocks: u64) -> u64 {
    MOST_LOG.min(blocks / 4)
}

/// The most changed nodes of a pool of this size: an eighth of its blocks.
pub(crate) fn most_nodes(blocks: u64) -> u32 {
    u32::try_from(blocks / 8).unwrap_or(u32::MAX).min(*NODES.end())
}

/// How many regions so many blocks are.
pub(crate) fn regions(blocks: u64) -> u64 {
    blocks.div_ceil(REGION)
}

/// Where the two copies of a superblock of this checkpoint lie; the checkpoints before and after it use the other two blocks.
pub(crate) fn superblocks(checkpoint: u64) -> Run {
    Run { start: Place(checkpoint % 2 * 2), count: 2 }
}

/// Where a page of the directory lies, in one of its two slots.
pub(crate) fn directory(group: u64, slot: u8) -> Place {
    Place(group * GROUP * REGION + 4 + u64::from(slot & 1))
}

/// Where the bits of a region lie, in one of two slots.
pub(crate) fn bits(region: u64, slot: u8) -> Place {
    Place(region * REGION + 6 + u64::from(slot & 1))
}

/// The first block of the log.
pub(crate) const LOG_START: u64 = HEAD;

/// How long the log of a pool of this size is unless something else is asked for: a sixteenth, from 256 KiB to 64 MiB.
pub(crate) fn usual_log(blocks: u64) -> u64 {
    (blocks / 16).clamp(LEAST_LOG, MOST_LOG)
}

/// How many changed nodes a pool of this size may hold in memory before it must make a checkpoint: up to 16 MiB. A checkpoint, and so a snapshot, goes
/// through all of them while everybody waits, which takes a microsecond each.
pub(crate) fn usual_nodes(blocks: u64) -> u32 {
    u32::try_from((blocks / 64).clamp(32, 4096)).unwrap_or(4096)
}

/// Whole blocks of a device of so many bytes.
pub(crate) fn blocks_of(bytes: u64) -> u64 {
    bytes / BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_lies_in_the_heads_of_regions() {
        for place in
            [superblocks(0).start, superblocks(1).start, directory(0, 1), bits(0, 0), bits(3, 1), directory(1, 0)]
        {
            assert!(place.0 % REGION < HEAD, "{place:?}");
        }
        assert_eq!(superblocks(1).end(), 4);
        assert_eq!(MOST_BLOCKS * BLOCK_BYTES, 28 << 40);
        const { assert!(LOG_START + MOST_LOG < REGION, "the log lies in the first region") };
        assert!(usual_log(LEAST_BLOCKS) + HEAD < LEAST_BLOCKS);
    }
}
