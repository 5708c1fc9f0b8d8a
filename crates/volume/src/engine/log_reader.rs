//! Reading the log when a pool is opened: a window of it at a time, since it may be as long as all memory that an open pool is to take.

use super::replay::{Changes, Replayed};
use super::world::{Rule, World};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::layout::LOG_START;
use crate::format::record::{self, Change, Found, MOST_RECORD, Packed};
use crate::format::superblock::Superblock;
use crate::memory::Buffer;
use crate::units::{BLOCK_BYTES, Place, Run};

use super::io::verify;

/// Bytes of the log that are in memory at once: a few dozen of the longest records, so that a disk is read in large pieces.
const WINDOW: usize = 1 << 20;

/// The log on the disk.
struct Reader<'a> {
    disk: &'a dyn Disk,
    superblock: &'a Superblock,
    /// Bytes of the log.
    len: u64,
    window: Buffer,
    /// Where the window begins, from the begin of the log; none before the first reading.
    begin: Option<u64>,
}

impl<'a> Reader<'a> {
    fn new(disk: &'a dyn Disk, superblock: &'a Superblock) -> Self {
        Self { disk, superblock, len: superblock.log_bytes(), window: Buffer::zeroed(WINDOW), begin: None }
    }

    fn unit(&self) -> usize {
        self.superblock.log_unit as usize
    }

    /// The whole record of this pool that begins there, if there is one.
    fn find(&mut self, at: u64) -> Result<Option<Found>, OpenError> {
        let most = usize::try_from(self.len - at).unwrap_or(MOST_RECORD).min(MOST_RECORD);
        let is_in = |begin: u64| begin <= at && at + most as u64 <= begin + WINDOW as u64;
        let begin = match self.begin.filter(|begin| is_in(*begin)) {
            Some(begin) => begin,
            None => self.move_to(at)?,
        };
        let here = usize::try_from(at - begin).unwrap_or(0);
        let pool = u64::from_le_bytes(std::array::from_fn(|i| self.superblock.pool[i]));
        let found = record::find(&self.window[here..here + most], self.unit());
        Ok(found.filter(|found| found.header.pool == pool))
    }

    /// Has the window begin with the block there, or before where the log ends sooner.
    fn move_to(&mut self, at: u64) -> Result<u64, OpenError> {
        let begin = at / BLOCK_BYTES * BLOCK_BYTES;
        let len = usize::try_from(self.len - begin).unwrap_or(WINDOW).min(WINDOW);
        self.begin = None;
        let offset = LOG_START * BLOCK_BYTES + begin;
        self.disk.read(offset, &mut self.window[..len]).map_err(OpenError::disk("read the log"))?;
        self.begin = Some(begin);
        Ok(begin)
    }
}

/// Reads the log: what follows the checkpoint without a gap, and what is lost of it.
pub(super) fn load_log<W: World>(
    disk: &dyn Disk,
    superblock: &Superblock,
) -> Result<(Replayed, Option<String>), OpenError> {
    let mut reader = Reader::new(disk, superblock);
    let mut sequence = superblock.replay_sequence;
    let mut at = superblock.replay_offset;
    let mut records: Vec<Packed> = Vec::new();
    let mut durable = None;
    loop {
        let is_next = |found: &Found| {
            let is_current = found.header.generation == superblock.generation || !W::keeps(Rule::NewGeneration);
            is_current && found.header.sequence == sequence
        };
        let (begin, found) = match reader.find(at)?.filter(is_next) {
            Some(found) => (at, found),
            None if at == 0 => break,
            None => match reader.find(0)?.filter(is_next) {
                Some(found) => (0, found),
                None => break,
            },
        };
        at = (begin + found.len as u64) % reader.len;
        sequence += 1;
        durable = Some(found.header.durable);
        records.push(record::pack(&found.changes));
    }
    let lost = look_for_lost(&mut reader, sequence)?;
    let durable = durable.unwrap_or(sequence);
    let mut changes = Changes::default();
    for (number, packed) in (superblock.replay_sequence..).zip(records) {
        if number < durable || !W::keeps(Rule::CheckReplayed) {
            changes.push(packed);
            continue;
        }
        let there = record::unpack(&packed).flat_map(|change| whole(disk, superblock.blocks, change));
        changes.push(record::pack(&there.collect::<Vec<_>>()));
    }
    Ok((Replayed { changes, offset: at, sequence }, lost))
}

/// Records that follow a gap, and tell that what is in the gap was durable once: then it is damage and no end.
fn look_for_lost(reader: &mut Reader<'_>, end: u64) -> Result<Option<String>, OpenError> {
    let superblock = reader.superblock;
    for at in (0..reader.len).step_by(reader.unit()) {
        let Some(Found { header, .. }) = reader.find(at)? else { continue };
        if header.checkpoint > superblock.checkpoint || header.generation > superblock.generation {
            return Ok(Some(format!("the superblock of checkpoint {} or a later one", header.checkpoint)));
        }
        if header.generation == superblock.generation && header.sequence > end && header.durable > end {
            return Ok(Some(format!("record {end} of the log, which was flushed,")));
        }
    }
    Ok(None)
}

/// What of a write that was perhaps never flushed is there.
fn whole(disk: &dyn Disk, blocks: u64, change: Change) -> Vec<Change> {
    let Change::Write { volume, start, run, sums } = change else { return vec![change] };
    let mut pieces: Vec<Change> = Vec::new();
    let mut joins = false;
    for (i, sum) in sums.into_iter().enumerate() {
        let place = Place(run.start.0 + i as u64);
        if place.0 >= blocks || !verify(disk, &[(place, sum)]).is_empty() {
            joins = false;
            continue;
        }
        match pieces.last_mut() {
            Some(Change::Write { run, sums, .. }) if joins => {
                run.count += 1;
                sums.push(sum);
            }
            _ => pieces.push(Change::Write { volume, start: start + i as u64, run: Run::one(place), sums: vec![sum] }),
        }
        joins = true;
    }
    pieces
}
