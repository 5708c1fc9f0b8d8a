//! Two clusters from nothing, what a project needs of them, their faults, and that nothing is left of them.
//!
//! It is one test, as the clusters are what takes the time; its steps are functions, named and timed in the output.

mod leftovers;
mod support;

use std::path::Path;

use anyhow::{Result, ensure};
use sandbox::{Cluster, Daemon, Error, ImageConfig, Sandbox};
use support::{Timer, eventually, kubectl, node_is, ping, succeeds};

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

const CLAIMS: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: raw}
spec: {accessModes: [ReadWriteOnce], volumeMode: Block, resources: {requests: {storage: 10Mi}}}
"#;

const WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: writer
    image: localhost/busybox:1
    command: [sh, -c, "hostname >> /data/lines; echo line >> /data/lines; cp /data/lines /kept; exec sleep 100000"]
    volumeMounts: [{name: data, mountPath: /data}, {name: kept, mountPath: /kept}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: kept, persistentVolumeClaim: {claimName: kept}}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_run_pods_bear_faults_and_leave_nothing() {
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let sandbox = match open(directory.path()).await {
        Ok(sandbox) => sandbox,
        Err(Error::Machine { problem, remedy }) => sandbox::skip!("{problem}: {remedy}"),
        Err(error) => panic!("open the sandbox: {error:?}"),
    };
    let machine = leftovers::Machine::look().expect("a look at the machine");
    let guard = sandbox.clone().guard();
    scenario(&sandbox).await.expect("every step succeeds");
    drop(guard);
    machine
        .check_same(directory.path())
        .expect("nothing is left");
}

async fn open(directory: &Path) -> sandbox::Result<Sandbox> {
    let sandbox = Sandbox::open_with(directory, env!("CARGO_BIN_EXE_sandbox").into())?;
    sandbox.require_programs().await?;
    Ok(sandbox)
}

async fn scenario(sandbox: &Sandbox) -> Result<()> {
    let mut timer = Timer::start();
    let (east, west) = tokio::try_join!(
        Cluster::up(sandbox, "east", Some(3)),
        Cluster::up(sandbox, "west", Some(1))
    )?;
    timer.step("two clusters up, of three nodes and of one");
    pods_run_and_talk(&east, &west).await?;
    timer.step("pods on every node run and talk, also over the link");
    an_image_of_a_directory_runs(sandbox, &east).await?;
    timer.step("an image made of a directory runs");
    volumes_keep_their_data(&east).await?;
    timer.step("claims get volumes, which outlive pods and go with their claims");
    connections_are_forwarded(&east).await?;
    timer.step("connections are forwarded in and out");
    cuts_are_cut_and_heal(&east, &west).await?;
    timer.step("pairs and links are cut and heal");
    lost_nodes_come_back(&east).await?;
    timer.step("a cut node and one without a kubelet are noticed and come back");
    a_power_cut_is_survived(&east).await?;
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
        kubectl(
            cluster,
            &["rollout", "status", "daemonset/web", "--timeout=90s"],
        )
        .await?;
    }
    let pods = kubectl(
        east,
        &[
            "get",
            "pods",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[*].spec.nodeName}",
        ],
    )
    .await?;
    let mut nodes: Vec<_> = pods.split_whitespace().collect();
    nodes.sort_unstable();
    ensure!(
        nodes == ["east1", "east2", "east3"],
        "pods are on {nodes:?}"
    );
    let pod = support::pod_on(east, "web", "east1").await?;
    for other in ["east2", "east3"] {
        let address = support::pod_address(east, "web", other).await?;
        let page = kubectl(
            east,
            &[
                "exec",
                &pod,
                "--",
                "wget",
                "-qO-",
                &format!("http://{address}:8080/"),
            ],
        )
        .await?;
        ensure!(page.starts_with("web-"), "the pod on {other} says {page:?}");
    }
    let far = support::pod_address(west, "web", "west1").await?;
    let service = kubectl(
        west,
        &["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"],
    )
    .await?;
    for address in [format!("http://{far}:8080/"), format!("http://{service}/")] {
        eventually(
            &format!("{address} in west answers a pod in east"),
            async || {
                Ok(
                    kubectl(east, &["exec", &pod, "--", "wget", "-qO-", &address])
                        .await
                        .is_ok_and(|page| page.starts_with("web-")),
                )
            },
        )
        .await?;
    }
    Ok(())
}

