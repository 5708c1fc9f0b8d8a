//! The controller of volumes: one in a cluster.
//!
//! Each look gathers what watches have told, plans for every volume ([`plan`], pure), does the step, and writes the status. It remembers nothing but since when
//! nodes are silent, so a new one goes on where another has ended; that clock begins anew with it, and so a dead node is waited for once more.

mod handlers;
pub mod place;
pub mod plan;
mod status;
mod strategy;

use crate::agent::{Failing, replica_name, watched};
use crate::error::{Error, Result, ask, code};
use crate::heartbeat::{self, Pulse};
use crate::placed;
use crate::times::Times;
use api::{PlacementStrategy, StorageNode, VOLUME_FINALIZER, Volume, VolumeRecord};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use place::{NodeView, Surroundings};
use placement::{PlacedVolume, Strategy};
use plan::{Plan, Source, Step, Wanted, plan};
use replication::record::Record;
use replication::record::store::{RecordStore, SwapError, Versioned};
use replication::units::{NodeId, ReplicaId, SnapshotId, VolumeId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Everything that is looked at.
struct Seen {
    volumes: Store<Volume>,
    nodes: Store<StorageNode>,
    leases: Store<Lease>,
    strategies: Store<PlacementStrategy>,
    /// Of these the labels count.
    machines: Store<Node>,
    records: Store<VolumeRecord>,
}

struct Controller<R> {
    client: Client,
    records: R,
    times: Times,
    pulse: Pulse,
    /// The nodes of replicas, by the records as they were last read; a cache may not have yet what was just placed.
    places: BTreeMap<VolumeId, Vec<NodeId>>,
    /// Snapshots of Kubernetes are not given to nodes before.
    hand_out_after: Option<Instant>,
}

/// Works for as long as it is polled, from when storage is installed. What goes wrong is told in the log and tried again.
pub async fn run<R: RecordStore>(client: Client, records: R, times: Times) {
    let (pulse, places) = (Pulse::default(), BTreeMap::new());
    let mut controller = Controller { client: client.clone(), records, times, pulse, places, hand_out_after: None };
    crate::wait_for_storage(&client, &controller.times).await;
    let changed = Arc::new(Notify::new());
    let (volumes, volume_events) = watched::<Volume>(Api::all(client.clone()), changed.clone());
    let (nodes, node_events) = watched::<StorageNode>(Api::all(client.clone()), changed.clone());
    let (leases, lease_events) = watched::<Lease>(heartbeat::leases(&client), Arc::new(Notify::new()));
    let (strategies, strategy_events) = watched::<PlacementStrategy>(Api::all(client.clone()), changed.clone());
    let (machines, machine_events) = watched::<Node>(Api::all(client.clone()), Arc::new(Notify::new()));
    // What is decided of a volume is decided by its record as it is read past the cache; where other volumes are is taken from here.
    let (kept, record_events) = watched::<VolumeRecord>(Api::all(client.clone()), changed.clone());
    let look = async {
        let ready = async {
            tokio::try_join!(
                volumes.wait_until_ready(),
                nodes.wait_until_ready(),
                leases.wait_until_ready(),
                strategies.wait_until_ready(),
                machines.wait_until_ready(),
                kept.wait_until_ready()
            )
        };
        if ready.await.is_err() {
            return;
        }
        let seen = Seen { volumes, nodes, leases, strategies, machines, records: kept };
        let (mut failing, mut has_authority) = (Failing::default(), false);
        loop {
            if !has_authority {
                let made = crate::certificates::ensure_authority(&controller.client, &controller.times).await;
                has_authority = made.is_ok();
                failing.heed("make the authority of the nodes' certificates", made);
            }
            failing.heed("look after volumes", controller.look(&seen).await);
            let _event = tokio::time::timeout(controller.times.look, changed.notified()).await;
            tokio::time::sleep(controller.times.settle).await;
        }
    };
    tokio::select! {
        () = look => {}
        () = volume_events => {}
        () = node_events => {}
        () = lease_events => {}
        () = strategy_events => {}
        () = machine_events => {}
        () = record_events => {}
    }
}

impl<R: RecordStore> Controller<R> {
    /// One look at everything. What fails for one volume does not keep the others; the first error is told.
    async fn look(&mut self, seen: &Seen) -> Result<()> {
        let now = Instant::now();
        self.pulse.look(&seen.leases.state(), now);
        let nodes = seen.nodes.state().iter().map(|node| self.view(node, seen, now)).collect();
        let mut among = Surroundings { nodes, volumes: Vec::new() };
        let volumes: Vec<_> =
            seen.volumes.state().into_iter().filter_map(|volume| Some((placed::id(&volume)?, volume))).collect();
        let ids: BTreeSet<VolumeId> = volumes.iter().map(|(id, _)| *id).collect();
        self.places.retain(|id, _| ids.contains(id));
        let mut outcome = Ok(());
        for (id, volume) in &volumes {
            let strategy = strategy::of(volume.spec.placement_strategy.as_deref(), &seen.strategies);
            let is_about_volumes = strategy.as_ref().is_ok_and(strategy::is_about_volumes);
            among.volumes = if is_about_volumes { self.others(*id, &volumes, seen) } else { Vec::new() };
            match self.follow(*id, volume, strategy, &among).await {
                Ok(record) => {
                    let nodes = record.iter().flat_map(|record| record.members.values());
                    self.places.insert(*id, nodes.map(|member| member.node.clone()).collect());
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        // Nobody tells of these, so they are looked at as often as everything is.
        if self.hand_out_after.is_none_or(|after| now >= after) {
            let handed = handlers::hand_out(&self.client, &self.times, &seen.volumes.state(), &among.nodes).await;
            // A cluster that does not know them is asked seldom.
            let looks = if matches!(handed, Ok(false)) { 60 } else { 1 };
            self.hand_out_after = Some(now + self.times.look * looks);
            outcome = outcome.and(handed.map(drop));
        }
        outcome
    }

    /// Where all volumes are but one.
    fn others(&self, but: VolumeId, volumes: &[(VolumeId, Arc<Volume>)], seen: &Seen) -> Vec<PlacedVolume> {
        let others = volumes.iter().filter(|(id, _)| *id != but).map(|(id, volume)| {
            let nodes = match self.places.get(id) {
                Some(nodes) => nodes.iter().map(|node| node.0.to_string()).collect(),
                None => {
                    let record = seen.records.get(&ObjectRef::new(&format!("{:032x}", id.0)));
                    record.iter().flat_map(|record| &record.spec.members).map(|member| member.node.clone()).collect()
                }
            };
            PlacedVolume { labels: volume.spec.labels.clone(), nodes }
        });
        others.collect()
    }

    fn view(&mut self, node: &StorageNode, seen: &Seen, now: Instant) -> NodeView {
        let name = node.name_any();
        let status = node.status.clone().unwrap_or_default();
        let machine = seen.machines.get(&ObjectRef::new(&name));
        NodeView {
            silent_for: self.pulse.silent_for(&name, now),
            dead_after: self.times.dead_after,
            is_drained: node.spec.drain || node.meta().deletion_timestamp.is_some(),
            pools: status.pools,
            region: status.region,
            zone: status.zone,
            labels: machine.map(|machine| machine.labels().clone()).unwrap_or_default(),
            name: NodeId::from(name.as_str()),
        }
    }

    /// One step for one volume, and its status; gives its record after that.
    async fn follow(
        &self,
        id: VolumeId,
        volume: &Volume,
        strategy: std::result::Result<Strategy, String>,
        among: &Surroundings,
    ) -> Result<Option<Record>> {
        let has_finalizer = volume.finalizers().iter().any(|one| one == VOLUME_FINALIZER);
        if !has_finalizer {
            // Without it, nothing would hold the volume until its replicas are gone.
            return if placed::is_deleted(volume) { Ok(None) } else { self.hold(volume).await.map(|()| None) };
        }
        let found = self.records.get(id).await?;
        let record = found.as_ref().map(|found| &found.record);
        let certain = self.certain(volume, record).await?;
        let Some(volume) = &certain else { return Ok(None) };
        let source = self.source(volume, record).await?;
        let wanted = wanted(volume, record, strategy, source);
        let Plan { step, message } =
            plan(&wanted, record, among, self.times.rebuild_after, || ReplicaId(rand::random()));
        let now = match step {
            Step::Nothing => found.map(|found| found.record),
            step => self.apply(id, volume, found, step).await?,
        };
        if now.is_some() || !placed::is_deleted(volume) {
            self.tell(volume, now.as_ref(), message).await?;
        } else {
            match still_held(volume, &among.nodes) {
                None => self.release(volume).await?,
                held => self.tell(volume, None, held).await?,
            }
        }
        Ok(now)
    }

    /// The volume as it is decided on. What a snapshot is dropped for is read past all caches, after the record: who has an older view of the volume would drop one that was
    /// asked for since.
    async fn certain(&self, volume: &Volume, record: Option<&Record>) -> Result<Option<Volume>> {
        let wanted = snapshots(volume);
        if record.is_none_or(|record| record.snapshots.keys().all(|id| wanted.contains(id))) {
            return Ok(Some(volume.clone()));
        }
        let name = volume.name_any();
        let found =
            ask(self.times.request, || format!("read the Volume {name}"), self.volumes().get_opt(&name)).await?;
        Ok(found.filter(|found| placed::id(found) == placed::id(volume)))
    }

    /// What a volume begins as that has no replicas yet.
    async fn source(&self, volume: &Volume, record: Option<&Record>) -> Result<Option<Source>> {
        let Some(from) = volume.spec.source.as_ref().filter(|_| record.is_none()) else { return Ok(None) };
        let ids = records::form::volume(&from.volume).zip(placed::snapshot(&from.snapshot));
        let Some((of, id)) = ids else { return Ok(Some(Source::Absent)) };
        let found = self.records.get(of).await?;
        Ok(Some(Source::of(found.as_ref().map(|found| &found.record), id)))
    }

    /// The record after the step. One that somebody else has changed meanwhile is looked at again.
    async fn apply(
        &self,
        id: VolumeId,
        volume: &Volume,
        found: Option<Versioned>,
        step: Step,
    ) -> Result<Option<Record>> {
        let (version, before) = found.map(|found| (found.version, found.record)).unzip();
        let done = match (step, version) {
            (Step::Write(next), version) => self.records.swap(id, version, next.clone()).await.map(|_| Some(next)),
            (Step::Remove, Some(version)) => self.records.remove(id, version).await.map(|()| None),
            (Step::Remove | Step::Nothing, _) => return Ok(before),
        };
        match done {
            Ok(now) => {
                tracing::info!(volume = volume.name_any(), record = ?now, "the record of a volume was changed");
                Ok(now)
            }
            Err(SwapError::Conflict) => Ok(before),
            Err(error) => Err(error.into()),
        }
    }

    async fn tell(&self, volume: &Volume, record: Option<&Record>, message: Option<String>) -> Result<()> {
        let status = status::status(volume, record, message, Timestamp::now());
        if volume.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut patch = serde_json::to_value(&status).map_err(|e| Error::Odd(e.to_string()))?;
        // What is absent now has to go, and what nodes write is theirs.
        for field in ["message", "attachedNode", "inSync", "replicas"] {
            patch.as_object_mut().map(|patch| patch.entry(field).or_insert(serde_json::Value::Null));
        }
        patch.as_object_mut().map(|patch| patch.remove("holders"));
        let (api, name) = (self.volumes(), volume.name_any());
        let patch = Patch::Merge(json!({"status": patch}));
        let what = || format!("write the status of the Volume {name}");
        gone_is_fine(ask(self.times.request, what, api.patch_status(&name, &PatchParams::default(), &patch)).await)
    }

    /// Keeps a volume until its replicas are gone.
    async fn hold(&self, volume: &Volume) -> Result<()> {
        self.set_finalizers(volume, [volume.finalizers(), &[VOLUME_FINALIZER.to_owned()]].concat()).await
    }

    /// Lets a volume go of which no node has a replica any more.
    async fn release(&self, volume: &Volume) -> Result<()> {
        let others = volume.finalizers().iter().filter(|one| *one != VOLUME_FINALIZER).cloned().collect();
        self.set_finalizers(volume, others).await
    }

    async fn set_finalizers(&self, volume: &Volume, finalizers: Vec<String>) -> Result<()> {
        let (api, name) = (self.volumes(), volume.name_any());
        let version = volume.meta().resource_version.clone();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}}));
        let what = || format!("write the finalizers of the Volume {name}");
        match ask(self.times.request, what, api.patch(&name, &PatchParams::default(), &patch)).await {
            // Somebody else has written it; the next look sees what.
            Err(error) if code(&error) == Some(409) => Ok(()),
            patched => gone_is_fine(patched),
        }
    }

    fn volumes(&self) -> Api<Volume> {
        Api::all(self.client.clone())
    }
}

