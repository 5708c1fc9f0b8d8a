//! The store of one replica, with the properties of `replica::store` and no others: what was answered and not flushed may be lost with the power, block by
//! block; a flush makes durable what had been answered when it was asked, and nothing more.

use crate::message::Changed;
use crate::replica::store::{Operation, Outcome, Promise};
use crate::simulation::random::Random;
use crate::units::{Blocks, Digest, Epoch, SnapshotId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A block is eight bytes here: the number of the write.
pub(crate) const BLOCK_BYTES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    value: u64,
    birth: Epoch,
    /// When it was done, in the disk's own count.
    at: u64,
}

#[derive(Debug)]
pub(crate) struct Disk {
    /// Of each block what it may be after a loss of power, the current one last.
    blocks: Vec<Vec<Version>>,
    pub(crate) promise: Promise,
    pub(crate) snapshots: BTreeMap<(SnapshotId, Epoch), Vec<u64>>,
    count: u64,
    /// What cannot be read.
    pub(super) rotten: BTreeSet<u64>,
    pub(crate) is_full: bool,
    pub(crate) may_not_grow: bool,
    pub(super) is_slow: bool,
    pub(super) is_failing: bool,
}

impl Disk {
    pub(crate) fn new(blocks: u64) -> Self {
        Self {
            blocks: vec![nothing(); usize::try_from(blocks).unwrap()],
            promise: Promise::default(),
            snapshots: BTreeMap::new(),
            count: 0,
            rotten: BTreeSet::new(),
            is_full: false,
            may_not_grow: false,
            is_slow: false,
            is_failing: false,
        }
    }

    /// What a flush that is asked for now makes durable.
    pub(crate) fn mark(&self) -> u64 {
        self.count
    }

    pub(super) fn size(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(crate) fn value(&self, block: u64) -> u64 {
        self.blocks[usize::try_from(block).unwrap()].last().unwrap().value
    }

    pub(crate) fn perform(&mut self, operation: &Operation, mark: u64) -> Outcome {
        let changes =
            !matches!(operation, Operation::Read { .. } | Operation::Changed { .. } | Operation::Digest { .. });
        if self.is_failing && changes {
            return Outcome::Failed { reason: "it fails".into() };
        }
        match operation {
            Operation::Promise(promise) => {
                self.flush(mark);
                self.promise = *promise;
                Outcome::Done
            }
            Operation::Flush => {
                self.flush(mark);
                Outcome::Done
            }
            Operation::Write { blocks, data, birth } => {
                for (i, bytes) in data.chunks_exact(BLOCK_BYTES).enumerate() {
                    let value = u64::from_le_bytes(bytes.try_into().unwrap());
                    self.put(blocks.start + i as u64, value, *birth);
                }
                Outcome::Done
            }
            Operation::Discard { blocks, birth } => {
                (blocks.start..blocks.end()).for_each(|block| self.put(block, 0, *birth));
                Outcome::Done
            }
            Operation::Read { blocks } => self.read(*blocks).map_or_else(|e| e, Outcome::Data),
            Operation::Digest { blocks } => {
                self.read(*blocks).map_or_else(|e| e, |data| Outcome::Digest(digest(&data)))
            }
            Operation::Changed { since, from, most } => Outcome::Changed(self.changed(*since, *from, *most as usize)),
            Operation::Snapshot { .. } if self.is_full => Outcome::Refused { reason: "it is full".into() },
            Operation::Snapshot { id, epoch } => {
                self.flush(mark);
                let values = (0..self.size()).map(|block| self.value(block)).collect();
                self.snapshots.entry((*id, *epoch)).or_insert(values);
                Outcome::Done
            }
            Operation::Grow { .. } if self.may_not_grow => Outcome::Refused { reason: "it has no room".into() },
            Operation::Grow { blocks } => {
                let size = self.blocks.len().max(usize::try_from(*blocks).unwrap());
                self.blocks.resize_with(size, nothing);
                Outcome::Done
            }
        }
    }

    fn put(&mut self, block: u64, value: u64, birth: Epoch) {
        self.count += 1;
        self.rotten.remove(&block);
        self.blocks[usize::try_from(block).unwrap()].push(Version { value, birth, at: self.count });
    }

    fn flush(&mut self, mark: u64) {
        for versions in &mut self.blocks {
            let durable = versions.iter().rposition(|version| version.at <= mark).unwrap_or(0);
            versions.drain(..durable);
        }
    }

    fn read(&self, blocks: Blocks) -> Result<Bytes, Outcome> {
        if let Some(rotten) = self.rotten.range(blocks.start..blocks.end()).next() {
            return Err(Outcome::Damaged { blocks: Blocks { start: *rotten, count: 1 }, reason: "rotten".into() });
        }
        let values = (blocks.start..blocks.end()).flat_map(|block| self.value(block).to_le_bytes());
        Ok(values.collect::<Vec<u8>>().into())
    }

    fn changed(&self, since: Epoch, from: u64, most: usize) -> Changed {
        let mut changed = Changed::default();
        for block in from..self.blocks.len() as u64 {
            let birth = self.blocks[usize::try_from(block).unwrap()].last().unwrap().birth;
            if birth < since {
                continue;
            }
            let is_long = changed.ranges.len() == most;
            match changed.ranges.last_mut() {
                Some(last) if last.end() == block => last.count += 1,
                _ if is_long => {
                    changed.next = Some(block);
                    break;
                }
                _ => changed.ranges.push(Blocks { start: block, count: 1 }),
            }
        }
        changed
    }

    /// The power goes, and takes everything that is not durable.
    pub(crate) fn lose_all(&mut self) {
        self.blocks.iter_mut().for_each(|versions| versions.truncate(1));
    }

    /// The power goes: of each block that is kept which was durable, or anything that it became afterwards.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let keeps_most = random.chance(30);
        for versions in &mut self.blocks {
            let kept = if keeps_most && random.chance(80) { versions.len() - 1 } else { random.index(versions.len()) };
            let kept = versions[kept];
            *versions = vec![Version { at: 0, ..kept }];
        }
        self.is_failing = false;
    }
}

fn nothing() -> Vec<Version> {
    vec![Version { value: 0, birth: Epoch(0), at: 0 }]
}

/// Good enough where no enemy chooses the values.
fn digest(data: &[u8]) -> Digest {
    let hash = |seed: u64| data.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
    let (a, b) = (hash(0xCBF2_9CE4_8422_2325), hash(0x1234_5678_9ABC_DEF1));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes());
    Digest(bytes)
}
