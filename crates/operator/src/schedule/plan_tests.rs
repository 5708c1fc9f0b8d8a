use std::collections::BTreeMap;

use api::schedule::{Daily, Interval, Policy, RUN_KIND_LABEL, SCHEDULED_AT, Tiers};
use api::{
    ApplicationBackupSchedule, ApplicationBackupScheduleSpec, ApplicationBackupScheduleStatus, ApplicationBackupStatus,
    BackupTemplate, Phase, SchedulePolicySpec, ScheduledBackupSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::gather::Run;
use super::*;

/// An hour's runs begin at 0:00.
const BEGIN: &str = "2026-01-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|_| format!("2026-01-{text}Z").parse().unwrap())
}

fn hourly(retain: u32) -> SchedulePolicySpec {
    let policy = Policy { interval: Some(Interval { interval_minutes: 60, retain }), ..Policy::default() };
    SchedulePolicySpec { policy, ..SchedulePolicySpec::default() }
}

/// A schedule with an hour's runs that was just made.
fn new(policy: SchedulePolicySpec) -> Gathered {
    let template =
        BackupTemplate { spec: ScheduledBackupSpec { backup_location: "main".into(), ..Default::default() } };
    let spec = ApplicationBackupScheduleSpec { template, schedule_policy_name: "p".into(), ..Default::default() };
    let mut schedule = ApplicationBackupSchedule::new("s", spec);
    schedule.metadata.namespace = Some("shop".into());
    schedule.metadata.creation_timestamp = Some(Time(at(BEGIN)));
    Gathered { schedule, policy: Some(policy), runs: Vec::new(), now: at(BEGIN) }
}

fn run(kind: RunKind, slot: Timestamp, phase: Phase) -> Run {
    let mut backup = ApplicationBackup::new(&format!("s-{}-{slot}", kind.text()), Default::default());
    backup.labels_mut().insert(RUN_KIND_LABEL.into(), kind.text().into());
    backup.annotations_mut().insert(SCHEDULED_AT.into(), slot.to_string());
    backup.status = Some(ApplicationBackupStatus { phase, ..Default::default() });
    Run::of(backup).unwrap()
}

fn hours(phases: &[Phase]) -> Vec<Run> {
    let slot = |hour: usize| at(BEGIN) + jiff::SignedDuration::from_hours(i64::try_from(hour).unwrap());
    phases.iter().enumerate().map(|(hour, phase)| run(RunKind::Interval, slot(hour), *phase)).collect()
}

fn works(gathered: &Gathered) -> Work {
    match plan(gathered) {
        Plan::Work(work) => work,
        other => panic!("{other:?}"),
    }
}

fn problem(gathered: &Gathered) -> Problem {
    match plan(gathered) {
        Plan::Report(problem) => problem,
        other => panic!("{other:?}"),
    }
}

fn begins(gathered: &Gathered) -> Option<(RunKind, Timestamp, u32)> {
    works(gathered).begin.map(|begin| (begin.kind, begin.slot, begin.missed))
}

/// The hours of the runs that go.
fn gone(gathered: &Gathered) -> Vec<String> {
    let slot = |run: &ApplicationBackup| run.annotations()[SCHEDULED_AT].clone();
    works(gathered).surplus.iter().map(|run| slot(run)[11..13].to_owned()).collect()
}

#[test]
fn the_first_run_of_an_interval_is_at_once_and_the_next_at_its_time() {
    let mut world = new(hourly(3));
    assert_eq!(begins(&world), Some((RunKind::Interval, at(BEGIN), 0)));
    world.runs = hours(&[Phase::Succeeded]);
    world.now = at("01T00:59:59");
    assert_eq!((begins(&world), works(&world).next), (None, Some(at("01T01:00:00"))));
    world.now = at("01T01:00:00");
    assert_eq!(begins(&world), Some((RunKind::Interval, at("01T01:00:00"), 0)));
}

