//! Clones on a real API server, with a played CSI driver.

use std::path::PathBuf;

use api::{
    ApplicationClone, ApplicationCloneSpec, ApplicationCloneStatus, Phase, ReplacePolicy, VolumeClone, VolumeStage,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::crash::Crashes;
use crate::support::kubelet::{self, SNAPSHOTTED};
use crate::support::{ADMIN, SHOP, World, claim_manifest, parse, snapshotter, until};

/// `shop` with a claim of a driver with snapshots, a workload that uses it, and what that needs.
async fn ready() -> (World, PathBuf) {
    let world = World::new().await;
    world.install_snapshots().await;
    let folder = claim(&world, SHOP, "ledger").await;
    std::fs::write(folder.join("book"), "before").unwrap();
    world.create::<ConfigMap>(SHOP, json!({"metadata": {"name": "settings"}, "data": {"color": "blue"}})).await;
    world.create::<Secret>(SHOP, json!({"metadata": {"name": "token"}, "stringData": {"t": "secret"}})).await;
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "web", "image": "web"}],
            "volumes": [{"name": "ledger", "persistentVolumeClaim": {"claimName": "ledger"}}],
        },
    });
    let deployment = json!({
        "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    world.create::<Deployment>(SHOP, deployment).await;
    (world, folder)
}

async fn claim(world: &World, namespace: &str, name: &str) -> PathBuf {
    let mut claim = claim_manifest(name);
    claim["spec"]["storageClassName"] = json!(SNAPSHOTTED);
    world.create::<PersistentVolumeClaim>(namespace, claim).await;
    world.bound(namespace, name).await;
    kubelet::volume_dir(&world.client, namespace, name).await.unwrap()
}

async fn clone(world: &World, name: &str, into: &str, change: impl FnOnce(&mut ApplicationCloneSpec)) {
    clone_in(world, ADMIN, name, into, change).await;
}

async fn clone_in(world: &World, own: &str, name: &str, into: &str, change: impl FnOnce(&mut ApplicationCloneSpec)) {
    let mut spec = ApplicationCloneSpec {
        source_namespace: SHOP.into(),
        destination_namespace: into.into(),
        ..ApplicationCloneSpec::default()
    };
    change(&mut spec);
    world.api(own).create(&PostParams::default(), &ApplicationClone::new(name, spec)).await.unwrap();
}

async fn over(world: &World, name: &str) -> ApplicationCloneStatus {
    over_in(world, ADMIN, name).await
}

async fn over_in(world: &World, own: &str, name: &str) -> ApplicationCloneStatus {
    let api: Api<ApplicationClone> = world.api(own);
    until(&format!("the end of the clone {name}"), || async {
        api.get(name).await.unwrap().status.filter(|status| status.phase.is_final())
    })
    .await
}

fn reason(status: &ApplicationCloneStatus) -> &str {
    status.conditions.iter().find(|condition| condition.type_ == "Complete").map_or("", |c| c.reason.as_str())
}

/// What must be so after a clone, however it came about.
async fn check(world: &World, name: &str, into: &str, how: &str) {
    let status = over(world, name).await;
    assert_eq!((status.phase, reason(&status)), (Phase::Succeeded, "Cloned"), "{how}: {status:#?}");
    let objects = status.objects.clone().unwrap();
    let there = objects.created + objects.kept + objects.updated + objects.replaced;
    assert_eq!((objects.wanted, objects.failed), (there + objects.skipped, 0), "{how}: {objects:?}");
    assert_eq!(status.skipped_by.values().sum::<u64>(), objects.skipped, "{how}: every rule is named");
    assert_eq!(status.volumes[0].stage, VolumeStage::Done, "{how}: {:?}", status.volumes);
    world.api::<ConfigMap>(into).get("settings").await.unwrap();
    world.api::<Secret>(into).get("token").await.unwrap();
    world.api::<Deployment>(into).get("web").await.unwrap();
    let folder = kubelet::volume_dir(&world.client, into, "ledger").await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("book")).unwrap(), "before", "{how}");
    nothing_is_left(world, how).await;
}

