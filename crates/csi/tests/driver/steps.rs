//! A driver all of whose steps are seen: a step is a call of the machine or of who owns the volumes that changes something. The process can end at one, and all of them can be
//! held up.

use crate::world::{driver, mounted, mounts_below, request, serve, start};
use csi::proto::controller_client::ControllerClient;
use csi::proto::node_client::NodeClient;
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, VolumeCapability};
use csi::{
    Capacity, Content, DeviceInfo, Driver, Error, FileSystem, Host, HostError, Labels, Limits, Linux, Mount, NewVolume,
    OnNode, Place, Range, Room, Secret, Snapshot, Volume, Volumes,
};
use node::Node;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, watch};

/// How long a step may take to begin; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts steps; at one of them it ends.
pub(crate) struct Fuse {
    steps: watch::Sender<u64>,
    /// The step, and whether it is done first.
    ends: Option<(u64, bool)>,
    gate: Mutex<()>,
}

impl Fuse {
    /// How many steps have begun.
    pub(crate) fn steps(&self) -> u64 {
        *self.steps.borrow()
    }

    /// Has every step wait until this is dropped.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().await
    }

    /// Waits until so many steps have begun.
    pub(crate) async fn has_begun(&self, steps: u64) {
        let mut begun = self.steps.subscribe();
        let begun = tokio::time::timeout(PATIENCE, begun.wait_for(|begun| *begun >= steps)).await;
        assert!(begun.is_ok(), "step {steps} does not begin");
    }

    fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        let mut now = 0;
        self.steps.send_modify(|steps| {
            now = *steps;
            *steps += 1;
        });
        drop(self.gate.blocking_lock());
        match self.ends {
            Some((at, false)) if now >= at => panic!("the process ends before step {at}"),
            Some((at, true)) if now >= at => {
                if now == at {
                    step();
                }
                panic!("the process ends after step {at}")
            }
            _ => step(),
        }
    }
}

struct Ending<T>(T, Arc<Fuse>);

impl Host for Ending<Linux> {
    // What only looks changes nothing: ending there is ending before the next step.
    fn mounts(&self) -> Result<Vec<Mount>, HostError> {
        self.0.mounts()
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, HostError> {
        self.0.canonical(path)
    }
    fn look(&self, path: &Path) -> Result<Place, HostError> {
        self.0.look(path)
    }
    fn device(&self, path: &Path) -> Result<DeviceInfo, HostError> {
        self.0.device(path)
    }
    fn probe(&self, device: &Path) -> Result<Content, HostError> {
        self.0.probe(device)
    }
    fn room(&self, folder: &Path) -> Result<Room, HostError> {
        self.0.room(folder)
    }
    fn format(&self, fs: FileSystem, device: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.format(fs, device))
    }
    fn mount(&self, fs: FileSystem, device: &Path, at: &Path, flags: &[String], ro: bool) -> Result<(), HostError> {
        self.1.step(|| self.0.mount(fs, device, at, flags, ro))
    }
    fn bind(&self, from: &Path, at: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.bind(from, at))
    }
    fn rebind(&self, at: &Path, read_only: bool) -> Result<(), HostError> {
        self.1.step(|| self.0.rebind(at, read_only))
    }
    fn unmount(&self, at: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.unmount(at))
    }
    fn protect(&self, device: &Path, read_only: bool) -> Result<(), HostError> {
        self.1.step(|| self.0.protect(device, read_only))
    }
    fn grows_mounted(&self, fs: FileSystem) -> bool {
        self.0.grows_mounted(fs)
    }
    fn grow_unmounted(&self, fs: FileSystem, device: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.grow_unmounted(fs, device))
    }
    fn grow(&self, fs: FileSystem, device: &Path, at: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.grow(fs, device, at))
    }
    fn give(&self, folder: &Path, group: u32) -> Result<(), HostError> {
        self.1.step(|| self.0.give(folder, group))
    }
    fn make(&self, path: &Path, folder: bool) -> Result<(), HostError> {
        self.1.step(|| self.0.make(path, folder))
    }
    fn remove(&self, path: &Path) -> Result<(), HostError> {
        self.1.step(|| self.0.remove(path))
    }
}

