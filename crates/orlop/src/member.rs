//! What `orlop node` is for a cluster: one of the nodes that hold replicas.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use cluster::{AddressBook, Agent, AgentConfig, InCluster, Times, certificates};
use csi::{OnNode, Volumes};
use kube::Client;
use node::{AnyRecords, Node, Replication};
use records::Patience;
use records::kubernetes::KubernetesRecords;
use replicas::{Network, Security};
use replication::units::NodeId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ConnectionArgs, configuration};
use crate::error::{Error, Result};
use crate::machine;

#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// Be one of the nodes of a Kubernetes cluster: hold replicas of its volumes, and serve volumes that have replicas on several nodes
    #[arg(long, requires_all = ["replicas_tls", "replicas_address"])]
    cluster: bool,
    /// The folder with the certificates by which nodes know each other: ca.crt, and either tls.crt and tls.key of this node, or ca.key to make them with
    #[arg(long, value_name = "DIR", requires = "cluster")]
    replicas_tls: Option<PathBuf>,
    /// Where replicas are served to other nodes
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7788")]
    replicas_listen: SocketAddr,
    /// The address at which other nodes reach this one
    #[arg(long, env = "POD_IP", hide_env_values = true, value_name = "ADDRESS")]
    replicas_address: Option<IpAddr>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A node that is to be one of a cluster.
pub(crate) struct Member {
    name: String,
    client: Client,
    records: AnyRecords,
    book: Arc<AddressBook>,
    times: Times,
    network: Network,
    listen: SocketAddr,
    address: IpAddr,
}

/// What the arguments ask for, if they ask for it.
pub(crate) async fn wanted(args: MemberArgs, name: Result<String>) -> Result<Option<Member>> {
    // clap lets no --cluster through without the other two.
    let (true, Some(folder), Some(address)) = (args.cluster, args.replicas_tls, args.replicas_address) else {
        return Ok(None);
    };
    let name = name?;
    let failed = || Error::new("be a node of the cluster");
    let node = NodeId::from(name.as_str());
    let identity = certificates::identity(&folder, &node).map_err(|e| failed().because(e))?;
    let config = configuration(&args.connection).await?;
    let kept = KubernetesRecords::new(config.clone(), Patience::default()).map_err(|e| failed().because(e))?;
    let client = Client::try_from(config).map_err(|e| failed().because(e))?;
    let book = Arc::<AddressBook>::default();
    let network = Network {
        cluster: identity.cluster,
        node,
        security: Security::Tls(identity.tls),
        addresses: book.clone(),
        limits: replicas::Limits::default(),
    };
    let (records, times, listen) = (AnyRecords::new(kept), Times::default(), args.replicas_listen);
    Ok(Some(Member { name, client, records, book, times, network, listen, address }))
}

impl Member {
    /// How the node replicates.
    pub(crate) fn replication(&self) -> Replication {
        Replication {
            network: self.network.clone(),
            listen: self.listen,
            records: self.records.clone(),
            limits: replication::limits::Limits::default(),
        }
    }

    /// Begins to do what its cluster asks of the node.
    pub(crate) fn follow(&self, node: &Arc<Node>, stop: CancellationToken) -> JoinHandle<()> {
        let port = node.replicas_address().map_or(self.listen.port(), |address| address.port());
        let agent = Agent::new(AgentConfig {
            client: self.client.clone(),
            node: node.clone(),
            me: self.name.clone(),
            records: self.records.clone(),
            times: self.times.clone(),
            book: self.book.clone(),
            network: self.network.clone(),
            address: SocketAddr::new(self.address, port),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine::look(),
        });
        tokio::spawn(agent.run(stop))
    }

    fn volumes(self, node: Arc<Node>) -> Arc<dyn Volumes> {
        Arc::new(InCluster::new(node, self.client, self.records, self.name, self.times))
    }
}

/// The volumes that the node's driver has.
pub(crate) fn volumes(member: Option<Member>, node: Arc<Node>) -> Arc<dyn Volumes> {
    match member {
        Some(member) => member.volumes(node),
        None => Arc::new(OnNode::new(node)),
    }
}
