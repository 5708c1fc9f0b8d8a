//! Orlop's volumes in a real cluster of three nodes, by the manifests in `deploy/csi`: made for claims, used, grown, copied, deleted; and used on while the daemon of their node is
//! replaced. Only the images of the standard sidecars are others, as they cannot be had here: see `sandbox/sidecars`. Beside it is another driver, of which Orlop knows nothing: see
//! `sandbox/directories`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackup, ApplicationClone, Phase};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use sandbox::s3::{Credentials, S3Server};
use sandbox::{Cluster, Error, Sandbox};
use scenarios::images::{self, Images};
use scenarios::pods::{self, wait_for};
use scenarios::{install, orlop};
use serde_json::{Value, json};

#[path = "csi/other_driver.rs"]
mod other_driver;

const LIMIT: Duration = Duration::from_secs(90);
/// Where the daemons of the nodes are.
const STORAGE: &str = "orlop-storage";
/// Where those are that use volumes.
const SHOP: &str = "shop";
const TOOLS: &str = "tools";
/// Where a device of [`SHOP`] comes back.
const SALVAGE: &str = "salvage";
/// What `shop` is cloned into.
const TRIAL: &str = "trial";
const DAEMON: &str = "app.kubernetes.io/name=orlop-node";
/// What a cluster has for snapshots.
const SNAPSHOTS: &str = include_str!("../../sandbox/sidecars/snapshots.yaml");
/// On a node, where nobody else has such a process.
const KILL: &str = r"for p in /proc/[0-9]*; do if tr '\0' ' ' <$p/cmdline | grep -q '^/usr/bin/orlop node '; then kill -9 ${p#/proc/}; fi; done 2>/dev/null; true";
const WORKLOADS: &str = include_str!("csi/workloads.yaml");
const COPIES: &str = include_str!("csi/copies.yaml");
const SALVAGED: &str = include_str!("csi/salvaged.yaml");

/// Prints how long each step took.
struct Timer(Instant);

