//! Objects that the cluster will not have, and an API server that is slow, busy or away.

use api::Phase;
use k8s_openapi::api::core::v1::ConfigMap;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule};
use serde_json::json;

use crate::restore::point::{Wanted, config_map, namespace, publish, shop};
use crate::restore::whole::assert_data;
use crate::restore::{assert_nothing_left, over, ready, reason, restore, webhook};
use crate::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_the_cluster_refuses_are_named_and_the_others_are_made() {
    sandbox::require_assets!();
    let world = ready().await;
    let large = config_map("large", json!({"data": "x".repeat(1_200_000)}));
    let objects = vec![namespace(), large, config_map("refused", json!({})), config_map("fine", json!({}))];
    publish(&world, "p1", Wanted { objects, ..Wanted::default() }).await;
    let _guard = webhook::refuse(&world.client, "refused").await;
    let operator = world.operator();
    restore(&world, "r", "p1", "t").await;
    let status = over(&world, "r").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "ObjectsFailed"), "{status:#?}");
    let objects = status.objects.unwrap();
    assert_eq!((objects.wanted, objects.created, objects.failed), (4, 2, 2), "{objects:?}");
    for (name, said) in [("large", "larger than this cluster accepts"), ("refused", webhook::NAME)] {
        let item = objects.failed_items.iter().find(|i| i.item.ends_with(name)).unwrap();
        assert!(item.reason.contains(said), "{said:?} in {item:?}");
    }
    world.api::<ConfigMap>("t").get("fine").await.unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_gets_through_an_api_server_that_fails_now_and_then() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let plan = Plan::from_environment();
    println!("ORLOP_SEED={}", plan.seed());
    let faults = Rule::any(Fault::LoseAnswer).or(Fault::Reset).or(Fault::UNAVAILABLE).or(Fault::CONFLICT).chance(0.1);
    let proxy = FaultProxy::start(world.plane.kubeconfig(), plan.with(faults)).await.unwrap();
    let operator = start(proxy.client().await.unwrap(), world.config());
    restore(&world, "r", "p1", "t").await;
    let status = over(&world, "r").await;
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    assert!(!proxy.faulted().is_empty());
    assert_data(&world, "t").await;
    assert_nothing_left(&world).await;
    operator.stop().await;
}
