use super::*;
use jiff::civil::{Weekday, time};
use proptest::prelude::*;
use std::num::NonZeroU32;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The next slots after a beginning, as Berlin's clocks show them.
fn slots(times: Times, begin: &str, count: usize) -> Vec<String> {
    let calendar = Calendar::new(times, zone("Europe/Berlin"), at(begin));
    let mut last = None;
    std::iter::from_fn(|| {
        last = calendar.next(last);
        last.map(|slot| slot.to_zoned(zone("Europe/Berlin")).strftime("%m-%d %H:%M %z").to_string())
    })
    .take(count)
    .collect()
}

fn minutes(minutes: u32) -> Times {
    Times::Interval { minutes: NonZeroU32::new(minutes).unwrap() }
}

#[test]
fn an_interval_begins_at_once_and_counts_from_there() {
    let seen = slots(minutes(90), "2026-01-01T10:00:07Z", 3);
    assert_eq!(seen, ["01-01 11:00 +0100", "01-01 12:30 +0100", "01-01 14:00 +0100"]);
}

#[test]
fn days_weeks_and_months_have_one_slot_each() {
    let daily = Times::Daily { time: time(0, 5, 0, 0) };
    assert_eq!(slots(daily, "2026-02-27T23:05:00Z", 2), ["03-01 00:05 +0100", "03-02 00:05 +0100"]);
    let weekly = Times::Weekly { day: Weekday::Sunday, time: time(6, 0, 0, 0) };
    assert_eq!(slots(weekly, "2026-11-26T10:00:00Z", 2), ["11-29 06:00 +0100", "12-06 06:00 +0100"]);
    let monthly = Times::Monthly { date: 31, time: time(12, 0, 0, 0) };
    let seen = slots(monthly, "2026-01-31T11:00:00Z", 3);
    assert_eq!(seen, ["02-28 12:00 +0100", "03-31 12:00 +0200", "04-30 12:00 +0200"]);
}

#[test]
fn a_slot_that_clocks_jump_over_is_moved_and_one_that_comes_twice_counts_once() {
    let half_past_two = || Times::Daily { time: time(2, 30, 0, 0) };
    let spring = slots(half_past_two(), "2026-03-28T10:00:00Z", 2);
    assert_eq!(spring, ["03-29 03:30 +0200", "03-30 02:30 +0200"]);
    let autumn = slots(half_past_two(), "2026-10-24T10:00:00Z", 2);
    assert_eq!(autumn, ["10-25 02:30 +0200", "10-26 02:30 +0100"]);
}

#[test]
fn cron_is_read_in_the_zone_of_the_schedule() {
    let cron = |text: &str| Times::cron(text, &zone("Europe/Berlin"));
    let seen = slots(cron("15 2 * * 1-5").unwrap(), "2026-11-27T00:00:00Z", 3);
    assert_eq!(seen, ["11-27 02:15 +0100", "11-30 02:15 +0100", "12-01 02:15 +0100"]);
    let yearly = slots(cron("0 0 29 2 *").unwrap(), "2026-01-01T00:00:00Z", 1);
    assert_eq!(yearly, ["02-29 00:00 +0100"]);
    for wrong in ["", "61 * * * *", "* * * *", "0 0 31 2 *", "0 0 * * * Asia/Tokyo", "@daily"] {
        assert!(cron(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn what_was_missed_is_made_up_for_once() {
    let calendar = Calendar::new(minutes(60), TimeZone::UTC, at("2026-01-01T00:00:00Z"));
    let last = Some(at("2026-01-01T03:00:00Z"));
    assert_eq!(calendar.due(last, at("2026-01-01T03:59:59Z")), None);
    let due = |missed, slot| Some(Due { slot: at(slot), missed });
    assert_eq!(calendar.due(last, at("2026-01-01T04:00:00Z")), due(0, "2026-01-01T04:00:00Z"));
    assert_eq!(calendar.due(last, at("2026-01-01T08:30:00Z")), due(4, "2026-01-01T08:00:00Z"));
    assert_eq!(calendar.due(None, at("2026-01-01T00:00:00Z")), due(0, "2026-01-01T00:00:00Z"));
}

#[test]
fn years_of_missed_minutes_take_no_time() {
    let times = Times::cron("* * * * *", &TimeZone::UTC).unwrap();
    let calendar = Calendar::new(times, TimeZone::UTC, at("2016-01-01T00:00:00Z"));
    let due = calendar.due(None, at("2026-01-01T00:00:30Z"));
    assert_eq!(due, Some(Due { slot: at("2026-01-01T00:00:00Z"), missed: MOST_MISSED }));
}

#[test]
fn a_clock_that_was_set_back_runs_nothing_twice() {
    let calendar = Calendar::new(minutes(10), TimeZone::UTC, at("2026-01-01T00:00:00Z"));
    assert_eq!(calendar.due(Some(at("2026-01-01T05:00:00Z")), at("2026-01-01T04:00:00Z")), None);
}

fn any_times() -> impl Strategy<Value = Times> {
    let time_of_day = || (0_i8..24, 0_i8..60).prop_map(|(hour, minute)| time(hour, minute, 0, 0));
    let zone = zone("Europe/Berlin");
    prop_oneof![
        (1_u32..100_000).prop_map(minutes),
        time_of_day().prop_map(|time| Times::Daily { time }),
        (0_i8..7, time_of_day())
            .prop_map(|(day, time)| Times::Weekly { day: Weekday::from_sunday_zero_offset(day).unwrap(), time }),
        (1_u8..=31, time_of_day()).prop_map(|(date, time)| Times::Monthly { date, time }),
        (0_u8..60, 0_u8..24)
            .prop_map(move |(minute, hour)| Times::cron(&format!("{minute} {hour} * * *"), &zone).unwrap()),
    ]
}

proptest! {
    /// What is due is the latest slot that has come, found one by one.
    #[test]
    fn the_latest_slot_that_has_come_is_due(times in any_times(), begin in 0_i64..1_800_000_000, passed in 0_i64..100_000_000) {
        let begin = Timestamp::from_second(begin).unwrap();
        let now = begin.checked_add(SignedDuration::from_secs(passed)).unwrap();
        let calendar = Calendar::new(times, zone("Europe/Berlin"), begin);
        let due = calendar.due(None, now);
        let (mut last, mut count) = (None, 0_u32);
        while let Some(slot) = calendar.next(last).filter(|slot| *slot <= now) {
            prop_assert!(last.is_none_or(|last| last < slot));
            (last, count) = (Some(slot), count + 1);
            if count > 4_000 {
                return Ok(());
            }
        }
        let expected = last.map(|slot| Due { slot, missed: (count - 1).min(MOST_MISSED) });
        prop_assert_eq!(due, expected);
    }
}
