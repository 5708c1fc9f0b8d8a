//! Where the records lie: in a volume of the pool that users do not see.
//!
//! The volume has two slots of 32 MiB, which are written one after the other with a flush in between: so one of them is whole at any instant, and when a
//! write is answered both have the same, and the loss of a block loses nothing. Slot *s* begins at byte *s* × 32 MiB with a block of its own:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `orlopRec` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | CRC-32C of bytes 16 to 32 of this block and of the JSON |
//! | 16 | 8 | generation: of two whole slots the one with the greater counts |
//! | 24 | 8 | length of the JSON, which follows in the next block |
//!
//! All numbers are little-endian. Which bytes JSON has in it is [`super::Records`]'.

use super::Records;
use block::Buffer;
use std::collections::BTreeSet;
use std::sync::mpsc;
use volume::{BLOCK, Pool, State, VolumeId};

/// The name of the volume. Names of users do not begin with a dot.
pub(crate) const NAME: &str = ".orlop";
const MAGIC: &[u8; 8] = b"orlopRec";
const VERSION: u32 = 1;
const SLOT_BLOCKS: u64 = (32 << 20) / BLOCK as u64;
/// The longest JSON: some hundred bytes for each volume and snapshot, so a hundred thousand of them have room.
const MOST_LEN: usize = (32 << 20) - BLOCK;

/// Why the records are not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordsError {
    #[error("use the volume {NAME} that has the records of the pool")]
    Store(#[from] volume::Error),
    #[error(
        "the records of the pool have version {0}, and this program reads version {VERSION}; use the program that wrote them, or a later one"
    )]
    Newer(u32),
    #[error("the records of the pool are damaged in both places: {0}; `orlop store check` tells more")]
    Damaged(String),
    #[error("the records of the pool would be longer than {MOST_LEN} bytes; delete snapshots that are not needed")]
    TooLong,
}

/// The volume with the records.
#[derive(Debug)]
pub(crate) struct Slots {
    volume: VolumeId,
    generation: u64,
}

impl Slots {
    /// Finds it, or makes it, and reads what is recorded.
    pub(crate) fn open(pool: &Pool<Buffer>) -> Result<(Self, Records), RecordsError> {
        let Some(volume) = pool.volumes().into_iter().find(|volume| volume.name == NAME) else {
            let volume = pool.create_volume(NAME, 2 * SLOT_BLOCKS)?;
            return Ok((Self { volume, generation: 0 }, Records::default()));
        };
        let volume = volume.id;
        let (mut newest, mut lost, mut generations): (Option<(u64, Records)>, _, _) = (None, None, BTreeSet::new());
        for slot in 0..2 {
            match read(pool, volume, slot) {
                Ok(found) => {
                    generations.insert(found.as_ref().map(|(generation, _)| *generation));
                    newest = newest.into_iter().chain(found).max_by_key(|(generation, _)| *generation);
                }
                // A later program was stopped between the two. What the other slot has is older: taking it would undo what that program was told to record.
                Err(newer @ RecordsError::Newer(_)) => return Err(newer),
                Err(error) => lost = Some(error),
            }
        }
        match (newest, lost) {
            (Some((generation, records)), lost) => {
                let mut slots = Self { volume, generation };
                // What only one has is gone with that one.
                if (lost.is_some() || generations.len() > 1)
                    && let Err(error) = slots.write(pool, &records)
                {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the list of a pool's volumes has one good copy, and no other can be written"
                    );
                }
                Ok((slots, records))
            }
            (None, Some(error)) => Err(error),
            // The volume was made, and nothing was recorded yet.
            (None, None) => Ok((Self { volume, generation: 0 }, Records::default())),
        }
    }

    /// Records this, durably.
    pub(crate) fn write(&mut self, pool: &Pool<Buffer>, records: &Records) -> Result<(), RecordsError> {
        let json = serde_json::to_vec(records).map_err(|error| RecordsError::Damaged(error.to_string()))?;
        if json.len() > MOST_LEN {
            return Err(RecordsError::TooLong);
        }
        let generation = self.generation + 1;
        let mut bytes = Buffer::zeroed((BLOCK + json.len()).next_multiple_of(BLOCK));
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&(json.len() as u64).to_le_bytes());
        let sum = checksum(&bytes[16..32], &json);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes[BLOCK..BLOCK + json.len()].copy_from_slice(&json);
        let copy = Buffer::copy_of(&bytes);
        for (slot, bytes) in [bytes, copy].into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel();
            let answer = move |result| drop(sender.send(result));
            pool.write(self.volume, slot as u64 * SLOT_BLOCKS, bytes, true, answer);
            receiver.recv().unwrap_or(Err(volume::Error::Closed))?;
        }
        self.generation = generation;
        Ok(())
    }
}

