//! The main job on two real clusters: the demo from begin to end, then what happens to movers and to the operator in the middle of it.

// The sandbox's own look for what it could leave.
#[path = "../../sandbox/tests/clusters/leftovers.rs"]
mod leftovers;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{ApplicationBackup, ApplicationBackupSpec, Phase, VolumeStage};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use sandbox::{Cluster, Error, Sandbox};
use scenarios::environment::Environment;
use scenarios::pods::wait_for;
use scenarios::stages::Stages;
use scenarios::{install, orlop, tidy};

const LIMIT: Duration = Duration::from_secs(180);
/// A namespace with a claim that a pod writes to once, and that no node can be chosen for a second pod by.
const FILES: &str = include_str!("files.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_backed_up_destroyed_and_comes_back_in_another_cluster() {
    sandbox::control_plane::install_crypto_provider();
    let folder = Sandbox::test_directory("main-job", env!("CARGO_TARGET_TMPDIR"));
    // An earlier run that was killed has left its clusters where this one will have its own.
    Environment::end_left_over(&folder).await.expect("end what an earlier run has left");
    if !Environment::is_given() {
        match can_run(&folder).await {
            Ok(()) => {}
            Err(Error::Machine { problem, remedy }) => sandbox::skip!("{problem}: {remedy}"),
            Err(error) => panic!("open the sandbox: {error:?}"),
        }
    }
    let machine = leftovers::Machine::look().expect("a look at the machine");
    let (note, environment) = Environment::start(&folder).await.expect("start the clusters");
    println!("{note}");
    let mut stages = Stages::default();
    let mut done = scenarios::demo::job(&environment, &mut stages).await.map(drop);
    println!("{}", stages.table());
    if done.is_ok() {
        done = faults(&environment).await;
    }
    let clusters = environment.sandbox().map(|sandbox| sandbox.clusters().expect("the clusters")).unwrap_or_default();
    let groups: Vec<_> = clusters.iter().map(Cluster::cgroup).collect();
    // What `make demo-down` does, which knows only what is written down in the folder.
    scenarios::demo::down(&folder).await.expect("end the clusters");
    assert!(!folder.exists(), "something is left in {}", folder.display());
    if environment.sandbox().is_some() {
        assert_eq!(groups.len(), 2, "there was something to end");
        machine.check_same(&folder, &groups).expect("nothing is left");
    }
    done.expect("do the job");
}

/// Looks whether this machine can run clusters, and leaves nothing.
async fn can_run(folder: &Path) -> sandbox::Result<()> {
    let sandbox = Sandbox::open(folder)?;
    let found = sandbox.require_programs().await;
    sandbox.wipe().await?;
    std::fs::remove_dir(folder).expect("a folder that is empty again");
    found
}

/// On the cluster of the demo, since starting another one takes longer than all of this.
async fn faults(environment: &Environment) -> anyhow::Result<()> {
    let client = &environment.east.client;
    let job = Job { client, run: &environment.run };
    install::create(client, &job.marked(&FILES.replace("BUSYBOX_IMAGE", &environment.images.busybox))).await?;
    written(client).await?;
    a_killed_mover_is_replaced(&job).await.context("a killed mover")?;
    an_operator_that_dies_is_replaced(&job).await.context("a killed operator")?;
    a_volume_that_no_node_can_mount_is_missed(&job).await.context("a volume that cannot be mounted")?;
    a_deleted_backup_takes_its_recovery_point_along(environment).await.context("a deleted backup")
}

/// Where what follows happens, and what marks what it makes.
struct Job<'a> {
    client: &'a Client,
    run: &'a str,
}

impl Job<'_> {
    fn marked(&self, manifest: &str) -> String {
        tidy::marked(manifest, self.run)
    }
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

async fn start(job: &Job<'_>, name: &str) -> anyhow::Result<ApplicationBackup> {
    let spec = ApplicationBackupSpec {
        namespaces: vec!["files".into()],
        backup_location: "vault".into(),
        reclaim_policy: api::ReclaimPolicy::Delete,
        ..ApplicationBackupSpec::default()
    };
    let mut backup = ApplicationBackup::new(name, spec);
    backup.labels_mut().insert(tidy::RUN_LABEL.into(), job.run.into());
    Ok(backups(job.client).create(&PostParams::default(), &backup).await?)
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

async fn a_killed_mover_is_replaced(job: &Job<'_>) -> anyhow::Result<()> {
    let client = job.client;
    let run = start(job, "killed-mover").await?;
    let mover = wait_for("a mover", LIMIT, || async { Ok(movers(client, &run).await?.pop()) }).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "files");
    pods.delete(&mover.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let status = finished(client, "killed-mover").await?;
    ensure!(status.phase == Phase::Succeeded, "{:?}: {:?}", status.phase, status.message);
    ensure!(status.volumes.iter().any(|v| v.attempts >= 2), "the mover was not the first: {:?}", status.volumes);
    ensure!(status.volumes.iter().any(|v| v.files == Some(2)), "{:?}", status.volumes);
    nothing_is_left(client, &run).await
}

async fn an_operator_that_dies_is_replaced(job: &Job<'_>) -> anyhow::Result<()> {
    let client = job.client;
    let run = start(job, "killed-operator").await?;
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

async fn a_volume_that_no_node_can_mount_is_missed(job: &Job<'_>) -> anyhow::Result<()> {
    let client = job.client;
    install::create(client, &job.marked(include_str!("broken-volume.yaml"))).await?;
    let run = start(job, "broken-volume").await?;
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

async fn a_deleted_backup_takes_its_recovery_point_along(environment: &Environment) -> anyhow::Result<()> {
    let site = &environment.east;
    let mut gone = BTreeSet::new();
    for name in tidy::BACKUPS {
        let point = backups(&site.client).get(name).await?.status.and_then(|s| s.recovery_point);
        gone.insert(point.with_context(|| format!("{name} has no recovery point"))?);
    }
    let before = points(environment).await?;
    ensure!(gone.is_subset(&before), "{gone:?} are not all among {before:?}");
    for name in tidy::BACKUPS {
        let args = ["backup", "delete", name, "-n", api::ADMIN_NAMESPACE, "--timeout", "3m"];
        let said = orlop::succeed(Some(&site.kubeconfig), &args, &[]).await?;
        ensure!(said.contains("is gone from"), "{said}");
    }
    let after = points(environment).await?;
    ensure!(after == &before - &gone, "{gone:?} were to go of {before:?}, there are {after:?}");
    Ok(())
}

/// The recovery points in the repository, read from this machine, which reaches the store at another address than pods do.
async fn points(environment: &Environment) -> anyhow::Result<BTreeSet<String>> {
    let text = orlop::succeed(None, &["repo", "list", "-o", "name"], &environment.repo_env()).await?;
    Ok(text.lines().map(str::to_owned).collect())
}
