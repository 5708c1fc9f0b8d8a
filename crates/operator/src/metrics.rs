//! Metrics, in the OpenMetrics text format. All names begin with `orlop_` and carry their unit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

use crate::config::Companion;

/// Upper bounds of the stage durations: from an empty namespace (a second) to many terabytes (a day).
const STAGE_SECONDS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    kind: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StageLabels {
    kind: String,
    stage: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    kind: String,
    error: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LocationLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ScheduleLabels {
    namespace: String,
    name: String,
}

/// What is known of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleState {
    /// The time that its last complete run was for; when it was made, if none is complete.
    pub last_complete: Timestamp,
    /// The first time that a run was, or will be, due for after the last complete one of its kind; none while it is suspended.
    pub due: Option<Timestamp>,
    /// What its last run that has ended missed.
    pub missed: u64,
}

/// Everything the operator counts.
pub struct Metrics {
    registry: Registry,
    runs: Family<RunLabels, Counter>,
    stage_duration: Family<StageLabels, Histogram>,
    volume_bytes: Family<KindLabels, Counter>,
    stored_bytes: Counter,
    missed_items: Family<KindLabels, Counter>,
    last_good_age: Family<NamespaceLabels, Gauge>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    location_ready: Family<LocationLabels, Gauge>,
    leader: Gauge,
    schedule_age: Family<ScheduleLabels, Gauge>,
    schedule_overdue: Family<ScheduleLabels, Gauge>,
    schedule_missed: Family<ScheduleLabels, Gauge>,
    /// How schedules are; ages are worked out when they are asked for.
    schedules: Mutex<BTreeMap<ScheduleLabels, ScheduleState>>,
    /// When the last good recovery point of a namespace was made; its age is worked out when it is asked for.
    last_good: Mutex<BTreeMap<String, Timestamp>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut new = Self {
            registry: Registry::with_prefix("orlop"),
            runs: Family::default(),
            stage_duration: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
            volume_bytes: Family::default(),
            stored_bytes: Counter::default(),
            missed_items: Family::default(),
            last_good_age: Family::default(),
            reconcile_errors: Family::default(),
            location_ready: Family::default(),
            leader: Gauge::default(),
            schedule_age: Family::default(),
            schedule_overdue: Family::default(),
            schedule_missed: Family::default(),
            schedules: Mutex::default(),
            last_good: Mutex::default(),
        };
        new.register();
        new
    }
}

impl Metrics {
    /// With those of others.
    #[must_use]
    pub fn with(companions: &[Arc<dyn Companion>]) -> Self {
        let mut new = Self::default();
        companions.iter().for_each(|companion| companion.register(&mut new.registry));
        new
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("runs", "Runs that ended, by kind and how", self.runs.clone());
        let stages = self.stage_duration.clone();
        r.register_with_unit("stage_duration", "How long the stages of runs took", Unit::Seconds, stages);
        let volumes = self.volume_bytes.clone();
        r.register_with_unit(
            "volume",
            "Bytes of volumes as applications see them, moved by runs",
            Unit::Bytes,
            volumes,
        );
        let stored = self.stored_bytes.clone();
        r.register_with_unit("stored", "Bytes that backups added to repositories", Unit::Bytes, stored);
        r.register("missed_items", "Objects and volumes that were wanted and missed", self.missed_items.clone());
        let age = self.last_good_age.clone();
        r.register_with_unit(
            "last_good_recovery_point_age",
            "Age of the last complete recovery point",
            Unit::Seconds,
            age,
        );
        r.register(
            "reconcile_errors",
            "Reconciles to be tried again, by kind and error",
            self.reconcile_errors.clone(),
        );
        r.register("location_ready", "1 where the last probe got through, else 0", self.location_ready.clone());
        let age = self.schedule_age.clone();
        r.register_with_unit(
            "schedule_last_complete_age",
            "Age of what the last complete run of a schedule was for; of the schedule, if none is complete",
            Unit::Seconds,
            age,
        );
        let overdue = self.schedule_overdue.clone();
        r.register_with_unit(
            "schedule_overdue",
            "For how long a run of a schedule has been due that did not end complete; 0 if none is, or the schedule is suspended",
            Unit::Seconds,
            overdue,
        );
        r.register(
            "schedule_last_run_missed_items",
            "Objects and volumes that the last run of a schedule wanted and missed",
            self.schedule_missed.clone(),
        );
        r.register("leader", "1 in the operator that reconciles, else 0", self.leader.clone());
    }

