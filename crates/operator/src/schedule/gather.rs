//! What is known of a schedule before anything is done about it.

use api::schedule::{RUN_KIND_LABEL, SCHEDULE_LABEL, SCHEDULED_AT};
use api::{
    ApplicationBackup, ApplicationBackupSchedule, NamespacedSchedulePolicy, Phase, RunKind, SchedulePolicy,
    SchedulePolicySpec,
};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::context::Context;
use crate::error::{During, Error};
use crate::objects;

/// What is known of a schedule.
pub(super) struct Gathered {
    /// As it is now.
    pub schedule: ApplicationBackupSchedule,
    /// The policy that it names, if there is one.
    pub policy: Option<SchedulePolicySpec>,
    /// Its runs, those last that are for the latest instants.
    pub runs: Vec<Run>,
    /// Now.
    pub now: Timestamp,
}

/// A backup that a schedule made.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The backup.
    pub backup: ApplicationBackup,
    /// For which of the times.
    pub kind: RunKind,
    /// The instant that it is for.
    pub slot: Timestamp,
}

impl Run {
    /// Nothing if somebody has given the label to a backup that no schedule has made.
    pub(super) fn of(backup: ApplicationBackup) -> Option<Self> {
        let kind = RunKind::of_text(backup.labels().get(RUN_KIND_LABEL)?)?;
        let slot = backup.annotations().get(SCHEDULED_AT)?.parse().ok()?;
        Some(Self { backup, kind, slot })
    }

    /// Where it is.
    pub(super) fn phase(&self) -> Phase {
        self.backup.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub(super) fn is_leaving(&self) -> bool {
        self.backup.metadata.deletion_timestamp.is_some()
    }
}

/// Reads the schedule, its policy and its runs; nothing if it is gone.
pub(super) async fn gather(context: &Context, cached: &ApplicationBackupSchedule) -> Result<Option<Gathered>, Error> {
    let (client, namespace) = (&context.client, cached.namespace().unwrap_or_default());
    let Some(schedule) = objects::read::<ApplicationBackupSchedule>(client, &namespace, &cached.name_any()).await?
    else {
        return Ok(None);
    };
    let name = &schedule.spec.schedule_policy_name;
    let policy = match objects::read::<NamespacedSchedulePolicy>(client, &namespace, name).await? {
        Some(policy) => Some(policy.spec.into()),
        None => {
            let all = Api::<SchedulePolicy>::all(client.clone());
            let found = all.get_opt(name).await.during(|| format!("read the SchedulePolicy {name}"))?;
            found.map(|policy| policy.spec)
        }
    };
    let labelled = ListParams::default().labels(&format!("{SCHEDULE_LABEL}={}", schedule.name_any()));
    let backups = Api::<ApplicationBackup>::namespaced(client.clone(), &namespace).list(&labelled).await;
    let backups = backups.during(|| format!("list the runs of the {}", objects::title(&schedule)))?;
    let mut runs: Vec<Run> = backups.items.into_iter().filter_map(Run::of).collect();
    runs.sort_by_key(|run| (run.slot, run.kind, run.backup.name_any()));
    Ok(Some(Gathered { schedule, policy, runs, now: Timestamp::now() }))
}
