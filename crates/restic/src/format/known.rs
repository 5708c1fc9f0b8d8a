//! Which blobs a repository has, in a file instead of in memory: a repository may have a hundred million.
//!
//! A table of slots of 32 bytes, open addressing, at most half full. An empty slot is all zeros, which no SHA-256 is in practice; the kernel
//! keeps in its cache what is looked at often.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Id;

/// How many slots a new table has.
const FIRST_SLOTS: u64 = 1 << 12;
/// Slots that are read at once when a table grows.
const SLOTS_AT_ONCE: usize = 4096;
const SLOT_LEN: u64 = Id::LEN as u64;
const EMPTY: [u8; Id::LEN] = [0; Id::LEN];

/// A set of blobs.
pub(super) struct Known {
    file: File,
    slots: u64,
    count: u64,
}

impl Known {
    /// An empty set, in a file that holds nothing.
    pub(super) fn new(file: File) -> io::Result<Self> {
        Self::of(file, FIRST_SLOTS)
    }

    fn of(file: File, slots: u64) -> io::Result<Self> {
        file.set_len(0)?;
        file.set_len(slots * SLOT_LEN)?;
        Ok(Self { file, slots, count: 0 })
    }

    /// Whether a blob is in it.
    pub(super) fn has(&self, id: &Id) -> io::Result<bool> {
        Ok(self.find(id)?.is_none())
    }

    /// Takes a blob in; `scratch` gives a new file when the table must grow.
    pub(super) fn insert(&mut self, id: &Id, scratch: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        if 2 * (self.count + 1) > self.slots {
            *self = self.grown(scratch()?)?;
        }
        if let Some(slot) = self.find(id)? {
            self.file.write_all_at(id.as_bytes(), slot * SLOT_LEN)?;
            self.count += 1;
        }
        Ok(())
    }

    /// The free slot for a blob; nothing if it is there.
    fn find(&self, id: &Id) -> io::Result<Option<u64>> {
        let mut slot = first_slot(id) & (self.slots - 1);
        loop {
            let mut found = EMPTY;
            self.file.read_exact_at(&mut found, slot * SLOT_LEN)?;
            if found == *id.as_bytes() {
                return Ok(None);
            }
            if found == EMPTY {
                return Ok(Some(slot));
            }
            slot = (slot + 1) & (self.slots - 1);
        }
    }

    fn grown(&self, file: File) -> io::Result<Self> {
        let mut grown = Self::of(file, self.slots * 2)?;
        let mut bytes = vec![0; SLOTS_AT_ONCE * Id::LEN];
        for start in (0..self.slots * SLOT_LEN).step_by(bytes.len()) {
            self.file.read_exact_at(&mut bytes, start)?;
            for slot in bytes.as_chunks::<{ Id::LEN }>().0.iter().filter(|slot| **slot != EMPTY) {
                let id = Id::from_bytes(*slot);
                if let Some(free) = grown.find(&id)? {
                    grown.file.write_all_at(slot, free * SLOT_LEN)?;
                    grown.count += 1;
                }
            }
        }
        Ok(grown)
    }
}

fn first_slot(id: &Id) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_in_is_known_and_nothing_else_however_often_it_grows() {
        let mut known = Known::new(tempfile::tempfile().expect("a file")).expect("a table");
        let id = |number: u32| Id::of(&number.to_le_bytes());
        for number in 0..10_000 {
            assert!(!known.has(&id(number)).expect("read"), "{number}");
            known.insert(&id(number), tempfile::tempfile).expect("insert");
            known.insert(&id(number), tempfile::tempfile).expect("insert");
        }
        assert_eq!((known.count, known.slots), (10_000, 32_768));
        assert!((0..10_000).all(|number| known.has(&id(number)).expect("read")));
        assert!((10_000..11_000).all(|number| !known.has(&id(number)).expect("read")));
    }

    #[test]
    fn blobs_that_want_the_same_slot_go_beside_each_other() {
        let mut known = Known::new(tempfile::tempfile().expect("a file")).expect("a table");
        let id = |last: u8| {
            let mut bytes = [0xff; Id::LEN];
            bytes[31] = last;
            Id::from_bytes(bytes)
        };
        for last in 0..100 {
            known.insert(&id(last), tempfile::tempfile).expect("insert");
        }
        assert!((0..100).all(|last| known.has(&id(last)).expect("read")));
        assert!(!known.has(&id(100)).expect("read"));
    }
}
