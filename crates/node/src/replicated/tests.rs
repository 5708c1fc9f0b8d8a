//! Several nodes on one machine, with block devices; the records are in memory.

use super::{AnyRecords, ReplicatedVolume, Replication, SnapshotHere};
use crate::error::Kind;
use crate::node::{Config, Node, Serving};
use crate::pool_spec::PoolSpec;
use crate::qos::Limits;
use crate::runtime::RuntimeDir;
use fuse::{Keeper, KeeperServer};
use replicas::{Addresses, LookError, Network, Security};
use replication::look::{Look, Unseen};
use replication::record::memory::MemoryRecords;
use replication::record::store::Versioned;
use replication::record::{Attached, Record};
use replication::units::{AttachmentId, Blocks, HeldSnapshot, NodeId, ReplicaId, SnapshotId, Span, VolumeId};
use replication::wire::ClusterId;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use volume::Access;

const VOLUME: VolumeId = VolumeId(0xC0FFEE);
const BLOCKS: u64 = 1024;
/// How long anything may take that must happen; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Book(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Addresses for Book {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(node).copied()
    }
}

/// What outlives the processes of a node: its disk, and what is in memory while the machine runs.
struct Machine {
    name: NodeId,
    disk: TempDir,
    memory: TempDir,
    node: Option<Node>,
}

struct World {
    runtime: Runtime,
    records: MemoryRecords,
    book: Arc<Book>,
    machines: Vec<Machine>,
}

fn limits() -> replication::limits::Limits {
    replication::limits::Limits {
        lease: Span::from_millis(1000),
        clock_bound: Span::from_millis(100),
        // Replicas of a busy machine are late, and are not to leave for that.
        member_deadline: Span::from_millis(5000),
        retry: Span::from_millis(100),
        record_retry: Span::from_millis(50),
        record_deadline: Span::from_millis(500),
        join_pause: Span::from_millis(100),
        ..replication::limits::Limits::default()
    }
}

fn replica(machine: usize) -> ReplicaId {
    ReplicaId(machine as u64 + 1)
}

fn volume() -> ReplicatedVolume {
    ReplicatedVolume { name: "data".into(), id: VOLUME, limits: Limits::default(), key: None }
}

impl World {
    /// With so many nodes, and a volume that has a replica on each of the first of them.
    fn new(nodes: usize, replicas: usize) -> Self {
        let mut world = Self {
            runtime: Runtime::new().unwrap(),
            records: MemoryRecords::default(),
            book: Arc::default(),
            machines: Vec::new(),
        };
        for i in 0..nodes {
            let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
            world.machines.push(Machine { name: format!("node-{i}").as_str().into(), disk, memory, node: None });
            world.start(i, None);
        }
        let members = (0..replicas).map(|i| (replica(i), world.machines[i].name.clone()));
        world.records.put(VOLUME, None, Record::new(members, 1, BLOCKS).unwrap()).unwrap();
        for i in 0..replicas {
            world.node(i).make_replica(VOLUME, replica(i), BLOCKS).unwrap();
        }
        world
    }

    /// Starts a process of a node.
    fn start(&mut self, i: usize, keeper: Option<Keeper>) {
        let _entered = self.runtime.enter();
        let machine = &mut self.machines[i];
        let network = Network {
            cluster: ClusterId(0x51),
            node: machine.name.clone(),
            security: Security::ClearOnLoopback,
            addresses: self.book.clone(),
            limits: replicas::Limits::default(),
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let records = AnyRecords::new(self.records.clone());
        let replication = Some(Replication { network, listen, records, limits: limits() });
        let pools = vec![PoolSpec { path: machine.disk.path().join("pool"), bytes: Some(64 << 20) }];
        let runtime = RuntimeDir::claim(&machine.memory.path().join("run")).unwrap();
        let serving = Some(Serving { runtime, keeper, nbd_tls: None });
        let config = Config { pools, cache_bytes: 1 << 20, access: Access::Best, scrub: None, serving, replication };
        let node = Node::start(config).unwrap();
        self.book.0.lock().unwrap().insert(machine.name.clone(), node.replicas_address().unwrap());
        machine.node = Some(node);
    }

    fn stop(&mut self, i: usize) {
        self.machines[i].node.take().unwrap().stop();
    }

    fn start_kept(&mut self, i: usize, keeper: &Path) {
        self.start(i, Some(Keeper::connect(keeper).unwrap()));
    }

    /// Ends a process of a node, and starts the next one.
    fn restart(&mut self, i: usize, keeper: &Path) {
        self.stop(i);
        self.start_kept(i, keeper);
    }

    fn node(&self, i: usize) -> &Node {
        self.machines[i].node.as_ref().unwrap()
    }

    fn record(&self) -> Record {
        self.records.look(VOLUME).unwrap().record
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            assert!(begin.elapsed() < PATIENCE, "{what}: {:?}", self.record());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            if let Some(node) = machine.node.take() {
                let _detached = node.detach_replicated("data");
                node.stop();
            }
        }
    }
}

