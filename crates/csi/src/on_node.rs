//! The volumes of one node, each with one copy, by the control API of the node in this process.

use crate::names;
use crate::volumes::{
    Capacity, Error, Kind, Labels, Limits, NewVolume, Range, Secret, Snapshot, SnapshotState, Volume, Volumes,
};
use node::proto::{self, node_server::Node as Control};
use node::{Node, Service};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status};

/// One node.
pub struct OnNode {
    service: Service,
    runtime: Handle,
}

impl OnNode {
    /// The volumes of this node. Must be called within the runtime that is to be waited on.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { service: Service::new(node), runtime: Handle::current() }
    }

    fn wait<T>(&self, asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        self.runtime.block_on(asked).map(Response::into_inner).map_err(error)
    }

    fn pools(&self) -> Result<BTreeMap<String, proto::Pool>, Error> {
        let pools = self.wait(self.service.list_pools(Request::new(proto::ListPoolsRequest {})))?.pools;
        Ok(pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect())
    }

    /// Where a new volume goes: where the most room is.
    fn roomiest(&self, bytes: u64) -> Result<String, Error> {
        let pools = self.pools()?;
        let fitting = pools.values().filter(|pool| !pool.failed && pool.bytes >= bytes);
        if let Some(pool) = fitting.max_by_key(|pool| pool.free_bytes) {
            return Ok(pool.name.clone());
        }
        let told: Vec<_> = pools.values().map(told_pool).collect();
        let story =
            format!("no pool of this node could ever hold {bytes} bytes: {}; make a pool larger", told.join(", "));
        Err(Error { kind: Kind::NoRoom, story })
    }
}

impl Volumes for OnNode {
    fn capacity(&self, replicas: u32) -> Result<Capacity, Error> {
        one_copy(replicas)?;
        let pools = self.pools()?;
        let sound = || pools.values().filter(|pool| !pool.failed);
        let free = sound().map(|pool| pool.free_bytes).fold(0, u64::saturating_add);
        Ok(Capacity { free, largest: sound().map(|pool| pool.bytes).max().unwrap_or(0) })
    }

    fn create(&self, new: NewVolume, secret: Option<&Secret>) -> Result<Volume, Error> {
        one_copy(new.replicas)?;
        let pool = self.roomiest(new.bytes)?;
        let request = proto::CreateVolumeRequest {
            name: new.id,
            pool,
            bytes: new.bytes,
            limits: Some(to_limits(new.limits)),
            secret: secret.map(|secret| secret.to_vec()).unwrap_or_default(),
            labels: new.labels.into_iter().collect(),
        };
        let volume = self.wait(self.service.create_volume(Request::new(request)))?;
        Ok(self.volume(volume, &self.pools()?))
    }

    fn clone_snapshot(&self, snapshot: &str, new: NewVolume) -> Result<Volume, Error> {
        one_copy(new.replicas)?;
        let request = proto::CloneSnapshotRequest {
            snapshot: snapshot.to_owned(),
            name: new.id,
            limits: Some(to_limits(new.limits)),
            labels: new.labels.into_iter().collect(),
        };
        let volume = self.wait(self.service.clone_snapshot(Request::new(request)))?;
        Ok(self.volume(volume, &self.pools()?))
    }

    fn find(&self, id: &str) -> Result<Option<Volume>, Error> {
        let request = proto::GetVolumeRequest { name: id.to_owned() };
        match self.wait(self.service.get_volume(Request::new(request))) {
            Ok(volume) => Ok(Some(self.volume(volume, &self.pools()?))),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self) -> Result<Vec<Volume>, Error> {
        let volumes = self.wait(self.service.list_volumes(Request::new(proto::ListVolumesRequest {})))?.volumes;
        let pools = self.pools()?;
        let mut volumes: Vec<_> = volumes.into_iter().map(|volume| self.volume(volume, &pools)).collect();
        volumes.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(volumes)
    }

    fn delete(&self, id: &str) -> Result<(), Error> {
        let request = proto::DeleteVolumeRequest { name: id.to_owned(), with_snapshots: false };
        self.wait(self.service.delete_volume(Request::new(request))).map(drop)
    }

    fn grow(&self, id: &str, bytes: u64) -> Result<Volume, Error> {
        let request = proto::GrowVolumeRequest { name: id.to_owned(), bytes };
        let volume = self.wait(self.service.grow_volume(Request::new(request)))?;
        Ok(self.volume(volume, &self.pools()?))
    }

    fn limit(&self, id: &str, limits: Limits) -> Result<(), Error> {
        let request = proto::SetLimitsRequest { name: id.to_owned(), limits: Some(to_limits(limits)) };
        self.wait(self.service.set_limits(Request::new(request))).map(drop)
    }

    fn label(&self, id: &str, labels: &Labels) -> Result<(), Error> {
        let request = proto::SetLabelsRequest { name: id.to_owned(), labels: labels.clone().into_iter().collect() };
        self.wait(self.service.set_labels(Request::new(request))).map(drop)
    }

    fn snapshot(&self, ids: &[String], labels: &Labels) -> Result<Vec<Snapshot>, Error> {
        let labels = labels.clone().into_iter().collect();
        let request = proto::CreateSnapshotsRequest { names: ids.to_vec(), labels };
        let taken = self.wait(self.service.create_snapshots(Request::new(request)))?.snapshots;
        Ok(taken.into_iter().map(snapshot).collect())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let request = proto::ListSnapshotsRequest { volume: String::new() };
        let snapshots = self.wait(self.service.list_snapshots(Request::new(request)))?.snapshots;
        let mut snapshots: Vec<_> = snapshots.into_iter().map(snapshot).collect();
        snapshots.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(snapshots)
    }

    fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let request = proto::DeleteSnapshotRequest { name: id.to_owned() };
        self.wait(self.service.delete_snapshot(Request::new(request))).map(drop)
    }

