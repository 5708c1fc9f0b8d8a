//! The volumes of a cluster, as the CSI driver of a node sees them: those of one copy, on the node itself, and those that have replicas on several.
//!
//! Each node's driver makes and deletes replicated volumes by writing a [`Volume`]; the controller does the rest. So the standard sidecars beside each driver
//! serve both kinds, and there is no second driver. What only one kind can do is refused for the other, by name.

mod clone;
mod grow;
mod make;
mod ranges;
mod snapshots;

use crate::error::{Result as ClusterResult, ask, code};
use crate::placed;
use crate::takeover::{Life, life_of};
use crate::times::Times;
use api::{StorageNode, Volume as Object, VolumeLimits, VolumePhase};
use csi::{Capacity, Error, Kind, Labels, Limits, NewVolume, OnNode, Range, Secret, Snapshot, Volume, Volumes};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use node::crypt::WrappedKey;
use node::{AnyRecords, Node, ReplicatedVolume};
use replication::record::Record;
use replication::units::NodeId;
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;

/// How often a change is decided anew when somebody else was faster.
const CONFLICTS: usize = 16;

/// The volumes of a cluster.
pub struct InCluster {
    local: OnNode,
    node: Arc<Node>,
    client: Client,
    records: AnyRecords,
    me: String,
    times: Times,
    runtime: Handle,
}

impl InCluster {
    /// As the node of this name sees them. Must be called within the runtime that is to be waited on.
    #[must_use]
    pub fn new(node: Arc<Node>, client: Client, records: AnyRecords, me: String, times: Times) -> Self {
        let local = OnNode::new(node.clone());
        Self { local, node, client, records, me, times, runtime: Handle::current() }
    }

    fn api(&self) -> Api<Object> {
        Api::all(self.client.clone())
    }

    fn wait<T>(&self, asked: impl Future<Output = ClusterResult<T>>) -> Result<T, Error> {
        self.runtime.block_on(asked).map_err(|error| failed(error.to_string()))
    }

    /// The replicated volume of this id, which nobody has deleted.
    fn object(&self, id: &str) -> Result<Option<Object>, Error> {
        let found = self.wait(ask(self.times.request, || format!("read the Volume {id}"), self.api().get_opt(id)))?;
        Ok(found.filter(|volume| !placed::is_deleted(volume)))
    }

    /// The same, for what may be a volume of this node, or a snapshot of one: those are used though the API server is away.
    fn replicated(&self, id: &str) -> Result<Option<Object>, Error> {
        let is_local = id.contains('@') || self.local.find(id)?.is_some();
        if is_local { Ok(None) } else { self.object(id) }
    }

    fn objects(&self) -> Result<Vec<Object>, Error> {
        let (api, all) = (self.api(), ListParams::default());
        let found = self.wait(ask(self.times.request, || "list the Volumes".into(), api.list(&all)))?;
        Ok(found.items.into_iter().filter(|volume| !placed::is_deleted(volume)).collect())
    }

    fn patch(&self, id: &str, patch: Value) -> Result<(), Error> {
        let (api, patch, asked) = (self.api(), Patch::Merge(patch), PatchParams::default());
        let patched = api.patch(id, &asked, &patch);
        self.wait(ask(self.times.request, || format!("change the Volume {id}"), patched)).map(drop)
    }

