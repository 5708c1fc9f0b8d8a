//! Room for long data: where blocks are written at random, what becomes free is single blocks, and a long write into those would be as many requests to
//! the disk as it has blocks.

use super::{Bits, Space, first_clear, index, set};
use crate::format::layout::REGION;
use crate::units::{Place, Run};

/// From this many blocks on, data is long; and so is a piece of free room.
const LONG: u64 = 8;
/// Pieces of free room, and regions, that are looked at for one write: what is found by then is a matter of a microsecond.
const LOOKS: u32 = 64;

impl Space {
    /// Takes a run for that many blocks, or the longest for some of them that was seen; nothing if they are few, or no long run was seen.
    pub(super) fn take_long(&mut self, wanted: u64) -> Option<Run> {
        if wanted < LONG {
            return None;
        }
        let (mut at, mut best) = (self.long_cursor, 0..0);
        for _ in 0..LOOKS {
            let region = at / REGION;
            if region >= self.regions.len() as u64 {
                at = 0;
                continue;
            }
            let Some(piece) = self.free_piece(at) else {
                at = (region + 1) * REGION;
                continue;
            };
            at = piece.end;
            if piece.end - piece.start > best.end - best.start {
                best = piece;
            }
            if best.end - best.start >= wanted {
                break;
            }
        }
        self.long_cursor = at;
        let count = (best.end - best.start).min(wanted);
        if count < LONG {
            return None;
        }
        let (busy, _, free) = self.bits(best.start / REGION);
        (best.start..best.start + count).for_each(|place| set(busy, place % REGION));
        let taken = u32::try_from(count).unwrap_or(0);
        *free -= taken;
        self.free -= count;
        self.long_cursor = self.long_cursor.min(if best.end == at { best.start + count } else { at });
        Some(Run { start: Place(best.start), count: taken })
    }

    /// The next blocks of a region that are free and follow each other.
    fn free_piece(&self, at: u64) -> Option<std::ops::Range<u64>> {
        let region = at / REGION;
        let (state, begin) = (&self.regions[index(region)], region * REGION);
        if state.free == 0 {
            return None;
        }
        let (start, end) = match &state.busy {
            None => ((at % REGION).max(self.head(region)), self.size(region)),
            Some(busy) => {
                let start = first_clear(busy, at % REGION)?;
                (start, first_set(busy, start))
            }
        };
        (start < end).then_some(begin + start..begin + end)
    }
}

/// The first set bit from here on, or the end.
fn first_set(bits: &Bits, from: u64) -> u64 {
    let first = index(from / 64);
    let masked = bits[first] & !((1 << (from % 64)) - 1);
    if masked != 0 {
        return from / 64 * 64 + u64::from(masked.trailing_zeros());
    }
    let word = bits[first + 1..].iter().position(|word| *word != 0);
    word.map_or(REGION, |word| ((first + 1 + word) * 64) as u64 + u64::from(bits[first + 1 + word].trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use super::super::Use;
    use super::*;

    /// A full pool of two regions.
    fn full() -> Space {
        let mut space = Space::new(40_000, 64);
        let count = space.free();
        space.allocate(count, Use::Data).unwrap().into_iter().for_each(|run| space.put_in_use(run));
        space
    }

    fn free(space: &mut Space, places: impl Iterator<Item = u64>) {
        places.for_each(|place| space.free_later(Place(place)));
        space.take_freed().into_iter().for_each(|run| space.release(run));
    }

    #[test]
    fn what_is_long_goes_to_long_room_and_what_is_short_to_the_next() {
        let mut space = full();
        free(&mut space, (1000..1100).step_by(2).chain(5000..5040).chain(6000..6100));
        assert_eq!(space.allocate(64, Use::Data).unwrap(), [Run { start: Place(6000), count: 64 }]);
        // None is long enough by now.
        let two = [Run { start: Place(5000), count: 40 }, Run { start: Place(6064), count: 24 }];
        assert_eq!(space.allocate(64, Use::Data).unwrap(), two);
        assert_eq!(space.allocate(1, Use::Data).unwrap(), [Run::one(Place(1000))]);
        assert_eq!(space.free(), 49 + 12);
        // Where there is nothing long, the pieces that there are.
        let runs = space.allocate(61, Use::Data).unwrap();
        assert_eq!((runs.iter().map(|run| u64::from(run.count)).sum::<u64>(), space.free()), (61, 0));
        assert_eq!(space.allocate(1, Use::Data), None);
    }

    #[test]
    fn no_block_is_given_out_twice_and_none_is_lost() {
        let mut random = crate::simulation::random::Random::new(3);
        let (mut space, mut held) = (Space::new(40_000, 64), Vec::new());
        let all = space.free();
        for _ in 0..4000 {
            if random.chance(55) {
                let most = if random.chance(30) { 200 } else { 4 };
                let count = 1 + random.below(most);
                let Some(runs) = space.allocate(count, Use::Data) else { continue };
                assert_eq!(runs.iter().map(|run| u64::from(run.count)).sum::<u64>(), count);
                for run in runs {
                    space.put_in_use(run);
                    held.extend(run.start.0..run.end());
                }
            } else if !held.is_empty() {
                let at = usize::try_from(random.below(held.len() as u64)).unwrap();
                let gone: Vec<u64> = held.drain(at..(at + 50).min(held.len())).collect();
                free(&mut space, gone.into_iter());
            }
            assert_eq!(space.free() + held.len() as u64, all);
        }
        held.sort_unstable();
        assert!(held.windows(2).all(|pair| pair[0] != pair[1]), "a block was given out twice");
        assert!(held.iter().all(|place| space.is_place(Place(*place))));
    }
}
