//! What a node is among others: it holds replicas, serves them to its peers, and serves volumes that have replicas on several nodes.
//!
//! ```text
//! a block device ─► counted, limited, encrypted ─► Attachment ─┬─► a replica in a pool of this node   ◄─ Holder
//!                                                              └─► Server of another node ─► a replica there
//! ```
//! Each volume that is served here, or is about to be, has a *slot*; whoever changes something of it holds the slot's lock, and who comes meanwhile is told to
//! ask again. What happens when the process ends anywhere:
//!
//! | what was done | what the next process does |
//! |---|---|
//! | the record says that this node serves the volume | as nobody has its device, the volume is given back: [`Node::give_back`] |
//! | the journal has the volume, and its device was made | it is served again, by an attachment that follows the one that has ended; who uses it has waited |
//! | the device is gone, and the journal's entry | as in the first line |
//!
//! One process serves the volumes of a node at a time, since it holds the pools. So whatever else the records call an attachment of this node has ended.

mod attach;
mod attend;
mod holder;
mod look;
mod lost;
mod records;
#[cfg(test)]
mod tests;

pub use records::AnyRecords;

use crate::attachments::{Attachments, Entry};
use crate::crypt::WrappedKey;
use crate::error::{Error, Kind, Result};
use crate::node::Node;
use crate::qos::Limits;
use crate::store::Store;
use attach::Running;
use holder::Holder;
use replicas::{HeldSnapshot, Network, Server, Status};
use replication::units::{Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Mutex as SlotMutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volume::BLOCK;

/// What is needed to be one of several nodes.
#[derive(Debug)]
pub struct Replication {
    /// Who this node is, and how it comes to the others.
    pub network: Network,
    /// Where it serves its replicas to them; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Who may serve which volume.
    pub records: AnyRecords,
    /// Waiting times of the protocol: the same on all nodes.
    pub limits: replication::limits::Limits,
}

/// A replicated volume to be served.
#[derive(Debug, Clone)]
pub struct ReplicatedVolume {
    /// What people call it.
    pub name: String,
    /// Its id, by which its record is found.
    pub id: VolumeId,
    /// How much may be asked of it here.
    pub limits: Limits,
    /// The key that its bytes are encrypted with.
    pub key: Option<WrappedKey>,
}

/// A snapshot of a replicated volume, in a replica of this node.
#[derive(Debug, Clone)]
pub struct SnapshotHere {
    /// Of which volume.
    pub volume: VolumeId,
    /// In which replica.
    pub replica: ReplicaId,
    /// Which one, of which epoch.
    pub held: HeldSnapshot,
}

/// How much room a pool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What the pool is called.
    pub pool: String,
    /// All of it.
    pub bytes: u64,
    /// What is not used.
    pub free: u64,
    /// It takes no more changes.
    pub has_failed: bool,
}

pub(crate) struct Replicated {
    inner: Arc<Inner>,
    address: SocketAddr,
}

/// What tasks of this node share.
struct Inner {
    runtime: Handle,
    network: Network,
    records: Arc<AnyRecords>,
    limits: replication::limits::Limits,
    holder: Holder,
    attachments: Arc<Attachments>,
    slots: Mutex<BTreeMap<VolumeId, Slot>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    bringing: Bringing,
}

/// What brings back what an earlier process has served.
#[derive(Default)]
struct Bringing {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A volume that is served here, or is about to be.
#[derive(Clone)]
struct Slot {
    name: String,
    /// Held by whoever changes something. Nothing is running while the volume is claimed, and when it was lost to another node.
    running: Arc<SlotMutex<Option<Running>>>,
}

impl Replicated {
    /// Offers what is in the pools to other nodes. Must be called within a runtime, and where waiting is allowed.
    pub(crate) fn start(config: Replication, stores: Vec<Arc<Store>>, attachments: Arc<Attachments>) -> Result<Self> {
        let runtime = Handle::current();
        let Replication { network, listen, records, limits } = config;
        let holder = Holder::open(stores)?;
        let (offered, security) = (holder.offered.clone(), network.security.clone());
        let bound = runtime.block_on(Server::bind(listen, network.cluster, offered, security, network.limits));
        let server = bound.map_err(|e| Error::new(Kind::Failed, "serve replicas to other nodes").because(e))?;
        let address = server.address();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn_on(server.serve(stop.clone()), &runtime);
        tracing::info!(%address, node = %network.node, replicas = holder.all().len(), "replicas are served");
        let (records, slots) = (Arc::new(records), Mutex::default());
        let bringing = Bringing::default();
        let inner = Inner { runtime, network, records, limits, holder, attachments, slots, stop, tasks, bringing };
        Ok(Self { inner: Arc::new(inner), address })
    }

