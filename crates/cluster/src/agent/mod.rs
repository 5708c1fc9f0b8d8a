//! What a node does for its cluster all the time: it tells of itself, makes the replicas that records name for it, and removes those that they do not name.
//!
//! Each look is made on what watches have told, and acts only on what a read past all caches says, since a replica that is removed is gone. It can be
//! broken off anywhere: the next look goes on.
//!
//! # When a replica is made
//!
//! A record that names a replica for this node may mean one that never was, or one that was lost with its pool. The second must not be made again, since it
//! may count as one that holds everything. So the node notes in the volume's status that it makes the replica, before it does; and one that is noted and not
//! in its pools is told as lost there, upon which the controller puts another in its place.

mod observe;
mod registration;
mod replicas;

pub(crate) use self::replicas::replica_name;

use crate::address_book::AddressBook;
use crate::error::{Error, Result};
use crate::times::Times;
use crate::{heartbeat, placed};
use ::replicas::{Addresses, Network};
use api::{StorageNode, Volume, VolumeRecord};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use node::{AnyRecords, Node};
use replication::units::{ReplicaId, VolumeId};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The agent of one node.
pub struct Agent {
    pub(crate) client: Client,
    pub(crate) node: Arc<Node>,
    /// The name of the node in Kubernetes.
    pub(crate) me: String,
    pub(crate) records: AnyRecords,
    pub(crate) times: Times,
    book: Arc<AddressBook>,
    network: Network,
    address: SocketAddr,
    version: String,
    machine: api::StorageMachine,
    /// The nodes that the controller asks this one to look for.
    asked_for: watch::Sender<BTreeSet<String>>,
    /// Replicas of which something odd was told: once is enough.
    told: Mutex<BTreeSet<(VolumeId, ReplicaId)>>,
}

/// Who an agent is.
pub struct Config {
    /// How it comes to the API server.
    pub client: Client,
    /// What it acts on.
    pub node: Arc<Node>,
    /// The name of the node in Kubernetes.
    pub me: String,
    /// The records.
    pub records: AnyRecords,
    /// Waiting times.
    pub times: Times,
    /// Where it notes the addresses of others.
    pub book: Arc<AddressBook>,
    /// How it comes to others.
    pub network: Network,
    /// Where others come to this node's replicas.
    pub address: SocketAddr,
    /// The version of the program.
    pub version: String,
    /// What the machine has.
    pub machine: api::StorageMachine,
}

