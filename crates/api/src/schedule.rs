//! Schedules: when backups are made by themselves, and which of them are kept.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::{ApplicationBackupSpec, ReclaimPolicy, VolumePolicy};
use crate::common::{ObjectFilter, Phase};

/// On every run that a schedule made: the name of the schedule, which is in the same namespace.
pub const SCHEDULE_LABEL: &str = "orlop.io/schedule";
/// On every run that a schedule made: for which of its times, as in [`RunKind`].
pub const RUN_KIND_LABEL: &str = "orlop.io/schedule-type";
/// On every run that a schedule made: the instant that it is for.
pub const SCHEDULED_AT: &str = "orlop.io/scheduled-at";
/// Written on a schedule to have a run now, beside its times; each new value asks for one more. `now` will do the first time.
pub const TRIGGER_REQUESTED: &str = "orlop.io/trigger-requested-at";
/// On a run with any value: retention never removes it.
pub const PINNED: &str = "orlop.io/pinned";

/// The times of a schedule, for all namespaces.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "SchedulePolicy",
    doc = "When runs begin and how many are kept, for the schedules of all namespaces.",
    plural = "schedulepolicies",
    shortname = "osp",
    category = "orlop",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Interval","type":"integer","jsonPath":".spec.policy.interval.intervalMinutes"}"#,
    printcolumn = r#"{"name":"Daily","type":"string","jsonPath":".spec.policy.daily.time"}"#,
    printcolumn = r#"{"name":"Weekly","type":"string","jsonPath":".spec.policy.weekly.day"}"#,
    printcolumn = r#"{"name":"Monthly","type":"integer","jsonPath":".spec.policy.monthly.date"}"#,
    printcolumn = r#"{"name":"Cron","type":"string","jsonPath":".spec.policy.cron.expression"}"#,
    printcolumn = r#"{"name":"Time Zone","type":"string","jsonPath":".spec.timeZone"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SchedulePolicySpec {
    /// When runs begin. Several may be given; each makes runs of its own and keeps so many of them.
    pub policy: Policy,
    /// Where the times of day are meant, as the IANA names it, such as `Europe/Berlin`; UTC if it is not given. Clocks that are set forward over a time
    /// move it by as much; where they are set back, the first of the two counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Runs that are kept beside those that `policy` keeps: the newest of each of so many hours, days, weeks, months and years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gfs: Option<Tiers>,
}

/// The times of a schedule, for one namespace. It goes before a `SchedulePolicy` of the same name.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "NamespacedSchedulePolicy",
    doc = "When runs begin and how many are kept, for the schedules of this namespace; it goes before a SchedulePolicy of the same name.",
    plural = "namespacedschedulepolicies",
    shortname = "onsp",
    category = "orlop",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Interval","type":"integer","jsonPath":".spec.policy.interval.intervalMinutes"}"#,
    printcolumn = r#"{"name":"Daily","type":"string","jsonPath":".spec.policy.daily.time"}"#,
    printcolumn = r#"{"name":"Weekly","type":"string","jsonPath":".spec.policy.weekly.day"}"#,
    printcolumn = r#"{"name":"Monthly","type":"integer","jsonPath":".spec.policy.monthly.date"}"#,
    printcolumn = r#"{"name":"Cron","type":"string","jsonPath":".spec.policy.cron.expression"}"#,
    printcolumn = r#"{"name":"Time Zone","type":"string","jsonPath":".spec.timeZone"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedSchedulePolicySpec {
    /// When runs begin. Several may be given; each makes runs of its own and keeps so many of them.
    pub policy: Policy,
    /// Where the times of day are meant, as the IANA names it, such as `Europe/Berlin`; UTC if it is not given. Clocks that are set forward over a time
    /// move it by as much; where they are set back, the first of the two counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Runs that are kept beside those that `policy` keeps: the newest of each of so many hours, days, weeks, months and years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gfs: Option<Tiers>,
}

impl From<NamespacedSchedulePolicySpec> for SchedulePolicySpec {
    fn from(spec: NamespacedSchedulePolicySpec) -> Self {
        Self { policy: spec.policy, time_zone: spec.time_zone, gfs: spec.gfs }
    }
}