fn open(device: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(device).unwrap()
}

fn write(device: &File, block: u64, byte: u8) {
    device.write_all_at(&[byte; 4096], block * 4096).unwrap();
    device.sync_all().unwrap();
}

#[track_caller]
fn has(device: &Path, block: u64, byte: u8) {
    let mut found = [0; 4096];
    open(device).read_exact_at(&mut found, block * 4096).unwrap();
    assert!(found.iter().all(|found| *found == byte), "block {block} has {} and not {byte}", found[0]);
}

fn attach(node: &Node) -> PathBuf {
    node.attach_replicated(&volume(), None, &[]).unwrap()
}

/// On a node without a replica, and then on one with, which has all of it.
#[test]
fn a_volume_is_used_on_one_node_after_the_other() {
    skips::require_block_devices!();
    let world = World::new(3, 2);
    let device = attach(world.node(2));
    assert_eq!(attach(world.node(2)), device, "asking again is the same");
    assert!(world.node(2).is_blank("data").unwrap(), "read through the network");
    write(&open(&device), 7, 7);
    assert!(!world.node(2).is_blank("data").unwrap());
    let refused = world.node(0).attach_replicated(&volume(), None, &[]).unwrap_err();
    assert!(refused.kind() == Kind::Precondition && refused.story().contains("node-2"), "{}", refused.story());
    world.node(2).detach_replicated("data").unwrap();
    world.node(2).detach_replicated("data").unwrap();
    assert_eq!(world.record().attached, None);
    let device = attach(world.node(0));
    assert!(!world.node(0).is_blank("data").unwrap(), "told by the replica that is here");
    has(&device, 7, 7);
    write(&open(&device), 8, 8);
    world.node(0).detach_replicated("data").unwrap();
    assert_eq!(world.record().in_sync().count(), 2);
    assert!(!world.node(0).serves(VOLUME) && world.node(0).held().contains(&(VOLUME, replica(0))));
}

/// Who writes on waits for a moment, and loses nothing of what was answered.
#[test]
fn writes_go_on_when_a_replicas_node_ends_and_it_is_equal_when_it_is_back() {
    skips::require_block_devices!();
    let mut world = World::new(2, 2);
    let device = attach(world.node(0));
    let file = open(&device);
    write(&file, 1, 1);
    world.stop(1);
    write(&file, 2, 2);
    assert_eq!(world.record().in_sync().collect::<Vec<_>>(), [replica(0)]);
    world.start(1, None);
    world.wait_for("the replica is in sync again", |world| world.record().in_sync().count() == 2);
    drop(file);
    world.node(0).detach_replicated("data").unwrap();
    let device = attach(world.node(1));
    has(&device, 1, 1);
    has(&device, 2, 2);
}

