//! What a replica has promised, in a small volume beside its bytes. The bytes are in `docs/formats/replica-record.md`.
//!
//! The volume has two slots, which are written one after the other, each durably: so one of them is whole at any instant, and when a promise is made both have it,
//! and the loss of a block loses nothing.

use super::StoreError;
use super::births::{Births, MOST};
use block::Buffer;
use replication::replica::store::Promise;
use replication::units::{AttachmentId, Epoch, Incarnation, ReplicaId, VolumeId};
use std::collections::BTreeSet;
use std::sync::mpsc;
use volume::{BLOCK, Pool, State};

const MAGIC: &[u8; 8] = b"orlopRep";
const VERSION: u32 = 1;
const SLOT_BLOCKS: u64 = 4;
const SLOT_BYTES: usize = 4 * BLOCK;
/// Where the births begin.
const BIRTHS: usize = 96;
/// Blocks of the volume.
pub(super) const BLOCKS: u64 = 2 * SLOT_BLOCKS;

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) volume: VolumeId,
    pub(super) replica: ReplicaId,
    pub(super) promise: Promise,
    pub(super) births: Births,
}

/// Where records are written.
#[derive(Debug)]
pub(super) struct Slots {
    volume: volume::VolumeId,
    generation: u64,
}

impl Slots {
    /// Reads what is recorded; nothing if nothing ever was.
    pub(super) fn open(pool: &Pool<Buffer>, volume: volume::VolumeId) -> Result<(Self, Option<Record>), StoreError> {
        let read = |slot: u64| {
            let (sender, receiver) = mpsc::channel();
            let answer = move |result| drop(sender.send(result));
            pool.read(State::Volume(volume), slot * SLOT_BLOCKS, Buffer::zeroed(SLOT_BYTES), answer);
            let bytes = receiver.recv().unwrap_or(Err(volume::Error::Closed))?;
            decode(&bytes)
        };
        let (mut newest, mut lost, mut generations) = (None, None, BTreeSet::new());
        for slot in 0..2 {
            match read(slot) {
                Ok(found) => {
                    generations.insert(found.as_ref().map(|(generation, _)| *generation));
                    newest = [newest, found].into_iter().flatten().max_by_key(|(generation, _)| *generation);
                }
                // A later program was stopped between the two. What the other slot has is older: taking it would undo what that program has promised.
                Err(newer @ StoreError::Newer(_)) => return Err(newer),
                Err(error) => lost = Some(error),
            }
        }
        match (newest, lost) {
            (Some((generation, record)), lost) => {
                let mut slots = Self { volume, generation };
                // What only one has is gone with that one; then what was promised after the other would be forgotten.
                if (lost.is_some() || generations.len() > 1)
                    && let Err(error) = slots.write(pool, &record)
                {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the record of a replica has one good copy, and no other can be written"
                    );
                }
                Ok((slots, Some(record)))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok((Self { volume, generation: 0 }, None)),
        }
    }

    /// Records this; it is durable when this returns.
    pub(super) fn write(&mut self, pool: &Pool<Buffer>, record: &Record) -> Result<(), volume::Error> {
        let generation = self.generation + 1;
        let bytes = encode(record, generation);
        for slot in 0..2 {
            let (sender, receiver) = mpsc::channel();
            let answer = move |result| drop(sender.send(result));
            pool.write(self.volume, slot * SLOT_BLOCKS, Buffer::copy_of(&bytes), true, answer);
            receiver.recv().unwrap_or(Err(volume::Error::Closed))?;
        }
        self.generation = generation;
        Ok(())
    }
}

fn encode(record: &Record, generation: u64) -> Vec<u8> {
    let Record { volume, replica, promise, births } = record;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(generation.to_le_bytes());
    bytes.extend(volume.0.to_le_bytes());
    bytes.extend(replica.0.to_le_bytes());
    bytes.extend(promise.epoch.0.to_le_bytes());
    bytes.extend(promise.attachment.map_or(0, |id| id.0).to_le_bytes());
    bytes.extend(promise.whole.map_or(0, |incarnation| incarnation.0).to_le_bytes());
    let flags = u32::from(promise.attachment.is_some()) | u32::from(promise.whole.is_some()) << 1;
    bytes.extend(flags.to_le_bytes());
    // At most a thousand.
    bytes.extend(u32::try_from(births.entries().len()).unwrap_or_default().to_le_bytes());
    for (birth, epoch) in births.entries() {
        bytes.extend(birth.0.to_le_bytes());
        bytes.extend(epoch.0.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

/// What a slot holds; nothing if it was never written.
fn decode(bytes: &[u8]) -> Result<Option<(u64, Record)>, StoreError> {
    let damaged = |what: &str| Err(StoreError::Damaged(what.to_owned()));
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if !bytes.starts_with(MAGIC) {
        return damaged("there is something else");
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(StoreError::Newer(version));
    }
    let count = usize::try_from(u32_at(bytes, 92)).unwrap_or(usize::MAX);
    if count > MOST {
        return damaged("it has more births than there can be");
    }
    let end = BIRTHS + 16 * count;
    if crc32c::crc32c(&bytes[16..end]) != u32_at(bytes, 12) {
        return damaged("the checksum is another");
    }
    let flags = u32_at(bytes, 88);
    let promise = Promise {
        epoch: Epoch(u64_at(bytes, 48)),
        attachment: (flags & 1 != 0).then(|| AttachmentId(u128_at(bytes, 56))),
        whole: (flags & 2 != 0).then(|| Incarnation(u128_at(bytes, 72))),
    };
    let entries = (BIRTHS..end).step_by(16).map(|at| (volume::Epoch(u64_at(bytes, at)), Epoch(u64_at(bytes, at + 8))));
    let Some(births) = Births::from_entries(entries.collect()) else { return damaged("its births do not grow") };
    let (volume, replica) = (VolumeId(u128_at(bytes, 24)), ReplicaId(u64_at(bytes, 40)));
    Ok(Some((u64_at(bytes, 16), Record { volume, replica, promise, births })))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(number(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(births: usize) -> Record {
        let mut all = Births::default();
        (1..=births as u64).for_each(|i| all.begin(volume::Epoch(3 * i), Epoch(2 * i)));
        let promise =
            Promise { epoch: Epoch(9), attachment: Some(AttachmentId(7)), whole: Some(Incarnation(u128::MAX)) };
        Record { volume: VolumeId(u128::MAX - 1), replica: ReplicaId(5), promise, births: all }
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_does_not() {
        let bare = Record { promise: Promise::default(), ..record(0) };
        for record in [record(0), record(1), record(MOST), bare] {
            let bytes = encode(&record, 4);
            assert_eq!(bytes.len(), SLOT_BYTES);
            assert_eq!(decode(&bytes).unwrap(), Some((4, record.clone())));
            let used = BIRTHS + 16 * record.births.entries().len();
            for at in (0..used).step_by(7).chain([8, 13, 92, used - 1]) {
                let mut bytes = bytes.clone();
                bytes[at] ^= 4;
                assert!(decode(&bytes).is_err(), "byte {at}");
            }
        }
        assert!(decode(&[0; SLOT_BYTES]).unwrap().is_none());
    }

    #[test]
    fn a_later_version_is_told() {
        let mut bytes = encode(&record(1), 1);
        bytes[8] = 2;
        assert!(matches!(decode(&bytes), Err(StoreError::Newer(2))));
    }
}
