//! An operator that is killed at any write is followed by one that goes on.

use std::time::Duration;

use crate::support::crash::Crashes;
use crate::support::{ADMIN, World, start, until};
use api::{Phase, ReclaimPolicy};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};

async fn ready() -> World {
    let world = World::new().await;
    world.location(ADMIN).await;
    world.application().await;
    world
}

/// What must be so after a backup, however it came about.
async fn check(world: &World, name: &str, how: &str) {
    let status = world.finished(name).await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{how}: {status:#?}");
    let repository = world.repository().await;
    let point = repository.point(&status.recovery_point.unwrap().parse().unwrap()).await.unwrap();
    let root = point.root("shop/data").unwrap();
    assert_eq!((point.complete, root.files, root.bytes), (true, 2, 100_008), "{how}");
    let of_this_run = repository.points().await.unwrap().into_iter().filter(|entry| {
        let source = &entry.point.as_ref().unwrap().source;
        matches!(source, repository::Source::Application { backup, .. } if *backup == format!("{ADMIN}/{name}"))
    });
    assert_eq!(of_this_run.count(), 1, "{how}: one run makes one recovery point");
    assert_eq!(world.left_behind().await, Vec::<String>::new(), "{how}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let world = ready().await;
    let crashes = Crashes::new(&world).await;
    let begin = async |name: &str| drop(world.backup(name).await);
    let end = async |name: &str| {
        world.finished(name).await;
        world.let_go(name).await;
    };
    crashes.everywhere(5, begin, end, async |name, how| check(&world, name, how).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_deleted_goes_with_its_point_although_its_operator_dies() {
    sandbox::require_assets!();
    let world = ready().await;
    let crashes = Crashes::new(&world).await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    for fault in [Fault::LoseAnswer, Fault::Reset] {
        let name = format!("gone-{}", if fault == Fault::Reset { "reset" } else { "lost" });
        let operator = world.operator();
        world.backup_with(&name, |s| s.reclaim_policy = ReclaimPolicy::Delete).await;
        world.finished(&name).await;
        operator.kill().await;
        let begin = async { drop(api.delete(&name, &DeleteParams::default()).await.unwrap()) };
        let end = async || {
            until("the backup to go", || async { api.get_opt(&name).await.unwrap().is_none().then_some(()) }).await;
        };
        // The one write that there is: the finalizer goes when the recovery point has gone.
        let rule = Rule::on(Verb::Patch, fault.clone()).path("/applicationbackups/").nth(1);
        assert!(crashes.at(rule, &fault, begin, end).await, "{name}: the fault was not reached");
        assert!(world.repository().await.points().await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_gets_through_an_api_server_that_stumbles() {
    sandbox::require_assets!();
    let world = ready().await;
    let writes = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
    let plan = Plan::from_environment()
        .with(Rule::on(Verb::Watch, Fault::CutAfterEvents(3)).or(Fault::CutAfter(Duration::from_secs(1))).chance(0.5))
        .with(Rule::any(Fault::LoseAnswer).or(Fault::CONFLICT).or(Fault::Reset).for_verbs(&writes).chance(0.15))
        .with(
            Rule::any(Fault::UNAVAILABLE)
                .or(Fault::INTERNAL_ERROR)
                .or(Fault::too_many_requests(1))
                .or(Fault::Delay(Duration::from_millis(200)))
                .chance(0.1),
        );
    let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
    let operator = start(proxy.client().await.unwrap(), world.config());
    for name in ["one", "two"] {
        world.backup(name).await;
        check(&world, name, "an API server that stumbles").await;
    }
    assert!(!proxy.faulted().is_empty());
    operator.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_without_its_finalizer_left_is_swept_away() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.kubelet.script(|_| crate::support::kubelet::Behaviour::Hang);
    let run = world.backup("torn").await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    operator.kill().await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    let off = serde_json::json!({"metadata": {"finalizers": null}});
    api.patch(&run.name_any(), &kube::api::PatchParams::default(), &kube::api::Patch::Merge(off)).await.unwrap();
    api.delete("torn", &DeleteParams::default()).await.unwrap();
    assert!(!world.left_behind().await.is_empty());
    let operator = world.operator();
    until("the sweep", || async { world.left_behind().await.is_empty().then_some(()) }).await;
    operator.stop().await;
}
