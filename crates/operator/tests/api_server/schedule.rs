//! Schedules on a real API server: runs begin, are caught up, and go with their recovery points.

use crate::support::{ADMIN, World, start, until};
use api::schedule::{RUN_KIND_LABEL, SCHEDULE_LABEL, SCHEDULED_AT, TRIGGER_REQUESTED};
use api::{
    ApplicationBackup, ApplicationBackupSchedule, ApplicationBackupScheduleStatus, NamespacedSchedulePolicy, Phase,
    SchedulePolicy,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// The name of the schedule.
pub(super) const NAME: &str = "nightly";

async fn ready() -> World {
    let world = World::new().await;
    world.location(ADMIN).await;
    world.application().await;
    world
}

/// A policy for all namespaces: hourly runs.
pub(super) async fn policy(world: &World, retain: u32) {
    let policy = json!({"metadata": {"name": "hourly"}, "spec": {"policy": {"interval": {"intervalMinutes": 60, "retain": retain}}}});
    let api: Api<SchedulePolicy> = Api::all(world.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(policy_of(policy)).unwrap()).await.unwrap();
}

fn policy_of(mut value: Value) -> Value {
    value["apiVersion"] = json!("orlop.io/v1alpha1");
    value["kind"] = json!("SchedulePolicy");
    value
}

pub(super) async fn schedule(world: &World, change: Value) {
    let mut spec = json!({
        "template": {"spec": {"namespaces": ["shop"], "backupLocation": "main"}},
        "schedulePolicyName": "hourly",
    });
    let changes = change.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(changes);
    let manifest = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "ApplicationBackupSchedule", "metadata": {"name": NAME}, "spec": spec,
    });
    world.create::<ApplicationBackupSchedule>(ADMIN, manifest).await;
}

