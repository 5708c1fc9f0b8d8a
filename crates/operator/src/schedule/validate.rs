//! Whether a schedule and its policy can be meant, and which times they name.

use std::num::NonZeroU32;

use api::{ApplicationBackupSchedule, FieldError, RunKind, SchedulePolicySpec};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::ResourceExt;
use recovery::schedule::{Calendar, Times};
use repository::retention::{Every, Policy};

/// The longest name: it is the value of a label.
const MOST_NAME: usize = 63;

/// What the runs of one kind follow.
pub(super) struct Course {
    /// For which of the times.
    pub kind: RunKind,
    /// When they are due.
    pub calendar: Calendar,
    /// How many are kept.
    pub retain: NonZeroU32,
}

/// What a policy means.
pub(super) struct Courses {
    /// Its times.
    pub courses: Vec<Course>,
    /// What is kept beside.
    pub tiers: Option<Policy>,
    /// Where days begin.
    pub zone: TimeZone,
}

/// Finds everything that is wrong with the schedule itself.
pub(super) fn validate(schedule: &ApplicationBackupSchedule) -> Result<(), String> {
    let mut wrong = Vec::new();
    let name = schedule.name_any();
    if name.len() > MOST_NAME {
        wrong.push(format!(
            "metadata.name: {name:?} is not allowed: at most {MOST_NAME} characters, since runs bear it as a label"
        ));
    }
    let of_template = schedule.spec.template.spec.run().validate(&schedule.namespace().unwrap_or_default());
    wrong.extend(of_template.iter().map(|error| format!("spec.template.{error}")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// What a policy means for a schedule that was made at `begin`; else everything that is wrong with it.
pub(super) fn courses(policy: &SchedulePolicySpec, begin: Timestamp) -> Result<Courses, String> {
    let mut wrong = policy.validate();
    let zone = match policy.time_zone.as_deref().map(TimeZone::get) {
        None => TimeZone::UTC,
        Some(Ok(zone)) => zone,
        Some(Err(_)) => {
            wrong.push(FieldError {
                field: "spec.timeZone".into(),
                value: policy.time_zone.clone().unwrap_or_default(),
                allowed: "the name of a time zone, such as Europe/Berlin; leave it out for UTC".into(),
            });
            TimeZone::UTC
        }
    };
    let mut courses = Vec::new();
    for (kind, times, retain) in times(policy, &zone, &mut wrong) {
        // What is not allowed was found by `validate`.
        if let Some(retain) = NonZeroU32::new(retain) {
            courses.push(Course { kind, calendar: Calendar::new(times, zone.clone(), begin), retain });
        }
    }
    if wrong.is_empty() {
        Ok(Courses { courses, tiers: tiers(policy), zone })
    } else {
        Err(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

fn times(policy: &SchedulePolicySpec, zone: &TimeZone, wrong: &mut Vec<FieldError>) -> Vec<(RunKind, Times, u32)> {
    let (policy, mut times) = (&policy.policy, Vec::new());
    if let Some(interval) = &policy.interval
        && let Some(minutes) = NonZeroU32::new(interval.interval_minutes)
    {
        times.push((RunKind::Interval, Times::Interval { minutes }, interval.retain));
    }
    if let Some(daily) = &policy.daily
        && let Some(time) = api::validate::time_of_day(&daily.time)
    {
        times.push((RunKind::Daily, Times::Daily { time }, daily.retain));
    }
    if let Some(weekly) = &policy.weekly
        && let (Some(day), Some(time)) = (api::validate::weekday(&weekly.day), api::validate::time_of_day(&weekly.time))
    {
        times.push((RunKind::Weekly, Times::Weekly { day, time }, weekly.retain));
    }
    if let Some(monthly) = &policy.monthly
        && let Some(time) = api::validate::time_of_day(&monthly.time)
    {
        times.push((RunKind::Monthly, Times::Monthly { date: monthly.date, time }, monthly.retain));
    }
    if let Some(cron) = &policy.cron {
        match Times::cron(&cron.expression, zone) {
            Ok(read) => times.push((RunKind::Cron, read, cron.retain)),
            Err(error) => wrong.push(FieldError {
                field: "spec.policy.cron.expression".into(),
                value: cron.expression.clone(),
                allowed: format!("five fields of cron, such as \"30 2 * * 1-5\": {error}"),
            }),
        }
    }
    times
}

fn tiers(policy: &SchedulePolicySpec) -> Option<Policy> {
    let tiers = policy.gfs?;
    let counts = [tiers.hourly, tiers.daily, tiers.weekly, tiers.monthly, tiers.yearly];
    let every = Every::ALL.into_iter().zip(counts).filter_map(|(every, count)| Some((every, NonZeroU32::new(count)?)));
    Policy::new(None, every, None, Vec::new()).ok()
}
