//! An application on volumes of a CSI driver that is not Orlop's, in the same cluster: backed up by a snapshot and without one, lost, and brought back, there and onto a volume of Orlop.
//! Nothing of the driver is left between.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackupStatus, ConsistencyLevel, Phase, VolumeBackup, VolumeStage};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt};
use scenarios::pods::{self, wait_for};
use scenarios::{install, orlop};

use crate::{LIMIT, Timer, World};

/// The driver, as it is installed.
pub(crate) const MANIFEST: &str = include_str!("../../../sandbox/directories/driver.yaml");
const ARCHIVE: &str = include_str!("archive.yaml");
const DRIVER: &str = "directories.example.com";
/// Its storage class, and its class of snapshots.
const CLASS: &str = "directories";
const OLD: &str = "archive";
/// Where the application comes back on a volume of Orlop.
const MOVED: &str = "archive-moved";
const CLAIM: &str = "papers";
/// What is to be the same wherever the application comes back: everything of what it does not write to any more.
const FILES: &str = "cd /papers/fixed && find . | sort | while read f; do stat -c '%n %F %a %u:%g %Y' $f; if [ -L $f ]; then readlink $f; elif [ -f $f ]; then sha256sum <$f; fi; done";

pub(crate) async fn volumes_of_another_driver_are_protected(world: &World, timer: &mut Timer) -> Result<()> {
    it_is_known(world).await?;
    install::create(&world.client, ARCHIVE).await?;
    let archive = Archive::ready(world, OLD).await?;
    let files = archive.files().await?;
    ensure!(files.lines().filter(|line| line.contains("private/tool regular file 4755 0:0")).count() == 1, "{files}");
    timer.step("an application runs on a volume of another driver");
    let counts = a_snapshot_is_read(world, &archive).await.context("by a snapshot")?;
    a_volume_is_read_when_that_is_wanted(world).await.context("by a copy")?;
    timer.step("it was backed up while it wrote, by a snapshot and without one");
    what_cannot_be_taken_is_told(world).await.context("without a class of snapshots")?;
    timer.step("without a class of snapshots, the volume was missed, or read itself: as was wanted");
    it_is_lost(world).await.context("lose it")?;
    let back = ["restore", "of-snapshot", "--name", "back", "-n", api::ADMIN_NAMESPACE, "--wait"];
    let (to, class) = (format!("{OLD}={MOVED}"), format!("{CLASS}=orlop"));
    let moved = ["restore", "of-snapshot", "--name", "moved", "-n", api::ADMIN_NAMESPACE, "--to", &to];
    let moved = [&moved[..], &["--storage-class", &class, "--wait"]].concat();
    let kubeconfig = world.cluster.kubeconfig_path();
    let restored =
        tokio::join!(orlop::succeed(Some(&kubeconfig), &back, &[]), orlop::succeed(Some(&kubeconfig), &moved, &[]));
    restored.0.and(restored.1)?;
    for (namespace, driver) in [(OLD, DRIVER), (MOVED, "volumes.orlop.io")] {
        let archive = Archive::ready(world, namespace).await?;
        let found = archive.files().await?;
        ensure!(found == files, "{namespace} has\n{found}\nand it was\n{files}");
        let names = archive.run("ls /papers").await?;
        ensure!(names.lines().all(|name| name != "later"), "{namespace} has what came after the snapshot: {names}");
        let began = archive.began().await?;
        ensure!(counts.contains(&began), "{namespace} began at {began}, and the snapshot was taken at {counts:?}");
        let volume = world.volume_of(namespace, CLAIM).await?;
        let spec = Api::<PersistentVolume>::all(world.client.clone()).get(&volume).await?.spec.unwrap_or_default();
        let of = spec.csi.map(|csi| csi.driver).unwrap_or_default();
        ensure!(of == driver, "the volume of {namespace} is of {of}");
    }
    timer.step(
        "its namespace was deleted, and came back, with every file, on a volume of its driver and on one of Orlop",
    );
    for namespace in [OLD, MOVED] {
        namespaces(world).delete(namespace, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// On no node the driver has anything, once the claims are gone.
pub(crate) async fn nothing_is_left(world: &World) -> Result<()> {
    for folder in ["volumes", "snapshots"] {
        let left = on_nodes(world, folder).await?;
        ensure!(left.is_empty(), "left of the {folder}: {left:?}");
    }
    Ok(())
}

async fn it_is_known(world: &World) -> Result<()> {
    let sets: Api<DaemonSet> = world.api("kube-system");
    wait_for("the driver on every node", LIMIT, || async {
        let status = sets.get(CLASS).await?.status.unwrap_or_default();
        Ok((status.number_ready == 3 && status.desired_number_scheduled == 3).then_some(()))
    })
    .await?;
    let nodes: Api<CSINode> = Api::all(world.client.clone());
    wait_for("every kubelet to know the driver", LIMIT, || async {
        let known = |node: &&CSINode| node.spec.drivers.iter().any(|driver| driver.name == DRIVER);
        let nodes = nodes.list(&ListParams::default()).await?.items;
        Ok((nodes.iter().filter(known).count() == 3).then_some(()))
    })
    .await
}

/// The application, where it runs.
struct Archive<'a> {
    world: &'a World,
    namespace: &'static str,
    pod: String,
}

impl<'a> Archive<'a> {
    async fn ready(world: &'a World, namespace: &'static str) -> Result<Self> {
        let pod = pods::ready_pod(&world.client, namespace, "app=clerk", LIMIT).await?;
        Ok(Self { world, namespace, pod })
    }

    async fn run(&self, script: &str) -> Result<String> {
        self.world.run(self.namespace, &self.pod, script).await
    }

    async fn files(&self) -> Result<String> {
        self.run(FILES).await
    }

    /// What it counts, which it writes all the time.
    async fn count(&self) -> Result<u64> {
        Ok(self.run("cat /papers/count").await?.parse()?)
    }

    /// From where it counted on when it was started.
    async fn began(&self) -> Result<u64> {
        Ok(self.run("cat /dev/shm/began").await?.parse()?)
    }
}

/// What it counted while the snapshot was taken.
async fn a_snapshot_is_read(world: &World, archive: &Archive<'_>) -> Result<std::ops::RangeInclusive<u64>> {
    let before = archive.count().await?;
    let (status, marked) =
        tokio::join!(backed_up(world, "of-snapshot", &[]), marked_after_the_snapshot(world, archive));
    let status = marked.and(status)?;
    let after = archive.count().await?;
    ensure!(after > before, "it stood still, at {after}");
    ensure!(status.phase == Phase::Succeeded, "{status:#?}");
    let volume = only(&status)?;
    ensure!(volume.snapshot_class.as_deref() == Some(CLASS) && volume.cut_at.is_some(), "{volume:?}");
    says(world, "of-snapshot", &status, ConsistencyLevel::CrashConsistent, "a snapshot of the class directories")
        .await?;
    let left = [all(world, "VolumeSnapshot").await?, all(world, "VolumeSnapshotContent").await?].concat();
    ensure!(left.is_empty(), "left of the snapshot: {left:?}");
    let snapshots = on_nodes(world, "snapshots").await?;
    ensure!(snapshots.is_empty(), "left of the snapshot: {snapshots:?}");
    // The claim of what was made from it is gone; the volume behind that goes after it.
    let its_own = world.volume_of(OLD, CLAIM).await?;
    wait_for("the end of the volume that was read", LIMIT, || async {
        Ok(on_nodes(world, "volumes").await?.values().flatten().eq([&its_own]).then_some(()))
    })
    .await?;
    Ok(before..=after)
}

/// Writes what must not be in the backup, once the snapshot is taken and before it is read.
async fn marked_after_the_snapshot(world: &World, archive: &Archive<'_>) -> Result<()> {
    wait_for("the snapshot", LIMIT, || async {
        let found = kind(&world.client, "VolumeSnapshot").list(&ListParams::default()).await?.items;
        let is_taken = |one: &DynamicObject| one.data["status"]["readyToUse"] == true;
        Ok(found.iter().any(|one| one.namespace().as_deref() == Some(OLD) && is_taken(one)).then_some(()))
    })
    .await?;
    archive.run("touch /papers/later").await.map(drop)
}

async fn a_volume_is_read_when_that_is_wanted(world: &World) -> Result<()> {
    let status = backed_up(world, "of-volume", &["--volumes", "copy"]).await?;
    is_read_itself(world, "of-volume", &status).await
}

async fn is_read_itself(world: &World, name: &str, status: &ApplicationBackupStatus) -> Result<()> {
    ensure!(status.phase == Phase::Succeeded, "{status:#?}");
    let volume = only(status)?;
    ensure!(
        volume.stage == VolumeStage::Done && volume.snapshot_class.is_none() && volume.cut_at.is_none(),
        "{volume:?}"
    );
    says(world, name, status, ConsistencyLevel::NotConsistent, "the volume itself").await
}

/// With no class of the driver's snapshots: a volume of which a snapshot is wanted is missed, and another one is read itself.
async fn what_cannot_be_taken_is_told(world: &World) -> Result<()> {
    kind(&world.client, "VolumeSnapshotClass").delete(CLASS, &DeleteParams::default()).await?;
    let (wanted, left_open) =
        tokio::join!(backed_up(world, "wanted", &["--volumes", "snapshot"]), backed_up(world, "left-open", &[]));
    let wanted = wanted?;
    let volume = only(&wanted)?;
    ensure!(wanted.phase == Phase::Incomplete && volume.stage == VolumeStage::Missed, "{wanted:#?}");
    let why = volume.reason.clone().unwrap_or_default();
    ensure!(why.contains("there is no VolumeSnapshotClass") && why.contains(DRIVER), "it was missed since {why}");
    is_read_itself(world, "left-open", &left_open?).await
}

/// A backup of the application, whatever comes of it.
async fn backed_up(world: &World, name: &str, options: &[&str]) -> Result<ApplicationBackupStatus> {
    let (kubeconfig, home) = (world.cluster.kubeconfig_path(), api::ADMIN_NAMESPACE);
    let begin = ["backup", "create", name, "-n", home, "--namespaces", OLD, "--backup-location", "vault", "--wait"];
    let ended = orlop::run(Some(&kubeconfig), &[&begin[..], options].concat(), &[]).await?;
    let status = world.api::<api::ApplicationBackup>(home).get(name).await?.status;
    status.with_context(|| format!("nothing is known of {name}: {} {}", ended.stdout, ended.stderr))
}

fn only(status: &ApplicationBackupStatus) -> Result<&VolumeBackup> {
    match &status.volumes[..] {
        [volume] if volume.claim == CLAIM => Ok(volume),
        others => anyhow::bail!("one volume was to be backed up: {others:?}"),
    }
}

/// Its status, and what a person is shown, say how consistent the data is, and which way it was read.
async fn says(
    world: &World,
    name: &str,
    status: &ApplicationBackupStatus,
    level: ConsistencyLevel,
    way: &str,
) -> Result<()> {
    let found = status.consistency.as_ref().context("nothing is said of the consistency")?;
    ensure!(found.level == level, "{found:?}");
    let show = ["backup", "show", name, "-n", api::ADMIN_NAMESPACE];
    let shown = orlop::succeed(Some(&world.cluster.kubeconfig_path()), &show, &[]).await?;
    ensure!(shown.contains(&format!("{level:?}: ")) && shown.contains(way), "{shown}");
    Ok(())
}

/// Its namespace goes, and its volume with it.
async fn it_is_lost(world: &World) -> Result<()> {
    namespaces(world).delete(OLD, &DeleteParams::default()).await?;
    wait_for("the end of the namespace", LIMIT, || async {
        Ok(namespaces(world).get_opt(OLD).await?.is_none().then_some(()))
    })
    .await?;
    wait_for("the end of its volume", LIMIT, || async {
        Ok(on_nodes(world, "volumes").await?.is_empty().then_some(()))
    })
    .await
}

fn namespaces(world: &World) -> Api<Namespace> {
    Api::all(world.client.clone())
}

fn kind(client: &Client, kind: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::from_gvk(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind)))
}

/// What there is of snapshots of the application, by name.
async fn all(world: &World, what: &str) -> Result<Vec<String>> {
    let found = kind(&world.client, what).list(&ListParams::default()).await?.items;
    let is_of_it =
        |object: &&DynamicObject| object.namespace().as_deref() == Some(OLD) || object.data["spec"]["driver"] == DRIVER;
    Ok(found.iter().filter(is_of_it).map(ResourceExt::name_any).collect())
}

/// What the driver has in one of its folders on each node that has anything there.
async fn on_nodes(world: &World, folder: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for node in world.cluster.nodes() {
        let listed = node.exec(&["ls", "-A", &format!("/var/lib/directories/{folder}")]).await?;
        let listed: Vec<_> = listed.split_whitespace().map(str::to_owned).collect();
        if !listed.is_empty() {
            found.insert(node.name().to_owned(), listed);
        }
    }
    Ok(found)
}
