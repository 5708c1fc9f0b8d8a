//! When runs of a schedule are due.
//!
//! A schedule has instants at which a run should begin, its *slots*. A run is due when a slot has come after the one that the last run was for. However
//! many slots were missed, one run makes up for them: a second one a moment later would store the same again. How many there were is told.
//!
//! Local times are those of clocks on a wall. Where clocks are set forward over a slot, it is moved by as much; where they are set back, the first of
//! the two counts. So each day has its slot, once.

mod times;

#[cfg(test)]
mod tests;

pub use times::{Times, WrongCron};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Missed slots are counted up to this many, which takes some milliseconds; who has missed more has missed enough.
pub const MOST_MISSED: u32 = 1000;

/// A run that should have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot that it is for: the latest one that has come.
    pub slot: Timestamp,
    /// Earlier slots for which there was no run; [`MOST_MISSED`] stands for that or more.
    pub missed: u32,
}

/// The slots of one kind of runs of a schedule.
#[derive(Debug, Clone)]
pub struct Calendar {
    times: Times,
    zone: TimeZone,
    begin: Timestamp,
}

impl Calendar {
    /// Slots from `begin` on, when the schedule was made; times of day are in `zone`.
    #[must_use]
    pub fn new(times: Times, zone: TimeZone, begin: Timestamp) -> Self {
        Self { times, zone, begin }
    }

    /// What is due `now`, when the last run was for the slot `last`; none if there was no run yet.
    #[must_use]
    pub fn due(&self, last: Option<Timestamp>, now: Timestamp) -> Option<Due> {
        let mut slot = self.next(last).filter(|slot| *slot <= now)?;
        let mut missed = 0;
        while let Some(later) = self.times.after(slot, self.begin, &self.zone).filter(|later| *later <= now) {
            if missed == MOST_MISSED {
                return Some(Due { slot: self.latest(slot, now), missed });
            }
            (slot, missed) = (later, missed + 1);
        }
        Some(Due { slot, missed })
    }

    /// The first slot after `last`; the very first if there was no run yet.
    #[must_use]
    pub fn next(&self, last: Option<Timestamp>) -> Option<Timestamp> {
        match last {
            Some(last) if last >= self.begin => self.times.after(last, self.begin, &self.zone),
            _ if self.times.begins_at_once() => Some(self.begin),
            _ => self.times.after(self.begin, self.begin, &self.zone),
        }
    }

    /// The latest slot from `slot` to `now`, found in a stretch before `now` that is made longer until it has one.
    fn latest(&self, slot: Timestamp, now: Timestamp) -> Timestamp {
        let mut stretch = SignedDuration::from_mins(2);
        loop {
            let from = now.checked_sub(stretch).map_or(slot, |from| from.max(slot));
            let mut found = (from == slot).then_some(slot);
            let mut at = from;
            while let Some(later) = self.times.after(at, self.begin, &self.zone).filter(|later| *later <= now) {
                (found, at) = (Some(later), later);
            }
            match found {
                Some(found) => return found,
                None => stretch *= 2,
            }
        }
    }
}