    fn attach(&self, id: &str, secret: Option<&Secret>) -> Result<PathBuf, Error> {
        let request = proto::AttachRequest {
            name: id.to_owned(),
            front_end: proto::FrontEnd::Device.into(),
            secret: secret.map(|secret| secret.to_vec()).unwrap_or_default(),
            listen: String::new(),
        };
        self.wait(self.service.attach(Request::new(request))).map(|attached| attached.place.into())
    }

    fn detach(&self, id: &str) -> Result<(), Error> {
        self.wait(self.service.detach(Request::new(proto::DetachRequest { name: id.to_owned() }))).map(drop)
    }

    fn ranges(
        &self,
        of: &str,
        since: Option<&str>,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error> {
        let since = since.map(|since| relative(of, since)).unwrap_or_default();
        let request = proto::DiffRequest { name: of.to_owned(), since, start };
        let mut pages = self.wait(self.service.diff(Request::new(request)))?;
        // Whoever is told may wait, so it is not told while the runtime is waited on.
        while let Some(page) = self.runtime.block_on(pages.next()) {
            let range = |range: proto::Range| Range { offset: range.offset, length: range.length };
            if !tell(page.map_err(error)?.ranges.into_iter().map(range).collect()) {
                break;
            }
        }
        Ok(())
    }
}

impl OnNode {
    fn volume(&self, volume: proto::Volume, pools: &BTreeMap<String, proto::Pool>) -> Volume {
        let is_device = |place: &proto::Attachment| place.front_end() == proto::FrontEnd::Device;
        let trouble = match (volume.encryption(), pools.get(&volume.pool)) {
            (proto::Encryption::KeyDestroyed, _) => Some("its key was destroyed; nobody can read it".to_owned()),
            (_, Some(pool)) if pool.failed => Some(format!(
                "the pool {} takes no more changes; start the node again, and see its log and `orlop store check`",
                pool.name
            )),
            (_, Some(pool)) if pool.full => Some(format!(
                "the pool {} is full, and writes wait; delete something, or make the pool larger",
                pool.name
            )),
            _ => None,
        };
        Volume {
            is_encrypted: volume.encryption() != proto::Encryption::None,
            id: volume.name,
            bytes: volume.bytes,
            replicas: 1,
            limits: from_limits(volume.limits.unwrap_or_default()),
            device: volume.attachment.filter(is_device).map(|place| place.place.into()),
            labels: volume.labels.into_iter().collect(),
            trouble,
        }
    }
}

/// A node by itself has one copy of everything.
fn one_copy(replicas: u32) -> Result<(), Error> {
    if replicas == 1 {
        return Ok(());
    }
    let story = format!(
        "{replicas} replicas are wanted, and this node is no part of a cluster: start `orlop node` with --cluster, or use a class with repl: \"1\""
    );
    Err(Error { kind: Kind::Invalid, story })
}

fn told_pool(pool: &proto::Pool) -> String {
    let state = if pool.failed { ", and has failed" } else { "" };
    format!("{} has {} bytes, {} of them free{state}", pool.name, pool.bytes, pool.free_bytes)
}

fn snapshot(snapshot: proto::Snapshot) -> Snapshot {
    Snapshot {
        volume: names::volume_of(&snapshot.name).unwrap_or_default().to_owned(),
        is_encrypted: snapshot.encryption() != proto::Encryption::None,
        id: snapshot.name,
        bytes: snapshot.bytes,
        created: snapshot.created,
        state: SnapshotState::Ready,
        is_asked_here: true,
        labels: snapshot.labels.into_iter().collect(),
    }
}

/// How a node names an older snapshot as seen from another: without the volume, if it is the same.
fn relative(of: &str, since: &str) -> String {
    match (names::volume_of(of).unwrap_or(of), since.split_once('@')) {
        (volume, Some((other, name))) if volume == other => name.to_owned(),
        _ => since.to_owned(),
    }
}

fn to_limits(limits: Limits) -> proto::Limits {
    proto::Limits { iops: limits.iops.unwrap_or(0), bytes_per_second: limits.bytes_per_second.unwrap_or(0) }
}

fn from_limits(limits: proto::Limits) -> Limits {
    let some = |number: u64| (number != 0).then_some(number);
    Limits { iops: some(limits.iops), bytes_per_second: some(limits.bytes_per_second) }
}

fn error(status: Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::Exists,
        Code::FailedPrecondition => Kind::Precondition,
        Code::ResourceExhausted => Kind::NoRoom,
        Code::PermissionDenied => Kind::Denied,
        Code::DataLoss => Kind::Damaged,
        _ => Kind::Failed,
    };
    Error { kind, story: status.message().to_owned() }
}
