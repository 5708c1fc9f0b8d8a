//! Which packs are read when only a part of them is.

use crate::ids::PackId;

/// A random part of the packs.
///
/// The same seed chooses the same packs, as long as they are there: each pack has a place in an order that only it and the seed decide,
/// and the first of them are read until they have the bytes that are wanted. At least one is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// How much of all bytes in packs is read at least, in percent: more than 0 and at most 100.
    pub percent: f64,
    /// What decides which packs these are.
    pub seed: u64,
}

impl Sample {
    pub(super) fn choose(&self, packs: impl Iterator<Item = (PackId, u64)>) -> Vec<(PackId, u64)> {
        let place = |id: &PackId| *blake3::hash(&[&self.seed.to_le_bytes()[..], &id.encode()].concat()).as_bytes();
        let mut packs: Vec<_> = packs.map(|(id, len)| (place(&id), id, len)).collect();
        packs.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a share of so many bytes need not be exact to a few of them")]
        let wanted = packs.iter().map(|(.., len)| len).sum::<u64>() as f64 * self.percent / 100.0;
        let mut read = 0;
        let taken = packs.into_iter().take_while(|(.., len)| {
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let is_wanted = read == 0 || (read as f64) < wanted;
            read += len;
            is_wanted
        });
        taken.map(|(_, id, len)| (id, len)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriterId;

    fn packs(count: u32) -> Vec<(PackId, u64)> {
        let id = |sequence| PackId { epoch: 1, writer: WriterId([7; 12]), sequence };
        (0..count).map(|sequence| (id(sequence), 1000)).collect()
    }

    #[test]
    fn a_sample_has_what_was_asked_for_and_no_pack_more() {
        for (percent, expected) in [(0.01, 1), (10.0, 10), (10.1, 11), (100.0, 100)] {
            let chosen = Sample { percent, seed: 3 }.choose(packs(100).into_iter());
            assert_eq!(chosen.len(), expected, "{percent}");
        }
        assert_eq!(Sample { percent: 50.0, seed: 3 }.choose(std::iter::empty()), []);
    }

    #[test]
    fn a_seed_chooses_the_same_packs_and_another_one_others() {
        let chosen = |seed, count| Sample { percent: 20.0, seed }.choose(packs(count).into_iter());
        assert_eq!(chosen(1, 100), chosen(1, 100));
        assert_ne!(chosen(1, 100), chosen(2, 100));
        let mut all: Vec<_> = (0..60).flat_map(|seed| chosen(seed, 20)).map(|(id, _)| id.sequence).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20, "in the end every pack has its turn");
    }
}
