//! An operator that ends at every write it makes.
//!
//! Fault model: the n-th request that changes something is either lost on its way or done with its answer lost; then the operator is
//! cut off where it stands, and another one begins. For every n up to a run that makes fewer writes, the restore ends well, with the
//! right content, and nothing of the run's own is left.

use std::collections::BTreeSet;

use api::Phase;
use k8s_openapi::api::apps::v1::Deployment;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};

use crate::point::{publish, shop};
use crate::support::{World, start, until};
use crate::whole::assert_data;
use crate::{assert_nothing_left, over, ready, restore, status};

/// With this set to 1 every write is tried, and not a sample.
const LONG: &str = "ORLOP_LONG";
/// Writes that are tried otherwise; each takes some two seconds.
const SAMPLE: usize = 10;
/// More writes than a restore of the test's application makes; a run that makes more is an endless one.
const MOST_WRITES: u64 = 400;
const WRITES: [Verb; 4] = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];

/// Ends an operator at its n-th write, starts another, and checks the outcome. Says whether the first one came so far.
async fn cut_at(world: &World, n: u64, fault: Fault) -> bool {
    let name = format!("cut-{n}");
    let rule = Rule::any(fault.clone()).for_verbs(&WRITES).nth(n);
    let proxy = FaultProxy::start(world.plane.kubeconfig(), Plan::seeded(n).with(rule)).await.unwrap();
    let first = start(proxy.client().await.unwrap(), world.config());
    restore(world, &name, "p1", &name).await;
    let reached = until("the fault, or the end", || async {
        let hit = !proxy.faulted().is_empty();
        (hit || status(world, &name).await.phase.is_final()).then_some(hit)
    })
    .await;
    first.kill().await;
    let second = world.operator();
    let end = over(world, &name).await;
    let what = format!("write {n}, {fault}: {:?}", proxy.faulted());
    assert_eq!(end.phase, Phase::Succeeded, "{what}: {end:#?}");
    let objects = end.objects.clone().unwrap();
    assert_eq!((objects.wanted, objects.created, objects.failed), (9, 9, 0), "{what}: {objects:?}");
    assert_data(world, &name).await;
    world.api::<Deployment>(&name).get("web").await.unwrap();
    until(&format!("the finalizer to go, {what}"), || async {
        let api = world.api::<api::ApplicationRestore>(crate::support::ADMIN);
        api.get(&name).await.unwrap().metadata.finalizers.unwrap_or_default().is_empty().then_some(())
    })
    .await;
    assert_nothing_left(world).await;
    second.stop().await;
    reached
}

fn seed() -> u64 {
    std::env::var(sandbox::fault_proxy::SEED_VARIABLE).ok().map_or_else(|| u64::from(std::process::id()), |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_ends_at_any_write_is_followed_by_one_that_goes_on() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let seed = seed();
    println!("ORLOP_SEED={seed}");
    let fault = |n: u64| if (n ^ seed) & 1 == 0 { Fault::LoseAnswer } else { Fault::Reset };
    // A run without a fault counts the writes.
    let proxy = FaultProxy::start(world.plane.kubeconfig(), Plan::none()).await.unwrap();
    let whole = start(proxy.client().await.unwrap(), world.config());
    restore(&world, "whole", "p1", "whole").await;
    assert_eq!(over(&world, "whole").await.phase, Phase::Succeeded);
    whole.stop().await;
    let writes = proxy.requests().iter().filter(|r| WRITES.contains(&r.verb)).count() as u64;
    println!("a restore makes {writes} writes");
    assert!((20..MOST_WRITES).contains(&writes), "{writes} writes");
    if std::env::var(LONG).is_ok_and(|v| v == "1") {
        for n in 1..MOST_WRITES {
            if !cut_at(&world, n, fault(n)).await {
                return;
            }
        }
        panic!("a restore made {MOST_WRITES} writes and did not end");
    }
    let spread = (0..SAMPLE as u64).map(|i| 1 + (seed.wrapping_mul(31) + i * writes / SAMPLE as u64) % writes);
    for n in spread.collect::<BTreeSet<_>>() {
        println!("write {n}");
        cut_at(&world, n, fault(n)).await;
    }
}
