//! Backups against a real API server: what is wanted is stored and accounted for, and what is not is named.

use std::collections::BTreeMap;

use crate::support::kubelet::Behaviour;
use crate::support::{ADMIN, SHOP, World, claim_manifest, until};
use api::{BackupStage, Phase, ReclaimPolicy, VolumeStage};
use application::{LedgerEntry, Outcome};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use repository::table::Reader;
use repository::{RecoveryPoint, Repository, TableRef};
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
use serde_json::json;

async fn ready() -> World {
    let world = World::new().await;
    world.location(ADMIN).await;
    world.application().await;
    world
}

async fn entries(repository: &Repository, table: TableRef) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = Reader::new(repository, table).scan(&[]).map_ok(|(k, v)| (k.to_vec(), v.to_vec()));
    entries.try_collect().await.unwrap()
}

async fn ledger(repository: &Repository, point: &RecoveryPoint) -> BTreeMap<String, Outcome> {
    let entries = entries(repository, point.ledger.unwrap()).await;
    entries.iter().map(|(k, v)| LedgerEntry::decode(k, v).unwrap()).map(|e| (e.key.to_string(), e.outcome)).collect()
}

async fn point(world: &World, run: &api::ApplicationBackup) -> (Repository, RecoveryPoint) {
    let repository = world.repository().await;
    let id = run.status.as_ref().unwrap().recovery_point.clone().unwrap();
    let point = repository.point(&id.parse().unwrap()).await.unwrap();
    (repository, point)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_backed_up_whole() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.backup("first").await;
    let run = world.finished("first").await;
    let status = run.status.clone().unwrap();
    assert_eq!((status.phase, status.stage), (Phase::Succeeded, BackupStage::Done), "{status:#?}");
    let ledger_summary = status.ledger.clone().unwrap();
    assert_eq!(ledger_summary.wanted, ledger_summary.stored + ledger_summary.skipped, "{ledger_summary:?}");
    let stages: Vec<&str> = status.stages.iter().map(|s| s.stage.as_str()).collect();
    assert_eq!(stages, ["Preparing", "Volumes", "Resources", "Publishing"]);
    assert!(status.stages.iter().all(|s| s.finished_at.is_some()));

    let (repository, point) = point(&world, &run).await;
    assert!(point.complete);
    let ledger = ledger(&repository, &point).await;
    for stored in ["ConfigMap shop/settings", "Secret shop/token", "Volume.orlop.io shop/data", "Namespace shop"] {
        assert_eq!(ledger.get(stored), Some(&Outcome::Stored), "{stored} in {ledger:#?}");
    }
    let objects = entries(&repository, point.objects.unwrap()).await;
    let stored = ledger.iter().filter(|(k, o)| **o == Outcome::Stored && !k.starts_with("Volume.")).count();
    assert_eq!(objects.len(), stored, "every stored line has an object");
    let root = point.root("shop/data").unwrap();
    assert_eq!((root.files, root.bytes), (2, 100_008));
    assert_eq!(root.claim.as_ref().unwrap().object["spec"]["storageClassName"], "disk");
    assert_eq!(status.bytes, Some(100_008));
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    world.events(ADMIN, "first", &["Preparing", "Volumes", "Resources", "Publishing", "Succeeded"]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_stores_what_changed() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    let folder = crate::support::kubelet::volume_dir(&world.client, SHOP, "data").await.unwrap();
    let noise: Vec<u8> = (0..4_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(folder.join("noise"), noise).unwrap();
    world.backup("first").await;
    let first = world.finished("first").await.status.unwrap();
    world.backup("second").await;
    let second = world.finished("second").await.status.unwrap();
    assert_eq!((first.phase, second.phase), (Phase::Succeeded, Phase::Succeeded));
    let (first, second) = (&first.volumes[0], &second.volumes[0]);
    assert_eq!(first.bytes, second.bytes);
    let (a, b) = (first.stored_bytes.unwrap(), second.stored_bytes.unwrap());
    assert!(b * 10 < a, "the first backup stored {a} bytes of the volume, the second one {b}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn movers_that_fail_are_followed_by_others_until_there_were_enough() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    for (name, behaviour, said) in [
        ("killed", Behaviour::Kill, "deleted"),
        ("evicted", Behaviour::Evict, "Evicted"),
        ("memory", Behaviour::OutOfMemory, "OOMKilled"),
    ] {
        // The first attempt fails, the second one does not.
        world.kubelet.script(move |pod| if pod.name_any().ends_with("-1") { behaviour } else { Behaviour::Run });
        world.backup(name).await;
        let status = world.finished(name).await.status.unwrap();
        assert_eq!((status.phase, status.volumes[0].attempts), (Phase::Succeeded, 2), "{name}: {status:#?}");
        // All of them fail.
        world.kubelet.script(move |_| behaviour);
        let always = format!("always-{name}");
        world.backup(&always).await;
        let status = world.finished(&always).await.status.unwrap();
        assert_eq!((status.phase, status.volumes[0].stage), (Phase::Incomplete, VolumeStage::Missed), "{always}");
        let missed = &status.ledger.unwrap().missed_items;
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert_eq!(missed[0].item, "Volume.orlop.io shop/data");
        assert!(missed[0].reason.contains(said) && missed[0].reason.contains("attempt 3 of 3"), "{missed:?}");
        world.events(ADMIN, &always, &["VolumeMissed"]).await;
    }
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_no_node_takes_is_missed_in_the_schedulers_words() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::NeverSchedule);
    world.backup("stuck").await;
    let run = world.finished("stuck").await;
    let status = run.status.clone().unwrap();
    assert_eq!(status.phase, Phase::Incomplete);
    let reason = status.volumes[0].reason.clone().unwrap();
    assert!(reason.contains("0/1 nodes are available: 1 Insufficient memory"), "{reason}");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    // The objects are there all the same, and the point says that it lacks something.
    let (_, point) = point(&world, &run).await;
    assert!(!point.complete && point.roots.is_empty() && point.stats.objects > 0);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_without_data_to_read_are_told_apart() {
    sandbox::require_assets!();
    let world = ready().await;
    let mut unbound = claim_manifest("unbound");
    unbound["spec"]["storageClassName"] = "nobody-provides-this".into();
    world.create::<PersistentVolumeClaim>(SHOP, unbound).await;
    let mut lost = claim_manifest("lost");
    lost["spec"]["volumeName"] = "a-volume-that-is-gone".into();
    lost["metadata"]["annotations"] = serde_json::json!({"pv.kubernetes.io/bind-completed": "yes"});
    world.create::<PersistentVolumeClaim>(SHOP, lost).await;
    world.phase(SHOP, "lost", "Lost").await;
    let operator = world.operator();
    world.backup("mixed").await;
    let run = world.finished("mixed").await;
    let (repository, point) = point(&world, &run).await;
    let ledger = ledger(&repository, &point).await;
    assert_eq!(ledger["Volume.orlop.io shop/data"], Outcome::Stored);
    assert_eq!(ledger["Volume.orlop.io shop/unbound"], Outcome::Skipped { rule: "claim-has-no-volume".into() });
    let Outcome::Missed { reason } = &ledger["Volume.orlop.io shop/lost"] else { panic!("{ledger:#?}") };
    assert!(reason.contains("volume is gone"), "{reason}");
    assert_eq!(run.status.unwrap().phase, Phase::Incomplete);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_not_empty_before_must_not_be_empty_now() {
    sandbox::require_assets!();
    let world = ready().await;
    let empty = world.claim(SHOP, "cache").await;
    let operator = world.operator();
    world.backup("full").await;
    let full = world.finished("full").await.status.unwrap();
    assert_eq!(full.phase, Phase::Succeeded, "a volume that never held anything is no loss: {full:#?}");
    let folder = crate::support::kubelet::volume_dir(&world.client, SHOP, "data").await.unwrap();
    std::fs::remove_dir_all(folder.join("images")).unwrap();
    std::fs::remove_file(folder.join("orders")).unwrap();
    std::fs::write(empty.join("now"), "something").unwrap();
    world.backup("emptied").await;
    let status = world.finished("emptied").await.status.unwrap();
    assert_eq!(status.phase, Phase::Incomplete);
    let reason = status.volumes.iter().find(|v| v.claim == "data").unwrap().reason.clone().unwrap();
    let point = full.recovery_point.unwrap();
    assert!(reason.contains("held 2 files") && reason.contains(&point) && reason.contains("none now"), "{reason}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_ends_a_run_at_once_and_is_named() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    type Change = fn(&mut api::ApplicationBackupSpec);
    let cases: [(&str, Change, &str, &[&str]); 7] = [
        (
            "no-namespace",
            |s| s.namespaces = vec!["nowhere".into()],
            "NamespaceNotFound",
            &["nowhere", "does not exist"],
        ),
        ("bad-name", |s| s.namespaces = vec!["Shop".into()], "InvalidSpec", &["spec.namespaces[0]", "Shop"]),
        ("all", |s| s.namespaces.clear(), "InvalidSpec", &["spec.namespaces", "at least one"]),
        ("bad-kind", |s| s.resource_types = vec!["Gadget".into()], "InvalidSpec", &["resourceTypes", "Gadget"]),
        (
            "bad-label",
            |s| s.selectors = [("app".into(), "a b".into())].into(),
            "InvalidSpec",
            &["spec.selectors.app", "\"a b\"", "the value of a label"],
        ),
        (
            "two-labels",
            |s| s.selectors = [("app".into(), "web,tier=db".into())].into(),
            "InvalidSpec",
            &["spec.selectors.app", "web,tier=db"],
        ),
        ("no-location", |s| s.backup_location = "elsewhere".into(), "LocationNotFound", &["orlop-system/elsewhere"]),
    ];
    for (name, change, reason, said) in cases {
        world.backup_with(name, change).await;
        let status = world.finished(name).await.status.unwrap();
        assert_eq!((status.phase, status.recovery_point.as_ref()), (Phase::Failed, None), "{name}");
        let complete = status.conditions.iter().find(|c| c.type_ == "Complete").unwrap();
        assert_eq!((complete.reason.as_str(), complete.status.as_str()), (reason, "False"), "{name}");
        for said in said {
            assert!(complete.message.contains(said), "{name}: {said:?} in {:?}", complete.message);
        }
    }
    assert!(world.repository().await.points().await.unwrap().is_empty());
    // What is odd and allowed, the server lists by.
    let odd = [("in", "notin"), ("example.com/A_b.c", "X_y.z")];
    let odd = odd.map(|(key, value)| (key.to_owned(), value.to_owned()));
    world.backup_with("odd-labels", |s| s.selectors = odd.into()).await;
    let status = world.finished("odd-labels").await.status.unwrap();
    assert_eq!(status.phase, Phase::Succeeded, "{status:#?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backup_takes_its_point_along_only_when_told() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    for (name, policy) in [("stays", ReclaimPolicy::Retain), ("goes", ReclaimPolicy::Delete)] {
        world.backup_with(name, |s| s.reclaim_policy = policy).await;
        assert_eq!(world.finished(name).await.status.unwrap().phase, Phase::Succeeded);
    }
    // Only what is to take something along is held: the other one can go when no operator is there any more.
    world.let_go("stays").await;
    assert_eq!(api.get("goes").await.unwrap().finalizers(), [api::FINALIZER]);
    let change = json!({"spec": {"reclaimPolicy": "Retain"}});
    api.patch("goes", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    world.let_go("goes").await;
    let back = json!({"spec": {"reclaimPolicy": "Delete"}});
    api.patch("goes", &PatchParams::default(), &Patch::Merge(&back)).await.unwrap();
    until("the finalizer to be back", || async {
        (!api.get("goes").await.unwrap().finalizers().is_empty()).then_some(())
    })
    .await;
    let repository = world.repository().await;
    assert_eq!(repository.points().await.unwrap().len(), 2);
    for name in ["stays", "goes"] {
        api.delete(name, &DeleteParams::default()).await.unwrap();
        until("the backup to go", || async { api.get_opt(name).await.unwrap().is_none().then_some(()) }).await;
    }
    let left = repository.points().await.unwrap();
    assert_eq!(left.len(), 1);
    let point = left[0].point.as_ref().unwrap();
    let repository::Source::Application { backup, .. } = &point.source else { panic!("{point:?}") };
    assert_eq!(backup, "orlop-system/stays");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_let_go_when_its_location_is_gone_and_held_while_it_cannot_be_reached() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.backup_with("b", |s| s.reclaim_policy = ReclaimPolicy::Delete).await;
    world.finished("b").await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = world.api(ADMIN);
    secrets.delete("keys", &DeleteParams::default()).await.unwrap();
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let held = until("the reason why it is held", || async {
        let status = api.get("b").await.unwrap().status?;
        status.conditions.into_iter().find(|c| c.type_ == "Released")
    })
    .await;
    assert_eq!((held.status.as_str(), held.reason.as_str()), ("False", "SecretNotFound"));
    let locations: Api<api::BackupLocation> = world.api(ADMIN);
    locations.delete("main", &DeleteParams::default()).await.unwrap();
    until("the backup to go", || async { api.get_opt("b").await.unwrap().is_none().then_some(()) }).await;
    world.events(ADMIN, "b", &["RecoveryPointStays"]).await;
    assert_eq!(world.repository().await.points().await.unwrap().len(), 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_running_backup_ends_its_movers() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::Hang);
    world.backup_with("b", |s| s.reclaim_policy = ReclaimPolicy::Delete).await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    api.delete("b", &DeleteParams::default()).await.unwrap();
    until("the backup to go", || async { api.get_opt("b").await.unwrap().is_none().then_some(()) }).await;
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_is_changed_ends_the_run() {
    sandbox::require_assets!();
    let world = ready().await;
    let operator = world.operator();
    world.kubelet.script(|_| Behaviour::Hang);
    world.backup_with("b", |s| s.reclaim_policy = ReclaimPolicy::Delete).await;
    until("a mover", || async { (!world.kubelet.started().is_empty()).then_some(()) }).await;
    let api: Api<api::ApplicationBackup> = world.api(ADMIN);
    let change = json!({"spec": {"excludeResourceTypes": ["Secret"]}});
    api.patch("b", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Failed);
    assert!(status.message.unwrap_or_default().contains("the spec was changed"), "it says why");
    assert_eq!((status.recovery_point, world.left_behind().await), (None, Vec::<String>::new()));
    operator.stop().await;
}

/// Where the first mover that was started for a claim may run.
fn node_affinity(world: &World, claim: &str) -> k8s_openapi::api::core::v1::NodeAffinity {
    let mounts = |pod: &Pod| {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        volumes.iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == claim))
    };
    let mover = world.kubelet.started().into_iter().find(mounts).unwrap();
    mover.spec.unwrap().affinity.and_then(|a| a.node_affinity).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_goes_to_the_node_that_has_the_volume_or_rather_there() {
    sandbox::require_assets!();
    let world = ready().await;
    let mut shared = claim_manifest("shared");
    shared["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    world.create::<PersistentVolumeClaim>(SHOP, shared).await;
    world.bound(SHOP, "shared").await;
    world.claim(SHOP, "lost").await;
    for (claim, node) in [("data", "node-1"), ("shared", "node-1"), ("lost", "a-node-that-is-gone")] {
        let pod = json!({"metadata": {"name": format!("uses-{claim}")}, "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "c:1"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}],
        }});
        world.create::<Pod>(SHOP, pod).await;
    }
    let operator = world.operator();
    world.backup("b").await;
    assert_eq!(world.finished("b").await.status.unwrap().phase, Phase::Succeeded);
    let data = node_affinity(&world, "data");
    assert!(data.required_during_scheduling_ignored_during_execution.is_some(), "{data:?}");
    let shared = node_affinity(&world, "shared");
    assert!(shared.required_during_scheduling_ignored_during_execution.is_none(), "{shared:?}");
    assert!(shared.preferred_during_scheduling_ignored_during_execution.is_some(), "{shared:?}");
    assert_eq!(node_affinity(&world, "lost"), Default::default(), "a node that is not there cannot be asked for");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_that_the_api_server_cannot_make_is_missed_and_the_others_go_on() {
    sandbox::require_assets!();
    let world = ready().await;
    world.namespace("bank").await;
    let folder = world.claim("bank", "ledger").await;
    std::fs::write(folder.join("book"), "kept").unwrap();
    // What an API server answers when a webhook that it must ask is down.
    let plan = Plan::none().with(Rule::on(Verb::Create, Fault::INTERNAL_ERROR).path("/namespaces/shop/pods"));
    let proxy = FaultProxy::start(world.plane.kubeconfig(), plan).await.unwrap();
    let operator = crate::support::start(proxy.client().await.unwrap(), world.config());
    world.backup_with("b", |spec| spec.namespaces = vec!["bank".into(), SHOP.into()]).await;
    let status = world.finished("b").await.status.unwrap();
    assert_eq!(status.phase, Phase::Incomplete, "{status:#?}");
    let volume = |claim: &str| status.volumes.iter().find(|v| v.claim == claim).unwrap();
    assert_eq!((volume("ledger").stage, volume("data").stage), (VolumeStage::Done, VolumeStage::Missed));
    let reason = volume("data").reason.clone().unwrap();
    assert!(reason.contains("the mover pod was refused") && reason.contains("injected"), "{reason}");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    operator.stop().await;
}