impl Timer {
    fn step(&mut self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_a_cluster_are_made_used_grown_copied_and_deleted_while_daemons_are_replaced() {
    skips::require_block_devices!("mkfs.ext4", "mkfs.xfs", "xfs_growfs");
    sandbox::control_plane::install_crypto_provider();
    let folder = Sandbox::test_directory("csi", env!("CARGO_TARGET_TMPDIR"));
    let sandbox = match open(&folder).await {
        Ok(sandbox) => sandbox,
        Err(Error::Machine { problem, remedy }) => skips::skip!("{problem}: {remedy}"),
        Err(error) => panic!("open the sandbox: {error:?}"),
    };
    // An earlier run that was killed has left its cluster where this one will have its own.
    sandbox.wipe().await.expect("end what an earlier run has left");
    let guard = sandbox.clone().guard();
    let devices = scenario(&sandbox).await.expect("every step succeeds");
    drop(guard);
    let left: Vec<_> = devices.iter().filter(|device| device.is_bound()).collect();
    assert!(left.is_empty(), "block devices are left: {left:?}");
    std::fs::remove_dir(&folder).expect("an empty directory");
}

async fn open(folder: &Path) -> sandbox::Result<Sandbox> {
    let sandbox = Sandbox::open(folder)?;
    sandbox.require_programs().await?;
    Ok(sandbox)
}

async fn scenario(sandbox: &Sandbox) -> Result<Vec<BlockDevice>> {
    let mut timer = Timer(Instant::now());
    let mut manifests = vec![SNAPSHOTS.to_owned()];
    manifests.extend(install::manifests("csi")?);
    manifests.push(other_driver::MANIFEST.to_owned());
    Images::build_orlop(sandbox).await?;
    images::directories(sandbox).await?;
    images::stand_ins(sandbox, &manifests).await?;
    timer.step("images are made");
    let cluster = Cluster::up(sandbox, "east", Some(3)).await?;
    timer.step("a cluster of three nodes is up");
    let world = World { client: cluster.client().await?, cluster };
    for manifest in &manifests {
        install::apply(&world.client, manifest).await?;
    }
    world.drivers_are_known().await?;
    timer.step("every node has a driver, and the kubelets know it");
    install::create(&world.client, WORKLOADS).await?;
    world.volumes_are_made_for_claims().await.context("make volumes")?;
    timer.step("claims have volumes: ext4, XFS, raw and encrypted, on the nodes of their pods");
    world.data_outlives_its_pod().await.context("outlive a pod")?;
    timer.step("a pod that was deleted comes back with its data");
    world.a_volume_grows_while_it_is_used().await.context("grow")?;
    timer.step("a volume has grown while its pod used it");
    world.volumes_are_copied().await.context("copy")?;
    timer.step("a snapshot was taken, and volumes made from it and from a volume");
    let vault = world.a_vault(sandbox).await.context("make a place for backups")?;
    world.volumes_in_use_are_backed_up().await.context("back up")?;
    timer.step("a namespace was backed up and cloned while it was used, and a raw device came back elsewhere");
    other_driver::volumes_of_another_driver_are_protected(&world, &mut timer).await.context("another driver")?;
    vault.remove()?;
    world.daemons_are_replaced_under_load().await.context("replace a daemon")?;
    timer.step("a daemon was replaced three times, and its pod saw no error");
    let devices = world.block_devices().await?;
    ensure!(devices.len() >= 6, "there are too few block devices: {devices:?}");
    world.all_goes_with_its_claims().await.context("delete")?;
    other_driver::nothing_is_left(&world).await.context("another driver")?;
    timer.step("with their claims, volumes and what was made of them are gone");
    Ok(devices)
}

/// A block device of a volume, by what tells it from another one of its number.
#[derive(Debug)]
struct BlockDevice {
    name: String,
    mark: String,
}

impl BlockDevice {
    fn of(path: &str) -> Option<Self> {
        let name = Path::new(path).file_name()?.to_str()?.to_owned();
        let mark = mark(&name)?;
        Some(Self { name, mark })
    }

    fn is_bound(&self) -> bool {
        mark(&self.name).is_some_and(|mark| mark == self.mark)
    }
}

/// What Orlop marks its loop devices with.
fn mark(name: &str) -> Option<String> {
    std::fs::read_to_string(PathBuf::from("/sys/block").join(name).join("loop/sizelimit")).ok()
}

/// Where backups are.
struct Vault {
    _store: S3Server,
    made: [PathBuf; 2],
}

impl Vault {
    fn remove(self) -> Result<()> {
        for made in self.made {
            if made.is_dir() { std::fs::remove_dir_all(made)? } else { std::fs::remove_file(made)? }
        }
        Ok(())
    }
}

struct World {
    client: Client,
    cluster: Cluster,
}

impl World {
    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn snapshots(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshot"));
        Api::namespaced_with(self.client.clone(), SHOP, &kind)
    }

    async fn drivers_are_known(&self) -> Result<()> {
        let (sets, deployments) = (self.api::<DaemonSet>(STORAGE), self.api::<Deployment>(STORAGE));
        for name in ["orlop-keeper", "orlop-node", "orlop-csi"] {
            wait_for(&format!("the DaemonSet {name}"), LIMIT, || async {
                let status = sets.get(name).await?.status.unwrap_or_default();
                Ok((status.number_ready == 3 && status.desired_number_scheduled == 3).then_some(()))
            })
            .await?;
        }
        wait_for("the resizer", LIMIT, || async {
            let status = deployments.get("orlop-csi-resizer").await?.status.unwrap_or_default();
            Ok((status.ready_replicas == Some(2)).then_some(()))
        })
        .await?;
        let nodes: Api<CSINode> = Api::all(self.client.clone());
        wait_for("the driver on every node", LIMIT, || async {
            let known = |node: &CSINode| node.spec.drivers.iter().any(|driver| driver.name == "volumes.orlop.io");
            Ok((nodes.list(&ListParams::default()).await?.items.iter().filter(|node| known(node)).count() == 3)
                .then_some(()))
        })
        .await
    }

    /// The pod, when it is ready, is its node.
    async fn ready(&self, namespace: &str, pod: &str) -> Result<String> {
        let api: Api<Pod> = self.api(namespace);
        wait_for(&format!("the pod {pod}"), LIMIT, || async {
            let pod = api.get(pod).await?;
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            Ok(node.filter(|_| pods::is_ready(&pod)))
        })
        .await
    }

    async fn run(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        Ok(pods::run(&self.client, namespace, pod, &["sh", "-c", script]).await?.trim().to_owned())
    }

    /// The name of the volume of a claim.
    async fn volume_of(&self, namespace: &str, claim: &str) -> Result<String> {
        let claim = self.api::<PersistentVolumeClaim>(namespace).get(claim).await?;
        claim.spec.and_then(|spec| spec.volume_name).context("the claim is bound")
    }

    /// The daemon of a node, when it is ready.
    async fn daemon(&self, node: &str) -> Result<String> {
        let api: Api<Pod> = self.api(STORAGE);
        let there = ListParams::default().labels(DAEMON).fields(&format!("spec.nodeName={node}"));
        wait_for(&format!("the daemon of {node}"), LIMIT, || async {
            Ok(api.list(&there).await?.items.into_iter().find(pods::is_ready).map(|pod| pod.name_any()))
        })
        .await
    }

    /// What `orlop volume` says on a node, as a program asks it.
    async fn volume(&self, node: &str, words: &[&str]) -> Result<Value> {
        let daemon = self.daemon(node).await?;
        let words = [&["orlop", "volume"], words, &["-o", "json"]].concat();
        let said = pods::run_in("node", &self.client, STORAGE, &daemon, &words).await?;
        serde_json::from_str(&said).with_context(|| format!("understand {said}"))
    }

    async fn volumes_are_made_for_claims(&self) -> Result<()> {
        let node = self.ready(SHOP, "db-0").await?;
        let name = self.volume_of(SHOP, "data-db-0").await?;
        let volume = Api::<PersistentVolume>::all(self.client.clone()).get(&name).await?;
        let spec = serde_json::to_value(volume.spec)?;
        let affinity = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        let expected = json!({"key": "topology.volumes.orlop.io/node", "operator": "In", "values": [node]});
        ensure!(*affinity == expected && spec["csi"]["volumeHandle"] == *name, "the volume is {spec}");
        let shown = self.volume(&node, &["show", &name]).await?;
        let labels = &shown["labels"];
        ensure!(
            labels["csi.storage.k8s.io/pvc/name"] == "data-db-0" && labels["csi.storage.k8s.io/pvc/namespace"] == SHOP,
            "the node knows of {name}: {shown}"
        );
        let group = self.run(SHOP, "db-0", "stat -c %g /data").await?;
        ensure!(group == "2000", "the volume belongs to the group {group}");
        let user = self.ready(TOOLS, "user").await?;
        let mounts = self.run(TOOLS, "user", "mount | grep -E ' on /(files|secret) ' | sed 's/ (.*//'").await?;
        ensure!(mounts.contains("/files type xfs") && mounts.contains("/secret type ext4"), "{mounts}");
        let secret = self.volume(&user, &["show", &self.volume_of(TOOLS, "secret").await?]).await?;
        ensure!(secret["encryption"] == "AES-256-XTS", "it is not encrypted: {secret}");
        self.run(TOOLS, "user", "echo hush > /secret/words && sync /secret/words && cat /secret/words").await?;
        self.ready(SHOP, "raw").await?;
        let written = "head -c 4096 /dev/urandom > /tmp/block && dd if=/tmp/block of=/dev/raw bs=4096 seek=3 conv=fsync 2>/dev/null";
        let read = "dd if=/dev/raw bs=4096 skip=3 count=1 2>/dev/null | cmp - /tmp/block && echo same";
        let same = self.run(SHOP, "raw", &format!("{written} && {read} && blockdev --getsize64 /dev/raw")).await?;
        ensure!(same == format!("same\n{}", 16 << 20), "the raw device: {same}");
        Ok(())
    }

    /// A count that the database has stored, which must not have failed. What is seen is stored only after the next sync: a file may have its
    /// name before the journal has it.
    async fn count(&self) -> Result<u64> {
        let stored = "n=$(cat /data/count) && sync -f /data/count && echo $n";
        let said =
            self.run(SHOP, "db-0", &format!("test ! -e /dev/shm/failed || cat /dev/shm/failed; {stored}")).await?;
        said.parse().with_context(|| format!("the database says {said:?}"))
    }

    async fn data_outlives_its_pod(&self) -> Result<()> {
        let node = self.ready(SHOP, "db-0").await?;
        let before = self.counts_on().await?;
        let api: Api<Pod> = self.api(SHOP);
        let first = api.get("db-0").await?.uid();
        api.delete("db-0", &DeleteParams::default()).await?;
        wait_for("another pod", LIMIT, || async {
            Ok(api.get_opt("db-0").await?.filter(|pod| pod.uid() != first).map(drop))
        })
        .await?;
        let again = self.ready(SHOP, "db-0").await?;
        ensure!(again == node, "the pod went from {node} to {again}, away from its volume");
        let began: u64 = self.run(SHOP, "db-0", "cat /data/began").await?.parse()?;
        ensure!(began >= before, "it counts from {began} on, and was at {before}");
        Ok(())
    }

    /// Waits until the count has grown.
    async fn counts_on(&self) -> Result<u64> {
        let before = self.count().await?;
        wait_for("the database to go on", LIMIT, || async {
            let now = self.count().await?;
            Ok((now > before + 5).then_some(now))
        })
        .await
    }

    async fn a_volume_grows_while_it_is_used(&self) -> Result<()> {
        let claims: Api<PersistentVolumeClaim> = self.api(TOOLS);
        let more = json!({"spec": {"resources": {"requests": {"storage": "640Mi"}}}});
        claims.patch("files", &PatchParams::default(), &Patch::Merge(more)).await?;
        wait_for("the resizer", LIMIT, || async {
            let conditions = claims.get("files").await?.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|condition| condition.type_ == "FileSystemResizePending").then_some(()))
        })
        .await?;
        // A kubelet looks at each pod once in a minute or so, and at once when something of it changes.
        let touched = json!({"metadata": {"annotations": {"scenarios.orlop.io/touched": "yes"}}});
        self.api::<Pod>(TOOLS).patch("user", &PatchParams::default(), &Patch::Merge(touched)).await?;
        wait_for("the larger file system in the pod", 2 * LIMIT, || async {
            let kib: u64 = self.run(TOOLS, "user", "df -k /files | tail -1 | awk '{print $2}'").await?.parse()?;
            Ok((kib > 500 << 10).then_some(()))
        })
        .await?;
        wait_for("the larger size in the claim", LIMIT, || async {
            let status = claims.get("files").await?.status.unwrap_or_default();
            let size = status.capacity.and_then(|capacity| capacity.get("storage").cloned());
            Ok(size.filter(|size| size.0 == "640Mi").map(drop))
        })
        .await
    }

