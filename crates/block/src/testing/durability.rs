//! What a loss of power must leave, and devices that break that.
//!
//! The fault: the device loses its power when nobody is being answered, and comes back with what it had made durable. Of each block it then
//! has the last that was promised, by a flush after it or by a durable request, or something that was written since then; never a part of it,
//! and nothing older.

use super::{flush, read, write, write_zeroes};
use crate::{Buffer, ContextQuery, Description, Device, Done, Failure, PAGE, Status, ZeroMode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ops::Range;
use std::sync::Arc;

/// Requests of one run, among which about a tenth are losses of power.
const STEPS: u64 = 400;
/// Blocks that are written; few, so that each is often written again.
const BLOCKS: usize = 48;
/// Blocks of one request.
const LONGEST: usize = 12;

/// Writes, flushes and crashes; each time, what is there must be what was promised. The device, of which the first blocks are zeros, may be a
/// front end of the one that crashes.
///
/// # Errors
///
/// Which promise was broken.
pub fn check_durability(device: &dyn Device, crash: impl Fn(), seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let said = |what: &'static str| move |failure: Failure| format!("{what}: {failure}");
    let features = device.describe().map_err(said("describe"))?.features;
    let mut promises = Promises::new();
    for step in 1..=STEPS {
        let blocks = any_blocks(&mut random);
        let range = (blocks.start * PAGE) as u64..(blocks.end * PAGE) as u64;
        let durable = features.durable_writes && random.random_range(0..3) == 0;
        match random.random_range(0..10) {
            0 => {
                crash();
                let bytes = read(device, 0..(BLOCKS * PAGE) as u64).map_err(said("read"))?;
                promises.look(&bytes).map_err(|broken| format!("step {step}: {broken}"))?;
            }
            1 => {
                flush(device).map_err(said("flush"))?;
                promises.flush();
            }
            2 if features.write_zeroes => {
                let mode = ZeroMode { durable, keep_allocated: random.random() };
                write_zeroes(device, range, mode).map_err(said("write zeros"))?;
                promises.write(blocks, 0, durable);
            }
            _ => {
                let bytes = stamped(step, blocks.len());
                write(device, range.start, &bytes, durable).map_err(said("write"))?;
                promises.write(blocks, step, durable);
            }
        }
    }
    Ok(())
}

fn any_blocks(random: &mut StdRng) -> Range<usize> {
    let len = random.random_range(1..=LONGEST);
    let start = random.random_range(0..=BLOCKS - len);
    start..start + len
}

/// Blocks that say over and over which step wrote them.
fn stamped(stamp: u64, blocks: usize) -> Vec<u8> {
    stamp.to_le_bytes().repeat(blocks * PAGE / 8)
}

/// What each block may be.
struct Promises(Vec<Block>);

#[derive(Clone, Default)]
struct Block {
    durable: u64,
    /// What was written after that, in order.
    since: Vec<u64>,
}

impl Promises {
    fn new() -> Self {
        Self(vec![Block::default(); BLOCKS])
    }

    fn write(&mut self, blocks: Range<usize>, stamp: u64, durable: bool) {
        for block in &mut self.0[blocks] {
            if durable {
                *block = Block { durable: stamp, since: Vec::new() };
            } else {
                block.since.push(stamp);
            }
        }
    }

    fn flush(&mut self) {
        for block in &mut self.0 {
            block.durable = block.since.last().copied().unwrap_or(block.durable);
            block.since.clear();
        }
    }

    /// After a crash: what is there is durable from now on.
    fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        for (number, (block, found)) in self.0.iter_mut().zip(bytes.chunks(PAGE)).enumerate() {
            let (Block { durable, since }, stamps) = (&*block, found.as_chunks::<8>().0);
            let stamp = u64::from_le_bytes(stamps[0]);
            if stamps.iter().any(|other| *other != stamps[0]) {
                return Err(format!(
                    "block {number} is torn: it begins as step {stamp} wrote it, and goes on otherwise"
                ));
            }
            if stamp != *durable && !since.contains(&stamp) {
                let rest = format!("and step {durable} was durable; since then: {since:?}");
                return Err(format!("block {number} is as step {stamp} wrote it, {rest}"));
            }
            *block = Block { durable: stamp, since: Vec::new() };
        }
        Ok(())
    }
}

/// What a device must do so that nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Make durable what was written when it is flushed.
    Flush,
    /// Make durable what is asked to be durable by itself.
    DurableRequests,
}

/// A device that says that it does everything, and forgets one duty: for tests that must notice.
#[derive(Debug)]
pub struct Forgetful<D>(pub Arc<D>, pub Duty);

impl<D> Forgetful<D> {
    fn heeds(&self, durable: bool) -> bool {
        durable && self.1 != Duty::DurableRequests
    }
}

impl<D: Device> Device for Forgetful<D> {
    fn describe(&self) -> Result<Description, Failure> {
        self.0.describe()
    }

    fn read(&self, offset: u64, buffer: Buffer, done: Done<Buffer>) {
        self.0.read(offset, buffer, done);
    }

    fn write(&self, offset: u64, bytes: Buffer, durable: bool, done: Done<()>) {
        self.0.write(offset, bytes, self.heeds(durable), done);
    }

    fn flush(&self, done: Done<()>) {
        match self.1 {
            Duty::Flush => done.ok(()),
            Duty::DurableRequests => self.0.flush(done),
        }
    }

    fn discard(&self, range: Range<u64>, durable: bool, done: Done<()>) {
        self.0.discard(range, self.heeds(durable), done);
    }

    fn write_zeroes(&self, range: Range<u64>, mode: ZeroMode, done: Done<()>) {
        self.0.write_zeroes(range, ZeroMode { durable: self.heeds(mode.durable), ..mode }, done);
    }

    fn contexts(&self, query: ContextQuery<'_>, most: usize) -> Result<Vec<String>, Failure> {
        self.0.contexts(query, most)
    }

    fn block_status(&self, context: &str, range: Range<u64>, most: usize, done: Done<Vec<Status>>) {
        self.0.block_status(context, range, most, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_was_durable_or_what_was_written_since_and_whole() {
        let mut promises = Promises::new();
        let mut bytes = stamped(0, BLOCKS);
        promises.write(0..2, 1, true);
        assert!(promises.look(&bytes).is_err(), "what was durable is gone");
        bytes[..2 * PAGE].copy_from_slice(&stamped(1, 2));
        promises.write(0..1, 2, false);
        promises.look(&bytes).unwrap();
        // It was lost, and stays so.
        bytes[..PAGE].copy_from_slice(&stamped(2, 1));
        assert!(promises.look(&bytes).is_err());
        promises.write(0..1, 2, false);
        promises.write(0..1, 3, false);
        bytes[PAGE / 2..PAGE].copy_from_slice(&stamped(3, 1)[PAGE / 2..]);
        assert!(promises.look(&bytes).unwrap_err().contains("torn"));
        promises.flush();
        bytes[..PAGE].copy_from_slice(&stamped(2, 1));
        assert!(promises.look(&bytes).is_err(), "the last before a flush is what counts");
        bytes[..PAGE].copy_from_slice(&stamped(3, 1));
        promises.look(&bytes).unwrap();
    }
}
