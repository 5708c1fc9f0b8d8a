//! Replicated volumes in a real cluster of three nodes, of which each loses its power, one after the other, while a pod writes. What was acknowledged to somebody outside of the cluster
//! is there afterwards.
//!
//! As in `csi.rs`, only the images of the standard sidecars are others. Orlop is installed, looked at and taken away by its own program.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{RecordStanding, StorageNode, Volume, VolumePhase, VolumeRecord};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, AttachParams, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use sandbox::{Cluster, Error, Sandbox};
use scenarios::images::{self, Images};
use scenarios::pods::{self, wait_for};
use scenarios::{install, orlop};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

#[path = "replicated/moved.rs"]
mod moved;

const LIMIT: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "ledger";
const CLAIM: &str = include_str!("replicated/claim.yaml");
/// Each number is in the file, durably, before it is told outside.
const WRITE: &str = "n=$(tail -n 1 /data/lines 2>/dev/null || echo 0); while true; do n=$((n + 1)); echo $n >> /data/lines && sync /data/lines && echo $n || exit 1; done";

/// Prints how long each step took.
struct Timer(Instant);

impl Timer {
    fn step(&mut self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f32());
        self.0 = Instant::now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_power_of_its_nodes() {
    skips::require_block_devices!("mkfs.ext4");
    sandbox::control_plane::install_crypto_provider();
    let folder = Sandbox::test_directory("replicated", env!("CARGO_TARGET_TMPDIR"));
    let sandbox = match open(&folder).await {
        Ok(sandbox) => sandbox,
        Err(Error::Machine { problem, remedy }) => skips::skip!("{problem}: {remedy}"),
        Err(error) => panic!("open the sandbox: {error:?}"),
    };
    // An earlier run that was killed has left its cluster where this one will have its own.
    sandbox.wipe().await.expect("end what an earlier run has left");
    let guard = sandbox.clone().guard();
    scenario(&sandbox).await.expect("every step succeeds");
    drop(guard);
    std::fs::remove_dir(&folder).expect("an empty directory");
}

async fn open(folder: &Path) -> sandbox::Result<Sandbox> {
    let sandbox = Sandbox::open(folder)?;
    sandbox.require_programs().await?;
    Ok(sandbox)
}

async fn scenario(sandbox: &Sandbox) -> Result<()> {
    let mut timer = Timer(Instant::now());
    let manifests = [install::manifests("csi")?, install::manifests("replicated")?].concat();
    Images::build_orlop(sandbox).await?;
    images::stand_ins(sandbox, &manifests).await?;
    timer.step("images are made");
    let cluster = Cluster::up(sandbox, "east", Some(3)).await?;
    timer.step("a cluster of three nodes is up");
    let world = World { client: cluster.client().await?, cluster };
    let kubeconfig = world.cluster.kubeconfig_path();
    let orlop_says = async |words: &[&str]| orlop::run(Some(&kubeconfig), words, &[]).await;
    let installed = orlop_says(&["install", "--storage", "replicated", "--timeout", "3m"]).await?;
    ensure!(installed.code == 0, "orlop install: {}", installed.stderr);
    timer.step("orlop install has made everything ready");
    world.nodes_are_known().await?;
    timer.step("every node has a driver, and tells of its pool");
    is_well(&orlop_says(&["check", "-o", "json", "--clocks", "1m"]).await?)?;
    timer.step("orlop check finds every node well");
    install::create(&world.client, CLAIM).await?;
    world.pod("first", None).await?;
    let first = world.ready("first").await?;
    let members = world.members().await?;
    ensure!(members.len() == 2 && members.contains(&first), "it is used on {first}, with replicas on {members:?}");
    timer.step("a claim has a volume with two replicas, one of them on the node of its pod");
    let refused = orlop_says(&["uninstall"]).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("volumes of it are in use"), "orlop uninstall: {refused:?}");
    let other = members.iter().find(|node| **node != first).context("a second replica")?.clone();
    let third = world.cluster.nodes().map(|node| node.name().to_owned()).find(|node| !members.contains(node));
    let third = third.context("a node without a replica")?;