    async fn volumes_are_copied(&self) -> Result<()> {
        let node = self.ready(SHOP, "db-0").await?;
        let before = self.count().await?;
        install::create(&self.client, &COPIES.replace("NODE_OF_THE_SOURCE", &node)).await?;
        wait_for("the snapshot", LIMIT, || async {
            let status = self.snapshots().get("before").await?.data["status"].clone();
            Ok((status["readyToUse"] == true && status["restoreSize"] == "64Mi").then_some(()))
        })
        .await?;
        let at = self.ready(SHOP, "reader").await?;
        ensure!(at == node, "the copies are on {at}, and their source on {node}");
        let after = self.count().await?;
        for copy in ["restored", "cloned"] {
            let count: u64 = self.run(SHOP, "reader", &format!("cat /{copy}/count")).await?.parse()?;
            ensure!((before..=after).contains(&count), "{copy} has {count}, and it was from {before} to {after}");
        }
        // They are volumes of their own.
        self.run(SHOP, "reader", "echo 0 > /restored/count && echo 0 > /cloned/count && sync").await?;
        ensure!(self.counts_on().await? >= after, "the source has what was written to its copies");
        let listed = self.volume(&node, &["list", "--snapshots"]).await?;
        let names: Vec<_> = listed.as_array().context("a list")?.iter().map(|one| one["name"].clone()).collect();
        ensure!(names.len() == 1, "what was taken for the clone alone is gone: {names:?}");
        Ok(())
    }

