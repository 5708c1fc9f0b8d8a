//! Hours, days, weeks, months and years, as the clocks on the wall have them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::fmt;

/// How often a rule keeps one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Every {
    /// One an hour.
    Hourly,
    /// One a day.
    Daily,
    /// One a week, which begins on Monday and belongs to the year that has most of it, as ISO 8601 counts.
    Weekly,
    /// One a month.
    Monthly,
    /// One a year.
    Yearly,
}

impl Every {
    /// From the shortest to the longest.
    pub const ALL: [Self; 5] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The period that an instant is in; equal texts are the same period.
    ///
    /// An hour is named with its offset from UTC, because when daylight saving ends an hour comes twice.
    pub(super) fn period(self, at: Timestamp, zone: &TimeZone) -> String {
        let local = at.to_zoned(zone.clone());
        match self {
            Self::Hourly => local.strftime("%Y-%m-%d %H:00%:z").to_string(),
            Self::Daily => local.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => {
                let week = local.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Monthly => local.strftime("%Y-%m").to_string(),
            Self::Yearly => local.strftime("%Y").to_string(),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}
