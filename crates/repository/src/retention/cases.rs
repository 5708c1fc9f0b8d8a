//! Cases that were worked out by hand, on a calendar.

use super::*;
use std::num::NonZeroU32;

/// The rules of central Europe, written out, so that no table of zones is needed. In 2026 the clocks go forward on 29 March at
/// 01:00 UTC, and back on 25 October at 01:00 UTC.
pub(super) fn europe() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

/// A rule as a test writes it: `last 2`, `daily 3`, `within 1w`, `tag keep`; several with commas.
pub(super) fn policy(text: &str) -> Policy {
    let (mut last, mut every, mut within, mut tags) = (None, Vec::new(), None, Vec::new());
    for rule in text.split(", ") {
        let (name, value) = rule.split_once(' ').unwrap();
        let count = || value.parse::<NonZeroU32>().unwrap();
        match name {
            "last" => last = Some(count()),
            "within" => within = Some(value.parse().unwrap()),
            "tag" => tags.push(value.parse().unwrap()),
            _ => every.push((Every::ALL.into_iter().find(|e| e.to_string() == name).unwrap(), count())),
        }
    }
    Policy::new(last, every, within, tags).unwrap()
}

/// A recovery point as a test writes it: the instant, then perhaps `incomplete`, `pinned` and `#tag`. Its name is its place.
fn known(index: usize, text: &str) -> Known {
    let mut words = text.split(' ');
    let created = words.next().unwrap().parse().unwrap();
    let words: Vec<_> = words.collect();
    let tags = words.iter().filter_map(|word| word.strip_prefix('#')).map(|tag| tag.parse().unwrap());
    Known {
        id: format!("p{index}").parse().unwrap(),
        created,
        group: Group::default(),
        tags: Tags::new(tags).unwrap(),
        pinned: words.contains(&"pinned"),
        complete: !words.contains(&"incomplete"),
    }
}

/// Checks what is kept of points, and why: each line is an instant, `=`, and the reasons with semicolons; nothing for forget.
fn check(rules: &str, zone: &TimeZone, lines: &[&str]) {
    let now = "2026-11-25T12:00:00Z".parse().unwrap();
    let split =
        |line: &str| line.split_once(" =").map(|(left, right)| (left.to_owned(), right.trim().to_owned())).unwrap();
    let lines: Vec<_> = lines.iter().map(|line| split(line)).collect();
    let points = lines.iter().enumerate().map(|(index, (point, _))| known(index, point)).collect();
    let mut decisions = decide(&policy(rules), points, now, zone);
    decisions.sort_by_key(|decision| decision.point.id.as_str()[1..].parse::<usize>().unwrap());
    let found = decisions.iter().zip(&lines).map(|(decision, (point, _))| {
        let reasons: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
        (point.clone(), reasons.join("; "))
    });
    assert_eq!(found.collect::<Vec<_>>(), lines, "{rules}");
}

#[test]
fn the_last_ones() {
    check(
        "last 2",
        &TimeZone::UTC,
        &[
            "2026-11-20T00:00:00Z =",
            "2026-11-22T00:00:00Z = last 2",
            "2026-11-24T00:00:00Z = last 1; newest complete",
            "2026-11-21T00:00:00Z =",
        ],
    );
    check("last 5", &TimeZone::UTC, &["2026-11-20T00:00:00Z = last 1; newest complete"]);
}

#[test]
fn the_newest_of_each_day_that_has_one() {
    check(
        "daily 3",
        &TimeZone::UTC,
        &[
            "2026-11-24T23:59:59Z = daily 2026-11-24; newest complete",
            "2026-11-24T00:00:00Z =",
            "2026-11-20T08:00:00Z =",
            "2026-11-20T09:00:00Z = daily 2026-11-20",
            // No points on the days between: they take no place.
            "2026-10-01T09:00:00Z = daily 2026-10-01",
            "2026-09-01T09:00:00Z =",
        ],
    );
}

