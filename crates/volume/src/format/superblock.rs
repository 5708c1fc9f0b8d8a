//! The superblock: where everything else is found.

use super::bytes::{get16, get32, get64, put16, put32, put64};
use super::layout::{
    GROUP, LEAST_BLOCKS, LEAST_LOG, MOST_BLOCKS, MOST_CATALOG_PAGES, MOST_COUNT, MOST_EPOCH, NODES, most_log,
    most_nodes, regions,
};
use super::node::Pointer;
use crate::checksum;
use crate::units::BLOCK;

const MAGIC: &[u8; 8] = b"ORLOPVOL";
/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;
const SUM_AT: usize = 12;
const ROOT_AT: usize = 128;
const GROUPS_AT: usize = 512;
const CLEAN: u32 = 1;

/// Where the current version of a fixed page lies, and what it sums up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slot {
    pub(crate) sum: u32,
    /// Of a region: how many of its blocks are free. Of a group: unused.
    pub(crate) free: u16,
    /// Which of its two blocks holds it; none if it was never written, and then nothing of the region is used but its head.
    pub(crate) slot: Option<u8>,
}

impl Slot {
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn get(bytes: &[u8], at: usize) -> Self {
        let slot = bytes[at + 6].checked_sub(1).map(|slot| slot & 1);
        Self { sum: get32(bytes, at), free: get16(bytes, at + 4), slot }
    }

    pub(crate) fn put(self, bytes: &mut [u8], at: usize) {
        put32(bytes, at, self.sum);
        put16(bytes, at + 4, self.free);
        bytes[at + 6] = self.slot.map_or(0, |slot| slot + 1);
        bytes[at + 7] = 0;
    }

    /// The slot for the next version: never the one that holds the current one.
    pub(crate) fn other(self) -> u8 {
        self.slot.map_or(0, |slot| 1 - slot)
    }
}

/// The state of a pool as of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) pool: [u8; 16],
    /// Counts checkpoints.
    pub(crate) checkpoint: u64,
    /// Counts openings: what an earlier opening wrote into the log is none of this one's.
    pub(crate) generation: u64,
    pub(crate) blocks: u64,
    pub(crate) log_blocks: u64,
    /// What lengths and offsets in the log are multiples of, in bytes.
    pub(crate) log_unit: u32,
    /// The first record of the log that is not in this checkpoint.
    pub(crate) replay_sequence: u64,
    /// Where it lies or will lie, in bytes from the begin of the log.
    pub(crate) replay_offset: u64,
    pub(crate) next_id: u64,
    pub(crate) next_epoch: u64,
    /// How many changed nodes are at most in memory before a checkpoint.
    pub(crate) most_nodes: u32,
    /// Nothing was written after this checkpoint: the pool was closed.
    pub(crate) clean: bool,
    pub(crate) catalog_pages: u64,
    pub(crate) catalog_level: u8,
    pub(crate) catalog: Pointer,
    /// The pages of the directory.
    pub(crate) groups: Vec<Slot>,
}

