//! What replication costs: random 4 KiB writes and reads of volumes with one, two and three replicas, all in this process, over TCP on loopback, with pools in memory.
//!
//! `cargo bench -p replicas --bench writes [-- --rounds N --seconds S --tls --connections N]`. The rows of a round follow each other, and of each cell the median of all rounds is told; a machine that
//! is busy with other things makes all of them worse, so compare rows of one run.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a benchmark may end anywhere"
)]

use block::{Buffer, Device, Done};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use replicas::{
    Addresses, Attachment, Limits, Network, Options, PoolStore, Replica, Replicas, Security, Server, Tls, incarnation,
    session,
};
use replication::record::Record;
use replication::record::memory::MemoryRecords;
use replication::units::{NodeId, ReplicaId, VolumeId};
use replication::wire::ClusterId;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use volume::{BLOCK, FileDisk, Pool, Shape};

const VOLUME: VolumeId = VolumeId(1);
/// Blocks of the volume: 256 MiB, as much as three pools of it have room for in memory.
const BLOCKS: u64 = 65_536;

struct Arguments {
    rounds: usize,
    seconds: f64,
    tls: bool,
    connections: usize,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments { rounds: 3, seconds: 1.5, tls: false, connections: 2 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || given.next().and_then(|text| text.parse::<f64>().ok()).expect("a number follows");
        match name.as_str() {
            "--rounds" => arguments.rounds = number() as usize,
            "--seconds" => arguments.seconds = number(),
            "--connections" => arguments.connections = number() as usize,
            "--tls" => arguments.tls = true,
            // What cargo gives to every benchmark.
            "--bench" => {}
            other => panic!("{other} is not known"),
        }
    }
    arguments
}

struct Table(BTreeMap<NodeId, SocketAddr>);

impl Addresses for Table {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.get(node).copied()
    }
}

fn node(index: u64) -> NodeId {
    format!("node-{index}").as_str().into()
}

/// A volume that is attached, with everything behind it.
struct World {
    attachment: Attachment,
    _servers: Vec<DropGuard>,
    _pools: Vec<Arc<Pool<Buffer>>>,
    _folder: tempfile::TempDir,
}

async fn world(count: u64, arguments: &Arguments) -> World {
    let folder = tempfile::tempdir_in(Path::new("/dev/shm")).unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
    let security = |index| {
        if !arguments.tls {
            return Security::ClearOnLoopback;
        }
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![node(index).0.to_string()]).unwrap();
        let certificate = parameters.signed_by(&key, &authority).unwrap().pem();
        let (key, authority) = (key.serialize_pem(), authority.pem());
        Security::Tls(
            Tls::from_pem(&node(index), certificate.as_bytes(), key.as_bytes(), authority.as_bytes()).unwrap(),
        )
    };
    let cluster = ClusterId(1);
    let limits = Limits { data_connections: arguments.connections, ..Limits::default() };
    let (mut addresses, mut servers, mut pools, mut here) = (BTreeMap::new(), Vec::new(), Vec::new(), None);
    for index in 0..count {
        let path = folder.path().join(format!("pool-{index}"));
        let disk = FileDisk::create(&path, (3 * BLOCKS + 8192) * BLOCK as u64).unwrap();
        volume::create(&disk, Shape { id: [1; 16], log_blocks: None, most_changed_nodes: None }).unwrap();
        let options = volume::Options { workers: 2, ..volume::Options::default() };
        let pool = Arc::new(Pool::open(Arc::new(disk), options, Box::new(|_| {})).unwrap());
        let id = ReplicaId(index);
        let store = PoolStore::create(&pool, VOLUME, id, BLOCKS).unwrap();
        let replicas = Arc::<Replicas>::default();
        replicas.add(Replica::new(VOLUME, id, Arc::new(store), session(), incarnation().unwrap()));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(address, cluster, replicas.clone(), security(index), limits).await.unwrap();
        addresses.insert(node(index), server.address());
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(stop.clone()));
        servers.push(stop.drop_guard());
        pools.push(pool);
        here.get_or_insert(replicas);
    }
    let records = MemoryRecords::default();
    let members = (0..count).map(|index| (ReplicaId(index), node(index)));
    records.put(VOLUME, None, Record::new(members, 1, BLOCKS).unwrap()).unwrap();
    let addresses = Arc::new(Table(addresses));
    let network = Network { cluster, node: node(0), security: security(0), addresses, limits };
    let attachment = Attachment::start(Arc::new(records), here.unwrap(), network, Options::new(VOLUME)).await.unwrap();
    World { attachment, _servers: servers, _pools: pools, _folder: folder }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Read,
}

