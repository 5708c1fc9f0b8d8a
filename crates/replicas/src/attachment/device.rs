//! An attached volume as a block device.

use super::owner::{Caller, Shared};
use block::{BlockSizes, Buffer, Description, Device, Done, Failure, FailureKind, Features, ZeroMode};
use bytes::Bytes;
use replication::attachment::Io;
use replication::units::Blocks;
use replication::wire::{BLOCK, MOST_DATA};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BLOCK_BYTES: u64 = BLOCK as u64;
/// Blocks that are discarded at once: 64 MiB.
const MOST_FORGOTTEN: u64 = 16 << 10;

/// The device of an attachment. It may outlive it; then everything that is asked of it fails.
#[derive(Clone)]
pub struct AttachedVolume(Arc<Shared>);

impl AttachedVolume {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn size(&self) -> u64 {
        self.0.blocks.load(Ordering::Acquire) * BLOCK_BYTES
    }

    /// The blocks of a range that lies within the volume.
    fn blocks(&self, start: u64, len: u64) -> Result<Blocks, Failure> {
        let size = self.size();
        let is_whole = start.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES) && len > 0;
        if !is_whole || start.checked_add(len).is_none_or(|end| end > size) {
            let message =
                format!("{len} bytes at {start} are no whole blocks of {BLOCK} bytes, or not of the volume's {size}");
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        Ok(Blocks { start: start / BLOCK_BYTES, count: len / BLOCK_BYTES })
    }

    /// The blocks of memory that is read or written, which has a bound.
    fn blocks_of(&self, start: u64, memory: &Buffer) -> Result<Blocks, Failure> {
        if memory.len() > MOST_DATA {
            let message =
                format!("{} bytes are more than one request may have here, which is {MOST_DATA}", memory.len());
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        self.blocks(start, memory.len() as u64)
    }

    fn forget(&self, range: &Range<u64>, durable: bool, done: Done<()>) {
        match self.blocks(range.start, range.end.saturating_sub(range.start)) {
            Ok(blocks) => forget(self.0.clone(), blocks, durable, done),
            Err(failure) => done.finish(Err(failure)),
        }
    }
}

/// Discards one part after the other. A range may be as long as the volume, and a replica that is busy with it for too long counts as late.
fn forget(shared: Arc<Shared>, blocks: Blocks, durable: bool, done: Done<()>) {
    let first = Blocks { start: blocks.start, count: blocks.count.min(MOST_FORGOTTEN) };
    let rest = Blocks { start: first.end(), count: blocks.count - first.count };
    let caller = match rest.count {
        0 => change(durable, done),
        _ => {
            let shared = shared.clone();
            Caller::Change(Done::new(move |result| match result {
                Ok(()) => forget(shared, rest, durable, done),
                failed @ Err(_) => done.finish(failed),
            }))
        }
    };
    shared.submit(Io::Discard { blocks: first }, caller);
}

fn change(durable: bool, done: Done<()>) -> Caller {
    if durable { Caller::Durable(done) } else { Caller::Change(done) }
}

impl Device for AttachedVolume {
    fn describe(&self) -> Result<Description, Failure> {
        // The length of the longest request fits.
        let maximum = u32::try_from(MOST_DATA).unwrap_or(u32::MAX);
        let blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum };
        Ok(Description { size: self.size(), blocks, features: Features::ALL })
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        match self.blocks_of(offset, &buffer) {
            Ok(blocks) => self.0.submit(Io::Read { blocks }, Caller::Read(buffer, done)),
            Err(failure) => done.finish(Err(failure)),
        }
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        match self.blocks_of(offset, &bytes) {
            Ok(blocks) => self.0.submit(Io::Write { blocks, data: Bytes::from_owner(bytes) }, change(durable, done)),
            Err(failure) => done.finish(Err(failure)),
        }
    }

    fn flush(&self, done: Done<()>) {
        self.0.submit(Io::Flush, Caller::Change(done));
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.forget(&range, durable, done);
    }

    /// No room is kept for zeros: pools are thin.
    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.forget(&range, mode.durable, done);
    }
}

impl fmt::Debug for AttachedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttachedVolume({:x}, {} bytes)", self.0.volume.0, self.size())
    }
}
