//! Sets of recovery points, each kept once and known by a number.
//!
//! Blobs and pages by the million are needed by few different sets of points: in a history without branches by runs of
//! neighbours. So a set is kept as ranges, and what needs it has four bytes for its number.

use std::collections::HashMap;
use std::sync::Arc;

/// How many unions are remembered; beyond it they are worked out again. 1 MiB or so.
const MAX_UNIONS: usize = 1 << 16;

/// A recovery point by its place among those that are looked at.
pub(super) type Place = u32;
/// Ranges of places in order, each of two bounds of which the upper one is outside; none touches the next.
type Ranges = Arc<[(Place, Place)]>;

/// One set of recovery points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Class(u32);

/// All sets that came up.
#[derive(Debug, Default)]
pub(super) struct Classes {
    sets: Vec<Ranges>,
    known: HashMap<Ranges, Class>,
    unions: HashMap<(Class, Class), Class>,
}

impl Classes {
    /// The set of one recovery point.
    pub(super) fn of_one(&mut self, place: Place) -> Class {
        self.known(Arc::from([(place, place + 1)]))
    }

    /// The set of all that are in one of two sets.
    pub(super) fn union(&mut self, one: Class, other: Class) -> Class {
        if one == other {
            return one;
        }
        let pair = (one.min(other), one.max(other));
        if let Some(union) = self.unions.get(&pair) {
            return *union;
        }
        let union = self.known(united(self.ranges(one), self.ranges(other)));
        if self.unions.len() >= MAX_UNIONS {
            self.unions.clear();
        }
        self.unions.insert(pair, union);
        union
    }

    /// The recovery points of a set.
    pub(super) fn ranges(&self, class: Class) -> &[(Place, Place)] {
        &self.sets[class.0 as usize]
    }

    /// The recovery point of a set that has only one.
    pub(super) fn only(&self, class: Class) -> Option<Place> {
        match *self.ranges(class) {
            [(first, end)] if first + 1 == end => Some(first),
            _ => None,
        }
    }

    fn known(&mut self, ranges: Ranges) -> Class {
        if let Some(class) = self.known.get(&ranges) {
            return *class;
        }
        let class = Class(u32::try_from(self.sets.len()).expect("memory holds fewer sets than this"));
        self.sets.push(ranges.clone());
        self.known.insert(ranges, class);
        class
    }
}

fn united(one: &[(Place, Place)], other: &[(Place, Place)]) -> Ranges {
    let mut all = [one, other].concat();
    all.sort_unstable();
    let mut united = Vec::<(Place, Place)>::with_capacity(all.len());
    for (first, end) in all {
        match united.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => united.push((first, end)),
        }
    }
    united.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn class(classes: &mut Classes, places: &BTreeSet<Place>) -> Option<Class> {
        let ones: Vec<_> = places.iter().map(|place| classes.of_one(*place)).collect();
        ones.into_iter().reduce(|sum, one| classes.union(sum, one))
    }

    fn members(classes: &Classes, class: Class) -> BTreeSet<Place> {
        classes.ranges(class).iter().flat_map(|(first, end)| *first..*end).collect()
    }

    proptest! {
        #[test]
        fn a_union_has_the_members_of_both(
            one in proptest::collection::btree_set(0..40u32, 1..20),
            other in proptest::collection::btree_set(0..40u32, 1..20),
        ) {
            let mut classes = Classes::default();
            let (a, b) = (class(&mut classes, &one).unwrap(), class(&mut classes, &other).unwrap());
            let union = classes.union(a, b);
            let both: BTreeSet<_> = one.union(&other).copied().collect();
            prop_assert_eq!(members(&classes, union), both.clone());
            prop_assert_eq!(classes.union(b, a), union);
            // Equal sets are the same, however they came about.
            prop_assert_eq!(class(&mut classes, &both), Some(union));
            prop_assert_eq!(classes.only(union), (both.len() == 1).then(|| *both.first().unwrap()));
        }
    }
}