/// When runs begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Every so many minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<Daily>,
    /// Every week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Weekly>,
    /// Every month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Monthly>,
    /// As cron has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<Cron>,
}

/// Every so many minutes from when the schedule was made; the first run is at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// The minutes between two runs.
    #[schemars(range(min = 1, max = 525_600))]
    pub interval_minutes: u32,
    /// How many complete runs are kept.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub retain: u32,
}

/// Every day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Daily {
    /// The time of day, such as `23:05` or `11:05PM`.
    pub time: String,
    /// How many complete runs are kept.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1))]
    pub retain: u32,
}

/// Every week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Weekly {
    /// The day, such as `Sunday` or `Sun`.
    pub day: String,
    /// The time of day, such as `23:05` or `11:05PM`.
    pub time: String,
    /// How many complete runs are kept.
    #[serde(default = "seven")]
    #[schemars(range(min = 1))]
    pub retain: u32,
}

/// Every month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Monthly {
    /// The date; a month that has none of it has its run on its last day.
    #[schemars(range(min = 1, max = 31))]
    pub date: u8,
    /// The time of day, such as `23:05` or `11:05PM`.
    pub time: String,
    /// How many complete runs are kept.
    #[serde(default = "twelve")]
    #[schemars(range(min = 1))]
    pub retain: u32,
}

/// As cron has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cron {
    /// Minute, hour, day of the month, month, day of the week, such as `30 2 * * 1-5`.
    pub expression: String,
    /// How many complete runs are kept.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub retain: u32,
}

fn ten() -> u32 {
    10
}

fn thirty() -> u32 {
    30
}

fn seven() -> u32 {
    7
}

fn twelve() -> u32 {
    12
}

/// Of how many periods the newest complete run is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tiers {
    /// Hours.
    #[serde(default)]
    pub hourly: u32,
    /// Days.
    #[serde(default)]
    pub daily: u32,
    /// Weeks, which begin on Monday.
    #[serde(default)]
    pub weekly: u32,
    /// Months.
    #[serde(default)]
    pub monthly: u32,
    /// Years.
    #[serde(default)]
    pub yearly: u32,
}

/// For which of the times of a schedule a run was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RunKind {
    /// `policy.interval`.
    Interval,
    /// `policy.daily`.
    Daily,
    /// `policy.weekly`.
    Weekly,
    /// `policy.monthly`.
    Monthly,
    /// `policy.cron`.
    Cron,
    /// Somebody asked for it.
    Manual,
}

impl RunKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Interval, Self::Daily, Self::Weekly, Self::Monthly, Self::Cron, Self::Manual];

    /// As it stands in labels and statuses.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Interval => "Interval",
            Self::Daily => "Daily",
            Self::Weekly => "Weekly",
            Self::Monthly => "Monthly",
            Self::Cron => "Cron",
            Self::Manual => "Manual",
        }
    }

    /// The kind that a label names.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.text() == text)
    }
}

/// Makes backups by itself.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "orlop.io",
    version = "v1alpha1",
    kind = "ApplicationBackupSchedule",
    doc = "Makes backups by itself, and removes those that are not to be kept.",
    plural = "applicationbackupschedules",
    shortname = "oabs",
    category = "orlop",
    namespaced,
    status = "ApplicationBackupScheduleStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.schedulePolicyName"}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Last Complete","type":"date","jsonPath":".status.lastCompleteAt"}"#,
    printcolumn = r#"{"name":"Next","type":"string","jsonPath":".status.nextRunAt"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationBackupScheduleSpec {
    /// What each run backs up.
    pub template: BackupTemplate,
    /// Name of a `NamespacedSchedulePolicy` of this namespace, or else of a `SchedulePolicy`.
    #[schemars(length(min = 1, max = 253))]
    pub schedule_policy_name: String,
    /// No run is begun while this is set. Afterwards one makes up for those that were missed.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the runs, and with them to their recovery points, when the schedule is deleted.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
    /// Whether a run begins while an earlier one of the schedule goes on.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
}