    /// The operator, and the location `vault`.
    async fn a_vault(&self, sandbox: &Sandbox) -> Result<Vault> {
        let store = S3Server::start(sandbox.directory().join("s3"), Credentials::generate())?;
        store.create_bucket("backups")?;
        let inside = self.cluster.forward_in(store.address().port(), store.address()).await?;
        install::orlop(&self.client, install::IMAGE_IN_MANIFESTS).await?;
        let passphrase = sandbox.directory().join("passphrase");
        std::fs::write(&passphrase, "open sesame")?;
        let (kubeconfig, home) = (self.cluster.kubeconfig_path(), api::ADMIN_NAMESPACE);
        let options = [format!("--endpoint=http://{inside}"), format!("--passphrase-file={}", passphrase.display())];
        let keys = store.credentials();
        let keys = [("AWS_ACCESS_KEY_ID", keys.access_key.clone()), ("AWS_SECRET_ACCESS_KEY", keys.secret_key.clone())];
        let add = ["location", "add", "vault", "-n", home, "--bucket", "backups", &options[0], &options[1]];
        orlop::succeed(Some(&kubeconfig), &add, &keys).await?;
        Ok(Vault { _store: store, made: [sandbox.directory().join("s3"), passphrase] })
    }

    /// By movers, which mount volumes made from snapshots of them.
    async fn volumes_in_use_are_backed_up(&self) -> Result<()> {
        let (kubeconfig, home) = (self.cluster.kubeconfig_path(), api::ADMIN_NAMESPACE);
        self.run(TOOLS, "user", "head -c 1000000 /dev/urandom > /files/noise && sync /files/noise").await?;
        let begin =
            ["backup", "create", "in-use", "-n", home, "--namespaces", TOOLS, "--backup-location", "vault", "--wait"];
        orlop::succeed(Some(&kubeconfig), &begin, &[]).await?;
        let status = self.api::<ApplicationBackup>(home).get("in-use").await?.status.context("a status")?;
        let files: Vec<_> = status.volumes.iter().map(|volume| volume.files).collect();
        ensure!(status.phase == Phase::Succeeded && files == [Some(1), Some(1)], "{:?}: {files:?}", status.phase);
        let from_snapshots =
            status.volumes.iter().all(|volume| volume.snapshot_class.is_some() && volume.cut_at.is_some());
        ensure!(from_snapshots, "snapshots were read: {:?}", status.volumes);
        self.a_namespace_is_cloned().await.context("clone")?;
        self.a_raw_device_comes_back_elsewhere(&kubeconfig).await.context("bring a device back")
    }