/// Its process is killed as far as its users see it: the next one serves the device on.
#[test]
fn who_uses_a_volume_goes_on_with_the_next_process_of_its_node() {
    skips::require_block_devices!();
    let mut world = World::new(2, 2);
    let socket = world.machines[0].memory.path().join("keeper.sock");
    let server = KeeperServer::bind(&socket).unwrap();
    let (stop, stopped) = std::io::pipe().unwrap();
    let keeping = std::thread::spawn(move || server.run(stop));
    world.restart(0, &socket);
    let device = attach(world.node(0));
    let file = open(&device);
    write(&file, 1, 1);
    let first = world.record().attached.unwrap();
    world.stop(0);
    assert_eq!(world.record().attached.as_ref(), Some(&first), "it was left, and not given back");
    world.start_kept(0, &socket);
    // It waits for the next process to serve it.
    write(&file, 2, 2);
    let second = world.record().attached.unwrap();
    assert!(second.node == first.node && second.id != first.id, "{second:?}");
    assert_eq!(world.node(0).replicated_device("data"), Some(device.clone()));
    has(&device, 1, 1);
    has(&device, 2, 2);
    drop(file);
    world.wait_for("nobody changes anything", |world| world.node(0).serving_status(VOLUME).is_some());
    world.node(0).detach_replicated("data").unwrap();
    assert_eq!(world.record().attached, None);
    world.stop(0);
    drop(stopped);
    keeping.join().unwrap().unwrap();
}

#[test]
fn what_is_taken_over_is_lost_where_it_was() {
    skips::require_block_devices!();
    let world = World::new(2, 2);
    let file = open(&attach(world.node(0)));
    write(&file, 1, 1);
    let judged = NodeId::from("another node");
    let refused = world.node(1).attach_replicated(&volume(), Some(&judged), &[]).unwrap_err();
    assert!(refused.story().contains("node-0"), "only who was judged is displaced: {}", refused.story());
    let begin = Instant::now();
    let device = world.node(1).attach_replicated(&volume(), Some(&world.machines[0].name), &[]).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(1000), "the other's lease was waited for");
    has(&device, 1, 1);
    let refused = file.write_all_at(&[9; 4096], 4096).and_then(|()| file.sync_all());
    assert!(refused.is_err(), "who had it must be told");
    drop(file);
    has(&device, 1, 1);
    world.node(0).detach_replicated("data").unwrap();
    assert!(!world.node(0).serves(VOLUME));
    assert_eq!(world.record().attached.unwrap().node, world.machines[1].name);
    world.node(1).detach_replicated("data").unwrap();
}

/// What it has in memory may be older than what the other node has written.
#[test]
fn who_used_a_volume_gets_errors_after_another_node_has_had_it_while_the_process_was_away() {
    skips::require_block_devices!();
    let mut world = World::new(2, 2);
    let socket = world.machines[0].memory.path().join("keeper.sock");
    let server = KeeperServer::bind(&socket).unwrap();
    let (stop, stopped) = std::io::pipe().unwrap();
    let keeping = std::thread::spawn(move || server.run(stop));
    world.restart(0, &socket);
    let file = open(&attach(world.node(0)));
    write(&file, 1, 1);
    world.stop(0);
    let device = world.node(1).attach_replicated(&volume(), Some(&world.machines[0].name), &[]).unwrap();
    write(&open(&device), 1, 2);
    world.node(1).detach_replicated("data").unwrap();
    assert_eq!(world.record().attached, None);
    for _ in 0..2 {
        world.start_kept(0, &socket);
        let refused = file.write_all_at(&[9; 4096], 4096).and_then(|()| file.sync_all());
        assert!(refused.is_err(), "who had it must be told");
        world.wait_for("it is shown as lost", |world| world.node(0).replicated_device("data").is_some());
        let again = loop {
            let again = world.node(0).attach_replicated(&volume(), Some(&world.machines[1].name), &[]).unwrap_err();
            // Until the device that fails is all there.
            if again.kind() == Kind::Precondition {
                break again.story();
            }
        };
        assert!(again.contains("detach it first"), "{again}");
        assert_eq!(world.record().attached, None);
        // The next process knows that it was lost.
        world.stop(0);
    }
    world.start_kept(0, &socket);
    drop(file);
    world.wait_for("it is detached", |world| world.node(0).detach_replicated("data").is_ok());
    assert!(!world.node(0).serves(VOLUME));
    let device = attach(world.node(0));
    has(&device, 1, 2);
    world.node(0).detach_replicated("data").unwrap();
    world.stop(0);
    drop(stopped);
    keeping.join().unwrap().unwrap();
}