    /// Changes what a volume is to be, decided from what it is: by nobody else in between. With nothing to change it is a success.
    fn change(&self, id: &str, decide: impl Fn(&Object) -> Result<Option<Value>, Error>) -> Result<(), Error> {
        let api = self.api();
        for _ in 0..CONFLICTS {
            let story = || format!("there is no volume {id}");
            let object = self.object(id)?.ok_or_else(|| Error { kind: Kind::NotFound, story: story() })?;
            let Some(spec) = decide(&object)? else { return Ok(()) };
            let version = object.meta().resource_version.clone();
            let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": spec}));
            let asked = PatchParams::default();
            let patched = ask(self.times.request, || format!("change the Volume {id}"), api.patch(id, &asked, &patch));
            match self.runtime.block_on(patched) {
                Ok(_) => return Ok(()),
                // Somebody else was faster, be it with its status.
                Err(error) if matches!(code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Err(changing(id))
    }

    /// A volume as the driver knows it. What it is to be larger it is when its record says so.
    fn told(&self, object: &Object, record: Option<&Record>) -> Volume {
        let (id, spec) = (object.name_any(), &object.spec);
        let status = object.status.clone().unwrap_or_default();
        let trouble = match status.phase {
            VolumePhase::Healthy => None,
            VolumePhase::Pending => Some(status.message.unwrap_or_else(|| "its replicas are not placed yet".into())),
            VolumePhase::Degraded | VolumePhase::Deleting => {
                let in_sync = status.in_sync.unwrap_or_default();
                Some(format!("{in_sync} replicas are in sync; {}", status.message.unwrap_or_default()))
            }
        };
        Volume {
            device: self.node.replicated_device(&id),
            bytes: record.map_or(spec.bytes, |record| record.blocks * 4096),
            replicas: spec.replicas,
            is_encrypted: spec.wrapped_key.is_some(),
            limits: Limits { iops: spec.limits.iops, bytes_per_second: spec.limits.bytes_per_second },
            labels: spec.labels.clone(),
            trouble,
            id,
        }
    }

    /// The node that serves a volume by its record, if it is another than this one.
    fn served_elsewhere(&self, object: &Object) -> Result<Option<String>, Error> {
        let by = self.record(object)?.and_then(|record| record.attached).map(|by| by.node.0.to_string());
        Ok(by.filter(|node| *node != self.me))
    }

    /// From which node a volume may be taken over; refuses one that a node serves that lives.
    fn may_take(&self, object: &Object) -> Result<Option<NodeId>, Error> {
        let Some(other) = self.served_elsewhere(object)? else { return Ok(None) };
        let life = self.wait(life_of(&self.client, &other, &self.times))?;
        let id = object.name_any();
        if life == Life::Alive {
            let story = format!("{id} is in use on the node {other}, which lives; it has to be unstaged there first");
            return Err(Error { kind: Kind::Precondition, story });
        }
        tracing::warn!(volume = id, node = other, ?life, "a volume is taken over from a node that does not live");
        Ok(Some(other.as_str().into()))
    }

    /// The replicated volume that a snapshot is of, and the name of the snapshot; nothing for one of a volume of this node.
    fn of_replicated<'a>(&self, snapshot: &'a str) -> Result<Option<(Object, &'a str)>, Error> {
        let Some((volume, name)) = snapshot.split_once('@') else { return Ok(None) };
        Ok(self.replicated(volume)?.map(|object| (object, name)))
    }
}

impl Volumes for InCluster {
    fn capacity(&self, replicas: u32) -> Result<Capacity, Error> {
        if replicas <= 1 {
            return self.local.capacity(1);
        }
        let nodes: Api<StorageNode> = Api::all(self.client.clone());
        let all = ListParams::default();
        let found = self.wait(ask(self.times.request, || "list the StorageNodes".into(), nodes.list(&all)))?;
        let room = found.items.iter().filter(|node| !node.spec.drain).filter_map(|node| {
            let pools = node.status.as_ref()?.pools.iter().filter(|pool| !pool.failed);
            pools.max_by_key(|pool| pool.free_bytes).map(|pool| (pool.free_bytes, pool.bytes))
        });
        let mut room: Vec<_> = room.collect();
        // As many nodes are needed as there are replicas, so the least of the best counts.
        room.sort_unstable_by(|a, b| b.cmp(a));
        let least = usize::try_from(replicas).ok().and_then(|replicas| room.get(replicas - 1));
        Ok(least
            .map_or(Capacity { free: 0, largest: 0 }, |(free, largest)| Capacity { free: *free, largest: *largest }))
    }

    fn create(&self, new: NewVolume, secret: Option<&Secret>) -> Result<Volume, Error> {
        if new.replicas <= 1 {
            return self.local.create(new, secret);
        }
        let wrapped_key = secret.map(|secret| make::wrapped(&new.id, secret)).transpose()?;
        let spec = self.spec(&new, wrapped_key);
        self.make(&new.id, spec)
    }

    /// One that was made before, perhaps by somebody else, is not taken back here.
    fn ready(&self, volume: Volume) -> Result<Volume, Error> {
        if volume.replicas <= 1 {
            return Ok(volume);
        }
        let story = |why| format!("make the volume {}: {why}; ask again, or delete it", volume.id);
        self.await_place(&volume.id)?.map_err(|why| Error { kind: Kind::Busy, story: story(why) })
    }

    fn clone_snapshot(&self, snapshot: &str, new: NewVolume) -> Result<Volume, Error> {
        match (self.of_replicated(snapshot)?, new.replicas) {
            (Some((object, name)), 2..) => self.clone_replicated(&object, name, &new),
            (None, 0 | 1) => self.local.clone_snapshot(snapshot, new),
            (found, count) => {
                let source = if found.is_some() { "several copies" } else { "one copy" };
                let story = format!(
                    "make {} with {count} replicas: {snapshot} is of a volume with {source}, and a volume begins as a snapshot where that lies; use a class like that of its source",
                    new.id
                );
                Err(Error { kind: Kind::Invalid, story })
            }
        }
    }

    fn find(&self, id: &str) -> Result<Option<Volume>, Error> {
        if let Some(local) = self.local.find(id)? {
            return Ok(Some(local));
        }
        let Some(object) = self.object(id)? else { return Ok(None) };
        let record = self.record(&object)?;
        Ok(Some(self.told(&object, record.as_ref())))
    }

    fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut all = self.local.list()?;
        let replicated = self.with_records(self.objects()?);
        all.extend(replicated.iter().map(|(object, record)| self.told(object, record.as_ref())));
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    fn delete(&self, id: &str) -> Result<(), Error> {
        let Some(object) = self.replicated(id)? else { return self.local.delete(id) };
        if let Some(device) = self.node.replicated_device(id) {
            let story = format!("delete {id}: it is attached as {}; detach it first", device.display());
            return Err(Error { kind: Kind::Precondition, story });
        }
        let refused = |story| Err(Error { kind: Kind::Precondition, story });
        if let Some(story) = snapshots::kept_by_snapshots(&object) {
            return refused(story);
        }
        self.may_take(&object)?;
        for _ in 0..CONFLICTS {
            let Some(object) = self.object(id)? else { return Ok(()) };
            if let Some(story) = snapshots::kept_by_snapshots(&object) {
                return refused(story);
            }
            if self.delete_object(&object, true)? {
                return Ok(());
            }
        }
        Err(changing(id))
    }

    fn grow(&self, id: &str, bytes: u64) -> Result<Volume, Error> {
        match self.replicated(id)? {
            None => self.local.grow(id, bytes),
            Some(object) => self.grow_replicated(&object, bytes),
        }
    }

    fn limit(&self, id: &str, limits: Limits) -> Result<(), Error> {
        if self.replicated(id)?.is_none() {
            return self.local.limit(id, limits);
        }
        // The node that serves it follows what is written.
        let Limits { iops, bytes_per_second } = limits;
        self.patch(id, json!({"spec": {"limits": {"iops": iops, "bytesPerSecond": bytes_per_second}}}))
    }

    fn label(&self, id: &str, labels: &Labels) -> Result<(), Error> {
        if self.replicated(id)?.is_none() {
            return self.local.label(id, labels);
        }
        let value = |value: &String| if value.is_empty() { Value::Null } else { json!(value) };
        let labels: serde_json::Map<_, _> = labels.iter().map(|(key, text)| (key.clone(), value(text))).collect();
        self.patch(id, json!({"spec": {"labels": labels}}))
    }

    fn snapshot(&self, ids: &[String], labels: &Labels) -> Result<Vec<Snapshot>, Error> {
        let mut replicated = Vec::new();
        for id in ids {
            replicated.extend(self.of_replicated(id)?);
        }
        match (replicated.as_slice(), ids.len()) {
            ([], _) => self.local.snapshot(ids, labels),
            ([(object, name)], 1) => Ok(vec![self.take(&object.name_any(), name, labels)?]),
            ([(object, _), ..], _) => {
                let id = object.name_any();
                let story = format!(
                    "{id} has replicas on several nodes, and snapshots of such a volume and of others cannot be taken at one instant; take them one by one"
                );
                Err(Error { kind: Kind::Invalid, story })
            }
        }
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let mut all = self.local.snapshots()?;
        all.extend(self.all_snapshots()?);
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        match self.of_replicated(id)? {
            Some((object, name)) => self.forget(&object.name_any(), name),
            None => self.local.delete_snapshot(id),
        }
    }

    fn attach(&self, id: &str, secret: Option<&Secret>) -> Result<PathBuf, Error> {
        let Some(object) = self.replicated(id)? else { return self.local.attach(id, secret) };
        let wanted = served(&object)?;
        let take_over = self.may_take(&object)?;
        let secret = secret.map(|secret| secret.as_slice()).unwrap_or_default();
        self.node.attach_replicated(&wanted, take_over.as_ref(), secret).map_err(|error| of_node(&error))
    }

    fn detach(&self, id: &str) -> Result<(), Error> {
        self.node.detach_replicated(id).map_err(|error| of_node(&error))?;
        self.local.detach(id)
    }

    /// Of a replicated volume that is served only whether there are data is known: then it is told as one range. What its snapshots have is known exactly.
    fn ranges(
        &self,
        of: &str,
        since: Option<&str>,
        start: u64,
        tell: &mut dyn FnMut(Vec<Range>) -> bool,
    ) -> Result<(), Error> {
        match self.replicated(of)? {
            Some(object) if since.is_none() => {
                let is_blank = self.node.is_blank(of).map_err(|error| of_node(&error))?;
                if !is_blank && start < object.spec.bytes {
                    tell(vec![Range { offset: start, length: object.spec.bytes - start }]);
                }
                Ok(())
            }
            _ => match self.of_replicated(of)? {
                Some((object, name)) => self.ranges_of_snapshot((&object, name), since, start, tell),
                None => self.local.ranges(of, since, start, tell),
            },
        }
    }
}

fn changing(id: &str) -> Error {
    Error { kind: Kind::Busy, story: format!("{id} is being changed by others all the time; ask again") }
}

/// What a node has to know of a volume to serve it.
fn served(object: &Object) -> Result<ReplicatedVolume, Error> {
    let name = object.name_any();
    let id = placed::id(object).ok_or_else(|| failed(format!("the Volume {name} has no uid")))?;
    let key = object.spec.wrapped_key.as_deref().map(serde_json::from_str::<WrappedKey>).transpose();
    let key = key
        .map_err(|error| Error { kind: Kind::Damaged, story: format!("the key of {name} is not readable: {error}") })?;
    let VolumeLimits { iops, bytes_per_second } = object.spec.limits;
    let number = |limit: Option<u64>| limit.and_then(NonZeroU64::new);
    let limits = node::qos::Limits { iops: number(iops), bytes_per_second: number(bytes_per_second) };
    Ok(ReplicatedVolume { name, id, limits, key })
}

fn failed(story: String) -> Error {
    Error { kind: Kind::Failed, story }
}

fn of_node(error: &node::Error) -> Error {
    let kind = match error.kind() {
        node::Kind::Invalid => Kind::Invalid,
        node::Kind::NotFound => Kind::NotFound,
        node::Kind::Exists => Kind::Exists,
        node::Kind::Precondition => Kind::Precondition,
        node::Kind::NoRoom => Kind::NoRoom,
        node::Kind::Denied => Kind::Denied,
        node::Kind::Damaged => Kind::Damaged,
        node::Kind::Busy => Kind::Busy,
        node::Kind::Failed => Kind::Failed,
    };
    Error { kind, story: error.story() }
}