#[test]
fn days_are_those_of_the_clocks_on_the_wall() {
    // 23:30 and 00:30 in Europe, one day in UTC.
    check(
        "daily 9",
        &europe(),
        &["2026-11-24T22:30:00Z = daily 2026-11-24", "2026-11-24T23:30:00Z = daily 2026-11-25; newest complete"],
    );
    // The day on which the clocks go forward has 23 hours: from 23:00 UTC to 22:00 UTC.
    check(
        "daily 9",
        &europe(),
        &[
            "2026-03-28T22:59:59Z = daily 2026-03-28",
            "2026-03-28T23:00:00Z =",
            "2026-03-29T21:59:59Z = daily 2026-03-29",
            "2026-03-29T22:00:00Z = daily 2026-03-30; newest complete",
        ],
    );
    // The day on which they go back has 25: from 22:00 UTC to 23:00 UTC.
    check(
        "daily 9",
        &europe(),
        &[
            "2026-10-24T21:59:59Z = daily 2026-10-24",
            "2026-10-24T22:00:00Z =",
            "2026-10-25T22:59:59Z = daily 2026-10-25",
            "2026-10-25T23:00:00Z = daily 2026-10-26; newest complete",
        ],
    );
}

#[test]
fn an_hour_that_comes_twice_is_two_hours() {
    check(
        "hourly 9",
        &europe(),
        &[
            "2026-10-25T00:10:00Z =",
            "2026-10-25T00:50:00Z = hourly 2026-10-25 02:00+02:00",
            "2026-10-25T01:10:00Z =",
            "2026-10-25T01:50:00Z = hourly 2026-10-25 02:00+01:00; newest complete",
        ],
    );
    // And the one that is left out is none: 01:59 is followed by 03:00.
    check(
        "hourly 9",
        &europe(),
        &[
            "2026-03-29T00:59:00Z = hourly 2026-03-29 01:00+01:00",
            "2026-03-29T01:00:00Z = hourly 2026-03-29 03:00+02:00; newest complete",
        ],
    );
}

#[test]
fn weeks_begin_on_monday_and_belong_to_the_year_that_has_most_of_them() {
    // 2020 had 53 weeks; its last one ended on Sunday, 3 January 2021. 29 December 2025 belongs to the first week of 2026.
    check(
        "weekly 9",
        &TimeZone::UTC,
        &[
            "2020-12-27T12:00:00Z = weekly 2020-W52",
            "2020-12-28T12:00:00Z =",
            "2020-12-31T12:00:00Z =",
            "2021-01-03T12:00:00Z = weekly 2020-W53",
            "2021-01-04T12:00:00Z = weekly 2021-W01",
            "2025-12-28T12:00:00Z = weekly 2025-W52",
            "2025-12-29T12:00:00Z =",
            "2026-01-01T12:00:00Z = weekly 2026-W01; newest complete",
        ],
    );
}

#[test]
fn months_and_years_end_at_midnight_of_the_zone() {
    check(
        "monthly 4, yearly 2",
        &europe(),
        &[
            "2024-12-31T22:59:59Z =",
            "2024-12-31T23:00:00Z =",
            "2025-10-31T22:59:59Z = monthly 2025-10",
            "2025-11-30T22:30:00Z = monthly 2025-11",
            "2025-11-30T23:30:00Z =",
            "2025-12-31T22:59:59Z = monthly 2025-12; yearly 2025",
            "2025-12-31T23:00:00Z = monthly 2026-01; yearly 2026; newest complete",
        ],
    );
}

#[test]
fn age_is_counted_back_from_now() {
    check(
        "within 1mo",
        &TimeZone::UTC,
        &[
            "2026-10-25T11:59:59Z =",
            "2026-10-25T12:00:00Z = within 1mo",
            "2026-11-20T12:00:00Z incomplete = within 1mo",
            // A clock that was ahead.
            "2026-11-26T12:00:00Z = within 1mo; newest complete",
        ],
    );
    // It is 13:00 there: 12:00 UTC on all days since the clocks went back, 11:00 UTC on those before.
    check("within 31d", &europe(), &["2026-10-25T11:59:59Z =", "2026-10-25T12:00:00Z = within 31d; newest complete"]);
    check("within 32d", &europe(), &["2026-10-24T10:59:59Z =", "2026-10-24T11:00:00Z = within 32d; newest complete"]);
}

