//! Claims and their volumes.

use anyhow::{Result, ensure};
use sandbox::Cluster;

use crate::support::{self, eventually, kubectl};

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

const RAW_USER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: raw}
spec:
  containers:
  - {name: c, image: "localhost/busybox:1", volumeDevices: [{name: d, devicePath: /dev/raw}]}
  volumes: [{name: d, persistentVolumeClaim: {claimName: raw}}]
"#;

/// Volumes outlive pods, and go with their claims unless they are to be retained.
pub(crate) async fn keep_their_data(east: &Cluster) -> Result<()> {
    support::apply(east, CLAIMS).await?;
    // The block device's reason not to be made comes while the others are used.
    support::apply(east, RAW_USER).await?;
    outlive_pods(east).await?;
    go_with_their_claims(east).await?;
    eventually("a claim for a block device is refused with the reason", async || {
        let events = kubectl(east, "get events --field-selector=reason=ProvisioningFailed").await?;
        Ok(events.contains("volumeMode Block cannot be had"))
    })
    .await
}

async fn outlive_pods(east: &Cluster) -> Result<()> {
    let mut nodes = Vec::new();
    for _ in 0..2 {
        support::apply(east, WRITER).await?;
        kubectl(east, "wait --for=condition=Ready pod/writer --timeout=60s").await?;
        nodes.push(kubectl(east, "get pod writer -o jsonpath={.spec.nodeName}").await?);
        let lines = kubectl(east, "exec writer -- cat /data/lines").await?;
        ensure!(lines.matches("line").count() == nodes.len(), "after {} starts there is {lines:?}", nodes.len());
        kubectl(east, "delete pod writer").await?;
    }
    ensure!(nodes[0] == nodes[1], "a pod left its volume: {nodes:?}");
    Ok(())
}

async fn go_with_their_claims(east: &Cluster) -> Result<()> {
    let data = kubectl(east, "get pvc data -o jsonpath={.spec.volumeName}").await?;
    let kept = kubectl(east, "get pvc kept -o jsonpath={.spec.volumeName}").await?;
    let directories = |name: &str| {
        let places = east.nodes().map(|node| node.root().join("var/lib/sandbox/volumes").join(name));
        places.filter(|path| path.is_dir()).count()
    };
    ensure!(directories(&data) == 1 && directories(&kept) == 1, "each volume is one directory on one node");
    let retain = r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#;
    kubectl(east, &format!("patch pv {kept} -p {retain}")).await?;
    kubectl(east, "delete pvc data kept").await?;
    eventually("the volume of a claim that is gone is gone", async || {
        let left = kubectl(east, "get pv -o name").await?;
        Ok(directories(&data) == 0 && !left.contains(&data))
    })
    .await?;
    let phase = kubectl(east, &format!("get pv {kept} -o jsonpath={{.status.phase}}")).await?;
    ensure!(phase == "Released" && directories(&kept) == 1, "a volume to retain is {phase}");
    Ok(())
}