#[test]
fn what_was_missed_is_made_up_for_once_whether_runs_are_there_or_only_noted() {
    let mut world = new(hourly(3));
    world.now = at("02T05:10:00");
    world.runs = hours(&[Phase::Succeeded]);
    assert_eq!(begins(&world), Some((RunKind::Interval, at("02T05:00:00"), 28)));
    let noted = BTreeMap::from([("Interval".to_owned(), Time(at("02T05:00:00")))]);
    let status = ApplicationBackupScheduleStatus { last_scheduled: noted, ..Default::default() };
    world.schedule.status = Some(status);
    assert_eq!(begins(&world), None);
}

#[test]
fn a_run_waits_for_an_earlier_one_unless_that_is_allowed() {
    let mut world = new(hourly(3));
    world.runs = hours(&[Phase::Running]);
    world.now = at("01T02:00:00");
    let work = works(&world);
    assert!(work.begin.is_none() && work.waits_for.is_some_and(|name| name.starts_with("s-Interval-")));
    world.schedule.spec.concurrency_policy = ConcurrencyPolicy::Allow;
    assert_eq!(begins(&world), Some((RunKind::Interval, at("01T02:00:00"), 1)));
}

#[test]
fn of_two_times_at_one_instant_each_has_its_run() {
    let mut policy = hourly(3);
    policy.policy.daily = Some(Daily { time: "00:00".into(), retain: 3 });
    policy.time_zone = Some("UTC".into());
    let mut world = new(policy);
    world.runs = hours(&[Phase::Succeeded; 24]);
    world.now = at("02T00:00:00");
    assert_eq!(begins(&world), Some((RunKind::Interval, world.now, 0)));
    world.runs = hours(&[Phase::Succeeded; 25]);
    assert_eq!(begins(&world), Some((RunKind::Daily, world.now, 0)));
    world.runs.push(run(RunKind::Daily, world.now, Phase::Succeeded));
    assert_eq!(begins(&world), None);
}

#[test]
fn nothing_begins_while_it_is_suspended_but_what_is_asked_for() {
    let mut world = new(hourly(3));
    world.schedule.spec.suspend = true;
    world.now = at("01T02:00:00");
    assert_eq!((begins(&world), works(&world).next), (None, None));
    world.schedule.annotations_mut().insert(TRIGGER_REQUESTED.into(), "please".into());
    assert_eq!(works(&world).begin.and_then(|begin| begin.request).as_deref(), Some("please"));
    let status = ApplicationBackupScheduleStatus { last_trigger: Some("please".into()), ..Default::default() };
    world.schedule.status = Some(status);
    assert_eq!(begins(&world), None);
    world.schedule.spec.suspend = false;
    assert_eq!(begins(&world), Some((RunKind::Interval, at("01T02:00:00"), 2)));
}

#[test]
fn a_change_of_the_policy_acts_at_once() {
    let mut world = new(hourly(3));
    world.runs = hours(&[Phase::Succeeded; 3]);
    world.now = at("01T02:20:00");
    assert_eq!((begins(&world), gone(&world)), (None, vec![]));
    let policy = Policy { interval: Some(Interval { interval_minutes: 10, retain: 1 }), ..Policy::default() };
    world.policy = Some(SchedulePolicySpec { policy, ..Default::default() });
    assert_eq!(begins(&world), Some((RunKind::Interval, at("01T02:20:00"), 1)));
    assert_eq!(gone(&world), ["00", "01"]);
}

#[test]
fn failures_push_no_complete_run_out() {
    use Phase::{Failed, Incomplete, Succeeded};
    let mut world = new(hourly(2));
    world.now = at("01T08:30:00");
    world.runs = hours(&[Succeeded, Succeeded, Succeeded, Failed, Incomplete, Failed, Failed, Failed, Failed]);
    assert_eq!(gone(&world), ["00", "03", "04", "05", "06", "07"], "two complete ones stay, and the newest");
    world.policy = Some(hourly(1));
    world.runs = hours(&[Succeeded, Failed, Failed]);
    assert_eq!(gone(&world), ["01"], "the last complete one never goes");
}

