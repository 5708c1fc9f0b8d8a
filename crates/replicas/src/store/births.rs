//! Which births of a pool are which epochs of a replicated volume.

use replication::units::Epoch;

/// Entries that a record has room for; see [`super::record`].
pub(super) const MOST: usize = 1000;

/// From which birth of the pool on blocks are born in which epoch of the record: one entry for each seal, both growing.
///
/// Between a seal's new birth in the pool and its promise, the process may end. Then the next one goes on writing in the new birth under the old promise; and a
/// snapshot begins a birth that no seal knows. So an entry counts until the next one, not for one birth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Births(Vec<(volume::Epoch, Epoch)>);

impl Births {
    pub(super) fn from_entries(entries: Vec<(volume::Epoch, Epoch)>) -> Option<Self> {
        let grows = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        (grows && entries.len() <= MOST).then_some(Self(entries))
    }

    pub(super) fn entries(&self) -> &[(volume::Epoch, Epoch)] {
        &self.0
    }

    /// The last birth that an entry begins with.
    pub(super) fn last(&self) -> Option<volume::Epoch> {
        self.0.last().map(|(birth, _)| *birth)
    }

    /// What is born from now on in this birth or a later one is of this epoch.
    ///
    /// When there is no room, the oldest two become one, as if all of it were of the later epoch: then more is told as changed than has, never less.
    pub(super) fn begin(&mut self, birth: volume::Epoch, epoch: Epoch) {
        self.0.push((birth, epoch));
        if self.0.len() > MOST {
            self.0[0].1 = self.0[1].1;
            self.0.remove(1);
        }
    }

    /// What is born after this birth of the pool is of the epoch or a later one; nothing is if there is none.
    pub(super) fn before(&self, epoch: Epoch) -> Option<volume::Epoch> {
        if epoch == Epoch(0) {
            // What was never touched is zeros everywhere, so it need not be told.
            return Some(volume::Epoch(0));
        }
        let first = self.0.iter().find(|(_, begun)| *begun >= epoch);
        first.map(|(birth, _)| volume::Epoch(birth.0.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Births, MOST};
    use replication::units::Epoch;

    fn births(entries: &[(u64, u64)]) -> Births {
        let mut births = Births::default();
        entries.iter().for_each(|(birth, epoch)| births.begin(volume::Epoch(*birth), Epoch(*epoch)));
        births
    }

    #[test]
    fn an_epoch_is_what_was_born_since_it_was_sealed() {
        let births = births(&[(10, 3), (15, 4), (16, 9)]);
        let before = |epoch| births.before(Epoch(epoch)).map(|birth| birth.0);
        assert_eq!([0, 1, 3, 4, 5, 9, 10].map(before), [Some(0), Some(9), Some(9), Some(14), Some(15), Some(15), None]);
    }

    #[test]
    fn what_has_no_room_is_told_as_younger_than_it_is_and_never_as_older() {
        let all: Vec<(u64, u64)> = (1..=1500).map(|i| (10 * i, i)).collect();
        let births = births(&all);
        assert_eq!(births.entries().len(), MOST);
        for (birth, epoch) in all {
            let told = births.before(Epoch(epoch)).unwrap();
            assert!(told.0 < birth, "what was born at {birth} is of epoch {epoch}");
        }
        assert_eq!(births.before(Epoch(1400)), Some(volume::Epoch(13_999)), "the youngest are exact");
        assert_eq!(Births::from_entries(births.entries().to_vec()), Some(births));
    }

    #[test]
    fn entries_that_do_not_grow_are_refused() {
        let entry = |birth, epoch| (volume::Epoch(birth), Epoch(epoch));
        for wrong in [[entry(2, 1), entry(2, 2)], [entry(1, 2), entry(2, 2)], [entry(3, 1), entry(2, 2)]] {
            assert_eq!(Births::from_entries(wrong.to_vec()), None);
        }
    }
}
