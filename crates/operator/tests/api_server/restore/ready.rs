//! Whether what was restored runs. The controllers are real; the node is played.

use api::{ApplicationRestoreStatus, Phase, RestoreStage, WorkloadState};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::restore::point::{Wanted, namespace, object, publish, shop};
use crate::restore::{over, ready, reason, restore_with, says, status};
use crate::support::kubelet::{Runs, set_status};
use crate::support::{SHOP, World, until};

/// Restores a recovery point into the namespace `t`, and waits so long for its workloads.
async fn restore_within(world: &World, name: &str, point: &str, within: &str) {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some(point.into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
        spec.ready_timeout = Some(within.into());
    })
    .await;
}

/// The spec of a workload that runs one pod with that label.
fn template(app: &str) -> Value {
    let labels = json!({"app": app});
    json!({"spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}},
    }})
}

fn workloads() -> Vec<Value> {
    let containers = json!([{"name": "c", "image": "c:1"}]);
    let job = json!({"spec": {"template": {"spec": {"containers": containers, "restartPolicy": "Never"}}}});
    let mut set = template("set");
    set["spec"]["serviceName"] = "set".into();
    // The played node sends no heartbeats, and is tainted for it.
    let mut agent = template("agent");
    agent["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    vec![
        namespace(),
        object("Deployment", "apps/v1", "web", template("web")),
        object("StatefulSet", "apps/v1", "set", set),
        object("DaemonSet", "apps/v1", "agent", agent),
        object("ReplicaSet", "apps/v1", "bare", template("bare")),
        object("Job", "batch/v1", "once", job),
        object("Pod", "v1", "alone", json!({"spec": {"containers": containers}})),
    ]
}

fn states(status: &ApplicationRestoreStatus) -> Vec<(String, WorkloadState)> {
    let items = status.workloads.clone().unwrap_or_default().items;
    items.into_iter().map(|item| (format!("{} {}", item.kind, item.name), item.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_workload_is_waited_for_also_by_an_operator_that_comes_later() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", Wanted { objects: workloads(), ..Wanted::default() }).await;
    let operator = world.operator();
    restore_within(&world, "r", "p1", "1h").await;
    says(&world, "r", "0 of 6 workloads are ready").await;
    operator.kill().await;
    let waiting = status(&world, "r").await;
    assert_eq!((waiting.phase, waiting.stage), (Phase::Running, RestoreStage::Ready));
    assert!(states(&waiting).iter().all(|(_, state)| *state == WorkloadState::Waiting), "{waiting:#?}");
    let _node = Runs::start(world.client.clone());
    let operator = world.operator();
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Succeeded, "Restored"), "{status:#?}");
    let names = ["DaemonSet agent", "Deployment web", "Job once", "Pod alone", "ReplicaSet bare", "StatefulSet set"];
    let expected: Vec<_> = names.iter().map(|name| ((*name).to_owned(), WorkloadState::Ready)).collect();
    assert_eq!(states(&status), expected);
    assert!(status.message.unwrap().contains("6 of 6 workloads are ready"));
    operator.stop().await;
}

/// The only pod of a namespace, as soon as it is there.
async fn pod(world: &World) -> Pod {
    let api = world.api::<Pod>("t");
    until("a pod", || async { api.list(&ListParams::default()).await.unwrap().items.into_iter().next() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ready_in_time_is_named_with_the_words_of_the_cluster() {
    sandbox::require_assets!();
    let world = ready().await;
    let web = || vec![namespace(), object("Deployment", "apps/v1", "web", template("web"))];
    publish(&world, "p1", Wanted { objects: web(), ..Wanted::default() }).await;
    let mut objects = web();
    objects.push(object("ResourceQuota", "v1", "none", json!({"spec": {"hard": {"pods": "0"}}})));
    publish(&world, "full", Wanted { objects, ..Wanted::default() }).await;
    let operator = world.operator();

    restore_within(&world, "unscheduled", "p1", "20s").await;
    let unscheduled = json!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
    }]});
    set_status(&world.client, &pod(&world).await, unscheduled).await.unwrap();
    let status = over(&world, "unscheduled").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "NotReady"), "{status:#?}");
    assert_eq!(states(&status), [("Deployment web".to_owned(), WorkloadState::Waiting)]);
    let message = status.message.unwrap();
    for part in
        ["0 of 1 workloads are ready", "Deployment t/web is not ready", "Unschedulable: 0/1 nodes are available"]
    {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }

    let web = world.api::<Deployment>("t");
    web.delete("web", &DeleteParams::foreground()).await.unwrap();
    until("the deployment to go", || async { web.get_opt("web").await.unwrap().is_none().then_some(()) }).await;
    restore_within(&world, "full", "full", "1h").await;
    let waiting = says(&world, "full", "exceeded quota").await;
    assert_eq!(waiting.phase, Phase::Running);
    // What somebody deletes meanwhile is not ready, and will not be.
    web.delete("web", &DeleteParams::background()).await.unwrap();
    let status = over(&world, "full").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "NotReady"), "{status:#?}");
    assert!(status.message.unwrap().contains("it is gone: somebody deleted it"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_not_waited_for() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let operator = world.operator();
    restore_with(&world, "first", |spec| {
        spec.recovery_point = Some("p1".into());
        spec.namespace_mapping = [(SHOP.to_owned(), "t".to_owned())].into();
    })
    .await;
    let first = over(&world, "first").await;
    assert_eq!((first.phase, &first.workloads), (Phase::Succeeded, &None), "nobody waits with 0s: {first:#?}");
    restore_within(&world, "second", "p1", "1h").await;
    let status = over(&world, "second").await;
    assert_eq!((status.phase, status.workloads.unwrap().wanted), (Phase::Succeeded, 0));
    operator.stop().await;
}