    /// Whether this operator leads. One that does not knows nothing of how things are: what it saw when it led, another one sees now.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if leads {
            // From 0 on, since the first failure is an increase only then.
            for kind in ["ApplicationBackup", "ApplicationClone", "ApplicationRestore"] {
                for phase in [api::Phase::Succeeded, api::Phase::Incomplete, api::Phase::Failed] {
                    drop(self.runs.get_or_create(&RunLabels { kind: kind.into(), phase: format!("{phase:?}") }));
                }
            }
        } else {
            self.location_ready.clear();
            self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.last_good_age.clear();
            self.schedules.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.schedule_age.clear();
            self.schedule_overdue.clear();
            self.schedule_missed.clear();
        }
    }

    /// A run of a kind ended in a phase.
    pub fn run_ended(&self, kind: &str, phase: api::Phase, missed: u64) {
        let labels = RunLabels { kind: kind.into(), phase: format!("{phase:?}") };
        self.runs.get_or_create(&labels).inc();
        self.missed_items.get_or_create(&KindLabels { kind: kind.into() }).inc_by(missed);
    }

    /// The stages of a run that ended.
    pub fn stages_ended(&self, kind: &str, stages: &[api::Timed]) {
        for timed in stages {
            let Some(finished) = &timed.finished_at else { continue };
            let labels = StageLabels { kind: kind.into(), stage: timed.stage.clone() };
            let seconds = finished.0.duration_since(timed.started_at.0).as_secs_f64();
            self.stage_duration.get_or_create(&labels).observe(seconds);
        }
    }

    /// Bytes of volumes that a run of a kind moved.
    pub fn moved(&self, kind: &str, bytes: u64) {
        self.volume_bytes.get_or_create(&KindLabels { kind: kind.into() }).inc_by(bytes);
    }

    /// Bytes that a backup added to a repository.
    pub fn stored(&self, bytes: u64) {
        self.stored_bytes.inc_by(bytes);
    }

    /// A complete recovery point of a namespace exists, made at `created`.
    pub fn good_point(&self, namespace: &str, created: Timestamp) {
        let mut last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = last.entry(namespace.to_owned()).or_insert(created);
        *newest = created.max(*newest);
    }

    /// A reconcile has to be tried again.
    pub fn reconcile_error(&self, kind: &str, error: &crate::Error) {
        let labels = ErrorLabels { kind: kind.into(), error: error.kind().into() };
        self.reconcile_errors.get_or_create(&labels).inc();
    }

    /// A location was probed.
    pub fn probed(&self, namespace: &str, name: &str, ready: bool) {
        let labels = LocationLabels { namespace: namespace.into(), name: name.into() };
        self.location_ready.get_or_create(&labels).set(i64::from(ready));
    }

    /// A location is gone.
    pub fn forget_location(&self, namespace: &str, name: &str) {
        self.location_ready.remove(&LocationLabels { namespace: namespace.into(), name: name.into() });
    }

    /// A schedule was looked at.
    pub fn scheduled(&self, namespace: &str, name: &str, state: ScheduleState) {
        let labels = ScheduleLabels { namespace: namespace.into(), name: name.into() };
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner).insert(labels, state);
    }

    /// A schedule is gone.
    pub fn forget_schedule(&self, namespace: &str, name: &str) {
        let labels = ScheduleLabels { namespace: namespace.into(), name: name.into() };
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner).remove(&labels);
        self.schedule_age.remove(&labels);
        self.schedule_overdue.remove(&labels);
        self.schedule_missed.remove(&labels);
    }

    /// Writes ages as of now.
    fn tell_time(&self, now: Timestamp) {
        let since = |then: Timestamp| now.duration_since(then).as_secs().max(0);
        for (namespace, created) in self.last_good.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = NamespaceLabels { namespace: namespace.clone() };
            self.last_good_age.get_or_create(&labels).set(since(*created));
        }
        for (labels, state) in self.schedules.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.schedule_age.get_or_create(labels).set(since(state.last_complete));
            self.schedule_overdue.get_or_create(labels).set(state.due.map_or(0, since));
            self.schedule_missed.get_or_create(labels).set(i64::try_from(state.missed).unwrap_or(i64::MAX));
        }
    }

    /// All of it, as a scraper wants it.
    ///
    /// # Errors
    /// Only if a label cannot be written as text, which none of ours does.
    pub fn encode(&self, now: Timestamp) -> Result<String, fmt::Error> {
        self.tell_time(now);
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
    }

    #[test]
    fn what_was_counted_is_served_with_units_in_the_names() {
        let metrics = Metrics::default();
        metrics.set_leader(true);
        metrics.run_ended("ApplicationBackup", api::Phase::Incomplete, 2);
        metrics.stored(77);
        metrics.good_point("shop", at(100));
        metrics.good_point("shop", at(50));
        metrics.probed("shop", "main", false);
        let text = metrics.encode(at(160)).expect("our labels are text");
        for line in [
            "orlop_leader 1",
            r#"orlop_runs_total{kind="ApplicationBackup",phase="Incomplete"} 1"#,
            r#"orlop_missed_items_total{kind="ApplicationBackup"} 2"#,
            "orlop_stored_bytes_total 77",
            r#"orlop_last_good_recovery_point_age_seconds{namespace="shop"} 60"#,
            r#"orlop_location_ready{namespace="shop",name="main"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_schedule_is_overdue_from_the_time_that_has_no_complete_run() {
        let metrics = Metrics::default();
        let state = |due| ScheduleState { last_complete: at(100), due, missed: 3 };
        metrics.scheduled("shop", "late", state(Some(at(150))));
        metrics.scheduled("shop", "early", state(Some(at(170))));
        metrics.scheduled("shop", "asleep", state(None));
        metrics.scheduled("shop", "gone", state(None));
        metrics.forget_schedule("shop", "gone");
        let text = metrics.encode(at(160)).expect("our labels are text");
        for line in [
            r#"orlop_schedule_last_complete_age_seconds{namespace="shop",name="late"} 60"#,
            r#"orlop_schedule_overdue_seconds{namespace="shop",name="late"} 10"#,
            r#"orlop_schedule_overdue_seconds{namespace="shop",name="early"} 0"#,
            r#"orlop_schedule_overdue_seconds{namespace="shop",name="asleep"} 0"#,
            r#"orlop_schedule_last_run_missed_items{namespace="shop",name="late"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
        metrics.set_leader(false);
        assert!(!metrics.encode(at(170)).expect("our labels are text").contains("late"));
    }

    #[test]
    fn who_leads_no_more_says_nothing_of_how_things_are() {
        let metrics = Metrics::default();
        metrics.set_leader(true);
        metrics.probed("shop", "main", true);
        metrics.good_point("shop", at(100));
        metrics.run_ended("ApplicationBackup", api::Phase::Succeeded, 0);
        metrics.encode(at(160)).expect("our labels are text");
        metrics.set_leader(false);
        let text = metrics.encode(at(170)).expect("our labels are text");
        let gauges = ["orlop_location_ready{", "orlop_last_good_recovery_point_age_seconds{"];
        assert!(!text.lines().any(|line| gauges.iter().any(|gauge| line.starts_with(gauge))), "{text}");
        assert!(text.contains("orlop_leader 0") && text.contains("orlop_runs_total{"), "{text}");
    }
}
