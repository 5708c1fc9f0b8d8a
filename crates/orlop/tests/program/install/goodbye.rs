//! In which order the custom resources go.

use std::fmt::Debug;
use std::time::Duration;

use api::{ApplicationBackup, ApplicationBackupSchedule, BackupLocation};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Cluster;
use crate::support::Ran;

/// Whether somebody has it deleted, and something holds it yet.
async fn is_going<K>(api: &Api<K>) -> bool
where
    K: Clone + DeserializeOwned + Debug + Resource,
{
    api.get_opt("x").await.unwrap().is_some_and(|one| one.meta().deletion_timestamp.is_some())
}

async fn made<K>(api: &Api<K>, object: Value)
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

async fn until_it_goes<K>(api: &Api<K>, uninstalling: &JoinHandle<Ran>)
where
    K: Clone + DeserializeOwned + Debug + Resource,
{
    while !is_going(api).await {
        assert!(!uninstalling.is_finished(), "it ended while something was held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locations_are_there_until_schedules_and_backups_are_gone() {
    sandbox::require_assets!();
    let cluster = Cluster::new().await;
    cluster.run(&["install", "--no-wait"]).await.good();
    cluster.operator_is_at_work().await;
    let schedules: Api<ApplicationBackupSchedule> = Api::namespaced(cluster.client(), "default");
    let backups: Api<ApplicationBackup> = Api::namespaced(cluster.client(), "default");
    let locations: Api<BackupLocation> = Api::namespaced(cluster.client(), "default");
    let held = json!({"name": "x", "finalizers": ["orlop.io/recovery-point"]});
    let backup = json!({"backupLocation": "x", "reclaimPolicy": "Delete"});
    let schedule =
        json!({"schedulePolicyName": "p", "reclaimPolicy": "Delete", "template": {"spec": {"backupLocation": "x"}}});
    let location = json!({
        "type": "s3", "path": "bucket", "credentialsSecret": "s", "encryption": {"secretRef": {"name": "s", "key": "k"}},
    });
    made(&locations, json!({"metadata": {"name": "x"}, "spec": location})).await;
    made(&backups, json!({"metadata": held, "spec": backup})).await;
    made(&schedules, json!({"metadata": held, "spec": schedule})).await;
    let uninstalling = cluster.start(&["uninstall", "--delete-crds"]);
    until_it_goes(&schedules, &uninstalling).await;
    assert!(!is_going(&backups).await && !is_going(&locations).await, "the schedule is there yet");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    schedules.patch("x", &PatchParams::default(), &free).await.unwrap();
    until_it_goes(&backups, &uninstalling).await;
    // Through it the operator removes the recovery point of the backup.
    assert!(locations.get_opt("x").await.unwrap().is_some() && !is_going(&locations).await);
    backups.patch("x", &PatchParams::default(), &free).await.unwrap();
    uninstalling.await.unwrap().good();
    assert!(!cluster.has_crds().await && cluster.left().await.is_empty());
}
