//! What watches have told of pods' volumes and of nodes.

use crate::decide::{NodeFacts, Storage, VolumeFacts, Wanted};
use crate::protocol::Asked;
use api::{RecordStanding, StorageNode, Volume, VolumeRecord};
use cluster::heartbeat::{self, Pulse};
use cluster::{Times, volume_id, watched};
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use placement::Domains;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The driver whose volumes have replicas.
const DRIVER: &str = "volumes.orlop.io";
/// How often it is looked which nodes have said that they live.
const LOOK: Duration = Duration::from_millis(500);

/// All kinds that are watched.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Claims, by which pods name their volumes.
    pub claims: Store<PersistentVolumeClaim>,
    /// What claims are bound to.
    pub persistent: Store<PersistentVolume>,
    /// What claims that are not bound yet will be.
    pub classes: Store<StorageClass>,
    /// The machines, for their labels.
    pub machines: Store<Node>,
    /// Their storage.
    pub nodes: Store<StorageNode>,
    /// That they live.
    pub leases: Store<Lease>,
    /// Volumes with replicas.
    pub volumes: Store<Volume>,
    /// Where these are.
    pub records: Store<VolumeRecord>,
}

/// Answers out of what watches have told.
#[derive(Debug)]
pub struct Cache {
    stores: Stores,
    pulse: Mutex<Pulse>,
    dead_after: Duration,
}

impl Cache {
    /// Out of stores that somebody else fills.
    #[must_use]
    pub fn new(stores: Stores, dead_after: Duration) -> Self {
        Self { stores, pulse: Mutex::default(), dead_after }
    }

    /// Filled by watches, which work as long as what is returned beside is polled.
    #[must_use]
    pub fn watching(client: &Client, times: &Times) -> (Arc<Self>, BoxFuture<'static, ()>) {
        let none = Arc::<Notify>::default();
        let (claims, a) = watched::<PersistentVolumeClaim>(Api::all(client.clone()), none.clone());
        let (persistent, b) = watched::<PersistentVolume>(Api::all(client.clone()), none.clone());
        let (classes, c) = watched::<StorageClass>(Api::all(client.clone()), none.clone());
        let (machines, d) = watched::<Node>(Api::all(client.clone()), none.clone());
        let (nodes, e) = watched::<StorageNode>(Api::all(client.clone()), none.clone());
        let (leases, f) = watched::<Lease>(heartbeat::leases(client), none.clone());
        let (volumes, g) = watched::<Volume>(Api::all(client.clone()), none.clone());
        let (records, h) = watched::<VolumeRecord>(Api::all(client.clone()), none);
        let stores = Stores { claims, persistent, classes, machines, nodes, leases, volumes, records };
        let cache = Arc::new(Self::new(stores, times.dead_after));
        let looking = cache.clone();
        let look = async move {
            loop {
                looking.look(Instant::now());
                tokio::time::sleep(LOOK).await;
            }
        };
        let watches = async move {
            let _never = tokio::join!(a, b, c, d, e, f, g, h, look);
        };
        (cache, Box::pin(watches))
    }

    /// Waits until everything has been listed once.
    pub async fn ready(&self) {
        let Stores { claims, persistent, classes, machines, nodes, leases, volumes, records } = &self.stores;
        let (a, b, c, d) = (
            claims.wait_until_ready(),
            persistent.wait_until_ready(),
            classes.wait_until_ready(),
            machines.wait_until_ready(),
        );
        let (e, f, g, h) = (
            nodes.wait_until_ready(),
            leases.wait_until_ready(),
            volumes.wait_until_ready(),
            records.wait_until_ready(),
        );
        // A writer that is gone will tell nothing more: then it is never ready.
        if tokio::try_join!(a, b, c, d, e, f, g, h).is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Looks which nodes have said that they live.
    pub fn look(&self, now: Instant) {
        self.pulse().look(&self.stores.leases.state(), now);
    }

    fn pulse(&self) -> std::sync::MutexGuard<'_, Pulse> {
        // Nothing panics while it is held.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not one node has said that it lives, or there is none. Rather than that all have died at once, nothing comes from the API server; or somebody has taken their
    /// `StorageNode` away.
    pub(crate) fn is_blind(&self, now: Instant) -> bool {
        let nodes = self.stores.nodes.state();
        let mut pulse = self.pulse();
        nodes.iter().all(|node| pulse.silent_for(&node.name_any(), now) >= self.dead_after)
    }

    /// What is known of a node.
    pub(crate) fn node(&self, name: &str, now: Instant) -> NodeFacts {
        let machine = self.stores.machines.get(&ObjectRef::new(name));
        let domains = machine.map(|machine| Domains::of(machine.labels())).unwrap_or_default();
        NodeFacts { domains, storage: self.storage(name, now) }
    }

    fn storage(&self, name: &str, now: Instant) -> Storage {
        let Some(node) = self.stores.nodes.get(&ObjectRef::new(name)) else {
            return Storage::Away("no daemon of Orlop's volumes has ever run there".into());
        };
        let silent = self.pulse().silent_for(name, now);
        if silent >= self.dead_after {
            let silent = silent.as_secs();
            return Storage::Away(format!("its daemon of Orlop's volumes has not said for {silent} s that it lives"));
        }
        let pools = node.status.iter().flat_map(|status| &status.pools);
        let mut working = pools.filter(|pool| !pool.failed).map(|pool| pool.free_bytes).peekable();
        if working.peek().is_some() { Storage::Working { free: working.sum() } } else { Storage::Down }
    }

    /// What a pod needs.
    pub(crate) fn wanted(&self, pod: &Asked) -> Wanted {
        let mut wanted = Wanted { only_local: pod.only_local, ..Wanted::default() };
        for name in &pod.claims {
            let Some(claim) = self.stores.claims.get(&ObjectRef::new(name).within(&pod.namespace)) else { continue };
            wanted.volumes.extend(self.volume(name.clone(), &claim));
        }
        wanted
    }

    /// The volume of a claim, if it is one with replicas.
    fn volume(&self, claim: String, object: &PersistentVolumeClaim) -> Option<VolumeFacts> {
        let spec = object.spec.as_ref()?;
        let Some(bound) = spec.volume_name.as_ref().filter(|name| !name.is_empty()) else {
            let class = self.stores.classes.get(&ObjectRef::new(spec.storage_class_name.as_deref()?))?;
            let copies = class.parameters.as_ref().and_then(|parameters| parameters.get("repl"));
            let has_replicas = class.provisioner == DRIVER && copies.is_some_and(|copies| copies != "1");
            return has_replicas.then_some(VolumeFacts { claim, replicas: None });
        };
        let persistent = self.stores.persistent.get(&ObjectRef::new(bound))?;
        let source = persistent.spec.as_ref()?.csi.as_ref().filter(|source| source.driver == DRIVER)?;
        // One that is not there has one copy, on the node that its PersistentVolume names.
        let volume = self.stores.volumes.get(&ObjectRef::new(&source.volume_handle))?;
        let record = self.stores.records.get(&ObjectRef::new(&format!("{:032x}", volume_id(&volume)?.0)));
        let replicas = record.map(|record| {
            let in_sync = record.spec.members.iter().filter(|member| member.standing == RecordStanding::InSync);
            in_sync.map(|member| member.node.clone()).collect()
        });
        Some(VolumeFacts { claim, replicas })
    }
}
