//! Three processes, of which two are killed in earnest.

use super::cluster::{CLUSTER, PATIENCE, Records, VOLUME, limits, node_name, until};
use super::registers::Judge;
use crate::testing::seed;
use crate::{
    Addresses, Attachment, Limits, Network, Options, PoolStore, Replica, Replicas, Security, Server, incarnation,
    session,
};
use block::Buffer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use replication::attachment::Ending;
use replication::record::Record;
use replication::units::{NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use volume::{BLOCK, FileDisk, OpenError, Pool, Shape};

const BLOCKS: u64 = 24;
/// Tells the process of a replica where its pool is, and which one it has.
const POOL: &str = "ORLOP_TEST_REPLICA_POOL";
const REPLICA: &str = "ORLOP_TEST_REPLICA_ID";

fn open_pool(path: &Path) -> Arc<Pool<Buffer>> {
    // A pool of a process that was killed is locked until the kernel has ended what it had asked for.
    let disk = loop {
        match FileDisk::open(path) {
            Ok(disk) => break disk,
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let options = volume::Options { cache_bytes: volume::LEAST_CACHE, workers: 4, ..volume::Options::default() };
    Arc::new(Pool::open(Arc::new(disk), options, Box::new(|_| {})).unwrap())
}

async fn serve(pool: &Arc<Pool<Buffer>>, replica: ReplicaId) -> (Server, Arc<Replicas>) {
    let store = PoolStore::create(pool, VOLUME, replica, BLOCKS).unwrap();
    let replicas = Arc::<Replicas>::default();
    replicas.add(Replica::new(VOLUME, replica, Arc::new(store), session(), incarnation().unwrap()));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, CLUSTER, replicas.clone(), Security::ClearOnLoopback, Limits::default());
    (server.await.unwrap(), replicas)
}

/// Not a test by itself: what the test below starts as a process of its own. It ends when its input does, so it does not outlive the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_of_a_replica() {
    let Some(path) = std::env::var_os(POOL) else { return };
    let replica = ReplicaId(std::env::var(REPLICA).unwrap().parse().unwrap());
    let pool = open_pool(Path::new(&path));
    let (server, _replicas) = serve(&pool, replica).await;
    println!("\nlistening on {}", server.address());
    std::io::stdout().flush().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop.clone()));
    tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new())).await.unwrap().unwrap();
    stop.cancel();
    serving.await.unwrap();
}

/// Where the processes listen.
#[derive(Default)]
struct Known(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Addresses for Known {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(node).copied()
    }
}

struct Remote {
    index: usize,
    pool: PathBuf,
    child: Option<Child>,
}

impl Remote {
    fn start(&mut self, known: &Known) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["tests::processes::process_of_a_replica", "--exact", "--nocapture"])
            .env(POOL, &self.pool)
            .env(REPLICA, (10 + self.index).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        known.0.lock().unwrap().insert(node_name(self.index), address.expect("it listens"));
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.kill();
    }
}

fn make_pool(folder: &Path, index: usize) -> PathBuf {
    let path = folder.join(format!("pool-{index}"));
    let disk = FileDisk::create(&path, 4096 * BLOCK as u64).unwrap();
    volume::create(&disk, Shape { id: [7; 16], log_blocks: None, most_changed_nodes: None }).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_under_load_lose_nothing_that_was_acknowledged() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    // On a disk: requests of a killed process are under way in the kernel.
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folder = tempfile::tempdir_in(target).unwrap();
    let pool = open_pool(&make_pool(folder.path(), 0));
    let (_server, replicas) = serve(&pool, ReplicaId(10)).await;
    let known = Arc::<Known>::default();
    let remote = |index| Remote { index, pool: make_pool(folder.path(), index), child: None };
    let mut remotes = [remote(1), remote(2)];
    remotes.iter_mut().for_each(|remote| remote.start(&known));
    let records = Records::default();
    let members = (0..3).map(|i| (ReplicaId(10 + i as u64), node_name(i)));
    records.kept.put(VOLUME, None, Record::new(members, 1, BLOCKS).unwrap()).unwrap();
    let network = Network {
        cluster: CLUSTER,
        node: node_name(0),
        security: Security::ClearOnLoopback,
        addresses: known.clone(),
        limits: Limits::default(),
    };
    let options = Options { limits: limits(), ..Options::new(VOLUME) };
    let attachment = Attachment::start(Arc::new(records.clone()), replicas, network, options).await.unwrap();
    let judge = Judge::new(BLOCKS);
    let mut users = JoinSet::new();
    (0..6).for_each(|user| drop(users.spawn(judge.clone().user(attachment.device(), seed ^ user))));
    for _ in 0..6 {
        judge.go_on(random.random_range(20..300)).await;
        let remote = &mut remotes[random.random_range(0..2)];
        remote.kill();
        judge.go_on(random.random_range(20..300)).await;
        remote.start(&known);
    }
    until("all replicas are in sync", || records.in_sync() == 3).await;
    judge.end();
    tokio::time::timeout(PATIENCE, users.join_all()).await.expect("all users are answered");
    judge.judge(&attachment.device()).await;
    assert_eq!(attachment.detach().await, Ending::Detached);
    assert!(judge.acknowledged.load(Ordering::SeqCst) > 100);
    // All three have the same.
    remotes.iter_mut().for_each(Remote::kill);
    let contents = |pool: &Arc<Pool<Buffer>>, replica| {
        let store = PoolStore::open(pool, VOLUME, replica).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let into = Buffer::zeroed(usize::try_from(BLOCKS).unwrap() * BLOCK);
        pool.read(volume::State::Volume(store.volume()), 0, into, move |result| sender.send(result).unwrap());
        receiver.recv().unwrap().unwrap().to_vec()
    };
    let first = contents(&pool, ReplicaId(10));
    for remote in &remotes {
        let found = contents(&open_pool(&remote.pool), ReplicaId(10 + remote.index as u64));
        assert!(found == first, "the replica of process {} differs", remote.index);
    }
}