impl Agent {
    /// Of this node.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        let Config { client, node, me, records, times, book, network, address, version, machine } = config;
        let (asked_for, told) = (watch::Sender::default(), Mutex::default());
        Arc::new(Self { client, node, me, records, times, book, network, address, version, machine, asked_for, told })
    }

    /// Works until it is told to stop. What goes wrong is told in the log and tried again.
    pub fn run(self: Arc<Self>, stop: CancellationToken) -> BoxFuture<'static, ()> {
        // As objects: the compiler cannot tell of their types that they may go from thread to thread.
        let parts = [self.clone().beat().boxed(), self.clone().report().boxed(), self.follow().boxed()];
        async move {
            // Each is a task, so that one that is held up holds up none of the others: a node that does not say that it lives is taken for dead.
            let mut tasks: JoinSet<()> = parts.into_iter().collect();
            let ended = async {
                while let Some(ended) = tasks.join_next().await {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a part of the agent has ended, which is a defect");
                    }
                }
            };
            stop.run_until_cancelled(ended).await;
            tasks.shutdown().await;
        }
        .boxed()
    }

    /// Says that the node lives. By itself, so that nothing else is in its way.
    async fn beat(self: Arc<Self>) {
        let mut failing = Failing::default();
        let mut next = tokio::time::interval(self.times.heartbeat);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            failing.heed("tell that this node lives", heartbeat::beat(&self.client, &self.me, &self.times).await);
        }
    }

    /// Looks after each event, and from time to time.
    async fn follow(self: Arc<Self>) {
        let changed = Arc::new(Notify::new());
        let (nodes, node_events) = watched::<StorageNode>(Api::all(self.client.clone()), changed.clone());
        let (volumes, volume_events) = watched::<Volume>(Api::all(self.client.clone()), changed.clone());
        let (records, record_events) = watched::<VolumeRecord>(Api::all(self.client.clone()), changed.clone());
        let look = async {
            let ready = async {
                tokio::try_join!(nodes.wait_until_ready(), volumes.wait_until_ready(), records.wait_until_ready())
            };
            // The watches end with this future, and not before it.
            if ready.await.is_err() {
                return;
            }
            let (mut failing, mut returning) = (Failing::default(), JoinSet::new());
            loop {
                let others = nodes.state();
                self.book.learn(others.iter().map(|node| &**node));
                self.heed_questions(&others);
                let looked = self.look(&volumes.state(), &records.state()).await;
                failing.heed("look after the replicas of this node", looked);
                self.give_back(&records.state(), &mut returning);
                let _event = tokio::time::timeout(self.times.look, changed.notified()).await;
                tokio::time::sleep(self.times.settle).await;
            }
        };
        tokio::select! {
            () = look => {}
            () = node_events => {}
            () = volume_events => {}
            () = record_events => {}
        }
    }

    /// Gives volumes back that this node serves by their records, and does not serve.
    fn give_back(self: &Arc<Self>, records: &[Arc<VolumeRecord>], returning: &mut JoinSet<()>) {
        while returning.try_join_next().is_some() {}
        for record in records {
            let is_mine = record.spec.attached.as_ref().is_some_and(|by| by.node == self.me);
            let Some(volume) = record.meta().name.as_deref().and_then(records::form::volume).filter(|_| is_mine) else {
                continue;
            };
            if self.node.serves(volume) {
                continue;
            }
            let node = self.node.clone();
            returning.spawn(async move {
                if let Err(error) = node.give_back(volume).await {
                    tracing::warn!(volume = records::form::name(volume), error = error.story(), "not given back yet");
                }
            });
        }
    }

    /// Whether this was not told before.
    fn is_news(&self, volume: VolumeId, replica: ReplicaId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert((volume, replica))
    }

    fn volume_of<'a>(&self, volumes: &'a [Arc<Volume>], id: VolumeId) -> Option<&'a Arc<Volume>> {
        volumes.iter().find(|volume| placed::id(volume) == Some(id))
    }
}

impl Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Agent({} at {}, {} others known)",
            self.me,
            self.address,
            self.book.of(&self.me.as_str().into()).iter().len()
        )
    }
}

/// What is there of a kind, kept up to date by the future, which never ends.
pub fn watched<K>(api: Api<K>, changed: Arc<Notify>) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource + Clone + Debug + Send + Sync + serde::de::DeserializeOwned + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let events = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    let mut is_told = false;
    let follow = events.for_each(move |event| {
        match event {
            Ok(_) => {
                is_told = false;
                changed.notify_one();
            }
            Err(error) if std::mem::replace(&mut is_told, true) => tracing::debug!(%error, "a watch was interrupted"),
            Err(error) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                tracing::warn!(kind, %error, "a watch was interrupted; it is begun again");
            }
        }
        std::future::ready(())
    });
    (store, follow)
}

/// Tells when something begins to fail, and when it does not any more.
#[derive(Debug, Default)]
pub(crate) struct Failing(bool);

impl Failing {
    pub(crate) fn heed(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) if std::mem::take(&mut self.0) => tracing::info!(what, "it is done again"),
            Ok(()) => {}
            Err(error) if !std::mem::replace(&mut self.0, true) => {
                tracing::warn!(what, error = story(&error), "not done; it is tried again");
            }
            Err(error) => tracing::debug!(what, error = story(&error), "not done; it is tried again"),
        }
    }
}

fn story(error: &Error) -> String {
    error.to_string()
}