async fn nothing_is_left(world: &World, how: &str) {
    assert_eq!(world.left_behind().await, Vec::<String>::new(), "{how}");
    assert_eq!(world.snapshots().await, Vec::<String>::new(), "{how}");
    until("the contents to go", || async { world.contents().await.is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_cloned_and_goes_its_own_way() {
    sandbox::require_assets!();
    let (world, source) = ready().await;
    let operator = world.operator();
    clone(&world, "c", "copy", |_| ()).await;
    check(&world, "c", "copy", "in calm").await;
    world.events(ADMIN, "c", &["Volumes", "Resources", "Succeeded"]).await;
    let status = over(&world, "c").await;
    let stages: Vec<&str> = status.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["Preparing", "Volumes", "Resources"]);
    assert!(status.volumes[0].cut_at.is_some(), "{:?}", status.volumes);
    // Each writes what the other does not see, and the clone outlives its run.
    let copy = kubelet::volume_dir(&world.client, "copy", "ledger").await.unwrap();
    std::fs::write(copy.join("book"), "in the copy").unwrap();
    assert_eq!(std::fs::read_to_string(source.join("book")).unwrap(), "before");
    let api: Api<ApplicationClone> = world.api(ADMIN);
    api.delete("c", &DeleteParams::default()).await.unwrap();
    until("the clone to go", || async { api.get_opt("c").await.unwrap().is_none().then_some(()) }).await;
    world.bound("copy", "ledger").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_survives_the_death_of_its_operator_at_every_write() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.location(ADMIN).await;
    let crashes = Crashes::new(&world).await;
    let begin = async |name: &str| clone(&world, name, name, |_| ()).await;
    let end = async |name: &str| {
        over(&world, name).await;
        let api: Api<ApplicationClone> = world.api(ADMIN);
        until("the finalizer to go", || async { api.get(name).await.unwrap().finalizers().is_empty().then_some(()) })
            .await;
    };
    crashes.everywhere(3, begin, end, async |name, how| check(&world, name, name, how).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_snapshots_is_refused_before_anything_is_made() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.claim(SHOP, "plain").await;
    let operator = world.operator();
    clone(&world, "c", "copy", |_| ()).await;
    let status = over(&world, "c").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Failed, "NoSnapshots"), "{status:#?}");
    let message = status.message.unwrap();
    assert!(message.contains("shop/plain") && message.contains("back shop up"), "{message}");
    assert!(message.ends_with("nothing was changed"), "{message}");
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    assert!(namespaces.get_opt("copy").await.unwrap().is_none());
    nothing_is_left(&world, "refused").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clones_into_one_namespace_come_one_after_the_other_and_what_is_there_stays() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    clone(&world, "first", "copy", |_| ()).await;
    clone(&world, "second", "copy", |_| ()).await;
    let operator = world.operator();
    let (first, second) = (over(&world, "first").await, over(&world, "second").await);
    assert_eq!((first.phase, second.phase), (Phase::Succeeded, Phase::Succeeded), "{first:#?} {second:#?}");
    let is_after = |a: &ApplicationCloneStatus, b: &ApplicationCloneStatus| {
        let begun = |s: &ApplicationCloneStatus| s.stages[1].started_at.0;
        begun(a) >= b.stages.last().unwrap().finished_at.as_ref().unwrap().0
    };
    assert!(is_after(&second, &first) || is_after(&first, &second), "{first:#?} {second:#?}");
    let (made, kept) = if is_after(&second, &first) { (first, second) } else { (second, first) };
    assert_eq!((made.volumes[0].stage, kept.volumes[0].stage), (VolumeStage::Done, VolumeStage::Skipped));
    assert_eq!(kept.volumes[0].reason.as_deref(), Some("claim-exists"));
    assert_eq!(kept.objects.as_ref().unwrap().created, 0, "{kept:#?}");
    nothing_is_left(&world, "two").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_exist_are_replaced_when_that_is_wanted_and_nobody_uses_them() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.namespace("copy").await;
    let old = claim(&world, "copy", "ledger").await;
    std::fs::write(old.join("book"), "old").unwrap();
    let pod = json!({
        "metadata": {"name": "uses"},
        "spec": {
            "containers": [{"name": "c", "image": "c"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "ledger"}}],
        },
    });
    world.create::<Pod>("copy", pod).await;
    let operator = world.operator();
    clone(&world, "used", "copy", |spec| spec.replace_policy = ReplacePolicy::Delete).await;
    let status = over(&world, "used").await;
    assert_eq!(reason(&status), "ClaimInUse", "{status:#?}");
    assert_eq!(std::fs::read_to_string(old.join("book")).unwrap(), "old");
    world.api::<Pod>("copy").delete("uses", &DeleteParams::default().grace_period(0)).await.unwrap();
    clone(&world, "free", "copy", |spec| spec.replace_policy = ReplacePolicy::Delete).await;
    check(&world, "free", "copy", "replaced").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_a_clone_goes_with_it_when_it_is_deleted_or_a_volume_is_missed() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.kubelet.refuse_snapshots("no room");
    let operator = world.operator();
    let api: Api<ApplicationClone> = world.api(ADMIN);
    clone(&world, "gone", "gone", |_| ()).await;
    until("the snapshot", || async { (!world.snapshots().await.is_empty()).then_some(()) }).await;
    api.delete("gone", &DeleteParams::default()).await.unwrap();
    until("the clone to go", || async { api.get_opt("gone").await.unwrap().is_none().then_some(()) }).await;
    nothing_is_left(&world, "deleted").await;
    clone(&world, "missed", "missed", |_| ()).await;
    let status = over(&world, "missed").await;
    assert_eq!((status.phase, reason(&status)), (Phase::Incomplete, "VolumesMissed"), "{status:#?}");
    assert!(status.volumes[0].reason.as_ref().unwrap().contains("no room"), "{:?}", status.volumes);
    world.api::<ConfigMap>("missed").get("settings").await.unwrap();
    let workload = world.api::<Deployment>("missed").get_opt("web").await.unwrap();
    assert!(workload.is_none(), "it would run on nothing");
    nothing_is_left(&world, "missed").await;
    operator.stop().await;
}