impl Volumes for Ending<OnNode> {
    fn capacity(&self, replicas: u32) -> Result<Capacity, Error> {
        self.0.capacity(replicas)
    }
    fn find(&self, id: &str) -> Result<Option<Volume>, Error> {
        self.0.find(id)
    }
    fn list(&self) -> Result<Vec<Volume>, Error> {
        self.0.list()
    }
    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        self.0.snapshots()
    }
    fn ranges(
        &self,
        of: &str,
        since: Option<&str>,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error> {
        self.0.ranges(of, since, start, tell)
    }
    fn create(&self, new: NewVolume, secret: Option<&Secret>) -> Result<Volume, Error> {
        self.1.step(|| self.0.create(new, secret))
    }
    fn clone_snapshot(&self, snapshot: &str, new: NewVolume) -> Result<Volume, Error> {
        self.1.step(|| self.0.clone_snapshot(snapshot, new))
    }
    fn delete(&self, id: &str) -> Result<(), Error> {
        self.1.step(|| self.0.delete(id))
    }
    fn grow(&self, id: &str, bytes: u64) -> Result<Volume, Error> {
        self.1.step(|| self.0.grow(id, bytes))
    }
    fn limit(&self, id: &str, limits: Limits) -> Result<(), Error> {
        self.1.step(|| self.0.limit(id, limits))
    }
    fn label(&self, id: &str, labels: &Labels) -> Result<(), Error> {
        self.1.step(|| self.0.label(id, labels))
    }
    fn snapshot(&self, ids: &[String], labels: &Labels) -> Result<Vec<Snapshot>, Error> {
        self.1.step(|| self.0.snapshot(ids, labels))
    }
    fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        self.1.step(|| self.0.delete_snapshot(id))
    }
    fn attach(&self, id: &str, secret: Option<&Secret>) -> Result<PathBuf, Error> {
        self.1.step(|| self.0.attach(id, secret))
    }
    fn detach(&self, id: &str) -> Result<(), Error> {
        self.1.step(|| self.0.detach(id))
    }
}

/// A node whose drivers end.
pub(crate) struct Site {
    _disk: TempDir,
    pub(crate) runtime: TempDir,
    pub(crate) node: Arc<Node>,
}

/// A driver that answers, until it is dropped.
pub(crate) struct Life {
    stop: tokio_util::sync::CancellationToken,
    served: tokio::task::JoinHandle<()>,
    pub(crate) controller: ControllerClient<tonic::transport::Channel>,
    pub(crate) plugin: NodeClient<tonic::transport::Channel>,
    pub(crate) fuse: Arc<Fuse>,
}

impl Site {
    /// With a volume to be cloned, which has a file system or not.
    pub(crate) async fn new(formatted: bool) -> Self {
        let (disk, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let node = start(disk.path(), runtime.path(), &[300]).await;
        let place = Self { _disk: disk, runtime, node };
        let mut life = place.live(None).await;
        life.controller.create_volume(request("source", 16)).await.unwrap();
        if formatted {
            let (volume_id, staging_target_path) = ("source".to_owned(), place.path("staging"));
            let asked = proto::NodeStageVolumeRequest {
                volume_id: volume_id.clone(),
                staging_target_path: staging_target_path.clone(),
                volume_capability: Some(usage()),
                ..Default::default()
            };
            life.plugin.node_stage_volume(asked).await.unwrap();
            let asked = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path };
            life.plugin.node_unstage_volume(asked).await.unwrap();
        }
        life.end().await;
        place
    }

    pub(crate) async fn live(&self, ends: Option<(u64, bool)>) -> Life {
        let fuse = Arc::new(Fuse { steps: watch::Sender::new(0), ends, gate: Mutex::default() });
        let volumes = Arc::new(Ending(OnNode::new(self.node.clone()), fuse.clone()));
        let host = Arc::new(Ending(Linux, fuse.clone()));
        let driver: Arc<Driver> = driver(volumes, host, self.runtime.path()).await;
        let (stop, served) = serve(driver, self.runtime.path()).await;
        let channel = crate::world::connect(&self.runtime.path().join("csi.sock")).await;
        Life {
            stop,
            served,
            controller: ControllerClient::new(channel.clone()),
            plugin: NodeClient::new(channel),
            fuse,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.runtime.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for at in mounts_below(self.runtime.path()).iter().rev() {
            drop(std::process::Command::new("umount").arg("-l").arg(at).output());
        }
    }
}

impl Life {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        drop((self.controller, self.plugin));
        self.served.abort();
        drop(self.served.await);
    }
}

pub(crate) fn usage() -> VolumeCapability {
    let mut usage = mounted("ext4", Mode::SingleNodeWriter);
    if let Some(proto::volume_capability::AccessType::Mount(mount)) = &mut usage.access_type {
        mount.volume_mount_group = "4711".to_owned();
    }
    usage
}
