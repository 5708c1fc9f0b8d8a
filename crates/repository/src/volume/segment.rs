//! The entry of a segment in the table of a volume.

use super::SEGMENT_LEN;
use crate::codec::{Fields, Malformed};
use crate::ids::TableRef;

/// A gibibyte of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Which.
    pub number: u32,
    /// Its extents.
    pub extents: TableRef,
    /// How many bytes these have.
    pub bytes: u64,
    /// How many plain bytes the different blobs of its extents have: what a restore of it must read.
    pub read: u64,
}

/// A segment is compacted when what must be read for it is more than this part of what it has: 20 incrementals later a restore still
/// costs less than half more than the first.
const MOST_READ: (u64, u64) = (11, 8);

impl Segment {
    /// Bytes of the key.
    pub const KEY_LEN: usize = 4;
    /// Bytes of the value.
    pub const VALUE_LEN: usize = TableRef::LEN + 16;

    /// Where in the volume it begins.
    #[must_use]
    pub fn start(&self) -> u64 {
        u64::from(self.number) * SEGMENT_LEN
    }

    /// Whether it is in so many pieces that it should be stored anew when it is written the next time.
    pub(super) fn is_scattered(&self) -> bool {
        self.read > self.bytes / MOST_READ.1 * MOST_READ.0
    }

    /// The key in the table of segments.
    #[must_use]
    pub fn encode_key(&self) -> [u8; Self::KEY_LEN] {
        self.number.to_be_bytes()
    }

    /// The value in the table of segments.
    #[must_use]
    pub fn encode_value(&self) -> [u8; Self::VALUE_LEN] {
        let mut value = [0; Self::VALUE_LEN];
        value[..TableRef::LEN].copy_from_slice(&self.extents.encode());
        value[TableRef::LEN..TableRef::LEN + 8].copy_from_slice(&self.bytes.to_le_bytes());
        value[TableRef::LEN + 8..].copy_from_slice(&self.read.to_le_bytes());
        value
    }

    /// Reads an entry of a table of segments.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(key);
        let number = u32::from_be_bytes(fields.array()?);
        fields.finish()?;
        let mut fields = Fields::new(value);
        let extents = TableRef::decode(&mut fields)?;
        let (bytes, read) = (fields.u64()?, fields.u64()?);
        fields.finish()?;
        Ok(Self { number, extents, bytes, read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> TableRef {
        TableRef::decode(&mut Fields::new(&[3; TableRef::LEN])).unwrap()
    }

    #[test]
    fn sizes_on_disk_are_fixed() {
        assert_eq!((Segment::KEY_LEN, Segment::VALUE_LEN), (4, 93));
    }

    #[test]
    fn a_segment_is_scattered_when_more_is_read_than_it_has() {
        let segment = |read| Segment { number: 0, extents: table(), bytes: 8000, read };
        assert!(!segment(8000).is_scattered() && !segment(11_000).is_scattered() && segment(11_001).is_scattered());
    }

    proptest! {
        #[test]
        fn segments_survive(number: u32, bytes: u64, read: u64) {
            let segment = Segment { number, extents: table(), bytes, read };
            prop_assert_eq!(Segment::decode(&segment.encode_key(), &segment.encode_value()), Ok(segment));
        }

        #[test]
        fn arbitrary_bytes_never_panic(key: Vec<u8>, value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Segment::decode(&key, &value);
        }
    }
}