    /// Its claim is deleted, and what was on it is byte for byte on another one.
    async fn a_raw_device_comes_back_elsewhere(&self, kubeconfig: &Path) -> Result<()> {
        let home = api::ADMIN_NAMESPACE;
        let noise = "head -c 3000000 /dev/urandom | dd of=/dev/raw bs=4096 seek=100 conv=fsync,notrunc 2>/dev/null";
        let sum = "sha256sum </dev/raw && blockdev --getsize64 /dev/raw";
        let before = self.run(SHOP, "raw", &format!("{noise}; {sum}")).await?;
        let claim = "PersistentVolumeClaim/raw";
        let begin = [
            &["backup", "create", "device", "-n", home, "--namespaces", SHOP, "--include", claim][..],
            &["--backup-location", "vault", "--wait"],
        ];
        orlop::succeed(Some(kubeconfig), &begin.concat(), &[]).await?;
        let status = self.api::<ApplicationBackup>(home).get("device").await?.status.context("a status")?;
        let [volume] = &status.volumes[..] else { anyhow::bail!("one volume was picked: {:?}", status.volumes) };
        ensure!(volume.image && volume.cut_at.is_some() && volume.bytes == Some(16 << 20), "{volume:?}");
        self.api::<Pod>(SHOP).delete("raw", &DeleteParams::default()).await?;
        let (volumes, gone) = (Api::<PersistentVolume>::all(self.client.clone()), self.volume_of(SHOP, "raw").await?);
        self.api::<PersistentVolumeClaim>(SHOP).delete("raw", &DeleteParams::default()).await?;
        wait_for("the end of the device", LIMIT, || async {
            Ok(volumes.get_opt(&gone).await?.is_none().then_some(()))
        })
        .await?;
        let to = format!("{SHOP}={SALVAGE}");
        let restore = ["restore", "device", "--name", "device", "-n", home, "--to", &to, "--include", claim, "--wait"];
        // The pod waits for its claim from the begin, and starts on nothing that is half filled.
        install::create(&self.client, SALVAGED).await?;
        orlop::succeed(Some(kubeconfig), &restore, &[]).await?;
        self.ready(SALVAGE, "raw").await?;
        let after = self.run(SALVAGE, "raw", sum).await?;
        ensure!(after == before, "the device has {after}, and had {before}");
        Ok(())
    }

