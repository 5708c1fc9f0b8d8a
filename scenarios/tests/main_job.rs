//! The main job on two real clusters: the demo from begin to end, then what happens to movers and to the operator in the middle of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{ApplicationBackup, ApplicationBackupSpec, Phase, VolumeStage};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use scenarios::environment::Environment;
use scenarios::install;
use scenarios::pods::wait_for;
use scenarios::stages::Stages;

const LIMIT: Duration = Duration::from_secs(180);
/// A namespace with a claim that a pod writes to once, and that no node can be chosen for a second pod by.
const FILES: &str = include_str!("files.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_backed_up_destroyed_and_comes_back_in_another_cluster() {
    if !Environment::is_given() {
        sandbox::require_root!();
        sandbox::require_assets!("kube-apiserver", "kubelet", "containerd");
    }
    sandbox::control_plane::install_crypto_provider();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("main-job");
    let (note, environment) = Environment::start(&folder).await.expect("start the clusters");
    println!("{note}");
    let mut stages = Stages::default();
    let mut done = scenarios::demo::job(&environment, &mut stages).await.map(drop);
    println!("{}", stages.table());
    if done.is_ok() {
        done = faults(&environment).await;
    }
    environment.end().await.expect("end the clusters");
    assert!(!folder.exists(), "something is left in {}", folder.display());
    done.expect("do the job");
}

/// On the cluster of the demo, since starting another one takes longer than all of this.
async fn faults(environment: &Environment) -> anyhow::Result<()> {
    let client = &environment.east.client;
    install::apply(client, &FILES.replace("BUSYBOX_IMAGE", &environment.images.busybox)).await?;
    written(client).await?;
    a_killed_mover_is_replaced(client).await.context("a killed mover")?;
    an_operator_that_dies_is_replaced(client).await.context("a killed operator")?;
    a_volume_that_no_node_can_mount_is_missed(client).await.context("a volume that cannot be mounted")?;
    a_deleted_backup_takes_its_recovery_point_along(client).await.context("a deleted backup")
}

async fn written(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "files");
    wait_for("the pod that writes files", LIMIT, || async {
        let pod = pods.get("writer").await?;
        Ok(pod.status.and_then(|s| s.phase).filter(|p| p == "Succeeded"))
    })
    .await
    .map(drop)
}

fn backups(client: &Client) -> Api<ApplicationBackup> {
    Api::namespaced(client.clone(), api::ADMIN_NAMESPACE)
}

async fn start(client: &Client, name: &str) -> anyhow::Result<ApplicationBackup> {
    let spec = ApplicationBackupSpec {
        namespaces: vec!["files".into()],
        backup_location: "vault".into(),
        reclaim_policy: api::ReclaimPolicy::Delete,
        ..ApplicationBackupSpec::default()
    };
    Ok(backups(client).create(&PostParams::default(), &ApplicationBackup::new(name, spec)).await?)
}

async fn finished(client: &Client, name: &str) -> anyhow::Result<api::ApplicationBackupStatus> {
    wait_for(&format!("the end of backup {name}"), LIMIT, || async {
        Ok(backups(client).get(name).await?.status.filter(|s| s.phase.is_final()))
    })
    .await
}

/// The mover pods of a run, and wants that nothing of it is left once it is over.
async fn movers(client: &Client, run: &ApplicationBackup) -> anyhow::Result<Vec<Pod>> {
    let of_run = ListParams::default().labels(&format!("{}={}", api::RUN_LABEL, run.uid().unwrap_or_default()));
    Ok(Api::<Pod>::all(client.clone()).list(&of_run).await?.items)
}

async fn nothing_is_left(client: &Client, run: &ApplicationBackup) -> anyhow::Result<()> {
    let of_run = ListParams::default().labels(&format!("{}={}", api::RUN_LABEL, run.uid().unwrap_or_default()));
    let secrets = Api::<Secret>::all(client.clone()).list(&of_run).await?.items;
    let left: Vec<_> = movers(client, run).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(left.is_empty() && secrets.is_empty(), "left of the run: {left:?} and {} secrets", secrets.len());
    Ok(())
}