/// The content of a snapshot of the data of `shop`, as its driver made it.
async fn foreign_content(world: &World) -> String {
    let content: DynamicObject = parse(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": "theirs"},
        "spec": {
            "driver": kubelet::DRIVER, "deletionPolicy": "Retain", "source": {"volumeHandle": "theirs"},
            "volumeSnapshotRef": {"namespace": SHOP, "name": "theirs", "uid": "theirs"},
        },
        "status": {"snapshotHandle": "theirs"},
    }));
    let contents: Api<DynamicObject> =
        Api::all_with(world.client.clone(), &snapshotter::resource("VolumeSnapshotContent"));
    contents.create(&PostParams::default(), &content).await.unwrap().name_any()
}

/// Somebody who may write in his own namespace has clones there that say that they have begun, or snapshots that say that they are of others' data.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_clone_or_snapshot_reads_no_other_namespace() {
    sandbox::require_assets!();
    let (world, _) = ready().await;
    world.namespace("tenant").await;
    let api: Api<ApplicationClone> = world.api("tenant");
    for stage in ["Pending", "Preparing", "Volumes", "Resources"] {
        let name = stage.to_lowercase();
        clone_in(&world, "tenant", &name, "tenant", |_| ()).await;
        let volume =
            VolumeClone { claim: "ledger".into(), snapshot_class: Some("copies".into()), ..Default::default() };
        let status = json!({"phase": "Running", "stage": stage, "observedGeneration": 1, "volumes": [volume]});
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    }
    let operator = world.operator();
    for stage in ["pending", "preparing", "volumes", "resources"] {
        let status = over_in(&world, "tenant", stage).await;
        assert_eq!((status.phase, reason(&status)), (Phase::Failed, "InvalidSpec"), "{stage}: {status:#?}");
    }
    assert!(world.api::<Secret>("tenant").get_opt("token").await.unwrap().is_none());
    assert_eq!(world.snapshots().await, Vec::<String>::new());
    operator.kill().await;

    // The snapshot of a clone of the tenant's namespace says that it is the content of another one's.
    claim(&world, "tenant", "mine").await;
    let theirs = foreign_content(&world).await;
    world.kubelet.refuse_snapshots("somebody else answers");
    clone(&world, "lured", "lured", |spec| spec.source_namespace = "tenant".into()).await;
    let operator = world.operator();
    let snapshots: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), "tenant", &snapshotter::resource("VolumeSnapshot"));
    until("the end of the clone", || async {
        for snapshot in snapshots.list(&ListParams::default()).await.unwrap() {
            let patch = Patch::Merge(json!({"status": snapshotter::told(&theirs)}));
            // It may be gone by now, since the clone has seen enough.
            snapshots.patch_status(&snapshot.name_any(), &PatchParams::default(), &patch).await.ok();
        }
        let status = world.api::<ApplicationClone>(ADMIN).get("lured").await.unwrap().status;
        status.filter(|status| status.phase.is_final()).map(drop)
    })
    .await;
    let status = over(&world, "lured").await;
    assert_eq!(status.phase, Phase::Incomplete, "{status:#?}");
    assert!(status.volumes[0].reason.as_ref().unwrap().contains("is of something else"), "{:?}", status.volumes);
    operator.stop().await;
}
