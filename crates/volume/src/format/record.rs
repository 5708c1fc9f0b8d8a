//! Records of the log: which blocks of volumes were written, and where their bytes already lie.

use super::bytes::{get16, get32, get64, put16, put32, put64};
use crate::checksum;
use crate::units::{MOST_48, Place, Run, VolumeId};

const MAGIC: u32 = u32::from_le_bytes(*b"OLRC");
/// Bytes before the entries.
pub(crate) const HEADER: usize = 64;
/// The longest record.
pub(crate) const MOST_RECORD: usize = 32 << 10;
/// Blocks of one entry that tells of a write: those of a leaf.
pub(crate) const MOST_WRITTEN: u32 = 256;
const SUM_AT: usize = 8;
const WRITE: u8 = 1;
const DISCARD: u8 = 2;
const WRITE_BYTES: usize = 32;
const DISCARD_BYTES: usize = 24;

/// A change of a volume's map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// These blocks of the volume are in this run, and their bytes sum up to this.
    Write { volume: VolumeId, start: u64, run: Run, sums: Vec<u32> },
    /// These blocks read as zeros.
    Discard { volume: VolumeId, start: u64, count: u32 },
}

impl Change {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Write { sums, .. } => WRITE_BYTES + 4 * sums.len(),
            Self::Discard { .. } => DISCARD_BYTES,
        }
    }

    /// Of how many blocks of data it tells.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Self::Write { run, .. } => run.count.into(),
            Self::Discard { .. } => 0,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let at = out.len();
        match self {
            Self::Write { volume, start, run, sums } => {
                out.resize(at + WRITE_BYTES, 0);
                out[at] = WRITE;
                put16(out, at + 2, u16::try_from(run.count).unwrap_or(0));
                put64(out, at + 8, volume.0);
                put64(out, at + 16, *start);
                put64(out, at + 24, run.start.0);
                out.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
            }
            Self::Discard { volume, start, count } => {
                out.resize(at + DISCARD_BYTES, 0);
                out[at] = DISCARD;
                put32(out, at + 4, *count);
                put64(out, at + 8, volume.0);
                put64(out, at + 16, *start);
            }
        }
    }

    /// The change at the begin of the bytes, and how long it is.
    fn get(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.len() < DISCARD_BYTES {
            return None;
        }
        let (volume, start) = (VolumeId(get64(bytes, 8)), get64(bytes, 16));
        match bytes[0] {
            WRITE => {
                let count = u32::from(get16(bytes, 2));
                let len = WRITE_BYTES + 4 * count as usize;
                if bytes.len() < len || count == 0 || count > MOST_WRITTEN || start > MOST_48 {
                    return None;
                }
                let run = Run { start: Place(get64(bytes, 24)), count };
                let sums = (0..count as usize).map(|i| get32(bytes, WRITE_BYTES + 4 * i)).collect();
                (run.start.0 <= MOST_48).then_some((Self::Write { volume, start, run, sums }, len))
            }
            DISCARD if start <= MOST_48 => {
                Some((Self::Discard { volume, start, count: get32(bytes, 4) }, DISCARD_BYTES))
            }
            _ => None,
        }
    }
}

/// What stands before the changes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The begin of the pool's id: another pool's records on the same device are not taken for this one's.
    pub(crate) pool: u64,
    pub(crate) generation: u64,
    /// Follows that of the record before.
    pub(crate) sequence: u64,
    /// All records before this one were known to be durable.
    pub(crate) durable: u64,
    /// The last checkpoint that was known to be durable.
    pub(crate) checkpoint: u64,
}

/// The changes of a record that is not closed yet.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    count: u32,
}

impl Body {
    pub(crate) fn has_room(&self, len: usize) -> bool {
        HEADER + self.bytes.len() + len <= MOST_RECORD
    }

    pub(crate) fn push(&mut self, change: &Change) {
        change.put(&mut self.bytes);
        self.count += 1;
    }

    pub(crate) fn len(&self, unit: usize) -> usize {
        (HEADER + self.bytes.len()).next_multiple_of(unit)
    }

