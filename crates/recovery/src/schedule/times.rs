//! The forms that times of a schedule have.

use cronexpr::{Crontab, MakeTimestamp};
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use std::num::NonZeroU32;

/// Days that are looked at for the next slot: a month without one is followed by one with it.
const DAYS: usize = 64;

/// At which times runs should begin.
#[derive(Debug, Clone)]
pub enum Times {
    /// Every so many minutes, counted from the beginning of the schedule; the first run is at once.
    Interval {
        /// The minutes.
        minutes: NonZeroU32,
    },
    /// Every day.
    Daily {
        /// When.
        time: Time,
    },
    /// Every week.
    Weekly {
        /// On which day.
        day: Weekday,
        /// When.
        time: Time,
    },
    /// Every month.
    Monthly {
        /// On which date; a month that has none of it has its slot on its last day.
        date: u8,
        /// When.
        time: Time,
    },
    /// As cron has it: minute, hour, day of the month, month, day of the week.
    Cron(Box<Crontab>),
}

/// An expression that cron would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongCron(String);

impl Times {
    /// Reads five fields; the time zone is named beside the expression, never in it.
    ///
    /// # Errors
    /// It is none, or it names a time that never comes.
    pub fn cron(expression: &str, zone: &TimeZone) -> Result<Self, WrongCron> {
        let name = zone.iana_name().unwrap_or("UTC");
        if expression.split_whitespace().count() != 5 {
            return Err(WrongCron(
                "there are five fields: minute, hour, day of the month, month, day of the week".into(),
            ));
        }
        let whole = format!("{expression} {name}");
        let crontab = cronexpr::parse_crontab(&whole).map_err(|error| WrongCron(first_line(&error.to_string())))?;
        let is_possible = crontab.find_next(Timestamp::UNIX_EPOCH).is_ok();
        if is_possible { Ok(Self::Cron(Box::new(crontab))) } else { Err(WrongCron("such a day never comes".into())) }
    }

    /// Whether the beginning of the schedule is a slot.
    pub(super) fn begins_at_once(&self) -> bool {
        matches!(self, Self::Interval { .. })
    }

    /// The first slot after an instant.
    pub(super) fn after(&self, at: Timestamp, begin: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Interval { minutes } => {
                let step = i64::from(minutes.get()) * 60;
                let passed = at.duration_since(begin).as_secs().div_euclid(step);
                begin.checked_add(SignedDuration::from_secs((passed + 1).checked_mul(step)?)).ok()
            }
            Self::Daily { time } => on_days(at, zone, *time, |_| true),
            Self::Weekly { day, time } => on_days(at, zone, *time, |date| date.weekday() == *day),
            Self::Monthly { date: wanted, time } => on_days(at, zone, *time, |date| {
                let last = date.days_in_month();
                date.day() == i8::try_from(*wanted).unwrap_or(last).min(last)
            }),
            Self::Cron(crontab) => {
                let next = crontab.find_next(MakeTimestamp::from(at)).ok()?;
                Some(next.timestamp())
            }
        }
    }
}

/// The first instant after `at` that is at a time of day on one of the days that are meant.
fn on_days(at: Timestamp, zone: &TimeZone, time: Time, is_meant: impl Fn(Date) -> bool) -> Option<Timestamp> {
    // A slot that was moved forward may fall on the day after its own.
    let mut date = zone.to_datetime(at).date().checked_sub(1.day()).ok()?;
    for _ in 0..DAYS {
        if is_meant(date) {
            let slot = zone.to_ambiguous_zoned(date.to_datetime(time)).compatible().ok()?.timestamp();
            if slot > at {
                return Some(slot);
            }
        }
        date = date.tomorrow().ok()?;
    }
    None
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it cannot be read").to_owned()
}
