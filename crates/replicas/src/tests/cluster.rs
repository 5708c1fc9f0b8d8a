//! Nodes with pools, a network between them, and records.

use super::proxy::{Mode, Proxy};
use crate::testing::Place;
use crate::{
    Addresses, Attachment, Network, Options, PoolStore, Replica, Replicas, Security, Server, incarnation, session,
};
use block::{Buffer, Device, Done};
use replication::limits::Limits;
use replication::record::memory::{MemoryRecords, MemoryWatch};
use replication::record::store::{RecordStore, StoreError, SwapError, Version, Versioned};
use replication::record::{Record, Standing};
use replication::units::{Blocks, NodeId, ReplicaId, Span, VolumeId};
use replication::wire::{BLOCK, ClusterId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use volume::Pool;

pub(super) const VOLUME: VolumeId = VolumeId(0xC0FFEE);
pub(super) const CLUSTER: ClusterId = ClusterId(0x51);
/// How long anything may take that must happen; the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waiting times that fit tests: a member that is silent leaves after half a second.
pub(super) fn limits() -> Limits {
    Limits {
        lease: Span::from_millis(1000),
        clock_bound: Span::from_millis(100),
        member_deadline: Span::from_millis(500),
        retry: Span::from_millis(100),
        record_retry: Span::from_millis(50),
        record_deadline: Span::from_millis(500),
        join_pause: Span::from_millis(100),
        ..Limits::default()
    }
}

/// Records that can be away.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) kept: MemoryRecords,
    is_away: Arc<AtomicBool>,
}

impl Records {
    pub(super) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Release);
    }

    fn check(&self) -> Result<(), StoreError> {
        let is_away = self.is_away.load(Ordering::Acquire);
        if is_away { Err(StoreError { reason: "it is away".into() }) } else { Ok(()) }
    }

    pub(super) fn record(&self) -> Record {
        self.kept.look(VOLUME).unwrap().record
    }

    pub(super) fn in_sync(&self) -> usize {
        self.record().in_sync().count()
    }

    pub(super) fn change(&self, change: impl Fn(&Record) -> Record) {
        loop {
            let Versioned { version, record } = self.kept.look(VOLUME).unwrap();
            if self.kept.put(VOLUME, Some(&version), change(&record)).is_ok() {
                return;
            }
        }
    }
}

impl RecordStore for Records {
    type Watch = MemoryWatch;

    async fn get(&self, volume: VolumeId) -> Result<Option<Versioned>, StoreError> {
        self.check()?;
        self.kept.get(volume).await
    }

    async fn swap(&self, volume: VolumeId, expected: Option<Version>, record: Record) -> Result<Version, SwapError> {
        self.check().map_err(|error| SwapError::Unknown { reason: error.reason })?;
        self.kept.swap(volume, expected, record).await
    }

    async fn remove(&self, volume: VolumeId, expected: Version) -> Result<(), SwapError> {
        self.kept.remove(volume, expected).await
    }

    async fn watch(&self, volume: VolumeId) -> Result<MemoryWatch, StoreError> {
        self.kept.watch(volume).await
    }
}

/// A node's process.
pub(super) struct Process {
    pub(super) replicas: Arc<Replicas>,
    pub(super) pool: Arc<Pool<Buffer>>,
    _stop: DropGuard,
}

pub(super) struct Node {
    pub(super) name: NodeId,
    pub(super) replica: ReplicaId,
    pub(super) place: Place,
    pub(super) process: Option<Process>,
}

/// The ways between nodes: one from each to each other.
#[derive(Default)]
pub(super) struct Ways(Mutex<BTreeMap<(NodeId, NodeId), Arc<Proxy>>>);

/// The ways as one node sees them.
struct From {
    ways: Arc<Ways>,
    node: NodeId,
}

impl Addresses for From {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        let ways = self.ways.0.lock().unwrap();
        ways.get(&(self.node.clone(), node.clone())).map(|proxy| proxy.address)
    }
}

/// Nodes of which each has one replica of one volume.
pub(super) struct Cluster {
    pub(super) records: Records,
    pub(super) nodes: Vec<Node>,
    pub(super) ways: Arc<Ways>,
    pub(super) blocks: u64,
    pub(super) security: Vec<Security>,
}

pub(super) fn node_name(index: usize) -> NodeId {
    format!("node-{index}").as_str().into()
}

impl Cluster {
    /// With as many replicas as nodes, of so many blocks.
    pub(super) async fn new(nodes: usize, minimum: u32, blocks: u64) -> Self {
        Self::with(vec![Security::ClearOnLoopback; nodes], minimum, blocks).await
    }

    pub(super) async fn with(security: Vec<Security>, minimum: u32, blocks: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let count = security.len();
        let records = Records::default();
        let members = (0..count).map(|i| (ReplicaId(10 + i as u64), node_name(i)));
        records.kept.put(VOLUME, None, Record::new(members, minimum, blocks).unwrap()).unwrap();
        let node = |i: usize| Node {
            name: node_name(i),
            replica: ReplicaId(10 + i as u64),
            place: Place::new(&folder, 3 * blocks + 8192),
            process: None,
        };
        let nodes = (0..count).map(node).collect();
        let mut cluster = Self { records, nodes, ways: Arc::default(), blocks, security };
        for i in 0..count {
            cluster.start(i).await;
        }
        cluster
    }