    /// Serves again what an earlier process has served: when its record can be read, and its replicas be reached.
    pub(crate) fn resume(&self, entry: Entry) {
        attach::resume(&self.inner, entry);
    }

    /// Brings nothing back any more. Before devices are handed over: one that would be shown later would be shown by a process that ends.
    pub(crate) fn settle(&self) {
        self.inner.bringing.stop.cancel();
        self.inner.bringing.tasks.close();
        self.inner.runtime.block_on(self.inner.bringing.tasks.wait());
    }

    /// Ends. What was not handed over is left as it is until the process ends: what would be answered now would be answered with errors.
    pub(crate) fn stop(self, is_handed_over: bool) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.runtime.block_on(self.inner.tasks.wait());
        if is_handed_over {
            self.inner.slots().clear();
        } else {
            std::mem::forget(self.inner.clone());
        }
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a volume, made if there is none.
    fn slot(&self, volume: VolumeId, name: &str) -> Slot {
        let slot = || Slot { name: name.to_owned(), running: Arc::default() };
        self.slots().entry(volume).or_insert_with(slot).clone()
    }

    fn named(&self, name: &str) -> Option<(VolumeId, Slot)> {
        let slots = self.slots();
        slots.iter().find(|(_, slot)| slot.name == name).map(|(volume, slot)| (*volume, slot.clone()))
    }
}

/// What whoever knows the records and the volumes asks of a node.
impl Node {
    fn replicated(&self) -> Result<&Replicated> {
        let what =
            "the node is no part of a cluster, so it has no replicated volumes; start `orlop node` with --cluster";
        self.replicated.as_ref().ok_or_else(|| Error::new(Kind::Precondition, what))
    }

    /// Where its replicas are served; nothing if it holds none for others.
    #[must_use]
    pub fn replicas_address(&self) -> Option<SocketAddr> {
        self.replicated.as_ref().map(|replicated| replicated.address)
    }

    /// How much room its pools have.
    #[must_use]
    pub fn room(&self) -> Vec<Room> {
        let room = |store: &Arc<Store>| {
            let (usage, has_failed) = (store.pool.usage(), store.told.has_failed.load(Ordering::Relaxed));
            let bytes = |blocks: u64| blocks * BLOCK as u64;
            Room { pool: store.name.clone(), bytes: bytes(usage.blocks), free: bytes(usage.free), has_failed }
        };
        self.stores.iter().map(room).collect()
    }

    /// The replicas in its pools, also those that cannot be used.
    #[must_use]
    pub fn held(&self) -> BTreeSet<(VolumeId, ReplicaId)> {
        self.replicated.as_ref().map(|replicated| replicated.inner.holder.all()).unwrap_or_default()
    }

    /// The replicas in its pools that can be used.
    #[must_use]
    pub fn usable(&self) -> BTreeSet<(VolumeId, ReplicaId)> {
        self.replicated.as_ref().map(|replicated| replicated.inner.holder.usable()).unwrap_or_default()
    }

    /// The epoch that a replica has sealed; nothing if it is not here, or cannot be used.
    #[must_use]
    pub fn sealed_epoch(&self, volume: VolumeId, replica: ReplicaId) -> Option<Epoch> {
        self.replicated.as_ref()?.inner.holder.sealed_epoch(volume, replica)
    }

    /// Makes an empty replica, and offers it. Only for one that never was: whoever asks must have noted before that he does, so that a replica that is lost with
    /// its pool is not made again.
    ///
    /// # Errors
    /// There is no room, or the node is no part of a cluster.
    pub fn make_replica(&self, volume: VolumeId, replica: ReplicaId, blocks: u64) -> Result<()> {
        self.replicated()?.inner.holder.make(volume, replica, blocks)
    }

    /// Makes a replica that begins as a snapshot, and offers it. Only for one that never was, like [`Node::make_replica`].
    ///
    /// # Errors
    /// The snapshot is not here, or there is no room.
    pub fn make_replica_from(&self, volume: VolumeId, replica: ReplicaId, from: &SnapshotHere) -> Result<()> {
        self.replicated()?.inner.holder.make_from(volume, replica, from)
    }

    /// Removes a replica for good. Only when the record of its volume, as it is now, does not have it, or the volume was deleted.
    ///
    /// # Errors
    /// The pool refuses.
    pub fn remove_replica(&self, volume: VolumeId, replica: ReplicaId) -> Result<()> {
        self.replicated()?.inner.holder.remove(volume, replica)
    }

