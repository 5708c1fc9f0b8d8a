//! The volumes of a cluster, as the CSI driver of a node sees them: those of one copy, on the node itself, and those that have replicas on several.
//!
//! Each node's driver makes and deletes replicated volumes by writing a [`Volume`]; the controller does the rest. So the standard sidecars beside each driver
//! serve both kinds, and there is no second driver. What only one kind can do is refused for the other, by name.

use crate::error::{Error as ClusterError, Result as ClusterResult, ask, code};
use crate::placed;
use crate::takeover::{Life, life_of};
use crate::times::Times;
use api::{StorageNode, VOLUME_FINALIZER, Volume as Object, VolumeLimits, VolumePhase, VolumeSpec};
use csi::{Capacity, Error, Kind, Labels, Limits, NewVolume, OnNode, Range, Secret, Snapshot, Volume, Volumes};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use node::crypt::{DataKey, Secret as KeySecret, WrappedKey};
use node::{AnyRecords, Node, ReplicatedVolume};
use replication::record::store::RecordStore;
use replication::units::NodeId;
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long a new volume is waited for until its replicas are placed: the controller looks at it at once, and another one begins within some seconds.
const PLACE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const PLACE_LOOK: Duration = Duration::from_millis(200);

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

    /// A volume as the driver knows it.
    fn told(&self, object: &Object) -> Volume {
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
            bytes: spec.bytes,
            replicas: spec.replicas,
            is_encrypted: spec.wrapped_key.is_some(),
            limits: Limits { iops: spec.limits.iops, bytes_per_second: spec.limits.bytes_per_second },
            labels: spec.labels.clone(),
            trouble,
            id,
        }
    }

    /// Waits until the controller has placed a volume. One that it cannot place is taken back, so that whoever asks again begins anew.
    fn placed(&self, made: Object) -> Result<Volume, Error> {
        let id = made.name_any();
        match self.await_place(&id)? {
            Ok(placed) => Ok(placed),
            Err(why) => {
                self.delete_object(&made)?;
                Err(Error { kind: Kind::NoRoom, story: format!("make the volume {id}: {why}") })
            }
        }
    }

    /// Waits until the controller has placed a volume; or tells why it has not.
    fn await_place(&self, id: &str) -> Result<Result<Volume, String>, Error> {
        let begin = Instant::now();
        while begin.elapsed() < PLACE_LIMIT {
            let Some(now) = self.object(id)? else {
                return Err(failed(format!("the Volume {id} was deleted while it was being placed")));
            };
            let status = now.status.clone().unwrap_or_default();
            if !status.replicas.is_empty() {
                return Ok(Ok(self.told(&now)));
            }
            if let Some(refused) = status.message {
                return Ok(Err(refused));
            }
            std::thread::sleep(PLACE_LOOK);
        }
        let limit = PLACE_LIMIT.as_secs();
        Ok(Err(format!("nobody has placed its replicas in {limit} s; see that the operator runs")))
    }

    fn delete_object(&self, object: &Object) -> Result<(), Error> {
        let (api, id) = (self.api(), object.name_any());
        let preconditions = Preconditions { uid: object.meta().uid.clone(), ..Preconditions::default() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.runtime.block_on(ask(
            self.times.request,
            || format!("delete the Volume {id}"),
            api.delete(&id, &parameters),
        ));
        match deleted {
            Ok(_) => Ok(()),
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The node that serves a volume by its record, if it is another than this one.
    fn served_elsewhere(&self, object: &Object) -> Result<Option<String>, Error> {
        let Some(id) = placed::id(object) else { return Ok(None) };
        let found = self.wait(async { self.records.get(id).await.map_err(ClusterError::from) })?;
        let by = found.and_then(|found| found.record.attached).map(|by| by.node.0.to_string());
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

    fn not_replicated(&self, id: &str, what: &str) -> Result<(), Error> {
        match self.replicated(id)? {
            None => Ok(()),
            Some(_) => Err(Error {
                kind: Kind::Precondition,
                story: format!("{id} has replicas on several nodes, and {what}; use a class with repl: \"1\" for that"),
            }),
        }
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
        let mut object = Object::new(
            &new.id,
            VolumeSpec {
                bytes: new.bytes,
                replicas: new.replicas,
                // More than half of three, and one of two: the other must be able to go on alone.
                minimum_in_sync: new.replicas.div_ceil(2),
                preferred_node: Some(self.me.clone()),
                placement_strategy: new.placement,
                limits: VolumeLimits { iops: new.limits.iops, bytes_per_second: new.limits.bytes_per_second },
                wrapped_key: secret.map(|secret| wrapped(&new.id, secret)).transpose()?,
                labels: new.labels,
            },
        );
        object.metadata.finalizers = Some(vec![VOLUME_FINALIZER.to_owned()]);
        let (api, id) = (self.api(), new.id);
        let asked = PostParams::default();
        let made = ask(self.times.request, || format!("make the Volume {id}"), api.create(&asked, &object));
        match self.runtime.block_on(made) {
            Ok(made) => self.placed(made),
            Err(error) if code(&error) == Some(409) => Err(Error {
                kind: Kind::Busy,
                story: format!("there is a Volume {id} already, which is being made or deleted; ask again"),
            }),
            Err(error) => Err(failed(error.to_string())),
        }
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
        if new.replicas > 1 {
            let story = format!(
                "make {}: a volume with several replicas begins empty; it cannot be made from {snapshot} yet",
                new.id
            );
            return Err(Error { kind: Kind::Invalid, story });
        }
        self.local.clone_snapshot(snapshot, new)
    }

    fn find(&self, id: &str) -> Result<Option<Volume>, Error> {
        if let Some(local) = self.local.find(id)? {
            return Ok(Some(local));
        }
        Ok(self.object(id)?.map(|object| self.told(&object)))
    }

    fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut all = self.local.list()?;
        all.extend(self.objects()?.iter().map(|object| self.told(object)));
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    fn delete(&self, id: &str) -> Result<(), Error> {
        let Some(object) = self.replicated(id)? else { return self.local.delete(id) };
        if let Some(device) = self.node.replicated_device(id) {
            let story = format!("delete {id}: it is attached as {}; detach it first", device.display());
            return Err(Error { kind: Kind::Precondition, story });
        }
        self.may_take(&object)?;
        self.delete_object(&object)
    }

    fn grow(&self, id: &str, bytes: u64) -> Result<Volume, Error> {
        match self.replicated(id)? {
            None => self.local.grow(id, bytes),
            Some(object) if object.spec.bytes == bytes => Ok(self.told(&object)),
            Some(object) => {
                let has = object.spec.bytes;
                let story =
                    format!("{id} has replicas on several nodes, and {has} bytes; such volumes cannot grow yet");
                Err(Error { kind: Kind::Precondition, story })
            }
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
        for id in ids {
            let volume = id.split_once('@').map_or(id.as_str(), |(volume, _)| volume);
            self.not_replicated(volume, "snapshots of such volumes are not built yet")?;
        }
        self.local.snapshot(ids, labels)
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        self.local.snapshots()
    }

    fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        self.local.delete_snapshot(id)
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

    /// Of a replicated volume only whether there are data is known: then it is told as one range.
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
            _ => self.local.ranges(of, since, start, tell),
        }
    }
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

/// A new key, wrapped with a secret.
fn wrapped(id: &str, secret: &Secret) -> Result<String, Error> {
    let refused = |error: &dyn std::error::Error| failed(format!("encrypt {id}: {error}"));
    let secret = KeySecret::new(secret.clone()).map_err(|error| refused(&error))?;
    let key = DataKey::random().and_then(|key| key.wrap(&secret)).map_err(|error| refused(&error))?;
    serde_json::to_string(&key).map_err(|error| refused(&error))
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