async fn an_image_of_a_directory_runs(sandbox: &Sandbox, east: &Cluster) -> Result<()> {
    let root = tempfile::tempdir()?;
    std::fs::copy(
        east.programs_path().await?.join("busybox"),
        root.path().join("program"),
    )?;
    let config = ImageConfig {
        entrypoint: vec!["/program".into(), "echo".into()],
        environment: vec!["A=b".into()],
        ..ImageConfig::default()
    };
    sandbox
        .image_from_directory("example/echo:1", root.path(), &config)
        .await?;
    kubectl(
        east,
        &[
            "run",
            "echo",
            "--image=example/echo:1",
            "--restart=Never",
            "--",
            "it",
            "runs",
        ],
    )
    .await?;
    eventually("the pod's output is in its log", async || {
        Ok(kubectl(east, &["logs", "echo"])
            .await
            .is_ok_and(|log| log == "it runs\n"))
    })
    .await
}

async fn volumes_keep_their_data(east: &Cluster) -> Result<()> {
    support::apply(east, CLAIMS).await?;
    let mut nodes = Vec::new();
    for _ in 0..2 {
        support::apply(east, WRITER).await?;
        kubectl(
            east,
            &[
                "wait",
                "--for=condition=Ready",
                "pod/writer",
                "--timeout=60s",
            ],
        )
        .await?;
        nodes.push(
            kubectl(
                east,
                &["get", "pod", "writer", "-o", "jsonpath={.spec.nodeName}"],
            )
            .await?,
        );
        let lines = kubectl(east, &["exec", "writer", "--", "cat", "/data/lines"]).await?;
        ensure!(
            lines.matches("line").count() == nodes.len(),
            "after {} starts there is {lines:?}",
            nodes.len()
        );
        kubectl(east, &["delete", "pod", "writer"]).await?;
    }
    ensure!(nodes[0] == nodes[1], "a pod left its volume: {nodes:?}");
    eventually(
        "a claim for a block device is refused with the reason",
        async || {
            // It waits for a pod before anybody looks at it, so the reason is looked for in a pod's company.
            support::apply(east, RAW_USER).await?;
            let events = kubectl(
                east,
                &[
                    "get",
                    "events",
                    "--field-selector=reason=ProvisioningFailed",
                ],
            )
            .await?;
            Ok(events.contains("volumeMode Block cannot be had"))
        },
    )
    .await?;
    let volume = |claim: &'static str| async move {
        kubectl(
            east,
            &["get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}"],
        )
        .await
    };
    let (data, kept) = (volume("data").await?, volume("kept").await?);
    let place = |name: &str| {
        let nodes = east
            .nodes()
            .map(|node| node.root().join("var/lib/sandbox/volumes").join(name));
        nodes.filter(|path| path.is_dir()).count()
    };
    ensure!(
        place(&data) == 1 && place(&kept) == 1,
        "each volume is one directory on one node"
    );
    let retain = r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#;
    kubectl(east, &["patch", "pv", &kept, "-p", retain]).await?;
    kubectl(east, &["delete", "pvc", "data", "kept"]).await?;
    eventually("the volume of a claim that is gone is gone", async || {
        let left = kubectl(east, &["get", "pv", "-o", "name"]).await?;
        Ok(place(&data) == 0 && !left.contains(&data))
    })
    .await?;
    let phase = kubectl(
        east,
        &["get", "pv", &kept, "-o", "jsonpath={.status.phase}"],
    )
    .await?;
    ensure!(
        phase == "Released" && place(&kept) == 1,
        "a volume to retain is {phase}"
    );
    Ok(())
}

const RAW_USER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: raw}
spec:
  containers:
  - {name: c, image: "localhost/busybox:1", volumeDevices: [{name: d, devicePath: /dev/raw}]}
  volumes: [{name: d, persistentVolumeClaim: {claimName: raw}}]
"#;

async fn connections_are_forwarded(east: &Cluster) -> Result<()> {
    let served = tempfile::tempdir()?;
    let s3 = sandbox::s3::S3Server::start(served.path(), sandbox::s3::Credentials::generate())?;
    let inside = east.forward_in(s3.address().port(), s3.address()).await?;
    let pod = support::pod_on(east, "web", "east2").await?;
    // An S3 server refuses those who do not sign: that it was the one that answered is what counts.
    let refused = kubectl(
        east,
        &[
            "exec",
            &pod,
            "--",
            "wget",
            "-O-",
            &format!("http://{inside}/"),
        ],
    )
    .await;
    let answer = refused
        .expect_err("an unsigned request is refused")
        .to_string();
    ensure!(
        answer.contains("403"),
        "the server in the test says: {answer}"
    );
    let page = support::pod_address(east, "web", "east3").await?;
    let port = support::free_port()?;
    let outside = east
        .forward_out(port, format!("{page}:8080").parse()?)
        .await?;
    let fetch = || support::http_get(outside);
    ensure!(
        fetch().await?.contains("web-"),
        "the pod answers on the machine"
    );
    east.end_forward(port).await?;
    ensure!(fetch().await.is_err(), "an ended forward does not answer");
    Ok(())
}

