//! A node with a pool, and a driver that answers on a socket; in folders that go with it.

use csi::proto::controller_client::ControllerClient;
use csi::proto::group_controller_client::GroupControllerClient;
use csi::proto::identity_client::IdentityClient;
use csi::proto::node_client::NodeClient;
use csi::proto::snapshot_metadata_client::SnapshotMetadataClient;
use csi::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use csi::proto::{self, VolumeCapability};
use csi::{Config, Driver, Endpoint, Host, Linux, OnNode, Volumes};
use hyper_util::rt::TokioIo;
use node::{Node, PoolSpec, Serving};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint as Dialled, Uri};
use tonic::{Code, Status};

pub(crate) use skips::require_block_devices as require;

pub(crate) const MIB: i64 = 1 << 20;

/// Runs a program that must succeed; what it says.
pub(crate) fn good(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    said
}

/// The error that a call must have ended with: of this code, and with these words.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, said: &str) {
    let status = result.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(said), "{:?} does not say {said:?}", status.message());
    assert!(status.details().is_empty());
}

/// The driver that answers, and its clients.
pub(crate) struct World {
    _disk: TempDir,
    pub(crate) runtime: TempDir,
    pub(crate) node: Option<Arc<Node>>,
    served: Option<(CancellationToken, JoinHandle<()>)>,
    pub(crate) identity: IdentityClient<Channel>,
    pub(crate) controller: ControllerClient<Channel>,
    pub(crate) groups: GroupControllerClient<Channel>,
    pub(crate) metadata: SnapshotMetadataClient<Channel>,
    pub(crate) plugin: NodeClient<Channel>,
}

impl World {
    /// With pools of so many MiB.
    pub(crate) async fn new(pools: &[u64]) -> Self {
        Self::with_kubelet(pools, None).await
    }

    /// Of a kubelet with a folder, which is one of the test's own.
    pub(crate) async fn with_kubelet(pools: &[u64], folder: Option<&str>) -> Self {
        let (disk, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let node = start(disk.path(), runtime.path(), pools).await;
        let kubelet = folder.map(|folder| runtime.path().join(folder));
        let volumes = Arc::new(OnNode::new(node.clone()));
        let driver = driver_of(volumes, Arc::new(Linux), runtime.path(), kubelet).await;
        let served = serve(driver, runtime.path()).await;
        let channel = connect(&runtime.path().join("csi.sock")).await;
        Self {
            _disk: disk,
            runtime,
            node: Some(node),
            served: Some(served),
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            groups: GroupControllerClient::new(channel.clone()),
            metadata: SnapshotMetadataClient::new(channel.clone()),
            plugin: NodeClient::new(channel),
        }
    }

    /// A path of the test's own.
    pub(crate) fn path(&self, name: &str) -> String {
        self.runtime.path().join(name).to_str().unwrap().to_owned()
    }

    /// The volumes, by the seam that the driver uses.
    pub(crate) fn volumes(&self) -> Arc<OnNode> {
        Arc::new(OnNode::new(self.node.clone().unwrap()))
    }

    pub(crate) async fn create(&mut self, name: &str, mib: i64) -> proto::Volume {
        let made = self.controller.create_volume(request(name, mib)).await.unwrap();
        made.into_inner().volume.unwrap()
    }

    pub(crate) async fn delete(&mut self, id: &str) -> Result<(), Status> {
        let request = proto::DeleteVolumeRequest { volume_id: id.to_owned(), secrets: HashMap::new() };
        self.controller.delete_volume(request).await.map(drop)
    }

    pub(crate) async fn snapshot(&mut self, of: &str, name: &str) -> Result<proto::Snapshot, Status> {
        let request = proto::CreateSnapshotRequest {
            source_volume_id: of.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        Ok(self.controller.create_snapshot(request).await?.into_inner().snapshot.unwrap())
    }

    pub(crate) async fn stage(&mut self, id: &str, capability: VolumeCapability) -> Result<(), Status> {
        let request = proto::NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: self.staging(id),
            volume_capability: Some(capability),
            ..Default::default()
        };
        self.plugin.node_stage_volume(request).await.map(drop)
    }

    pub(crate) async fn unstage(&mut self, id: &str) -> Result<(), Status> {
        let request =
            proto::NodeUnstageVolumeRequest { volume_id: id.to_owned(), staging_target_path: self.staging(id) };
        self.plugin.node_unstage_volume(request).await.map(drop)
    }

    pub(crate) fn staging(&self, id: &str) -> String {
        self.path(&format!("staging-{id}"))
    }

    pub(crate) fn publish_request(
        &self,
        id: &str,
        target: &str,
        capability: VolumeCapability,
        readonly: bool,
    ) -> proto::NodePublishVolumeRequest {
        proto::NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: self.staging(id),
            target_path: self.path(target),
            volume_capability: Some(capability),
            readonly,
            ..Default::default()
        }
    }

    pub(crate) async fn publish(
        &mut self,
        id: &str,
        target: &str,
        capability: VolumeCapability,
        readonly: bool,
    ) -> Result<(), Status> {
        let request = self.publish_request(id, target, capability, readonly);
        self.plugin.node_publish_volume(request).await.map(drop)
    }