/// As after a loss of power: the record says that this node serves the volume, and nothing here knows of it.
#[test]
fn what_nobody_uses_any_more_is_given_back() {
    skips::require_block_devices!();
    let world = World::new(2, 2);
    let name = world.machines[0].name.clone();
    let before = world.records.look(VOLUME).unwrap();
    let claimed = before.record.claimed(Attached { node: name, id: AttachmentId(5) });
    world.records.put(VOLUME, Some(&before.version), claimed).unwrap();
    let other = world.node(1).attach_replicated(&volume(), None, &[]).unwrap_err();
    assert!(other.story().contains("node-0"), "{}", other.story());
    world.runtime.block_on(world.node(1).give_back(VOLUME)).unwrap();
    assert!(world.record().attached.is_some(), "it is not that node's to give back");
    world.runtime.block_on(world.node(0).give_back(VOLUME)).unwrap();
    assert_eq!(world.record().attached, None);
    attach(world.node(1));
    world.node(1).detach_replicated("data").unwrap();
}

#[test]
fn replicas_are_there_again_and_gone_when_they_are_removed() {
    let mut world = World::new(1, 1);
    let held = world.node(0).held();
    assert_eq!(held.into_iter().collect::<Vec<_>>(), [(VOLUME, replica(0))]);
    world.stop(0);
    world.start(0, None);
    assert!(world.node(0).held().contains(&(VOLUME, replica(0))));
    let room = world.node(0).room();
    assert!(room.len() == 1 && room[0].bytes > 32 << 20 && room[0].free < room[0].bytes, "{room:?}");
    world.node(0).remove_replica(VOLUME, replica(0)).unwrap();
    world.node(0).remove_replica(VOLUME, replica(0)).unwrap();
    assert!(world.node(0).held().is_empty());
    world.stop(0);
    world.start(0, None);
    assert!(world.node(0).held().is_empty());
}

const S: SnapshotId = SnapshotId(0x5A);

impl World {
    fn change(&self, change: impl Fn(&Record) -> Record) {
        let found = self.records.look(VOLUME).unwrap();
        self.records.put(VOLUME, Some(&found.version), change(&found.record)).unwrap();
    }

    /// Has a snapshot taken of a volume that is served.
    fn take(&self, id: u128) -> HeldSnapshot {
        let id = SnapshotId(id);
        // The record may change in that instant by whoever serves the volume.
        let asked = || self.records.look(VOLUME).unwrap();
        let put =
            |found: &Versioned| self.records.put(VOLUME, Some(&found.version), found.record.with_snapshot(id).unwrap());
        self.wait_for("the snapshot is asked for", |_| put(&asked()).is_ok());
        self.wait_for("the snapshot is taken", |world| world.record().taken(id).is_some());
        (id, self.record().taken(id).unwrap().epoch)
    }

    /// What a node is told of a snapshot by the replica of another.
    fn look(
        &self,
        from: usize,
        at: usize,
        of: HeldSnapshot,
        since: Option<HeldSnapshot>,
    ) -> Result<Vec<u64>, LookError> {
        self.runtime.block_on(async {
            let mut looking = self.node(from).look_at(VOLUME, replica(at), &self.machines[at].name).await?;
            let look = Look { of, since, blocks: Blocks { start: 0, count: BLOCKS }, most: 100 };
            let told = looking.look(&look).await?;
            assert_eq!(told.next, None);
            Ok(told.ranges.into_iter().flat_map(|range| range.start..range.end()).collect())
        })
    }
}