async fn cuts_are_cut_and_heal(east: &Cluster, west: &Cluster) -> Result<()> {
    let (one, two, three) = (east.node(1)?, east.node(2)?, east.node(3)?);
    one.cut_from(&two).await?;
    ensure!(
        !succeeds(ping(&one, two.address()).await),
        "a cut pair does not reach each other"
    );
    ensure!(succeeds(ping(&one, three.address()).await), "others do");
    one.heal_with(&two).await?;
    ensure!(
        succeeds(ping(&one, two.address()).await),
        "a healed pair does again"
    );
    let far = west.node(1)?.address();
    ensure!(succeeds(ping(&one, far).await), "the clusters are linked");
    east.cut_link(west).await?;
    ensure!(!succeeds(ping(&one, far).await), "the link is cut");
    west.heal_link(east).await?;
    ensure!(succeeds(ping(&one, far).await), "it has healed");
    let error = one
        .cut_from(&west.node(1)?)
        .await
        .expect_err("not of one cluster")
        .to_string();
    ensure!(error.contains("cut their link"), "{error}");
    Ok(())
}

async fn lost_nodes_come_back(east: &Cluster) -> Result<()> {
    let (two, three) = (east.node(2)?, east.node(3)?);
    let pod = support::pod_on(east, "web", "east2").await?;
    let container = [
        "get",
        "pod",
        &pod,
        "-o",
        "jsonpath={.status.containerStatuses[0].containerID}",
    ];
    let before = kubectl(east, &container).await?;
    two.kill_daemon(Daemon::Kubelet).await?;
    two.kill_daemon(Daemon::Containerd).await?;
    ensure!(!two.daemon_runs(Daemon::Kubelet)?, "the kubelet is dead");
    three.cut().await?;
    ensure!(
        !succeeds(ping(&east.node(1)?, three.address()).await),
        "a cut node is not reached"
    );
    for node in [&two, &three] {
        eventually(&format!("{node} is not ready"), async || {
            Ok(!node_is(east, node, "True").await?)
        })
        .await?;
    }
    three.heal().await?;
    two.start().await?;
    for node in [&two, &three] {
        eventually(&format!("{node} is ready again"), async || {
            node_is(east, node, "True").await
        })
        .await?;
    }
    ensure!(
        kubectl(east, &container).await? == before,
        "the container has outlived its kubelet"
    );
    eventually("commands run in it again", async || {
        Ok(succeeds(kubectl(east, &["exec", &pod, "--", "true"]).await))
    })
    .await
}

async fn a_power_cut_is_survived(east: &Cluster) -> Result<()> {
    let (control_plane, one) = (east.control_plane(), east.node(1)?);
    one.kill().await?;
    ensure!(!one.is_on()?, "the node is off");
    let error = one
        .exec(&["true"])
        .await
        .expect_err("it is off")
        .to_string();
    ensure!(error.contains("sandbox start east1"), "{error}");
    control_plane.kill().await?;
    control_plane.start().await?;
    one.start().await?;
    let pod = support::pod_on(east, "web", "east1").await?;
    eventually("the node's pod runs again", async || {
        Ok(succeeds(kubectl(east, &["exec", &pod, "--", "true"]).await))
    })
    .await?;
    east.control_plane().kill_daemon(Daemon::ApiServer).await?;
    east.control_plane().start_daemon(Daemon::ApiServer).await?;
    kubectl(east, &["get", "nodes"]).await.map(drop)
}

async fn a_cluster_goes_on_after_being_down(sandbox: &Sandbox, west: Cluster) -> Result<()> {
    kubectl(&west, &["create", "configmap", "remembered"]).await?;
    west.down().await?;
    ensure!(!sandbox.cluster("west")?.is_up()?, "west is down");
    let west = Cluster::up(sandbox, "west", None).await?;
    kubectl(&west, &["get", "configmap", "remembered"]).await?;
    let error = Cluster::up(sandbox, "west", None)
        .await
        .expect_err("it is up")
        .to_string();
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