    /// Starts the process of a node.
    pub(super) async fn start(&mut self, index: usize) {
        let (blocks, security) = (self.blocks, self.security[index].clone());
        let node = &mut self.nodes[index];
        let pool = node.place.open();
        let store = PoolStore::create(&pool, VOLUME, node.replica, blocks).unwrap();
        let replicas = Arc::<Replicas>::default();
        replicas.add(Replica::new(VOLUME, node.replica, Arc::new(store), session(), incarnation().unwrap()));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(address, CLUSTER, replicas.clone(), security, crate::Limits::default());
        let server = server.await.unwrap();
        let address = server.address();
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(stop.clone()));
        node.process = Some(Process { replicas, pool, _stop: stop.drop_guard() });
        let to = node.name.clone();
        for from in self.nodes.iter().map(|node| node.name.clone()).filter(|from| *from != to) {
            let known = self.ways.0.lock().unwrap().get(&(from.clone(), to.clone())).cloned();
            match known {
                Some(proxy) => proxy.lead_to(address),
                None => {
                    let proxy = Arc::new(Proxy::start(address).await);
                    self.ways.0.lock().unwrap().insert((from, to.clone()), proxy);
                }
            }
        }
    }

    /// Ends it at once, whatever is under way.
    pub(super) fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.place.kill();
        node.process = None;
    }

    pub(super) fn way(&self, from: usize, to: usize) -> Arc<Proxy> {
        let ways = self.ways.0.lock().unwrap();
        ways[&(node_name(from), node_name(to))].clone()
    }

    /// Sets the ways from a node to all others.
    pub(super) fn set_ways_from(&self, from: usize, mode: Mode) {
        (0..self.nodes.len()).filter(|to| *to != from).for_each(|to| self.way(from, to).set(mode));
    }

    pub(super) fn network(&self, index: usize) -> Network {
        let node = node_name(index);
        Network {
            cluster: CLUSTER,
            node: node.clone(),
            security: self.security[index].clone(),
            addresses: Arc::new(From { ways: self.ways.clone(), node }),
            limits: crate::Limits {
                backoff: (Duration::from_millis(10), Duration::from_millis(100)),
                ..<_>::default()
            },
        }
    }

    pub(super) async fn attach_with(&self, index: usize, change: impl FnOnce(&mut Options)) -> Attachment {
        let mut options = Options { limits: limits(), ..Options::new(VOLUME) };
        change(&mut options);
        let replicas = self.nodes[index].process.as_ref().map(|process| process.replicas.clone()).unwrap_or_default();
        Attachment::start(Arc::new(self.records.clone()), replicas, self.network(index), options).await.unwrap()
    }

    pub(super) async fn attach(&self, index: usize) -> Attachment {
        self.attach_with(index, |_| {}).await
    }

    /// Waits until all replicas are in sync.
    pub(super) async fn all_in_sync(&self) {
        let all = self.nodes.len();
        until("all replicas are in sync", || self.records.in_sync() == all).await;
    }

    /// What the volume of a replica has, read from its pool.
    pub(super) fn contents(&self, index: usize) -> Vec<u8> {
        let node = &self.nodes[index];
        let process = node.process.as_ref().unwrap();
        let store = PoolStore::open(&process.pool, VOLUME, node.replica).unwrap();
        let state = volume::State::Volume(store.volume());
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut all = Vec::new();
        for start in (0..self.blocks).step_by(1024) {
            let count = usize::try_from((self.blocks - start).min(1024)).unwrap();
            let sender = sender.clone();
            let into = Buffer::zeroed(count * BLOCK);
            process.pool.read(state, start, into, move |result| sender.send(result).unwrap());
            all.extend_from_slice(&receiver.recv().unwrap().unwrap());
        }
        all
    }

    /// All replicas that are in sync have the same.
    pub(super) fn assert_equal(&self) {
        let record = self.records.record();
        let is_in_sync = |i: &usize| record.members[&self.nodes[*i].replica].standing == Standing::InSync;
        let all: Vec<usize> = (0..self.nodes.len()).filter(is_in_sync).collect();
        let first = self.contents(all[0]);
        for other in &all[1..] {
            let found = self.contents(*other);
            let differs = first.chunks(BLOCK).zip(found.chunks(BLOCK)).position(|(a, b)| a != b);
            assert_eq!(differs, None, "blocks of node {} and node {other} differ", all[0]);
        }
    }
}

/// Waits for a condition, which something else brings about.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn asked<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> oneshot::Receiver<Result<T, block::Failure>> {
    let (sender, receiver) = oneshot::channel();
    ask(Done::new(move |result| drop(sender.send(result))));
    receiver
}

pub(super) async fn write(device: &dyn Device, block: u64, bytes: &[u8]) -> Result<(), block::Failure> {
    let answer = asked(|done| device.write(block * BLOCK as u64, Buffer::copy_of(bytes), false, done));
    tokio::time::timeout(PATIENCE, answer).await.expect("a write is answered").unwrap()
}

pub(super) async fn read(device: &dyn Device, blocks: Blocks) -> Result<Vec<u8>, block::Failure> {
    let len = usize::try_from(blocks.count).unwrap() * BLOCK;
    let answer = asked(|done| device.read(blocks.start * BLOCK as u64, Buffer::zeroed(len), done));
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("a read is answered").unwrap();
    answer.map(|buffer| buffer.to_vec())
}

pub(super) async fn flush(device: &dyn Device) -> Result<(), block::Failure> {
    let answer = asked(|done| device.flush(done));
    tokio::time::timeout(PATIENCE, answer).await.expect("a flush is answered").unwrap()
}
