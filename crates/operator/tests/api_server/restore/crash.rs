//! An operator that is killed at any write of a restore is followed by one that goes on: the restore ends well, with the right content,
//! and nothing of the run's own is left. The fault model is that of [`crate::support::crash`].

use api::{ApplicationRestore, Phase};
use k8s_openapi::api::apps::v1::Deployment;
use sandbox::fault_proxy::Fault;

use crate::restore::point::{publish, shop};
use crate::restore::whole::assert_data;
use crate::restore::{assert_nothing_left, over, ready, restore, status};
use crate::support::crash::Crashes;
use crate::support::{ADMIN, World, until};

/// What must be so after a restore, however it came about.
async fn check(world: &World, name: &str, how: &str) {
    let end = status(world, name).await;
    assert_eq!(end.phase, Phase::Succeeded, "{how}: {end:#?}");
    let objects = end.objects.clone().unwrap();
    assert_eq!((objects.wanted, objects.created, objects.failed), (9, 9, 0), "{how}: {objects:?}");
    assert_data(world, name).await;
    world.api::<Deployment>(name).get("web").await.unwrap();
    assert_nothing_left(world).await;
}

/// Waits until a restore is over, and let go.
async fn let_go(world: &World, name: &str) {
    over(world, name).await;
    until(&format!("the finalizer of {name} to go"), || async {
        let restore = world.api::<ApplicationRestore>(ADMIN).get(name).await.unwrap();
        restore.metadata.finalizers.unwrap_or_default().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let world = ready().await;
    publish(&world, "p1", shop()).await;
    let crashes = Crashes::new(&world).await;
    let begin = async |name: &str| drop(restore(&world, name, "p1", name).await);
    let end = async |name: &str| let_go(&world, name).await;
    let writes = crashes.calm(begin("calm"), end("calm")).await;
    check(&world, "calm", "without a fault").await;
    println!("a restore makes {} writes", writes.len());
    assert!(writes.len() > 30, "a restore makes more writes than {writes:#?}");
    let chosen = crashes.chosen(&writes);
    assert!(chosen.len() >= 4, "each of the four stages has a write: {chosen:?} of {writes:#?}");
    for n in chosen {
        let fault = if n % 2 == 0 { Fault::LoseAnswer } else { Fault::Reset };
        let name = crashes.kill_at(n, &fault, begin, end).await;
        check(&world, &name, &format!("write {n} of {}, {fault}", writes.len())).await;
    }
}
