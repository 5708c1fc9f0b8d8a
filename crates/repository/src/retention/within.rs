//! How old something may be, as people write it: `1y6mo`, `2w`, `36h`.

use crate::codec::Malformed;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Serialize, Serializer};
use std::fmt;

/// The largest number before a unit: more years than the calendar has.
const MAX_NUMBER: i64 = 9999;

/// A length of time in the units of the calendar: a month is as long as the month in question, a day may have 23 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// Years, months, weeks, days, hours.
    parts: [i64; 5],
}

/// The units from the longest to the shortest, as they are written.
const UNITS: [&str; 5] = ["y", "mo", "w", "d", "h"];

impl Within {
    /// The instant that lies so long before `now`; the first that there is, if the calendar does not go back so far.
    pub(super) fn before(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let [years, months, weeks, days, hours] = self.parts;
        let span = Span::new()
            .try_years(years)
            .and_then(|span| span.try_months(months))
            .and_then(|span| span.try_weeks(weeks))
            .and_then(|span| span.try_days(days))
            .and_then(|span| span.try_hours(hours));
        let before = span.and_then(|span| now.to_zoned(zone.clone()).checked_sub(span));
        before.map_or(Timestamp::MIN, |before| before.timestamp())
    }
}

impl std::str::FromStr for Within {
    type Err = Malformed;

    /// Numbers with units, from the longest unit to the shortest, each at most once.
    ///
    /// `m` is refused: it is minutes in other arguments of this program, and months in other programs.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = || {
            Malformed::new(format!("{text:?} is not a length of time such as 1y6mo, 2w or 36h (units: y, mo, w, d, h)"))
        };
        let (mut parts, mut rest, mut next) = ([0; 5], text, 0);
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = rest.split_at(digits);
            let number: i64 = number.parse().map_err(|_| wrong())?;
            let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
            let (unit, after) = after.split_at(letters);
            let place = UNITS.iter().position(|known| *known == unit).ok_or_else(wrong)?;
            if place < next || number > MAX_NUMBER {
                return Err(wrong());
            }
            (parts[place], next, rest) = (number, place + 1, after);
        }
        if parts == [0; 5] { Err(wrong()) } else { Ok(Self { parts }) }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, unit) in self.parts.iter().zip(UNITS).filter(|(number, _)| **number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl Serialize for Within {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written() {
        for text in ["1y", "1y6mo", "2w", "36h", "7d", "1y2mo3w4d5h", "9999y"] {
            assert_eq!(text.parse::<Within>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "0d",
            "5",
            "d",
            "1m",
            "1y6m",
            "90s",
            "6mo1y",
            "1d1d",
            "-1d",
            "1 d",
            "10000y",
            "1Y",
            "1dä",
            "99999999999999999999d",
        ] {
            assert!(bad.parse::<Within>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_length_follows_the_calendar_and_the_clocks() {
        // The rules of central Europe, written out, so that no table of zones is needed.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (now, within, expected) in [
            // Noon to noon, though the day in between has only 23 hours.
            ("2026-03-29T10:00:00Z", "1d", "2026-03-28T11:00:00Z"),
            ("2026-03-29T10:00:00Z", "24h", "2026-03-28T10:00:00Z"),
            ("2026-10-25T11:00:00Z", "1d", "2026-10-24T10:00:00Z"),
            // The last of a shorter month.
            ("2026-03-31T10:00:00Z", "1mo", "2026-02-28T11:00:00Z"),
            ("2028-02-29T11:00:00Z", "1y", "2027-02-28T11:00:00Z"),
            ("2026-11-25T11:00:00Z", "1y6mo", "2025-05-25T10:00:00Z"),
        ] {
            let before = within.parse::<Within>().unwrap().before(now.parse().unwrap(), &zone);
            assert_eq!(before, expected.parse::<Timestamp>().unwrap(), "{within} before {now}");
        }
        let ever: Within = "9999y9999mo9999w9999d9999h".parse().unwrap();
        assert_eq!(ever.before(Timestamp::MIN, &zone), Timestamp::MIN);
    }
}