    let mut lines = world.write("first").await?;
    lines.after(50).await?;
    world.daemons_are_of_yesterday().await?;
    let upgraded = orlop_says(&["upgrade", "--nodes", "--timeout", "5m"]).await?;
    ensure!(upgraded.code == 0, "orlop upgrade: {}", upgraded.stderr);
    world.every_daemon_is_new().await?;
    let before = lines.latest();
    let told = lines.after(before + 50).await?;
    timer.step("the daemons of all nodes were replaced, one after the other, and the pod has written on");
    let told = two_losses_of_power(&world, &mut timer, (&first, &other, &third), lines, told).await?;
    moved::a_pod_is_moved_off_dead_storage(&world, &mut timer, told).await?;
    world.all_goes_with_the_claim().await?;
    timer.step("with the claim, the volume, its record and its replicas are gone");
    let gone = orlop_says(&["uninstall", "--delete-crds"]).await?;
    ensure!(gone.code == 0, "orlop uninstall: {}", gone.stderr);
    world.no_pod_is_left().await?;
    timer.step("orlop uninstall has taken everything away");
    Ok(())
}

/// The power of the node with the pod goes, and when that is back, the other replica's.
async fn two_losses_of_power(
    world: &World,
    timer: &mut Timer,
    (first, other, third): (&str, &str, &str),
    mut lines: Lines,
    told: u64,
) -> Result<u64> {
    let cut = Instant::now();
    world.node(first)?.kill().await?;
    let told = told.max(lines.rest().await);
    println!("         {told} lines were acknowledged before the power of {first} went");
    world.pods().delete("first", &DeleteParams::default().grace_period(0)).await?;
    world.pod("second", Some(third)).await?;
    world.ready("second").await?;
    let mut lines = world.write("second").await?;
    lines.after(1).await?;
    println!(
        "         {:.1} s from the cut of {first} until a pod on {third} has written",
        cut.elapsed().as_secs_f32()
    );
    world.has_all("second", told).await?;
    timer.step("the pod goes on elsewhere, with every line that was acknowledged");

    world.node(first)?.start().await?;
    world.all_in_sync().await?;
    timer.step("the node is back, and its replica is equal again");

    let told = lines.latest();
    let cut = Instant::now();
    world.node(other)?.kill().await?;
    let more = lines.after(told + 200).await?;
    println!(
        "         {:.1} s was the longest time without a line, {:.1} s after the cut of {other} there are 200 more",
        lines.longest.as_secs_f32(),
        cut.elapsed().as_secs_f32()
    );
    ensure!(lines.longest < Duration::from_secs(15), "the pod has waited for {:?}", lines.longest);
    world.has_all("second", more).await?;
    timer.step("writing goes on without the other replica");
    world.node(other)?.start().await?;
    world.all_in_sync().await?;
    timer.step("that node is back, and its replica is equal again");
    Ok(lines.latest())
}

/// What is said of every node, once its daemon works.
fn is_well(checked: &orlop::Finished) -> Result<()> {
    let report: Value = serde_json::from_str(&checked.stdout).with_context(|| format!("understand {checked:?}"))?;
    let findings = report["findings"].as_array().context("findings")?;
    for check in ["ready", "kernel", "front ends", "file systems", "daemon", "daemon version", "pools", "clock"] {
        let of_nodes = findings.iter().filter(|one| one["check"] == check && one["node"].is_string());
        let verdicts: Vec<_> = of_nodes.map(|one| &one["verdict"]).collect();
        ensure!(verdicts.len() == 3, "{check} is known of {} nodes: {report:#}", verdicts.len());
        // Which kernel and which programs this machine has is its own affair.
        let is_ours = !["kernel", "file systems"].contains(&check);
        ensure!(!is_ours || verdicts.iter().all(|verdict| *verdict == "good"), "{check}: {report:#}");
    }
    Ok(())
}

/// What a pod says it has written.
struct Lines {
    receiver: mpsc::Receiver<(u64, Instant)>,
    highest: u64,
    last: Instant,
    longest: Duration,
}