    /// Appends the record to the bytes, padded to a multiple of the unit.
    pub(crate) fn close(&self, header: Header, unit: usize, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + HEADER, 0);
        out.extend_from_slice(&self.bytes);
        out.resize(at + self.len(unit), 0);
        let record = &mut out[at..];
        put32(record, 0, MAGIC);
        put32(record, 4, u32::try_from(record.len()).unwrap_or(0));
        put32(record, 12, self.count);
        put64(record, 16, header.generation);
        put64(record, 24, header.sequence);
        put64(record, 32, header.durable);
        put64(record, 40, header.checkpoint);
        put64(record, 48, header.pool);
        put32(record, 56, u32::try_from(self.bytes.len()).unwrap_or(0));
        let sum = checksum::of_all_but(record, SUM_AT);
        put32(record, SUM_AT, sum);
    }
}

/// A record as it was found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) changes: Vec<Change>,
    /// Its length on disk.
    pub(crate) len: usize,
}

/// Changes as they lie in a record, which is less than half of what they take in memory otherwise.
pub(crate) type Packed = Box<[u8]>;

/// Changes, packed.
pub(crate) fn pack(changes: &[Change]) -> Packed {
    let mut bytes = Vec::with_capacity(changes.iter().map(Change::len).sum());
    changes.iter().for_each(|change| change.put(&mut bytes));
    bytes.into()
}

/// The changes that were packed, one after the other.
pub(crate) fn unpack(packed: &[u8]) -> impl Iterator<Item = Change> {
    let mut rest = packed;
    std::iter::from_fn(move || {
        let (change, len) = Change::get(rest)?;
        rest = &rest[len..];
        Some(change)
    })
}

/// The record at the begin of the bytes, if there is one and it is whole.
pub(crate) fn find(bytes: &[u8], unit: usize) -> Option<Found> {
    if bytes.len() < HEADER || get32(bytes, 0) != MAGIC {
        return None;
    }
    let len = get32(bytes, 4) as usize;
    if !(HEADER..=MOST_RECORD).contains(&len) || !len.is_multiple_of(unit) || len > bytes.len() {
        return None;
    }
    let record = &bytes[..len];
    if get32(record, SUM_AT) != checksum::of_all_but(record, SUM_AT) {
        return None;
    }
    let mut rest = record.get(HEADER..HEADER.checked_add(get32(record, 56) as usize)?)?;
    let count = get32(record, 12);
    let mut changes = Vec::new();
    for _ in 0..count {
        let (change, len) = Change::get(rest)?;
        changes.push(change);
        rest = &rest[len..];
    }
    let header = Header {
        generation: get64(record, 16),
        sequence: get64(record, 24),
        durable: get64(record, 32),
        checkpoint: get64(record, 40),
        pool: get64(record, 48),
    };
    rest.is_empty().then_some(Found { header, changes, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Header, Vec<Change>) {
        let header = Header { pool: 1, generation: 2, sequence: 3, durable: 2, checkpoint: 9 };
        let run = Run { start: Place(1 << 40), count: 3 };
        let write = Change::Write { volume: VolumeId(4), start: 77, run, sums: vec![1, 2, u32::MAX] };
        (header, vec![write, Change::Discard { volume: VolumeId(4), start: 1 << 47, count: 1 << 20 }])
    }

    fn encode() -> Vec<u8> {
        let (header, changes) = example();
        let mut body = Body::default();
        changes.iter().for_each(|change| body.push(change));
        let mut bytes = Vec::new();
        body.close(header, 512, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_found() {
        let (header, changes) = example();
        let mut bytes = encode();
        assert_eq!(bytes.len(), 512);
        bytes.extend([7; 100]);
        assert_eq!(find(&bytes, 512), Some(Found { header, changes, len: 512 }));
        assert_eq!(find(&bytes, 4096), None, "a length that is no multiple");
        assert_eq!(find(&bytes[..511], 512), None, "cut off");
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let (_, changes) = example();
        assert_eq!(unpack(&pack(&changes)).collect::<Vec<_>>(), changes);
        assert_eq!(unpack(&pack(&[])).count(), 0);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find(&flipped, 512), None, "bit {bit}");
        }
    }
}
