//! The process ends between any two steps of a call, at every step in turn: before it, or when it is done. The next process is asked the same again, or asked to
//! undo it, and ends right.
//!
//! A step is a call of the machine or of who owns the volumes. The process that ends is a driver whose next step panics: nothing is cleaned up after it, all
//! that it knew is gone, and what it has done stays. The node goes on, as it does for a daemon that is killed (see `orlop`'s own tests, which kill it).

use crate::world::{MIB, driver, from_volume, mounted, mounts_below, request, require, serve, start, write};
use csi::proto::controller_client::ControllerClient;
use csi::proto::node_client::NodeClient;
use csi::proto::volume_capability::access_mode::Mode;
use csi::proto::{self, VolumeCapability};
use csi::{
    Capacity, Content, DeviceInfo, Driver, Error, FileSystem, Host, HostError, Labels, Limits, Linux, Mount, NewVolume,
    OnNode, Place, Range, Room, Secret, Snapshot, Volume, Volumes,
};
use node::Node;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tonic::{Code, Status};

/// Counts steps; at one of them it ends.
struct Fuse {
    steps: AtomicU64,
    /// The step, and whether it is done first.
    ends: Option<(u64, bool)>,
}

impl Fuse {
    fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        let now = self.steps.fetch_add(1, Ordering::Relaxed);
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
struct Site {
    _disk: TempDir,
    runtime: TempDir,
    node: Arc<Node>,
}

/// A driver that answers, until it is dropped.
struct Life {
    stop: tokio_util::sync::CancellationToken,
    served: tokio::task::JoinHandle<()>,
    controller: ControllerClient<tonic::transport::Channel>,
    plugin: NodeClient<tonic::transport::Channel>,
    fuse: Arc<Fuse>,
}

impl Site {
    /// With a volume to be cloned, which has a file system or not.
    async fn new(formatted: bool) -> Self {
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

    async fn live(&self, ends: Option<(u64, bool)>) -> Life {
        let fuse = Arc::new(Fuse { steps: AtomicU64::new(0), ends });
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

    fn path(&self, name: &str) -> String {
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
    async fn end(self) {
        self.stop.cancel();
        drop((self.controller, self.plugin));
        self.served.abort();
        drop(self.served.await);
    }

    async fn call(&mut self, place: &Site, call: Call) -> Result<(), Status> {
        let (volume_id, staging_target_path) = ("v".to_owned(), place.path("staging"));
        let capability = Some(usage());
        match call {
            Call::Create => {
                let mut asked = request("v", 32);
                asked.volume_content_source = from_volume("source");
                self.controller.create_volume(asked).await.map(drop)
            }
            Call::Stage => {
                let asked = proto::NodeStageVolumeRequest {
                    volume_id,
                    staging_target_path,
                    volume_capability: capability,
                    ..Default::default()
                };
                self.plugin.node_stage_volume(asked).await.map(drop)
            }
            Call::Publish => {
                let asked = proto::NodePublishVolumeRequest {
                    volume_id,
                    staging_target_path,
                    target_path: place.path("target"),
                    volume_capability: capability,
                    readonly: true,
                    ..Default::default()
                };
                self.plugin.node_publish_volume(asked).await.map(drop)
            }
            Call::Unpublish => {
                let asked = proto::NodeUnpublishVolumeRequest { volume_id, target_path: place.path("target") };
                self.plugin.node_unpublish_volume(asked).await.map(drop)
            }
            Call::Unstage => {
                let asked = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path };
                self.plugin.node_unstage_volume(asked).await.map(drop)
            }
            Call::Delete => {
                let asked = proto::DeleteVolumeRequest { volume_id, secrets: HashMap::new() };
                self.controller.delete_volume(asked).await.map(drop)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Create,
    Stage,
    Publish,
    Unpublish,
    Unstage,
    Delete,
}

/// A life of a volume: a clone that is larger than its source, with a file system that grows, for a group.
const LIFE: [Call; 6] = [Call::Create, Call::Stage, Call::Publish, Call::Unpublish, Call::Unstage, Call::Delete];

fn usage() -> VolumeCapability {
    let mut usage = mounted("ext4", Mode::SingleNodeWriter);
    if let Some(proto::volume_capability::AccessType::Mount(mount)) = &mut usage.access_type {
        mount.volume_mount_group = "4711".to_owned();
    }
    usage
}

/// What must be so when a call is done.
fn check(place: &Site, call: Call, mark: &[u8]) {
    let mounts = mounts_below(place.runtime.path()).len();
    let target = place.path("target");
    match call {
        Call::Create => assert_eq!(mounts, 0),
        Call::Stage => {
            assert_eq!(mounts, 1);
            let room = rustix::fs::statvfs(place.path("staging")).unwrap();
            assert!(
                room.f_blocks * room.f_frsize > (24 * MIB).try_into().unwrap(),
                "it has grown: {} blocks",
                room.f_blocks
            );
            if !Path::new(&place.path("staging/mark")).exists() {
                write(&place.path("staging"), "mark", mark);
            }
        }
        Call::Publish => {
            assert_eq!(mounts, 2);
            assert_eq!(std::fs::read(format!("{target}/mark")).unwrap(), mark, "what was written is there");
            assert!(std::fs::write(format!("{target}/x"), b"x").is_err(), "it is read-only");
        }
        Call::Unpublish => assert!(mounts == 1 && !Path::new(&target).exists()),
        Call::Unstage | Call::Delete => assert_eq!(mounts, 0),
    }
}

/// Has the process end at a step of the life; true if there is such a step.
async fn ends_at(place: &Site, at: u64, done: bool) -> bool {
    let mut life = place.live(Some((at, done))).await;
    let mut interrupted = false;
    let mark = format!("{at} {done}").into_bytes();
    for call in LIFE {
        if let Err(status) = life.call(place, call).await {
            assert!(!interrupted && status.code() == Code::Internal, "{call:?} at {at}, {done}: {status}");
            assert!(status.message().contains("panicked"), "{status}");
            interrupted = true;
            life.end().await;
            life = place.live(None).await;
            let again = life.call(place, call).await;
            assert!(again.is_ok(), "{call:?} again, after an end at step {at} ({done}): {again:?}");
        }
        check(place, call, &mark);
    }
    let used = life.fuse.steps.load(Ordering::Relaxed);
    life.end().await;
    let volumes = OnNode::new(place.node.clone());
    let (left, snapshots) = tokio::task::spawn_blocking(move || (volumes.list(), volumes.snapshots())).await.unwrap();
    let left = left.unwrap();
    assert!(left.len() == 1 && snapshots.unwrap().is_empty(), "nothing is left behind: {left:?}");
    assert!(interrupted || used <= at, "the fuse must burn");
    interrupted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_repeated_after_the_process_has_ended_at_any_step() {
    require!("mkfs.ext4", "resize2fs");
    for formatted in [false, true] {
        let place = Site::new(formatted).await;
        let mut at = 0;
        while ends_at(&place, at, false).await | ends_at(&place, at, true).await {
            at += 1;
        }
        assert!(at >= 14, "a life has more than {at} steps");
        eprintln!("ended before and after each of {at} steps");
    }
}

/// The orchestrator gives up instead, and undoes what it does not know to be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_undone_after_the_process_has_ended_at_any_step() {
    require!("mkfs.ext4", "resize2fs");
    let place = Site::new(true).await;
    let mut at = 0;
    loop {
        let mut life = place.live(Some((at, true))).await;
        let mut interrupted = None;
        for call in &LIFE[..3] {
            if life.call(&place, *call).await.is_err() {
                interrupted = Some(*call);
                break;
            }
        }
        life.end().await;
        let mut life = place.live(None).await;
        for call in &LIFE[3..] {
            match life.call(&place, *call).await {
                Ok(()) => {}
                // The volume was never made.
                Err(status) => {
                    assert!(status.code() == Code::NotFound && interrupted == Some(Call::Create), "{status}")
                }
            }
        }
        assert_eq!(mounts_below(place.runtime.path()).len(), 0, "after an end at step {at}");
        life.end().await;
        let volumes = OnNode::new(place.node.clone());
        let left = tokio::task::spawn_blocking(move || (volumes.list(), volumes.snapshots())).await.unwrap();
        assert!(left.0.unwrap().len() == 1 && left.1.unwrap().is_empty(), "after an end at step {at}");
        if interrupted.is_none() {
            break;
        }
        at += 1;
    }
    assert!(at >= 9, "a life begins with more than {at} steps");
}