impl Lines {
    /// Waits until this number was told.
    async fn after(&mut self, number: u64) -> Result<u64> {
        loop {
            let next = tokio::time::timeout(LIMIT, self.receiver.recv()).await;
            self.heard(next.context("nothing is written any more")?.context("the pod has stopped writing")?);
            if self.highest >= number {
                return Ok(self.highest);
            }
        }
    }

    fn heard(&mut self, (told, at): (u64, Instant)) {
        self.highest = self.highest.max(told);
        self.longest = self.longest.max(at.saturating_duration_since(self.last));
        self.last = at;
    }

    /// The highest number until now, from when on the longest silence counts.
    fn latest(&mut self) -> u64 {
        while let Ok(told) = self.receiver.try_recv() {
            self.heard(told);
        }
        (self.last, self.longest) = (Instant::now(), Duration::ZERO);
        self.highest
    }

    /// The highest number of what has come already.
    async fn rest(&mut self) -> u64 {
        while let Ok(Some(told)) = tokio::time::timeout(Duration::from_secs(1), self.receiver.recv()).await {
            self.heard(told);
        }
        self.highest
    }
}

struct World {
    client: Client,
    cluster: Cluster,
}

impl World {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn node(&self, name: &str) -> Result<sandbox::Node<'_>> {
        self.cluster.nodes().find(|node| node.name() == name).with_context(|| format!("there is no {name}"))
    }

    /// As if a new version had been installed: the DaemonSet is another one, and replaces no pod by itself.
    async fn daemons_are_of_yesterday(&self) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), api::STORAGE_NAMESPACE);
        let template = json!({"metadata": {"annotations": {"version": "new"}}});
        let patch = Patch::Merge(json!({"spec": {"template": template}}));
        sets.patch("orlop-node", &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn every_daemon_is_new(&self) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), api::STORAGE_NAMESPACE);
        wait_for("all daemons to be new", LIMIT, || async {
            let status = sets.get("orlop-node").await?.status.unwrap_or_default();
            Ok((status.updated_number_scheduled == Some(3) && status.number_ready == 3).then_some(()))
        })
        .await
    }

    /// Nothing of Orlop runs any more.
    async fn no_pod_is_left(&self) -> Result<()> {
        for namespace in [api::ADMIN_NAMESPACE, api::STORAGE_NAMESPACE] {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            wait_for(&format!("the pods in {namespace} to end"), LIMIT, || async {
                Ok(pods.list(&ListParams::default()).await?.items.is_empty().then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    async fn nodes_are_known(&self) -> Result<()> {
        let nodes: Api<CSINode> = Api::all(self.client.clone());
        wait_for("the driver on every node", 2 * LIMIT, || async {
            let known = |node: &CSINode| node.spec.drivers.iter().any(|driver| driver.name == "volumes.orlop.io");
            Ok((nodes.list(&ListParams::default()).await?.items.iter().filter(|node| known(node)).count() == 3)
                .then_some(()))
        })
        .await?;
        let nodes: Api<StorageNode> = Api::all(self.client.clone());
        wait_for("every node to tell of its pool", LIMIT, || async {
            let has_pool = |node: &StorageNode| node.status.as_ref().is_some_and(|status| status.free_bytes > 0);
            Ok((nodes.list(&ListParams::default()).await?.items.iter().filter(|node| has_pool(node)).count() == 3)
                .then_some(()))
        })
        .await
    }

    /// A pod with the claim: on this node, or where the scheduler wants it.
    async fn pod(&self, name: &str, node: Option<&str>) -> Result<()> {
        let mut spec = json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "writer", "image": "localhost/busybox:1", "command": ["sleep", "1000000"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "lines"}}],
        });
        if let Some(node) = node {
            spec["nodeName"] = json!(node);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        install::create(&self.client, &serde_json::to_string(&pod)?).await
    }

    /// The pod, when it is ready, is its node.
    async fn ready(&self, name: &str) -> Result<String> {
        let api = self.pods();
        wait_for(&format!("the pod {name}"), LIMIT, || async {
            let pod = api.get(name).await?;
            Ok(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| pods::is_ready(&pod)))
        })
        .await
    }

    /// Has a pod write, and hears what it has written.
    async fn write(&self, pod: &str) -> Result<Lines> {
        let params = AttachParams::default().stdin(false).stdout(true).stderr(false);
        let mut process = self.pods().exec(pod, ["sh", "-c", WRITE], &params).await?;
        let stdout = process.stdout().context("no standard output")?;
        let (sender, receiver) = mpsc::channel(100_000);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(number) = line.trim().parse() else { break };
                if sender.send((number, Instant::now())).await.is_err() {
                    break;
                }
            }
            drop(process);
        });
        Ok(Lines { receiver, highest: 0, last: Instant::now(), longest: Duration::ZERO })
    }

    /// Every line up to this one is there, once and in order.
    async fn has_all(&self, pod: &str, told: u64) -> Result<()> {
        let written = pods::run(&self.client, NAMESPACE, pod, &["cat", "/data/lines"]).await?;
        let found: Vec<u64> = written.lines().filter_map(|line| line.parse().ok()).collect();
        let wrong = found.iter().zip(1..).find(|(found, expected)| *found != expected);
        ensure!(
            wrong.is_none() && found.len() as u64 >= told,
            "{told} lines were acknowledged, {} are there, wrong is {wrong:?}",
            found.len()
        );
        println!("         of {told} acknowledged lines all are there, {} in all", found.len());
        Ok(())
    }

    async fn record(&self) -> Result<VolumeRecord> {
        let all = Api::<VolumeRecord>::all(self.client.clone()).list(&ListParams::default()).await?;
        all.items.into_iter().next().context("a record")
    }

    /// The nodes that have replicas.
    async fn members(&self) -> Result<BTreeSet<String>> {
        Ok(self.record().await?.spec.members.into_iter().map(|member| member.node).collect())
    }

    async fn all_in_sync(&self) -> Result<()> {
        wait_for("all replicas to be in sync", LIMIT, || async {
            let members = self.record().await?.spec.members;
            let whole = members.iter().filter(|member| member.standing == RecordStanding::InSync).count();
            ensure!(whole == 2 && members.len() == 2, "the members are {members:?}");
            Ok(Some(()))
        })
        .await?;
        wait_for("the volume to be told as healthy", LIMIT, || async {
            let all = Api::<Volume>::all(self.client.clone()).list(&ListParams::default()).await?;
            let status = all.items.first().and_then(|volume| volume.status.clone()).unwrap_or_default();
            let is_told = status.phase == VolumePhase::Healthy && status.in_sync.as_deref() == Some("2/2");
            ensure!(is_told, "it is told as {status:?}, and its record is {:?}", self.record().await?.spec);
            Ok(Some(()))
        })
        .await
    }

    async fn all_goes_with_the_claim(&self) -> Result<()> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), NAMESPACE);
        claims.delete("lines", &DeleteParams::default()).await?;
        wait_for("the end of the volume", 2 * LIMIT, || async {
            let all = ListParams::default();
            let persistent = Api::<PersistentVolume>::all(self.client.clone()).list(&all).await?.items.len();
            let volumes = Api::<Volume>::all(self.client.clone()).list(&all).await?.items;
            let records = Api::<VolumeRecord>::all(self.client.clone()).list(&all).await?.items.len();
            let left: Vec<_> = volumes.iter().map(|volume| (volume.name_any(), volume.status.clone())).collect();
            ensure!(
                persistent + volumes.len() + records == 0,
                "{persistent} persistent volumes, {records} records, {left:?}"
            );
            Ok(Some(()))
        })
        .await?;
        for node in self.cluster.nodes() {
            let mounted = node.exec(&["cat", "/proc/self/mountinfo"]).await?;
            let left: Vec<_> = mounted.lines().filter(|line| line.contains(" 7:")).collect();
            ensure!(left.is_empty(), "still mounted on {node}: {left:?}");
        }
        Ok(())
    }
}