    pub(crate) async fn unpublish(&mut self, id: &str, target: &str) -> Result<(), Status> {
        let request = proto::NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: self.path(target) };
        self.plugin.node_unpublish_volume(request).await.map(drop)
    }

    /// Ends the driver, and the node, which has nothing attached any more.
    pub(crate) async fn end(mut self) {
        assert_eq!(mounts_below(self.runtime.path()), Vec::<PathBuf>::new(), "something is still mounted");
        if let Some((stop, served)) = self.served.take() {
            stop.cancel();
            drop((self.identity.clone(), self.plugin.clone()));
            served.abort();
            drop(served.await);
        }
        self.clear().await;
    }

    async fn clear(&mut self) {
        let Some(node) = self.node.take() else { return };
        tokio::task::spawn_blocking(move || detach_all(&node)).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test has failed.
        for at in mounts_below(self.runtime.path()).iter().rev() {
            drop(Command::new("umount").arg("-l").arg(at).output());
        }
        if let Some(node) = self.node.take() {
            std::thread::scope(|scope| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                scope.spawn(move || {
                    runtime.block_on(async { tokio::task::spawn_blocking(move || detach_all(&node)).await })
                });
            });
        }
    }
}

fn detach_all(node: &Arc<Node>) {
    let volumes = OnNode::new(node.clone());
    for volume in volumes.list().unwrap() {
        drop(volumes.detach(&volume.id));
    }
}

/// What is mounted below a folder, the latest last.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = Linux.mounts().unwrap();
    mounts.into_iter().map(|mount| mount.at).filter(|at| at.starts_with(folder)).collect()
}

/// Opens the pools of a node.
pub(crate) async fn start(disk: &Path, runtime: &Path, pools: &[u64]) -> Arc<Node> {
    let spec = |(at, mib): (usize, &u64)| PoolSpec { path: disk.join(format!("pool-{at}")), bytes: Some(*mib << 20) };
    let pools = pools.iter().enumerate().map(spec).collect();
    let runtime = node::RuntimeDir::claim(runtime).unwrap();
    let serving = Some(Serving { runtime, keeper: None, nbd_tls: None });
    let config = node::Config {
        pools,
        cache_bytes: 4 << 20,
        access: node::Access::Best,
        scrub: None,
        serving,
        replication: None,
    };
    tokio::task::spawn_blocking(move || Arc::new(Node::start(config).unwrap())).await.unwrap()
}

/// A driver of the node `here`.
pub(crate) async fn driver(volumes: Arc<dyn Volumes>, host: Arc<dyn Host>, runtime: &Path) -> Arc<Driver> {
    driver_of(volumes, host, runtime, None).await
}

async fn driver_of(
    volumes: Arc<dyn Volumes>,
    host: Arc<dyn Host>,
    runtime: &Path,
    kubelet: Option<PathBuf>,
) -> Arc<Driver> {
    let runtime = runtime.to_owned();
    let config = Config { volumes, host, node: "here".to_owned(), kubelet, runtime, version: "0.0.0-test".to_owned() };
    tokio::task::spawn_blocking(move || Driver::new(config).unwrap()).await.unwrap()
}

/// Has a driver answer on `csi.sock` of a folder.
pub(crate) async fn serve(driver: Arc<Driver>, runtime: &Path) -> (CancellationToken, JoinHandle<()>) {
    let endpoint: Endpoint = format!("unix://{}/csi.sock", runtime.display()).parse().unwrap();
    let stop = CancellationToken::new();
    let listening = endpoint.listen().await.unwrap();
    let served = {
        let stop = stop.clone();
        tokio::spawn(async move { csi::serve(driver, listening, None, stop).await.unwrap() })
    };
    (stop, served)
}

/// A channel to a socket.
pub(crate) async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let dial = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    Dialled::from_static("http://csi.invalid").connect_with_connector(tower::service_fn(dial)).await.unwrap()
}

/// A volume to be mounted, with a file system of whatever kind.
pub(crate) fn mounted(fs: &str, mode: Mode) -> VolumeCapability {
    capability(AccessType::Mount(MountVolume { fs_type: fs.to_owned(), ..Default::default() }), mode)
}

/// A volume to be a block device.
pub(crate) fn block(mode: Mode) -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), mode)
}

pub(crate) fn capability(access: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability { access_mode: Some(AccessMode { mode: mode.into() }), access_type: Some(access) }
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// For a volume of so many MiB.
pub(crate) fn request(name: &str, mib: i64) -> proto::CreateVolumeRequest {
    proto::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(proto::CapacityRange { required_bytes: mib * MIB, limit_bytes: 0 }),
        volume_capabilities: vec![mounted("", Mode::SingleNodeWriter)],
        ..Default::default()
    }
}

/// From a snapshot.
pub(crate) fn from_snapshot(id: &str) -> Option<proto::VolumeContentSource> {
    use proto::volume_content_source::{SnapshotSource, Type};
    Some(proto::VolumeContentSource { r#type: Some(Type::Snapshot(SnapshotSource { snapshot_id: id.to_owned() })) })
}

/// From a volume.
pub(crate) fn from_volume(id: &str) -> Option<proto::VolumeContentSource> {
    use proto::volume_content_source::{Type, VolumeSource};
    Some(proto::VolumeContentSource { r#type: Some(Type::Volume(VolumeSource { volume_id: id.to_owned() })) })
}

/// A file below a folder.
pub(crate) fn write(folder: &str, name: &str, bytes: &[u8]) {
    let path = Path::new(folder).join(name);
    fs::write(&path, bytes).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
}
