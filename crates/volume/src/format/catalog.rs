//! The slots of the catalog: one for each volume and each snapshot.

use super::bytes::{get64, put64};
use super::node::{MOST_LEVEL, Pointer, level_for, span};
use crate::units::{BLOCK, Epoch, MOST_48, SnapshotId, TreeId, VolumeId};

/// Bytes of a slot.
pub(crate) const SLOT: usize = 256;
/// Slots to a page.
pub(crate) const SLOTS: usize = BLOCK / SLOT;
/// The longest name, in bytes.
pub const MOST_NAME: usize = 127;
const NAME_AT: usize = 128;

/// Whether something is written to, and whether it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
}

/// What is recorded of a volume or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: TreeId,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Of a volume: the epoch in which what is written to it now is born. Of a snapshot: the last one that is in it.
    pub(crate) epoch: Epoch,
    /// The line of snapshots that it is in, named after the volume at its end.
    pub(crate) line: VolumeId,
    /// The snapshot that the line was cloned from.
    pub(crate) origin: Option<SnapshotId>,
    pub(crate) blocks: u64,
    pub(crate) level: u8,
    pub(crate) root: Pointer,
    /// It is being deleted: what it alone holds of the blocks before this one is free already.
    pub(crate) deleting: Option<u64>,
}

impl Record {
    pub(crate) fn put(&self, slot: &mut [u8]) {
        slot.fill(0);
        slot[0] = match self.kind {
            Kind::Volume => 1,
            Kind::Snapshot => 2,
        };
        slot[1] = u8::from(self.deleting.is_some());
        slot[2] = self.level;
        let name = &self.name.as_bytes()[..self.name.len().min(MOST_NAME)];
        slot[3] = u8::try_from(name.len()).unwrap_or(0);
        put64(slot, 8, self.id.0);
        put64(slot, 16, self.epoch.0);
        put64(slot, 24, self.line.0);
        put64(slot, 32, self.blocks);
        put64(slot, 40, self.deleting.unwrap_or(0));
        put64(slot, 48, self.origin.map_or(0, |origin| origin.0));
        self.root.put(slot, 64);
        slot[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    }

    /// Nothing in an empty slot; an error says what makes no sense in one.
    pub(crate) fn get(slot: &[u8]) -> Result<Option<Self>, &'static str> {
        let kind = match slot[0] {
            0 => return Ok(None),
            1 => Kind::Volume,
            2 => Kind::Snapshot,
            _ => return Err("a kind that is neither volume nor snapshot"),
        };
        let name = slot.get(NAME_AT..NAME_AT + usize::from(slot[3])).ok_or("a name that is too long")?;
        let record = Self {
            id: TreeId(get64(slot, 8)),
            kind,
            name: String::from_utf8(name.to_vec()).map_err(|_| "a name that is not UTF-8")?,
            epoch: Epoch(get64(slot, 16)),
            line: VolumeId(get64(slot, 24)),
            origin: Some(SnapshotId(get64(slot, 48))).filter(|origin| origin.0 != 0),
            blocks: get64(slot, 32),
            level: slot[2],
            root: Pointer::get(slot, 64),
            deleting: (slot[1] & 1 != 0).then(|| get64(slot, 40)),
        };
        let sizes = 1..=span(MOST_LEVEL);
        if record.level > MOST_LEVEL || record.level < level_for(record.blocks) || !sizes.contains(&record.blocks) {
            return Err("a size that its map does not have");
        }
        let stands =
            |passed: u64| passed == record.blocks || (passed < record.blocks && passed.is_multiple_of(span(0)));
        if record.deleting.is_some_and(|passed| !stands(passed)) {
            return Err("a deletion that has passed what it cannot have passed");
        }
        if record.name.is_empty() {
            return Err("no name");
        }
        if record.epoch.0 > MOST_48 || record.id == TreeId::CATALOG {
            return Err("an id or epoch that cannot be");
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Record {
        Record {
            id: TreeId(7),
            kind: Kind::Snapshot,
            name: "Sonntag früh".into(),
            epoch: Epoch(12),
            line: VolumeId(3),
            origin: Some(SnapshotId(2)),
            blocks: 1 << 20,
            level: 3,
            root: Pointer::hole(Epoch(4)),
            deleting: Some(512),
        }
    }

    #[test]
    fn what_is_put_is_got() {
        let mut slot = [0; SLOT];
        for record in [example(), Record { kind: Kind::Volume, origin: None, deleting: None, ..example() }] {
            record.put(&mut slot);
            assert_eq!(Record::get(&slot), Ok(Some(record)));
        }
        assert_eq!(Record::get(&[0; SLOT]), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let mut slot = [0; SLOT];
        for (at, byte) in [(0, 9), (2, 6), (2, 0), (3, 255), (NAME_AT, 0xFF), (23, 1), (40, 1), (3, 0)] {
            example().put(&mut slot);
            slot[at] = byte;
            assert!(Record::get(&slot).is_err(), "byte {at}");
        }
    }
}
