//! When the log is written for those who wait for it.
//!
//! A write of the log costs a sector however few changes are in it. Where sectors are small, it is written when as many wait as are still on their way: half a
//! batch goes ahead while the other half follows. Where a sector has room for all of them, it is also waited for the rest, or until the sector is little
//! beside the data that it tells of, so that what is asked for together costs one sector. Whoever asks alone never waits for others, and those who
//! wait for one that takes long go ahead without it when they are hurried, which whoever has a clock does.

use super::{Engine, World};
use crate::units::BLOCK_BYTES;

/// The longest data that others are kept waiting for, in blocks: 64 KiB. Beside longer ones, a sector of the log is little anyway.
const SHORT: u64 = 16;
/// Times that the data of a batch is as long as its records when they are little beside it.
const LITTLE: u64 = 32;
/// Sectors up to this length are little.
const SMALL_SECTOR: usize = 512;

/// Who is on the way to the batch of changes that comes next into the log.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Counts batches.
    batch: u64,
    /// Short writes whose data is on its way to the disk.
    short: usize,
    /// This batch has waited for long enough.
    hurried: bool,
    /// Waiting is for nothing: what is on the way is there at once, or held up by whoever is asked to wait.
    hasty: bool,
}

impl Company {
    pub(super) fn begin(&mut self, blocks: u64) {
        self.short += usize::from(blocks <= SHORT);
    }

    pub(super) fn end(&mut self, blocks: u64) {
        self.short -= usize::from(blocks <= SHORT);
    }

    /// The batch has got its place in the log.
    pub(super) fn close(&mut self) {
        self.batch += 1;
        self.hurried = false;
    }

    pub(super) fn hurry(&mut self, batch: u64) {
        self.hurried |= batch == self.batch;
    }
}

impl<W: World> Engine<W> {
    /// Has batches wait for no more company than is there: for disks that answer while they are asked.
    pub(crate) fn be_hasty(&mut self) {
        self.company.hasty = true;
    }

    /// Whether batches may wait for more company than is there.
    pub(crate) fn may_linger(&self) -> bool {
        !self.company.hasty && self.log.unit() > SMALL_SECTOR
    }

    /// Whether the log is to be written for those who wait.
    pub(super) fn is_due(&self) -> bool {
        if self.unlogged.is_empty() {
            return false;
        }
        let most_are_here = self.writing <= self.unlogged.len();
        let is_worth_it = || self.log.pending_blocks() * BLOCK_BYTES >= LITTLE * self.log.pending_len();
        let all_are_here = self.company.short == 0 || self.company.hurried || !self.may_linger();
        most_are_here && (all_are_here || is_worth_it())
    }

    /// The batch that would be written if it were hurried, or not long after.
    pub(super) fn lingers(&self) -> Option<u64> {
        let waits = self.failed.is_none() && !self.unlogged.is_empty() && self.log.has_pending();
        (waits && self.may_linger() && !self.company.hurried).then_some(self.company.batch)
    }
}
