//! Many applications at once: movers are bounded, and one application that is stuck delays no other.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::kubelet::{Behaviour, gone};
use crate::support::{ADMIN, World, short_limits, start, until};
use api::{ApplicationBackup, Phase, VolumeStage};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use operator::{Bounds, Limits, OperatorConfig};

const BOUND: usize = 3;
const APPLICATIONS: usize = 5;

async fn working(world: &World) -> Vec<Pod> {
    let movers = ListParams::default().labels("app.kubernetes.io/name=orlop-mover");
    let pods = Api::<Pod>::all(world.client.clone()).list(&movers).await.unwrap().items;
    pods.into_iter().filter(|pod| !operator::mover_pod::has_ended(pod)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn movers_are_bounded_and_an_application_that_is_stuck_delays_no_other() {
    sandbox::require_assets!();
    let world = World::new().await;
    world.location(ADMIN).await;
    let name = |number: usize| format!("app-{number}");
    for number in 0..APPLICATIONS {
        world.namespace(&name(number)).await;
        for claim in ["a", "b"] {
            let folder = world.claim(&name(number), claim).await;
            std::fs::write(folder.join("file"), format!("{number}{claim}")).unwrap();
        }
    }
    world.kubelet.script(|pod| match pod.namespace().as_deref() {
        Some("app-0") => Behaviour::Hang,
        _ => Behaviour::Run,
    });
    let bounds = Bounds { cluster: BOUND, location: BOUND, node: BOUND };
    let limits = Limits { movers: bounds, ..short_limits() };
    let operator = start(world.client.clone(), OperatorConfig { limits, ..world.config() });
    for number in 0..APPLICATIONS {
        world.backup_with(&name(number), |spec| spec.namespaces = vec![name(number)]).await;
    }

    let (most, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let runs: Api<ApplicationBackup> = world.api(ADMIN);
    until("the end of all but the one that is stuck", || async {
        most.fetch_max(working(&world).await.len(), Ordering::Relaxed);
        let runs = runs.list(&ListParams::default()).await.unwrap().items;
        let waits = |reason: &str| reason.starts_with("waits for its turn: as many movers as");
        let volumes = runs.iter().flat_map(|run| run.status.iter().flat_map(|status| &status.volumes));
        let waiting = volumes.filter(|volume| volume.reason.as_deref().is_some_and(waits)).count();
        waited.fetch_max(waiting, Ordering::Relaxed);
        let done = runs.iter().filter(|run| run.status.as_ref().is_some_and(|status| status.phase.is_final()));
        (done.count() == APPLICATIONS - 1).then_some(())
    })
    .await;
    let (most, waited) = (most.into_inner(), waited.into_inner());
    assert!(most <= BOUND, "{most} movers worked at once");
    assert!(waited > 0, "nobody was seen to wait");
    for number in 1..APPLICATIONS {
        let status = world.finished(&name(number)).await.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    }
    let stuck = runs.get(&name(0)).await.unwrap().status.unwrap();
    assert!(stuck.volumes.iter().all(|volume| volume.stage == VolumeStage::Moving), "{stuck:#?}");

    world.kubelet.script(|_| Behaviour::Run);
    let pods: Api<Pod> = world.api(&name(0));
    for pod in working(&world).await {
        gone(pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await).unwrap();
    }
    let status = world.finished(&name(0)).await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    operator.stop().await;
}