/// Requests that follow each other: each one is asked where the one before is answered.
struct Load {
    device: Arc<dyn Device>,
    kind: Kind,
    ends: AtomicBool,
    random: AtomicU64,
    under_way: Mutex<usize>,
    all_ended: Condvar,
    times: Mutex<Vec<u64>>,
}

impl Load {
    fn next(self: &Arc<Self>, buffer: Buffer) {
        if self.ends.load(Ordering::Relaxed) {
            *self.under_way.lock().unwrap() -= 1;
            return self.all_ended.notify_all();
        }
        let seed = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let offset = (seed ^ (seed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 20;
        let offset = offset % BLOCKS * BLOCK as u64;
        let (me, begun) = (self.clone(), Instant::now());
        match self.kind {
            Kind::Write => {
                // The front end's copy of what its client has sent.
                let bytes = Buffer::copy_of(&buffer);
                let done = Done::new(move |result: Result<(), _>| {
                    result.unwrap();
                    me.was_done(begun);
                    me.next(buffer);
                });
                self.device.write(offset, bytes, false, done);
            }
            Kind::Read => {
                let done = Done::new(move |result: Result<Buffer, _>| {
                    me.was_done(begun);
                    me.next(result.unwrap());
                });
                self.device.read(offset, buffer, done);
            }
        }
    }

    fn was_done(&self, begun: Instant) {
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap();
        self.times.lock().unwrap().push(nanos);
    }
}

#[derive(Clone, Copy)]
struct Seen {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of processor time for a request, of the whole process.
    cpu: f64,
}

fn cpu_micros() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn measure(device: &Arc<dyn Device>, kind: Kind, depth: usize, seconds: f64) -> Seen {
    let load = Arc::new(Load {
        device: device.clone(),
        kind,
        ends: AtomicBool::new(false),
        random: AtomicU64::new(depth as u64),
        under_way: Mutex::new(depth),
        all_ended: Condvar::new(),
        times: Mutex::new(Vec::with_capacity(1 << 20)),
    });
    (0..depth).for_each(|i| load.next(Buffer::copy_of(&[i as u8; BLOCK])));
    std::thread::sleep(Duration::from_millis(200));
    load.times.lock().unwrap().clear();
    let (begun, cpu) = (Instant::now(), cpu_micros());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_micros() - cpu);
    let mut times = load.times.lock().unwrap().clone();
    load.ends.store(true, Ordering::Relaxed);
    let under_way = load.under_way.lock().unwrap();
    drop(load.all_ended.wait_while(under_way, |under_way| *under_way > 0).unwrap());
    times.sort_unstable();
    let count = times.len().max(1);
    let at = |part: f64| times.get((count as f64 * part) as usize).copied().unwrap_or(0) as f64 / 1e3;
    Seen { per_second: count as f64 / took, p50: at(0.5), p99: at(0.99), cpu: cpu / count as f64 }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let arguments = arguments();
    if !Path::new("/dev/shm").is_dir() {
        println!("there is no /dev/shm, so there is no memory to measure in");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cells = [(Kind::Write, 1), (Kind::Write, 32), (Kind::Read, 1), (Kind::Read, 32)];
    let mut seen: BTreeMap<(usize, u64), Vec<Seen>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for count in 1..=3 {
            let world = runtime.block_on(world(count, &arguments));
            let device: Arc<dyn Device> = Arc::new(world.attachment.device());
            for (cell, (kind, depth)) in cells.into_iter().enumerate() {
                let found = measure(&device, kind, depth, arguments.seconds);
                seen.entry((cell, count)).or_default().push(found);
            }
            drop(world);
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load at the end: {}; {}", load.trim(), if arguments.tls { "TLS" } else { "in clear" });
    println!(
        "| 4 KiB, random | replicas | per second | p50 µs | p99 µs | CPU µs | of one replica |\n|---|---|---|---|---|---|---|"
    );
    for (cell, (kind, depth)) in cells.into_iter().enumerate() {
        let row = |count| {
            let all: &Vec<Seen> = &seen[&(cell, count)];
            let of = |part: fn(&Seen) -> f64| median(all.iter().map(part).collect());
            Seen { per_second: of(|s| s.per_second), p50: of(|s| s.p50), p99: of(|s| s.p99), cpu: of(|s| s.cpu) }
        };
        for count in 1..=3 {
            let Seen { per_second, p50, p99, cpu } = row(count);
            let name = if kind == Kind::Write { "write" } else { "read, local" };
            let part = per_second / row(1).per_second;
            println!(
                "| {name}, depth {depth} | {count} | {per_second:.0} | {p50:.1} | {p99:.0} | {cpu:.1} | {part:.2} |"
            );
        }
    }
}