async fn a_killed_mover_is_replaced(client: &Client) -> anyhow::Result<()> {
    let run = start(client, "killed-mover").await?;
    let mover = wait_for("a mover", LIMIT, || async { Ok(movers(client, &run).await?.pop()) }).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "files");
    pods.delete(&mover.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let status = finished(client, "killed-mover").await?;
    ensure!(status.phase == Phase::Succeeded, "{:?}: {:?}", status.phase, status.message);
    ensure!(status.volumes.iter().any(|v| v.attempts >= 2), "the mover was not the first: {:?}", status.volumes);
    ensure!(status.volumes.iter().any(|v| v.files == Some(2)), "{:?}", status.volumes);
    nothing_is_left(client, &run).await
}

async fn an_operator_that_dies_is_replaced(client: &Client) -> anyhow::Result<()> {
    let run = start(client, "killed-operator").await?;
    wait_for("a mover", LIMIT, || async { Ok(movers(client, &run).await?.pop()) }).await?;
    let operators: Api<Pod> = Api::namespaced(client.clone(), api::ADMIN_NAMESPACE);
    let named = ListParams::default().labels("app.kubernetes.io/name=orlop-operator");
    for operator in operators.list(&named).await?.items {
        operators.delete(&operator.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    let status = finished(client, "killed-operator").await?;
    ensure!(status.phase == Phase::Succeeded, "{:?}: {:?}", status.phase, status.message);
    nothing_is_left(client, &run).await
}

async fn a_volume_that_no_node_can_mount_is_missed(client: &Client) -> anyhow::Result<()> {
    install::apply(client, include_str!("broken-volume.yaml")).await?;
    let run = start(client, "broken-volume").await?;
    let mover = wait_for("a mover for the broken volume", LIMIT, || async {
        let found = movers(client, &run).await?;
        Ok(found.into_iter().find(|p| uses_claim(p, "broken") && is_pending(p)))
    })
    .await?;
    // The operator would wait for minutes, in case a node comes back. The person in front of it deletes the pod instead, each time.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "files");
    pods.delete(&mover.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let status = wait_for("the end of backup broken-volume", LIMIT, || async {
        for pod in movers(client, &run).await?.iter().filter(|p| uses_claim(p, "broken")) {
            let name = pod.name_any();
            if let Err(e) = pods.delete(&name, &DeleteParams::default().grace_period(0)).await {
                ensure!(matches!(&e, kube::Error::Api(s) if s.is_not_found()), "delete {name}: {e}");
            }
        }
        Ok(backups(client).get("broken-volume").await?.status.filter(|s| s.phase.is_final()))
    })
    .await?;
    ensure!(status.phase == Phase::Incomplete, "{:?}: {:?}", status.phase, status.message);
    let missed: Vec<_> = status.volumes.iter().filter(|v| v.stage == VolumeStage::Missed).collect();
    ensure!(missed.len() == 1 && missed[0].claim == "broken" && missed[0].reason.is_some(), "{:?}", status.volumes);
    ensure!(
        status.ledger.as_ref().is_some_and(|l| l.missed > 0 && l.wanted == l.stored + l.skipped + l.missed),
        "{:?}",
        status.ledger
    );
    nothing_is_left(client, &run).await
}

fn uses_claim(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == claim))
}

fn is_pending(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending")
}

async fn a_deleted_backup_takes_its_recovery_point_along(client: &Client) -> anyhow::Result<()> {
    let locations: Api<api::BackupLocation> = Api::namespaced(client.clone(), api::ADMIN_NAMESPACE);
    for name in ["killed-mover", "killed-operator", "broken-volume"] {
        backups(client).delete(name, &DeleteParams::default()).await?;
        wait_for(&format!("the end of {name}"), LIMIT, || async {
            Ok(backups(client).get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
    }
    let location = locations.get("vault").await?;
    ensure!(location.status.is_some_and(|s| s.phase == api::LocationPhase::Ready), "the location is not ready");
    Ok(())
}
