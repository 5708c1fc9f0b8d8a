//! Two clusters from nothing, what a project needs of them, their faults, and that nothing is left of them.
//!
//! It is one test, as the clusters are what takes the time; its steps are functions, named and timed in the output.

mod faults;
mod leftovers;
mod support;
mod volumes;

use std::path::Path;

use anyhow::{Result, ensure};
use sandbox::{Cluster, Error, ImageConfig, Sandbox};
use support::{Timer, eventually, kubectl};

const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: localhost/busybox:1
        command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_run_pods_bear_faults_and_leave_nothing() {
    let directory = Sandbox::test_directory("clusters", env!("CARGO_TARGET_TMPDIR"));
    let sandbox = match open(&directory).await {
        Ok(sandbox) => sandbox,
        Err(Error::Machine { problem, remedy }) => sandbox::skip!("{problem}: {remedy}"),
        Err(error) => panic!("open the sandbox: {error:?}"),
    };
    // An earlier run that was killed has left its clusters where this one will have its own.
    sandbox.wipe().await.expect("end what an earlier run has left");
    let machine = leftovers::Machine::look().expect("a look at the machine");
    let guard = sandbox.clone().guard();
    let _foreign = support::ForeignMount::new().expect("mount in the machine's shared memory");
    scenario(&sandbox).await.expect("every step succeeds");
    let clusters = sandbox.clusters().expect("the clusters");
    let groups: Vec<_> = clusters.iter().map(Cluster::cgroup).collect();
    assert_eq!(groups.len(), 2, "there is something to end");
    drop(guard);
    machine.check_same(&directory, &groups).expect("nothing is left");
    std::fs::remove_dir(&directory).expect("an empty directory");
}

async fn open(directory: &Path) -> sandbox::Result<Sandbox> {
    let sandbox = Sandbox::open_with(directory, env!("CARGO_BIN_EXE_sandbox").into())?;
    sandbox.require_programs().await?;
    Ok(sandbox)
}

async fn scenario(sandbox: &Sandbox) -> Result<()> {
    let mut timer = Timer::start();
    let east = Cluster::up(sandbox, "east", Some(3)).await?;
    timer.step("a cluster of three nodes is up, all of them Ready");
    let mounts = east.node(1)?.exec(&["cat", "/proc/self/mountinfo"]).await?;
    ensure!(!mounts.contains(support::ForeignMount::NAME), "a mount of the machine's is in the node: {mounts}");
    let west = Cluster::up(sandbox, "west", Some(1)).await?;
    timer.step("one of one node beside it");
    pods_run_and_talk(&east, &west).await?;
    timer.step("pods on every node run and talk, also over the link");
    an_image_of_a_directory_runs(sandbox, &east).await?;
    timer.step("an image made of a directory runs");
    volumes::keep_their_data(&east).await?;
    timer.step("claims get volumes, which outlive pods and go with their claims");
    connections_are_forwarded(&east).await?;
    timer.step("connections are forwarded in and out");
    faults::cuts_are_cut_and_heal(&east, &west).await?;
    timer.step("pairs and links are cut and heal");
    faults::lost_nodes_come_back(&east).await?;
    timer.step("a cut node and one without a kubelet are noticed and come back");
    faults::what_is_stopped_starts_again(&east).await?;
    timer.step("daemons and a node that were stopped start again");
    faults::a_power_cut_is_survived(&east).await?;
    timer.step("a node and a control plane come back after a power cut");
    a_cluster_goes_on_after_being_down(sandbox, west).await?;
    timer.step("a cluster goes on after it was down");
    leave_loop_devices(&east).await?;
    timer.step("loop devices are left behind");
    Ok(())
}

