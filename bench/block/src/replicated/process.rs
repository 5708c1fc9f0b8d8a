//! The processes of a replicated volume: one for each replica, of which the first serves the volume, too.

use anyhow::{Context, Result, bail};
use block::Buffer;
use nbd::{Export, Listener};
use replicas::{
    Addresses, Attachment, Limits, Network, Options, PoolStore, Replica, Replicas, Security, Server, incarnation,
    session,
};
use replication::record::Record;
use replication::record::memory::MemoryRecords;
use replication::units::{NodeId, ReplicaId, VolumeId};
use replication::wire::ClusterId;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use volume::{BLOCK, FileDisk, Pool};

const VOLUME: VolumeId = VolumeId(1);
/// What its device is called.
pub(super) const EXPORT: &str = "replicated";

/// A replica on another node, and where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(super) replica: u64,
    pub(super) address: SocketAddr,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (replica, address) = text.split_once('=').context("a peer is ID=ADDRESS")?;
        Ok(Self { replica: replica.parse()?, address: address.parse()? })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplicaArgs {
    /// The file of the pool
    pool: PathBuf,
    /// Which replica it holds
    #[arg(long)]
    replica: u64,
    /// Bytes of the volume
    #[arg(long)]
    bytes: u64,
    /// Where others reach it
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A folder with an authority; without it, all is said in clear
    #[arg(long)]
    tls: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FrontArgs {
    #[command(flatten)]
    here: ReplicaArgs,
    /// The socket that the volume is served on
    #[arg(long)]
    socket: PathBuf,
    /// The other replicas
    #[arg(long)]
    peer: Vec<Peer>,
}

/// Who a node is, and how it speaks with others.
struct Identity {
    node: NodeId,
    cluster: ClusterId,
    security: Security,
}

impl Identity {
    fn of(arguments: &ReplicaArgs) -> Result<Self> {
        let node = node(arguments.replica);
        Ok(match &arguments.tls {
            None => Self { node, cluster: ClusterId(1), security: Security::ClearOnLoopback },
            Some(folder) => {
                let cluster::certificates::Identity { tls, cluster } = cluster::certificates::identity(folder, &node)?;
                Self { node, cluster, security: Security::Tls(tls) }
            }
        })
    }
}

fn node(replica: u64) -> NodeId {
    format!("node-{replica}").as_str().into()
}

fn open(arguments: &ReplicaArgs) -> Result<Arc<Replicas>> {
    let disk = Arc::new(FileDisk::open(&arguments.pool)?);
    // As the node has it.
    let options = volume::Options { cache_bytes: 40 << 20, ..volume::Options::default() };
    let pool: Arc<Pool<Buffer>> = Arc::new(Pool::open(disk, options, Box::new(|_| {}))?);
    let id = ReplicaId(arguments.replica);
    let store = PoolStore::create(&pool, VOLUME, id, arguments.bytes / BLOCK as u64)?;
    let replicas = Arc::<Replicas>::default();
    replicas.add(Replica::new(VOLUME, id, Arc::new(store), session(), incarnation()?));
    Ok(replicas)
}

/// Serves a replica until its standard input ends, and says where.
pub(crate) fn replica(arguments: &ReplicaArgs) -> Result<()> {
    let (replicas, identity) = (open(arguments)?, Identity::of(arguments)?);
    let runtime = Runtime::new()?;
    let bound = Server::bind(arguments.listen, identity.cluster, replicas, identity.security, Limits::default());
    let server = runtime.block_on(bound)?;
    say(&server.address().to_string())?;
    runtime.spawn(server.serve(CancellationToken::new()));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Where the other replicas are.
#[derive(Debug, Default)]
struct Known(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Known {
    fn add(&self, peer: &Peer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node(peer.replica), peer.address);
    }
}

impl Addresses for Known {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }
}

/// Holds a replica, serves the volume, and answers lines of its standard input by lines: `status`, and `add ID=ADDRESS`. Ends well when there are no more.
pub(crate) fn front(arguments: &FrontArgs) -> Result<()> {
    let here = &arguments.here;
    let (replicas, identity) = (open(here)?, Identity::of(here)?);
    let (records, known) = (MemoryRecords::default(), Arc::<Known>::default());
    arguments.peer.iter().for_each(|peer| known.add(peer));
    let all = std::iter::once(here.replica).chain(arguments.peer.iter().map(|peer| peer.replica));
    let members = all.map(|replica| (ReplicaId(replica), node(replica)));
    records.put(VOLUME, None, Record::new(members, 1, here.bytes / BLOCK as u64)?)?;
    let Identity { node, cluster, security } = identity;
    let network = Network { cluster, node, security, addresses: known.clone(), limits: Limits::default() };
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let options = Options::new(VOLUME);
    let begun = Attachment::start(Arc::new(records.clone()), replicas, network, options);
    let attachment = runtime.block_on(begun)?;
    let export = Export { name: EXPORT.into(), description: String::new(), device: Arc::new(attachment.device()) };
    let server = nbd::Server::new(vec![export], nbd::Limits::default())?;
    let listener = Listener::unix(&arguments.socket)?;
    say(&server.uri(&listener, EXPORT))?;
    let stop = CancellationToken::new();
    let serving = runtime.spawn({
        let stop = stop.clone();
        async move { server.serve(listener, stop).await }
    });
    for line in std::io::stdin().lock().lines() {
        match line?.split_once(' ') {
            None => say(&status(&attachment))?,
            Some(("add", peer)) => {
                let peer: Peer = peer.parse()?;
                known.add(&peer);
                add(&records, &peer)?;
                say("added")?;
            }
            Some((other, _)) => bail!("{other} is nothing that this can be told"),
        }
    }
    stop.cancel();
    runtime.block_on(serving)??;
    runtime.block_on(attachment.detach());
    Ok(())
}

fn status(attachment: &Attachment) -> String {
    let status = attachment.status();
    let members = status.members.iter().map(|member| {
        let is_in_sync = member.standing == replication::record::Standing::InSync;
        json!({"replica": member.replica.0, "inSync": is_in_sync, "sentBytes": member.sent_bytes})
    });
    json!({"members": members.collect::<Vec<_>>(), "suspended": status.suspended.is_some()}).to_string()
}

fn add(records: &MemoryRecords, peer: &Peer) -> Result<()> {
    loop {
        let found = records.look(VOLUME).context("the record is there")?;
        let next = found.record.with_replica(ReplicaId(peer.replica), node(peer.replica))?;
        if records.put(VOLUME, Some(&found.version), next).is_ok() {
            return Ok(());
        }
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A pool in a file that is there.
pub(super) fn make_pool(path: &Path, id: u64) -> Result<()> {
    let disk = FileDisk::open(path)?;
    let id = (u128::from(std::process::id()) << 64 | u128::from(id)).to_le_bytes();
    Ok(volume::create(&disk, volume::Shape { id, log_blocks: None, most_changed_nodes: None })?)
}
