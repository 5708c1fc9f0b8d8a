//! What is under way in a pool.

use super::bucket::Nanos;
use super::machine::VolumeId;

/// A request under way, to be given back when it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Whose it is.
    pub(super) volume: VolumeId,
    /// Where it takes up room, if it does.
    place: Option<(usize, u64)>,
}

impl Ticket {
    /// One that takes up no room.
    pub(super) fn beside(volume: VolumeId) -> Self {
        Self { volume, place: None }
    }
}

/// The requests that take up room: a place for each, since there are few.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    places: Vec<Place>,
    free: Vec<usize>,
    bytes: u64,
}

#[derive(Debug)]
struct Place {
    /// How often it was taken, so that who comes late does not give back another's.
    turn: u64,
    taken: Option<(Nanos, u64, VolumeId)>,
}

impl UnderWay {
    pub(super) fn requests(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn enter(&mut self, volume: VolumeId, bytes: u64, now: Nanos) -> Ticket {
        self.bytes += bytes;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { turn: 0, taken: None });
            self.places.len() - 1
        });
        let entry = &mut self.places[place];
        entry.turn += 1;
        entry.taken = Some((now, bytes, volume));
        Ticket { volume, place: Some((place, entry.turn)) }
    }

    /// Gives its room back; tells whether it had any, or it was taken from it.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Some((place, turn)) = ticket.place else { return false };
        let entry = self.places.get_mut(place).filter(|entry| entry.turn == turn);
        let Some((_, bytes, _)) = entry.and_then(|entry| entry.taken.take()) else { return false };
        self.bytes -= bytes;
        self.free.push(place);
        true
    }

    /// Takes the room from all that began before; tells whose they are.
    pub(super) fn give_up(&mut self, before: Nanos) -> Vec<VolumeId> {
        let late = self.places.iter().enumerate().filter_map(|(place, entry)| {
            let (_, _, volume) = entry.taken.filter(|(begin, _, _)| *begin < before)?;
            Some(Ticket { volume, place: Some((place, entry.turn)) })
        });
        let late: Vec<_> = late.collect();
        for ticket in &late {
            self.leave(*ticket);
        }
        late.into_iter().map(|ticket| ticket.volume).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::machine::{Bounds, Machine};
    use super::super::rules::Rules;
    use super::*;

    #[test]
    fn room_is_given_back_once() {
        let mut machine = Machine::<()>::new(Bounds::default(), Rules::default());
        let (one, other) = (machine.add(Limits::default(), Nanos(0)), machine.add(Limits::default(), Nanos(0)));
        let mut under_way = UnderWay::default();
        let (first, second) = (under_way.enter(one, 10, Nanos(1)), under_way.enter(other, 5, Nanos(2)));
        assert_eq!((under_way.requests(), under_way.bytes()), (2, 15));
        assert_eq!(under_way.give_up(Nanos(2)), [one]);
        assert_eq!((under_way.requests(), under_way.bytes()), (1, 5));
        let third = under_way.enter(one, 7, Nanos(3));
        assert!(!under_way.leave(first), "its place is another's now");
        assert_eq!((under_way.requests(), under_way.bytes()), (2, 12));
        assert!(under_way.leave(second) && under_way.leave(third) && !under_way.leave(third));
        assert!(!under_way.leave(Ticket::beside(one)));
        assert_eq!((under_way.requests(), under_way.bytes(), under_way.places.len()), (0, 0, 2));
    }
}