/// Why a block is no superblock that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoSuperblock {
    /// The bytes are not those of a superblock.
    Absent,
    /// They were once.
    Damaged,
    /// It is one of a later version.
    Newer(u32),
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        bytes[..8].copy_from_slice(MAGIC);
        put32(&mut bytes, 8, VERSION);
        bytes[16..32].copy_from_slice(&self.pool);
        put64(&mut bytes, 32, self.checkpoint);
        put64(&mut bytes, 40, self.generation);
        put64(&mut bytes, 48, self.blocks);
        put64(&mut bytes, 56, self.log_blocks);
        put32(&mut bytes, 64, self.log_unit);
        put32(&mut bytes, 68, self.most_nodes);
        put64(&mut bytes, 72, self.replay_sequence);
        put64(&mut bytes, 80, self.replay_offset);
        put64(&mut bytes, 88, self.next_id);
        put64(&mut bytes, 96, self.next_epoch);
        put32(&mut bytes, 104, if self.clean { CLEAN } else { 0 });
        bytes[108] = self.catalog_level;
        put64(&mut bytes, 112, self.catalog_pages);
        self.catalog.put(&mut bytes, ROOT_AT);
        for (i, group) in self.groups.iter().enumerate() {
            group.put(&mut bytes, GROUPS_AT + i * Slot::BYTES);
        }
        let sum = checksum::of_all_but(&bytes, SUM_AT);
        put32(&mut bytes, SUM_AT, sum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; BLOCK]) -> Result<Self, NoSuperblock> {
        if &bytes[..8] != MAGIC {
            return Err(NoSuperblock::Absent);
        }
        // The sum is at the same place in every version, so that a damaged version is not taken for a later one.
        if get32(bytes, SUM_AT) != checksum::of_all_but(bytes, SUM_AT) {
            return Err(NoSuperblock::Damaged);
        }
        if get32(bytes, 8) > VERSION {
            return Err(NoSuperblock::Newer(get32(bytes, 8)));
        }
        let blocks = get64(bytes, 48);
        let groups = regions(blocks.min(MOST_BLOCKS)).div_ceil(GROUP);
        let group = |i| Slot::get(bytes, GROUPS_AT + i * Slot::BYTES);
        let superblock = Self {
            pool: std::array::from_fn(|i| bytes[16 + i]),
            checkpoint: get64(bytes, 32),
            generation: get64(bytes, 40),
            blocks,
            log_blocks: get64(bytes, 56),
            log_unit: get32(bytes, 64),
            most_nodes: get32(bytes, 68),
            replay_sequence: get64(bytes, 72),
            replay_offset: get64(bytes, 80),
            next_id: get64(bytes, 88),
            next_epoch: get64(bytes, 96),
            clean: get32(bytes, 104) & CLEAN != 0,
            catalog_level: bytes[108],
            catalog_pages: get64(bytes, 112),
            catalog: Pointer::get(bytes, ROOT_AT),
            groups: (0..usize::try_from(groups).unwrap_or(0)).map(group).collect(),
        };
        if superblock.is_sound() { Ok(superblock) } else { Err(NoSuperblock::Damaged) }
    }

    /// Whether its numbers can be worked with: what follows from here on relies on it.
    fn is_sound(&self) -> bool {
        let unit = u64::from(self.log_unit);
        let counts = [self.checkpoint, self.generation, self.replay_sequence, self.next_id];
        (LEAST_BLOCKS..=MOST_BLOCKS).contains(&self.blocks)
            && (LEAST_LOG..=most_log(self.blocks)).contains(&self.log_blocks)
            && [512, 4096].contains(&unit)
            && self.replay_offset < self.log_bytes()
            && self.replay_offset.is_multiple_of(unit)
            && counts.iter().all(|count| *count <= MOST_COUNT)
            && self.next_epoch <= MOST_EPOCH
            && (*NODES.start()..=most_nodes(self.blocks)).contains(&self.most_nodes)
            && self.catalog_level <= super::node::MOST_LEVEL
            && self.catalog_pages <= super::node::span(self.catalog_level).min(MOST_CATALOG_PAGES)
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_blocks * BLOCK as u64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::layout::MOST_GROUPS;
    use crate::units::Epoch;

    pub(crate) fn example() -> Superblock {
        Superblock {
            pool: *b"a pool of sixtee",
            checkpoint: 8,
            generation: 3,
            blocks: 40_000,
            log_blocks: 64,
            log_unit: 512,
            replay_sequence: 77,
            replay_offset: 1024,
            next_id: 5,
            next_epoch: 9,
            most_nodes: 64,
            clean: false,
            catalog_pages: 2,
            catalog_level: 0,
            catalog: Pointer::hole(Epoch(0)),
            groups: vec![Slot { sum: 1, free: 0, slot: Some(1) }],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let superblock = example();
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }

    #[test]
    fn there_is_room_for_every_page_of_the_directory() {
        assert!(GROUPS_AT + usize::try_from(MOST_GROUPS).unwrap() * Slot::BYTES <= BLOCK);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = example().encode();
        for bit in 0..BLOCK * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_and_numbers_that_make_no_sense_are_told_apart() {
        let mut bytes = example().encode();
        put32(&mut bytes, 8, VERSION + 1);
        let sum = checksum::of_all_but(&bytes, SUM_AT);
        put32(&mut bytes, SUM_AT, sum);
        assert_eq!(Superblock::decode(&bytes), Err(NoSuperblock::Newer(VERSION + 1)));
        let senseless = [
            Superblock { blocks: u64::MAX, ..example() },
            Superblock { log_blocks: u64::MAX / BLOCK as u64, ..example() },
            Superblock { replay_offset: 1 << 40, ..example() },
            Superblock { most_nodes: 15, ..example() },
            Superblock { most_nodes: 5001, ..example() },
            Superblock { log_blocks: 63, ..example() },
            Superblock { log_blocks: 10_001, ..example() },
            Superblock { blocks: 1023, log_blocks: 64, ..example() },
            Superblock { checkpoint: u64::MAX, ..example() },
            Superblock { generation: u64::MAX, ..example() },
            Superblock { replay_sequence: u64::MAX, ..example() },
            Superblock { next_id: u64::MAX, ..example() },
            Superblock { next_epoch: (1 << 48) - 1, ..example() },
            Superblock { catalog_pages: 65_537, catalog_level: 5, ..example() },
            Superblock { catalog_pages: u64::MAX, ..example() },
        ];
        for superblock in senseless {
            assert_eq!(Superblock::decode(&superblock.encode()), Err(NoSuperblock::Damaged), "{superblock:?}");
        }
    }
}