async fn pods_run_and_talk(east: &Cluster, west: &Cluster) -> Result<()> {
    for cluster in [east, west] {
        support::apply(cluster, WEB).await?;
    }
    for cluster in [east, west] {
        kubectl(cluster, "rollout status daemonset/web --timeout=90s").await?;
    }
    let pods = kubectl(east, "get pods -l app=web -o jsonpath={.items[*].spec.nodeName}").await?;
    let mut nodes: Vec<_> = pods.split_whitespace().collect();
    nodes.sort_unstable();
    ensure!(nodes == ["east1", "east2", "east3"], "pods are on {nodes:?}");
    let pod = support::pod_on(east, "web", "east1").await?;
    for other in ["east2", "east3"] {
        let address = support::pod_address(east, "web", other).await?;
        let page = kubectl(east, &format!("exec {pod} -- wget -qO- http://{address}:8080/")).await?;
        ensure!(page.starts_with("web-"), "the pod on {other} says {page:?}");
    }
    let far = support::pod_address(west, "web", "west1").await?;
    let service = kubectl(west, "get service web -o jsonpath={.spec.clusterIP}").await?;
    for address in [format!("http://{far}:8080/"), format!("http://{service}/")] {
        eventually(&format!("{address} in west answers a pod in east"), async || {
            Ok(kubectl(east, &format!("exec {pod} -- wget -qO- {address}"))
                .await
                .is_ok_and(|page| page.starts_with("web-")))
        })
        .await?;
    }
    Ok(())
}

async fn an_image_of_a_directory_runs(sandbox: &Sandbox, east: &Cluster) -> Result<()> {
    let root = tempfile::tempdir()?;
    std::fs::copy(east.programs_path().await?.join("busybox"), root.path().join("busybox"))?;
    let config = ImageConfig {
        entrypoint: vec!["/busybox".into(), "echo".into()],
        environment: vec!["A=b".into()],
        ..ImageConfig::default()
    };
    sandbox.image_from_directory("example/echo:1", root.path(), &config).await?;
    kubectl(east, "run echo --image=example/echo:1 --restart=Never -- it runs").await?;
    eventually("the pod's output is in its log", async || {
        Ok(kubectl(east, "logs echo").await.is_ok_and(|log| log == "it runs\n"))
    })
    .await
}

async fn connections_are_forwarded(east: &Cluster) -> Result<()> {
    let served = tempfile::tempdir()?;
    let s3 = sandbox::s3::S3Server::start(served.path(), sandbox::s3::Credentials::generate())?;
    let inside = east.forward_in(s3.address().port(), s3.address()).await?;
    let pod = support::pod_on(east, "web", "east2").await?;
    // An S3 server refuses those who do not sign: that it was the one that answered is what counts.
    let refused = kubectl(east, &format!("exec {pod} -- wget -O- http://{inside}/")).await;
    let answer = refused.expect_err("an unsigned request is refused").to_string();
    ensure!(answer.contains("403"), "the server in the test says: {answer}");
    let page = support::pod_address(east, "web", "east3").await?;
    let port = support::free_port()?;
    let outside = east.forward_out(port, format!("{page}:8080").parse()?).await?;
    let fetch = || support::http_get(outside);
    ensure!(fetch().await?.contains("web-"), "the pod answers on the machine");
    east.end_forward(port).await?;
    ensure!(fetch().await.is_err(), "an ended forward does not answer");
    Ok(())
}

async fn a_cluster_goes_on_after_being_down(sandbox: &Sandbox, west: Cluster) -> Result<()> {
    kubectl(&west, "create configmap remembered").await?;
    west.down().await?;
    ensure!(!sandbox.cluster("west")?.is_up()?, "west is down");
    let west = Cluster::up(sandbox, "west", None).await?;
    kubectl(&west, "get configmap remembered").await?;
    let error = Cluster::up(sandbox, "west", None).await.expect_err("it is up").to_string();
    ensure!(error.contains("is up already"), "{error}");
    Ok(())
}

/// What only the end of the sandbox can take away.
async fn leave_loop_devices(east: &Cluster) -> Result<()> {
    let script = "truncate -s 1M /var/lib/left.img && losetup --find --show /var/lib/left.img";
    let device = east.node(1)?.exec(&["sh", "-c", script]).await?;
    ensure!(device.starts_with("/dev/loop"), "losetup says {device:?}");
    Ok(())
}