#[test]
fn tags_and_pins_keep() {
    check(
        "tag release, tag audit",
        &TimeZone::UTC,
        &[
            "2026-01-01T00:00:00Z #release = tag release",
            "2026-01-02T00:00:00Z #audit #release = tag release; tag audit",
            "2026-01-03T00:00:00Z #other =",
            "2026-01-04T00:00:00Z pinned = pinned",
            "2026-01-05T00:00:00Z = newest complete",
        ],
    );
}

#[test]
fn incomplete_points_get_only_the_places_that_are_left() {
    check(
        "last 2",
        &TimeZone::UTC,
        &[
            "2026-01-01T00:00:00Z =",
            "2026-01-02T00:00:00Z = last 2",
            "2026-01-03T00:00:00Z = last 1; newest complete",
            "2026-01-04T00:00:00Z incomplete =",
            "2026-01-05T00:00:00Z incomplete = newest",
        ],
    );
    check(
        "last 3",
        &TimeZone::UTC,
        &[
            "2026-01-03T00:00:00Z = last 1; newest complete",
            "2026-01-04T00:00:00Z incomplete = last 3",
            "2026-01-05T00:00:00Z incomplete = last 2; newest",
            "2026-01-02T00:00:00Z incomplete =",
        ],
    );
    // The complete one of a day stands for it, although an incomplete one is newer.
    check(
        "daily 2",
        &TimeZone::UTC,
        &[
            "2026-01-03T00:00:00Z = daily 2026-01-03; newest complete",
            "2026-01-03T12:00:00Z incomplete =",
            "2026-01-04T00:00:00Z incomplete =",
            "2026-01-05T00:00:00Z incomplete = daily 2026-01-05; newest",
        ],
    );
    check(
        "daily 1",
        &TimeZone::UTC,
        &["2026-01-03T00:00:00Z = daily 2026-01-03; newest complete", "2026-01-05T00:00:00Z incomplete = newest"],
    );
    // Where there is nothing better.
    check(
        "daily 1",
        &TimeZone::UTC,
        &["2026-01-03T00:00:00Z incomplete =", "2026-01-05T00:00:00Z incomplete = daily 2026-01-05; newest"],
    );
}

#[test]
fn rules_add_up() {
    check(
        "last 1, daily 2, weekly 2, yearly 3",
        &TimeZone::UTC,
        &[
            "2024-06-01T00:00:00Z = yearly 2024",
            "2025-06-01T00:00:00Z = yearly 2025",
            "2026-11-19T00:00:00Z =",
            "2026-11-20T00:00:00Z = weekly 2026-W47",
            "2026-11-23T00:00:00Z = daily 2026-11-23",
            "2026-11-24T00:00:00Z = last 1; daily 2026-11-24; weekly 2026-W48; yearly 2026; newest complete",
        ],
    );
}

#[test]
fn two_of_one_instant_are_told_apart_by_their_names() {
    check("last 1", &TimeZone::UTC, &["2026-11-24T00:00:00Z =", "2026-11-24T00:00:00Z = last 1; newest complete"]);
}

#[test]
fn groups_do_not_compete() {
    let mut points: Vec<_> = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]
        .iter()
        .enumerate()
        .map(|(index, text)| known(index, text))
        .collect();
    points[0].group.host = Some("other".to_owned());
    let now = Timestamp::UNIX_EPOCH;
    let kept: Vec<_> = decide(&policy("last 1"), points, now, &TimeZone::UTC)
        .into_iter()
        .filter(Decision::is_kept)
        .map(|decision| decision.point.id.to_string())
        .collect();
    assert_eq!(kept, ["p2", "p0"]);
}

#[test]
fn a_policy_without_any_rule_is_refused() {
    assert_eq!(Policy::new(None, [], None, Vec::new()), Err(NoRule));
}