/// Why a deleted volume is still there: nodes have replicas of it. One that was given up cannot have any that matters.
fn still_held(volume: &Volume, nodes: &[NodeView]) -> Option<String> {
    let holders = volume.status.iter().flat_map(|status| status.holders.keys());
    let waiting: Vec<_> =
        holders.filter(|holder| nodes.iter().any(|node| *node.name.0 == *holder.as_str())).cloned().collect();
    (!waiting.is_empty()).then(|| {
        let waiting = waiting.join(", ");
        format!("its replicas on {waiting} are being removed; delete the StorageNode of one that never comes back")
    })
}

fn gone_is_fine<T>(done: Result<T>) -> Result<()> {
    match done {
        Err(error) if code(&error) == Some(404) => Ok(()),
        done => done.map(drop),
    }
}

/// The snapshots that there are to be.
fn snapshots(volume: &Volume) -> BTreeSet<SnapshotId> {
    volume.spec.snapshots.values().filter_map(|wanted| placed::snapshot(&wanted.id)).collect()
}

fn wanted(
    volume: &Volume,
    record: Option<&Record>,
    strategy: std::result::Result<Strategy, String>,
    source: Option<Source>,
) -> Wanted {
    let holders = volume.status.iter().flat_map(|status| &status.holders);
    let lost = holders.filter(|(_, held)| held.lost).map(|(_, held)| held.replica.as_str());
    let lost: BTreeSet<&str> = lost.collect();
    let members = record.iter().flat_map(|record| record.members.keys());
    Wanted {
        blocks: volume.spec.bytes.div_ceil(4096),
        replicas: usize::try_from(volume.spec.replicas).unwrap_or(usize::MAX),
        minimum: volume.spec.minimum_in_sync,
        preferred: volume.spec.preferred_node.as_deref().map(NodeId::from),
        strategy,
        labels: volume.spec.labels.clone(),
        is_deleted: placed::is_deleted(volume),
        holders: volume
            .status
            .iter()
            .flat_map(|status| status.holders.keys())
            .map(|node| NodeId::from(node.as_str()))
            .collect(),
        lost: members.filter(|id| lost.contains(replica_name(**id).as_str())).copied().collect(),
        snapshots: snapshots(volume),
        source,
    }
}