/// Nobody uses it, and a node without a replica of it is asked. Then it is used again, grows, and a volume begins as the snapshot.
#[test]
fn a_volume_that_nobody_uses_is_snapshotted_and_cloned() {
    skips::require_block_devices!();
    let world = World::new(3, 2);
    let device = attach(world.node(0));
    write(&open(&device), 7, 7);
    world.node(0).detach_replicated("data").unwrap();
    world.change(|record| record.with_snapshot(S).unwrap());
    world.runtime.block_on(world.node(2).attend(VOLUME, "data")).unwrap();
    let record = world.record();
    let taken = record.taken(S).unwrap().clone();
    assert_eq!((record.attached, taken.holders.len()), (None, 2), "it was given back");
    let held = |i: usize| world.node(i).held_snapshots();
    assert_eq!(held(0), [(VOLUME, replica(0), (S, taken.epoch))]);
    let device = attach(world.node(0));
    write(&open(&device), 7, 8);
    // While it is served, it is asked for nothing.
    world.runtime.block_on(world.node(0).attend(VOLUME, "data")).unwrap();
    let clone = VolumeId(0xC10E);
    let members = (0..2).map(|i| (replica(i), world.machines[i].name.clone()));
    world.records.put(clone, None, Record::new(members, 1, BLOCKS).unwrap()).unwrap();
    let absent = SnapshotHere { volume: VOLUME, replica: replica(0), held: (SnapshotId(1), taken.epoch) };
    assert_eq!(world.node(0).make_replica_from(clone, replica(0), &absent).unwrap_err().kind(), Kind::NotFound);
    for i in 0..2 {
        let from = SnapshotHere { volume: VOLUME, replica: replica(i), held: (S, taken.epoch) };
        world.node(i).make_replica_from(clone, replica(i), &from).unwrap();
        world.node(i).remove_held_snapshot(VOLUME, replica(i), (S, taken.epoch)).unwrap();
    }
    assert!(held(0).is_empty() && held(1).is_empty());
    let wanted = ReplicatedVolume { name: "clone".into(), id: clone, ..volume() };
    let cloned = world.node(1).attach_replicated(&wanted, None, &[]).unwrap();
    assert!(!world.node(1).is_blank("clone").unwrap(), "it is not to be formatted");
    has(&cloned, 7, 7);
    has(&device, 7, 8);
    world.node(1).detach_replicated("clone").unwrap();
}

#[test]
fn the_kernel_is_told_when_a_volume_has_grown() {
    skips::require_block_devices!();
    let mut world = World::new(2, 2);
    let socket = world.machines[0].memory.path().join("keeper.sock");
    let server = KeeperServer::bind(&socket).unwrap();
    let (stop, stopped) = std::io::pipe().unwrap();
    let keeping = std::thread::spawn(move || server.run(stop));
    world.restart(0, &socket);
    let device = attach(world.node(0));
    world.change(|record| record.with_wanted_blocks(2 * BLOCKS).unwrap());
    let is_told = |world: &World| world.node(0).grown_replicated("data", 2 * BLOCKS * 4096).is_ok();
    world.wait_for("the kernel to be told", is_told);
    assert_eq!(world.record().blocks, 2 * BLOCKS);
    write(&open(&device), 2 * BLOCKS - 1, 9);
    // The next process serves it as it is.
    world.restart(0, &socket);
    has(&device, 2 * BLOCKS - 1, 9);
    world.wait_for("nobody changes anything", |world| world.node(0).serving_status(VOLUME).is_some());
    world.node(0).detach_replicated("data").unwrap();
    world.stop(0);
    drop(stopped);
    keeping.join().unwrap().unwrap();
}

/// Whoever has a replica and whoever has none is told the same, by each that has the snapshots.
#[test]
fn snapshots_are_looked_at_from_every_node() {
    skips::require_block_devices!();
    let mut world = World::new(3, 2);
    let device = attach(world.node(0));
    write(&open(&device), 7, 7);
    let first = world.take(1);
    write(&open(&device), 8, 8);
    let second = world.take(2);
    write(&open(&device), 9, 9);
    for (from, at) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let told = |of, since| world.look(from, at, of, since).unwrap();
        let all = (told(first, None), told(second, None), told(second, Some(first)));
        assert_eq!(all, (vec![7], vec![7, 8], vec![8]), "node {from} asks node {at}");
    }
    let absent = world.look(0, 2, first, None).unwrap_err();
    assert!(matches!(&absent, LookError::Away(why) if why.contains("does not have the replica")), "{absent}");
    let absent = world.look(2, 2, first, None).unwrap_err();
    assert!(matches!(absent, LookError::Unseen(Unseen::Absent(_))), "{absent}");
    world.stop(1);
    let away = world.look(2, 1, second, Some(first)).unwrap_err();
    assert!(matches!(away, LookError::Away(_)), "{away}");
    world.start(1, None);
    assert_eq!(world.look(2, 1, second, Some(first)).unwrap(), [8], "the next process has them, too");
}
