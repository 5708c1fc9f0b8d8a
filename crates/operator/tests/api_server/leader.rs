//! Of several operators one works, and another takes over when it cannot.

use std::time::Duration;

use crate::support::{ADMIN, World, start, until};
use api::Phase;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use operator::OperatorConfig;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};

fn config(world: &World, identity: &str) -> OperatorConfig {
    OperatorConfig { leader_election: true, identity: identity.into(), ..world.config() }
}

async fn held_by(world: &World, identity: &str) {
    let api: Api<Lease> = world.api(ADMIN);
    until(&format!("the lease of {identity}"), || async {
        let lease = api.get_opt("orlop-operator").await.unwrap()?;
        (lease.spec?.holder_identity.as_deref() == Some(identity)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_cut_off_stops_and_another_takes_over() {
    sandbox::require_assets!();
    let world = World::new().await;
    let proxy = FaultProxy::start(world.plane.kubeconfig(), Plan::none()).await.unwrap();
    let first = start(proxy.client().await.unwrap(), config(&world, "first"));
    held_by(&world, "first").await;
    let second = start(world.client.clone(), config(&world, "second"));
    world.location(ADMIN).await;
    world.application().await;
    world.backup("one").await;
    assert_eq!(world.finished("one").await.status.unwrap().phase, Phase::Succeeded);
    held_by(&world, "first").await;

    proxy.set_plan(Plan::none().with(Rule::any(Fault::Reset)));
    held_by(&world, "second").await;
    world.backup("two").await;
    assert_eq!(world.finished("two").await.status.unwrap().phase, Phase::Succeeded);
    // The first one is back, and waits for its turn.
    proxy.heal();
    world.backup("three").await;
    assert_eq!(world.finished("three").await.status.unwrap().phase, Phase::Succeeded);
    held_by(&world, "second").await;
    // One that ends in order gives the lease up.
    second.stop().await;
    held_by(&world, "first").await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_given_in_time_is_asked_for_again() {
    sandbox::require_assets!();
    let world = World::new().await;
    let slow = Fault::Delay(Duration::from_secs(3600));
    let plan = Plan::none().with(Rule::on(Verb::Create, slow).path("/leases").first(1));
    let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
    let operator = start(proxy.client().await.unwrap(), config(&world, "first"));
    held_by(&world, "first").await;
    operator.stop().await;
}