/// What a slot holds; nothing if it was never written.
fn read(pool: &Pool<Buffer>, volume: VolumeId, slot: u64) -> Result<Option<(u64, Records)>, RecordsError> {
    let damaged = |what: &str| Err(RecordsError::Damaged(what.to_owned()));
    let head = read_blocks(pool, volume, slot * SLOT_BLOCKS, 1)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if !head.starts_with(MAGIC) {
        return damaged("there is something else");
    }
    let number = |at: usize| head[at..at + 8].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let version = u32::try_from(number(8) & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    if version != VERSION {
        return Err(RecordsError::Newer(version));
    }
    let Some(len) = usize::try_from(number(24)).ok().filter(|len| *len <= MOST_LEN) else {
        return damaged("their length cannot be");
    };
    let body = read_blocks(pool, volume, slot * SLOT_BLOCKS + 1, len.div_ceil(BLOCK).max(1))?;
    let (sum, json) = (number(8) >> 32, &body[..len]);
    if u64::from(checksum(&head[16..32], json)) != sum {
        return damaged("the checksum is another");
    }
    match serde_json::from_slice(json) {
        Ok(records) => Ok(Some((number(16), records))),
        Err(error) => damaged(&error.to_string()),
    }
}

fn read_blocks(pool: &Pool<Buffer>, volume: VolumeId, start: u64, count: usize) -> Result<Buffer, volume::Error> {
    let (sender, receiver) = mpsc::channel();
    let answer = move |result| drop(sender.send(result));
    pool.read(State::Volume(volume), start, Buffer::zeroed(count * BLOCK), answer);
    receiver.recv().unwrap_or(Err(volume::Error::Closed))
}

fn checksum(head: &[u8], json: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use volume::{FileDisk, Options, Shape};

    /// A pool with records that were written twice: slots 0 and 1 of generation 2.
    fn pool(folder: &std::path::Path) -> Pool<Buffer> {
        let disk = FileDisk::create(&folder.join("pool"), 32 << 20).unwrap();
        volume::create(&disk, Shape { id: rand::random(), log_blocks: None, most_changed_nodes: None }).unwrap();
        let pool = Pool::open(Arc::new(disk), Options::default(), Box::new(|_| {})).unwrap();
        let (mut slots, mut records) = Slots::open(&pool).unwrap();
        slots.write(&pool, &records).unwrap();
        records.scrubbed = Some(7);
        slots.write(&pool, &records).unwrap();
        pool
    }

    /// Changes the first block of a slot, and gives what it was.
    fn change(pool: &Pool<Buffer>, slot: u64, change: impl FnOnce(&mut [u8])) -> Buffer {
        let volume = pool.volumes().into_iter().find(|volume| volume.name == NAME).unwrap().id;
        let before = read_blocks(pool, volume, slot * SLOT_BLOCKS, 1).unwrap();
        let mut bytes = Buffer::copy_of(&before);
        change(&mut bytes);
        let (sender, receiver) = mpsc::channel();
        pool.write(volume, slot * SLOT_BLOCKS, bytes, true, move |result| drop(sender.send(result)));
        receiver.recv().unwrap().unwrap();
        before
    }

    #[test]
    fn records_are_not_taken_beside_those_of_a_later_version() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(folder.path());
        for slot in 0..2 {
            let before = change(&pool, slot, |head| head[8..12].copy_from_slice(&2_u32.to_le_bytes()));
            let refused = Slots::open(&pool).map(|_| ());
            assert!(matches!(refused, Err(RecordsError::Newer(2))), "{refused:?} with slot {slot}");
            change(&pool, slot, |head| head.copy_from_slice(&before));
            assert_eq!(Slots::open(&pool).unwrap().1.scrubbed, Some(7));
        }
    }

    #[test]
    fn a_damaged_slot_is_mended_by_the_other_and_two_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(folder.path());
        for slot in 0..2 {
            change(&pool, slot, |head| head[16] ^= 1);
            assert_eq!(Slots::open(&pool).unwrap().1.scrubbed, Some(7), "and it is mended");
        }
        (0..2).for_each(|slot| drop(change(&pool, slot, |head| head[0] ^= 1)));
        let refused = Slots::open(&pool).map(|_| ());
        assert!(matches!(refused, Err(RecordsError::Damaged(_))), "{refused:?}");
    }
}