#[test]
fn what_is_pinned_asked_for_under_way_or_of_a_time_that_is_no_more_stays() {
    let mut world = new(hourly(1));
    world.now = at("01T03:30:00");
    world.runs = hours(&[Phase::Succeeded, Phase::Running, Phase::Succeeded, Phase::Succeeded]);
    assert_eq!(gone(&world), ["00", "02"]);
    world.runs[0].backup.annotations_mut().insert(api::schedule::PINNED.into(), String::new());
    world.runs.push(run(RunKind::Manual, at("01T00:10:00"), Phase::Succeeded));
    world.runs.push(run(RunKind::Weekly, at("01T00:20:00"), Phase::Succeeded));
    assert_eq!(gone(&world), ["02"]);
}

#[test]
fn tiers_keep_beside_what_the_times_keep() {
    let mut policy = hourly(1);
    policy.gfs = Some(Tiers { hourly: 3, daily: 2, ..Tiers::default() });
    let mut world = new(policy);
    world.runs = hours(&[Phase::Succeeded; 30]);
    world.now = at("02T05:30:00");
    let kept: Vec<_> = {
        let gone: Vec<_> = works(&world).surplus.iter().map(ResourceExt::name_any).collect();
        world.runs.iter().filter(|run| !gone.contains(&run.backup.name_any())).map(|run| run.slot).collect()
    };
    assert_eq!(kept, ["01T23:00:00", "02T03:00:00", "02T04:00:00", "02T05:00:00"].map(at));
}

#[test]
fn what_cannot_be_meant_is_named_and_nothing_is_done() {
    let mut world = new(hourly(3));
    world.policy = None;
    assert_eq!(problem(&world).reason, "PolicyNotFound");
    world.policy = Some(SchedulePolicySpec { time_zone: Some("Atlantis/Poseidonis".into()), ..hourly(0) });
    let problem_of_policy = problem(&world);
    assert_eq!(problem_of_policy.reason, "InvalidPolicy");
    for part in ["spec.timeZone", "Atlantis", "spec.policy.interval.retain"] {
        assert!(problem_of_policy.message.contains(part), "{}", problem_of_policy.message);
    }
    world.policy = Some(hourly(3));
    world.schedule.spec.template.spec.namespaces = vec!["other".into()];
    let of_template = problem(&world);
    assert!(of_template.reason == "InvalidSpec" && of_template.message.contains("spec.template.spec.namespaces[0]"));
    world.schedule.spec.template.spec.namespaces.clear();
    world.schedule.spec.template.spec.selectors = [("app".to_owned(), "a b".to_owned())].into();
    assert!(problem(&world).message.contains("spec.template.spec.selectors.app"), "{}", problem(&world).message);
}

#[test]
fn runs_go_with_a_schedule_that_takes_them_along() {
    let mut world = new(hourly(3));
    world.runs = hours(&[Phase::Succeeded; 2]);
    world.schedule.metadata.deletion_timestamp = Some(Time(at(BEGIN)));
    let left = |world: &Gathered| match plan(world) {
        Plan::Leave { runs, is_over } => (runs.len(), is_over),
        other => panic!("{other:?}"),
    };
    assert_eq!(left(&world), (0, true));
    world.schedule.spec.reclaim_policy = ReclaimPolicy::Delete;
    assert_eq!(left(&world), (2, false));
    for run in &mut world.runs {
        run.backup.metadata.deletion_timestamp = Some(Time(at(BEGIN)));
    }
    assert_eq!(left(&world), (0, false));
    world.runs.clear();
    assert_eq!(left(&world), (0, true));
}

#[test]
fn what_was_due_after_the_last_complete_run_is_overdue() {
    use Phase::{Failed, Incomplete, Running, Succeeded};
    let from = |runs: &[Phase], suspend: bool| {
        let mut gathered = Gathered { runs: hours(runs), ..new(hourly(9)) };
        gathered.schedule.spec.suspend = suspend;
        works(&gathered).incomplete_from
    };
    assert_eq!(from(&[], false), Some(at("01T00:00:00")), "none was complete yet");
    assert_eq!(from(&[Succeeded], false), Some(at("01T01:00:00")));
    assert_eq!(from(&[Succeeded, Failed, Incomplete, Running], false), Some(at("01T01:00:00")));
    assert_eq!(from(&[Failed, Succeeded], false), Some(at("01T02:00:00")));
    assert_eq!(from(&[Succeeded, Failed], true), None);
}