/// Whether a run begins while an earlier one goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// It waits until the earlier one has ended, and then stands for all that came meanwhile.
    #[default]
    Forbid,
    /// It begins at its time.
    Allow,
}

/// What the runs of a schedule are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackupTemplate {
    /// As of an `ApplicationBackup`.
    pub spec: ScheduledBackupSpec,
}

/// The fields of an `ApplicationBackup`, but for `reclaimPolicy`: the recovery point of a scheduled run goes when the policy does not keep it, and stays when
/// the run is deleted by anybody else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledBackupSpec {
    /// The namespaces to back up; the resource's own if none is given. Others than its own only in the namespace `orlop-system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that an object must bear, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// Only objects that match one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include_resources: Vec<ObjectFilter>,
    /// Only these kinds, such as `ConfigMap`, `Deployment.apps` or `Secret.core`; `*.example.com` is every kind of a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_types: Vec<String>,
    /// Not these kinds, written in the same ways. `PersistentVolumeClaim` here leaves the data out too; a whole group that does not
    /// answer is no hole when it is excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_resource_types: Vec<String>,
    /// Name of the `BackupLocation` in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub backup_location: String,
    /// Name of a `Rule` in this namespace that runs before the volumes are read. What it does in the background goes on until they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_exec_rule: Option<String>,
    /// Name of a `Rule` in this namespace that runs when the volumes have been read; and whenever anything of `preExecRule` has run, also if the run fails or is
    /// deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_exec_rule: Option<String>,
    /// Per CSI driver, the `VolumeSnapshotClass` to take snapshots with. Where none is named, it is the default one of the driver, or the only one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub csi_snapshot_class_map: BTreeMap<String, String>,
    /// How volumes are read: the first policy that matches a claim counts. Where none does, a snapshot is read if the volume's driver can take one, and else the
    /// volume itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_policies: Vec<VolumePolicy>,
}

impl ScheduledBackupSpec {
    /// The spec of a run.
    #[must_use]
    pub fn run(&self) -> ApplicationBackupSpec {
        ApplicationBackupSpec {
            namespaces: self.namespaces.clone(),
            selectors: self.selectors.clone(),
            include_resources: self.include_resources.clone(),
            resource_types: self.resource_types.clone(),
            exclude_resource_types: self.exclude_resource_types.clone(),
            backup_location: self.backup_location.clone(),
            pre_exec_rule: self.pre_exec_rule.clone(),
            post_exec_rule: self.post_exec_rule.clone(),
            csi_snapshot_class_map: self.csi_snapshot_class_map.clone(),
            volume_policies: self.volume_policies.clone(),
            reclaim_policy: ReclaimPolicy::Retain,
        }
    }
}

/// What is known of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationBackupScheduleStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Per kind of runs, when the last one was due, whether it is there still or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_scheduled: BTreeMap<String, Time>,
    /// The runs that are there, per kind, the newest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, Vec<ScheduledRun>>,
    /// When the next run is due; absent while the schedule is suspended or cannot work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<Time>,
    /// When the newest complete run of those that are there was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_complete_at: Option<Time>,
    /// The last request for a run beside the times that was followed: the value of the annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_trigger: Option<String>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A run of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRun {
    /// The name of the `ApplicationBackup`.
    pub name: String,
    /// The instant that it is for.
    pub scheduled_at: Time,
    /// Where it is.
    pub phase: Phase,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::schema::StructuralSchemaRewriter;
    use schemars::generate::SchemaSettings;

    fn fields<T: JsonSchema>() -> std::collections::BTreeSet<String> {
        let settings = SchemaSettings::openapi3().with_transform(StructuralSchemaRewriter);
        let schema = serde_json::to_value(settings.into_generator().into_root_schema_for::<T>()).expect("plain data");
        schema["properties"].as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn a_scheduled_run_has_all_fields_of_a_backup_but_one() {
        let mut of_backup = fields::<ApplicationBackupSpec>();
        assert!(of_backup.remove("reclaimPolicy"));
        assert_eq!(fields::<ScheduledBackupSpec>(), of_backup);
    }
}
