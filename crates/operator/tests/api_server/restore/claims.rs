//! Claims that somebody else makes under the names that a restore uses, and recovery points whose claims are not what they seem.

use api::{ApplicationRestore, ApplicationRestoreSpec, ApplicationRestoreStatus, ReplacePolicy, VolumeStage};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::restore::assert_nothing_left;
use crate::restore::point::{Wanted, namespace, publish, publish_with, shop_files};
use crate::support::{SHOP, World, claim_manifest, until};

/// Makes a restore of `p1` in the namespace of a tenant, into it.
async fn begin(world: &World, tenant: &str, policy: ReplacePolicy) -> ApplicationRestore {
    world.namespace(tenant).await;
    world.location(tenant).await;
    let spec = ApplicationRestoreSpec {
        recovery_point: Some("p1".into()),
        backup_location: "main".into(),
        namespace_mapping: [(SHOP.to_owned(), tenant.to_owned())].into(),
        replace_policy: policy,
        ready_timeout: Some("0s".into()),
        ..ApplicationRestoreSpec::default()
    };
    let restores: Api<ApplicationRestore> = world.api(tenant);
    restores.create(&PostParams::default(), &ApplicationRestore::new("r", spec)).await.unwrap()
}

async fn over(world: &World, tenant: &str) -> ApplicationRestoreStatus {
    until(&format!("the end of the restore of {tenant}"), || async {
        let status = world.api::<ApplicationRestore>(tenant).get("r").await.unwrap().status;
        status.filter(|status| status.phase.is_final())
    })
    .await
}

/// Makes a claim that names a volume.
async fn name_volume(world: &World, tenant: &str, claim: &str, volume: &str, annotations: Value) {
    let mut manifest = claim_manifest(claim);
    manifest["spec"]["volumeName"] = volume.into();
    manifest["metadata"]["annotations"] = annotations;
    world.create::<PersistentVolumeClaim>(tenant, manifest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_names_a_volume_of_others_gets_its_namespace_nothing() {
    sandbox::require_assets!();
    let world = World::new().await;
    world.application().await;
    publish(
        &world,
        "p1",
        Wanted { objects: vec![namespace()], volumes: vec![("data", shop_files())], missed: Vec::new() },
    )
    .await;
    let claim = world.api::<PersistentVolumeClaim>(SHOP).get("data").await.unwrap();
    let name = claim.spec.unwrap().volume_name.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let before = volumes.get(&name).await.unwrap();
    let tenants = ["filled", "begun", "wanted"];
    for tenant in tenants {
        let policy = if tenant == "wanted" { ReplacePolicy::Delete } else { ReplacePolicy::Retain };
        let uid = begin(&world, tenant, policy).await.uid().unwrap();
        let filling = format!("orlop-fill-{}-0", &uid[..8]);
        match tenant {
            "filled" => {
                let filled = json!({"orlop.io/filled": r#"{"files":0,"bytes":0}"#});
                name_volume(&world, tenant, &filling, &name, filled).await;
            }
            "begun" => name_volume(&world, tenant, &filling, &name, json!({})).await,
            _ => name_volume(&world, tenant, "data", &name, json!({"orlop.io/filled-by": uid})).await,
        }
    }
    let operator = world.operator();
    for tenant in tenants {
        let status = over(&world, tenant).await;
        assert_eq!(status.volumes[0].stage, VolumeStage::Missed, "{tenant}: {status:#?}");
        let after = volumes.get(&name).await.unwrap();
        assert_eq!((&after.spec, after.labels()), (&before.spec, before.labels()), "{tenant}");
    }
    world.bound(SHOP, "data").await;
    assert_nothing_left(&world).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_point_makes_no_claim_where_its_restore_does_not_go() {
    sandbox::require_assets!();
    let world = World::new().await;
    world.namespace("victim").await;
    let mut foreign = claim_manifest("data");
    foreign["metadata"]["namespace"] = "victim".into();
    let wanted = Wanted { objects: vec![namespace()], volumes: vec![("data", shop_files())], missed: Vec::new() };
    publish_with(&world, "p1", wanted, |root| root.claim.as_mut().unwrap().object = foreign.clone()).await;
    begin(&world, "tenant", ReplacePolicy::Retain).await;
    let operator = world.operator();
    let status = over(&world, "tenant").await;
    assert_eq!(status.volumes[0].stage, VolumeStage::Missed, "{status:#?}");
    assert!(status.volumes[0].reason.as_ref().unwrap().contains("victim/data"), "{status:#?}");
    for namespace in ["victim", "tenant"] {
        assert!(world.api::<PersistentVolumeClaim>(namespace).get_opt("data").await.unwrap().is_none(), "{namespace}");
    }
    assert!(world.kubelet.started().is_empty(), "there is nothing to be filled");
    assert_nothing_left(&world).await;
    operator.stop().await;
}