    /// By the operator, which the backup has installed: volumes with file systems and a raw one, some of them clones themselves.
    async fn a_namespace_is_cloned(&self) -> Result<()> {
        let (kubeconfig, home) = (self.cluster.kubeconfig_path(), api::ADMIN_NAMESPACE);
        self.run(SHOP, "raw", "echo in the source | dd of=/dev/raw conv=fsync 2>/dev/null").await?;
        let before = self.count().await?;
        let begun = Instant::now();
        let create = ["clone", "create", SHOP, TRIAL, "--name", "trial", "-n", home, "--wait"];
        let said = orlop::succeed(Some(&kubeconfig), &create, &[]).await?;
        println!("         {:.1} s until everything was made:\n{said}", begun.elapsed().as_secs_f32());
        let after = self.counts_on().await?;
        self.ready(TRIAL, "db-0").await?;
        println!("         {:.1} s until the database ran", begun.elapsed().as_secs_f32());
        let status = self.api::<ApplicationClone>(home).get("trial").await?.status.context("a status")?;
        ensure!(status.phase == Phase::Succeeded && status.volumes.len() == 4, "{status:#?}");
        let count: u64 = self.run(TRIAL, "db-0", "cat /data/began").await?.parse()?;
        ensure!((before..=after).contains(&count), "the clone has {count}, and it was from {before} to {after}");
        self.ready(TRIAL, "raw").await?;
        ensure!(
            self.run(TRIAL, "raw", "head -n 1 /dev/raw").await? == "in the source",
            "the raw volume is another one"
        );
        // Each has volumes of its own, and nothing is left between them.
        self.run(TRIAL, "raw", "echo in the clone | dd of=/dev/raw conv=fsync 2>/dev/null").await?;
        ensure!(self.run(SHOP, "raw", "head -n 1 /dev/raw").await? == "in the source", "the source was written to");
        self.run(TRIAL, "db-0", "touch /data/only-in-the-clone && sync").await?;
        ensure!(
            self.run(SHOP, "db-0", "ls /data").await?.lines().all(|name| name != "only-in-the-clone"),
            "it is shared"
        );
        self.counts_on().await?;
        let left = self.snapshots().list(&ListParams::default()).await?.items;
        let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        ensure!(left == ["before"], "the clone has left {left:?}");
        let listed = orlop::succeed(Some(&kubeconfig), &["clone", "list", "-n", home], &[]).await?;
        println!("{listed}");
        orlop::succeed(Some(&kubeconfig), &["clone", "delete", "trial", "-n", home], &[]).await.map(drop)
    }

