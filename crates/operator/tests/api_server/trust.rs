//! What somebody who may write in a namespace says of runs and of volumes there gives him no way out of it.

use api::{ApplicationBackup, ApplicationBackupSpec, HookState, HookStatus, Phase, VolumeBackup, VolumeStage};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{SHOP, World, until};

const TENANT: &str = "tenant";

/// A world with a tenant who has a location, and `shop`, which is not his.
async fn with_a_tenant() -> World {
    let world = World::new().await;
    world.namespace(TENANT).await;
    world.location(TENANT).await;
    world.application().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_status_of_a_backup_reads_no_other_namespace() {
    sandbox::require_assets!();
    let world = with_a_tenant().await;
    let volume = |class: Option<&str>| VolumeBackup {
        namespace: SHOP.into(),
        claim: "data".into(),
        stage: VolumeStage::Pending,
        snapshot_class: class.map(Into::into),
        ..VolumeBackup::default()
    };
    let hook = |state| HookStatus {
        namespace: SHOP.into(),
        rule: "reach".into(),
        pod: "db-0".into(),
        pod_uid: "0".into(),
        container: "db".into(),
        started_at: Some(Time(Timestamp::now())),
        state,
        ..HookStatus::default()
    };
    let cases = [
        ("objects", vec![SHOP.to_owned()], json!({"stage": "Resources"}), "InvalidSpec"),
        ("draft", vec![SHOP.to_owned()], json!({"stage": "Publishing"}), "InvalidSpec"),
        ("volumes", vec![], json!({"stage": "Volumes", "volumes": [volume(None)]}), "StatusNotOwn"),
        ("snapshots", vec![], json!({"stage": "Volumes", "volumes": [volume(Some("any"))]}), "StatusNotOwn"),
        ("commands", vec![], json!({"stage": "PreExecRule", "hooks": [hook(HookState::Pending)]}), "StatusNotOwn"),
        ("holds", vec![], json!({"stage": "Volumes", "hooks": [hook(HookState::Holding)]}), "StatusNotOwn"),
    ];
    let backups: Api<ApplicationBackup> = world.api(TENANT);
    for (name, namespaces, forged, _) in &cases {
        let spec = ApplicationBackupSpec {
            namespaces: namespaces.clone(),
            backup_location: "main".into(),
            ..ApplicationBackupSpec::default()
        };
        backups.create(&PostParams::default(), &ApplicationBackup::new(name, spec)).await.unwrap();
        let mut status = json!({"phase": "Running", "observedGeneration": 1});
        status.as_object_mut().unwrap().extend(forged.as_object().unwrap().clone());
        let patch = Patch::Merge(json!({"status": status}));
        backups.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let operator = world.operator();
    world.location_phase(TENANT, "main", api::LocationPhase::Ready).await;
    for (name, _, _, word) in cases {
        let status = until(&format!("the end of {name}"), || async {
            backups.get(name).await.unwrap().status.filter(|status| status.phase.is_final())
        })
        .await;
        let complete = status.conditions.iter().find(|condition| condition.type_ == "Complete").unwrap();
        assert_eq!((status.phase, complete.reason.as_str()), (Phase::Failed, word), "{name}: {status:#?}");
        assert_eq!(status.recovery_point, None, "{name}");
    }
    assert!(world.kubelet.started().is_empty(), "a mover ran where it may not");
    assert!(world.repository().await.points().await.unwrap().is_empty(), "another namespace was stored");
    operator.stop().await;
}