async fn patch(world: &World, patch: Value) {
    let api: Api<ApplicationBackupSchedule> = world.api(ADMIN);
    api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn runs(world: &World) -> Vec<ApplicationBackup> {
    let labelled = ListParams::default().labels(&format!("{SCHEDULE_LABEL}={NAME}"));
    world.api::<ApplicationBackup>(ADMIN).list(&labelled).await.unwrap().items
}

/// Waits until the runs are these, by the beginnings of their names, and have ended.
pub(super) async fn runs_are(world: &World, beginnings: &[&str]) -> Vec<ApplicationBackup> {
    until(&format!("the runs {beginnings:?}"), || async {
        let runs = runs(world).await;
        let ended = runs.iter().all(|run| run.status.as_ref().is_some_and(|s| s.phase == Phase::Succeeded));
        let named = runs.iter().zip(beginnings).all(|(run, beginning)| run.name_any().starts_with(beginning));
        (ended && named && runs.len() == beginnings.len()).then_some(runs)
    })
    .await
}

/// Waits until the status of the schedule says so.
async fn says(world: &World, reason: &str) -> ApplicationBackupScheduleStatus {
    let api: Api<ApplicationBackupSchedule> = world.api(ADMIN);
    until(&format!("the schedule to say {reason}"), || async {
        let status = api.get(NAME).await.unwrap().status?;
        status.conditions.iter().any(|condition| condition.reason == reason).then_some(status)
    })
    .await
}

async fn points(world: &World) -> Vec<String> {
    world.repository().await.points().await.unwrap().iter().map(|point| point.id.to_string()).collect()
}

/// A run as the schedule would have made it some hours ago.
async fn earlier_run(world: &World, hours: i64) {
    let slot = Timestamp::now() - SignedDuration::from_hours(hours);
    let mut run = world
        .create::<ApplicationBackup>(
            ADMIN,
            json!({
                "apiVersion": "orlop.io/v1alpha1", "kind": "ApplicationBackup",
                "metadata": {
                    "name": format!("earlier-{hours}"),
                    "labels": {SCHEDULE_LABEL: NAME, RUN_KIND_LABEL: "Interval"},
                    "annotations": {SCHEDULED_AT: slot.to_string()},
                },
                "spec": {"namespaces": ["shop"], "backupLocation": "main"},
            }),
        )
        .await;
    run = world.finished(&run.name_any()).await;
    assert_eq!(run.status.unwrap().phase, Phase::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_begin_and_those_not_to_be_kept_go_with_their_recovery_points() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    policy(&world, 2).await;
    schedule(&world, json!({"suspend": true})).await;
    says(&world, "Suspended").await;
    earlier_run(&world, 3).await;
    earlier_run(&world, 2).await;
    assert_eq!(points(&world).await.len(), 2);
    patch(&world, json!({"spec": {"suspend": false}})).await;
    let left = runs_are(&world, &["earlier-2", "nightly-interval-"]).await;
    let status = says(&world, "Scheduled").await;
    let next = status.next_run_at.unwrap().0;
    assert!(next > Timestamp::now() && next < Timestamp::now() + SignedDuration::from_mins(61), "{next}");
    assert!(status.last_complete_at.is_some());
    let items: Vec<_> = status.items["Interval"].iter().map(|run| run.name.clone()).collect();
    assert_eq!(items, [left[1].name_any(), left[0].name_any()]);
    until("the recovery point of the run that went to go", || async {
        (points(&world).await.len() == 2).then_some(())
    })
    .await;
    let ids: Vec<_> = left.iter().map(|run| run.status.clone().unwrap().recovery_point.unwrap()).collect();
    assert!(points(&world).await.iter().all(|point| ids.contains(point)));
    // Somebody deletes a run: its recovery point stays.
    world.api::<ApplicationBackup>(ADMIN).delete(&left[1].name_any(), &DeleteParams::default()).await.unwrap();
    runs_are(&world, &["earlier-2"]).await;
    assert_eq!(points(&world).await.len(), 2);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_make_one_run_of_each_time_and_of_each_request() {
    sandbox::require_assets!();
    let world = ready().await;
    let operators = [world.operator(), start(world.client.clone(), world.config())];
    policy(&world, 3).await;
    schedule(&world, json!({})).await;
    runs_are(&world, &["nightly-interval-"]).await;
    patch(&world, json!({"metadata": {"annotations": {TRIGGER_REQUESTED: "Before the upgrade"}}})).await;
    runs_are(&world, &["nightly-interval-", "nightly-manual-beforetheupgrade"]).await;
    says(&world, "Scheduled").await;
    let api: Api<ApplicationBackupSchedule> = world.api(ADMIN);
    assert_eq!(api.get(NAME).await.unwrap().status.unwrap().last_trigger.as_deref(), Some("Before the upgrade"));
    world.events(ADMIN, NAME, &["RunBegun"]).await;
    for operator in operators {
        operator.stop().await;
    }
    assert_eq!(runs(&world).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_mended_policies_act_at_once() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    schedule(&world, json!({"reclaimPolicy": "Delete"})).await;
    let status = says(&world, "PolicyNotFound").await;
    assert!(status.message.unwrap().contains("there is no policy hourly"));
    let own = json!({
        "apiVersion": "orlop.io/v1alpha1", "kind": "NamespacedSchedulePolicy", "metadata": {"name": "hourly"},
        "spec": {"policy": {"cron": {"expression": "0 0 31 2 *"}}},
    });
    world.create::<NamespacedSchedulePolicy>(ADMIN, own).await;
    let message = says(&world, "InvalidPolicy").await.message.unwrap();
    assert!(message.contains("spec.policy.cron.expression") && message.contains("0 0 31 2 *"), "{message}");
    world.events(ADMIN, NAME, &["PolicyNotFound", "InvalidPolicy"]).await;
    // The one of the namespace goes before this one, until it is gone.
    policy(&world, 3).await;
    assert!(runs(&world).await.is_empty());
    world.api::<NamespacedSchedulePolicy>(ADMIN).delete("hourly", &DeleteParams::default()).await.unwrap();
    runs_are(&world, &["nightly-interval-"]).await;
    // The schedule takes its runs along, and these their recovery points.
    world.api::<ApplicationBackupSchedule>(ADMIN).delete(NAME, &DeleteParams::default()).await.unwrap();
    let api: Api<ApplicationBackupSchedule> = world.api(ADMIN);
    until("the schedule to go", || async { api.get_opt(NAME).await.unwrap().is_none().then_some(()) }).await;
    assert!(runs(&world).await.is_empty());
    assert!(points(&world).await.is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_is_told_and_tried_again() {
    sandbox::require_assets!();
    let world = ready().await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/applicationbackups.orlop.io": "0"}}});
    world.create::<ResourceQuota>(ADMIN, quota).await;
    let quotas: Api<ResourceQuota> = world.api(ADMIN);
    until("the quota to be counted", || async { quotas.get("none").await.unwrap().status?.hard }).await;
    let operator = world.operator();
    policy(&world, 3).await;
    schedule(&world, json!({})).await;
    let message = says(&world, "RunRefused").await.message.unwrap();
    assert!(message.contains("nightly-interval-") && message.contains("quota"), "{message}");
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    runs_are(&world, &["nightly-interval-"]).await;
    operator.stop().await;
}