    /// The daemon ends in order, at once, and as a process that has a defect does.
    async fn daemons_are_replaced_under_load(&self) -> Result<()> {
        let node = self.ready(SHOP, "db-0").await?;
        let api: Api<Pod> = self.api(STORAGE);
        for how in [DeleteParams::default(), DeleteParams::default().grace_period(0)] {
            let before = self.count().await?;
            let daemon = self.daemon(&node).await?;
            api.delete(&daemon, &how).await?;
            let next = wait_for("the next daemon", LIMIT, || async {
                Ok(Some(self.daemon(&node).await?).filter(|next| *next != daemon))
            })
            .await?;
            let after = self.counts_on().await?;
            println!("         {daemon} was replaced by {next}, and the count went from {before} to {after}");
        }
        let daemon = self.daemon(&node).await?;
        let machine = self.cluster.nodes().find(|one| one.name() == node).context("the node")?;
        machine.exec(&["sh", "-c", KILL]).await?;
        wait_for("the next life of the daemon", LIMIT, || async {
            let pod = api.get(&daemon).await?;
            let lives = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            Ok(lives.iter().any(|one| one.name == "node" && one.restart_count > 0 && one.ready).then_some(()))
        })
        .await?;
        self.counts_on().await?;
        let pod = self.api::<Pod>(SHOP).get("db-0").await?;
        let restarts: i32 =
            pod.status.and_then(|status| status.container_statuses).iter().flatten().map(|one| one.restart_count).sum();
        ensure!(restarts == 0, "the pod was started again {restarts} times");
        Ok(())
    }

    async fn block_devices(&self) -> Result<Vec<BlockDevice>> {
        let mut devices = Vec::new();
        for node in self.cluster.nodes() {
            let listed = self.volume(node.name(), &["list"]).await?;
            let places =
                listed.as_array().context("a list")?.iter().filter_map(|one| one["attached"]["place"].as_str());
            devices.extend(places.filter_map(BlockDevice::of));
        }
        let names: BTreeSet<_> = devices.iter().map(|device| device.name.clone()).collect();
        ensure!(names.len() == devices.len(), "two nodes have one device: {devices:?}");
        Ok(devices)
    }

    async fn all_goes_with_its_claims(&self) -> Result<()> {
        let (at_once, all) = (DeleteParams::default(), ListParams::default());
        for namespace in [SHOP, TRIAL] {
            self.api::<StatefulSet>(namespace).delete("db", &at_once).await?;
        }
        self.snapshots().delete("before", &at_once).await?;
        for namespace in [SHOP, TOOLS, SALVAGE, TRIAL] {
            self.api::<Pod>(namespace).delete_collection(&at_once, &all).await?;
            self.api::<PersistentVolumeClaim>(namespace).delete_collection(&at_once, &all).await?;
        }
        wait_for("the end of the snapshot", LIMIT, || async {
            Ok(self.snapshots().get_opt("before").await?.is_none().then_some(()))
        })
        .await?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        wait_for("the end of the persistent volumes", LIMIT, || async {
            Ok(volumes.list(&ListParams::default()).await?.items.is_empty().then_some(()))
        })
        .await?;
        for node in self.cluster.nodes() {
            for words in [&["list"][..], &["list", "--snapshots"]] {
                let left = self.volume(node.name(), words).await?;
                ensure!(left == json!([]), "{node} still has {left}");
            }
            let mounted = node.exec(&["cat", "/proc/self/mountinfo"]).await?;
            let left: Vec<_> = mounted.lines().filter(|line| line.contains(" 7:")).collect();
            ensure!(left.is_empty(), "still mounted on {node}: {left:?}");
        }
        Ok(())
    }
}