    /// The snapshots that replicas of this node have: of which volume and replica, which one, and of which epoch.
    #[must_use]
    pub fn held_snapshots(&self) -> Vec<(VolumeId, ReplicaId, HeldSnapshot)> {
        self.replicated.as_ref().map(|replicated| replicated.inner.holder.snapshots()).unwrap_or_default()
    }

    /// Removes a snapshot of a replica. Only what [`replication::record::Record::is_garbage`] names, of a record that was read after it was found here.
    ///
    /// # Errors
    /// The pool refuses.
    pub fn remove_held_snapshot(&self, volume: VolumeId, replica: ReplicaId, held: HeldSnapshot) -> Result<()> {
        self.replicated()?.inner.holder.remove_snapshot(volume, replica, held)
    }

    /// Serves a volume that nobody serves for as long as its record wants something of its replicas, and gives it back.
    ///
    /// # Errors
    /// Somebody serves it, or is about to; or its record cannot be read.
    pub async fn attend(&self, volume: VolumeId, name: &str) -> Result<()> {
        self.replicated()?.inner.attend(volume, name).await
    }

    /// Tells the kernel that a replicated volume that is served here has grown to so many bytes at least. What is not served is a success.
    ///
    /// # Errors
    /// The kernel refuses; or it is not known here yet that it has grown, or the volume is being attached or detached just now: then it may be asked for again.
    pub fn grown_replicated(&self, name: &str, bytes: u64) -> Result<()> {
        self.replicated()?.inner.grown(name, bytes)
    }

    /// Serves a replicated volume as a block device; its path. It returns when the volume is served: when all replicas that count have agreed. One that
    /// another node serves is refused, unless it is to be taken over from just that one; then it waits until its leases have ended. An encrypted volume needs its
    /// secret.
    ///
    /// # Errors
    /// It is served elsewhere, or cannot be served yet; then it may be asked for again.
    pub fn attach_replicated(
        &self,
        wanted: &ReplicatedVolume,
        take_over: Option<&NodeId>,
        secret: &[u8],
    ) -> Result<PathBuf> {
        let key = attach::unwrap_key(wanted, secret)?;
        let place = self.replicated()?.inner.attach(wanted, take_over, key)?;
        Ok(place.place.into())
    }

    /// Ends that: everything is flushed, and the record says that nobody serves it. What is not attached is a success.
    ///
    /// # Errors
    /// Somebody uses the device; or replicas that are needed for it cannot be reached, and it goes on when they can.
    pub fn detach_replicated(&self, name: &str) -> Result<()> {
        self.replicated()?.inner.detach(name)
    }

    /// Gives a volume back of which the record says that this node serves it, when it does not: an earlier process has, or had begun to. Its replicas are made
    /// equal, and the record says that nobody serves it.
    ///
    /// # Errors
    /// The record cannot be read, or replicas not be reached; it may be asked for again.
    pub async fn give_back(&self, volume: VolumeId) -> Result<()> {
        self.replicated()?.inner.give_back(volume).await
    }

    /// Whether a replicated volume is served here, or is about to be.
    #[must_use]
    pub fn serves(&self, volume: VolumeId) -> bool {
        self.replicated.as_ref().is_some_and(|replicated| replicated.inner.slots().contains_key(&volume))
    }

    /// How the serving of a volume is; nothing if it is not served, or somebody changes something of it just now.
    #[must_use]
    pub fn serving_status(&self, volume: VolumeId) -> Option<Status> {
        let slot = self.replicated.as_ref()?.inner.slots().get(&volume).cloned()?;
        let running = slot.running.try_lock().ok()?;
        running.as_ref().map(Running::status)
    }

    /// The path of the block device of a replicated volume.
    #[must_use]
    pub fn replicated_device(&self, name: &str) -> Option<PathBuf> {
        self.replicated.as_ref()?.inner.named(name)?;
        self.place(name).map(|place| place.place.into())
    }

    /// Changes how much may be asked of a replicated volume that is served here.
    pub fn limit_replicated(&self, name: &str, limits: Limits) {
        if let Some(attachments) = &self.attachments {
            attachments.limit(name, limits);
        }
    }

    /// Whether nothing was ever written to a replicated volume that is served here, or all of it was discarded.
    ///
    /// # Errors
    /// It is not served here, or cannot be read.
    pub fn is_blank(&self, name: &str) -> Result<bool> {
        self.replicated()?.inner.is_blank(name)
    }
}
