//! A cluster: a switch, a control plane and nodes.

mod forwards;
mod life;

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};

use crate::address::{ClusterIndex, MAX_CLUSTERS, MAX_NODES, NodeNumber};
use crate::bootstrap;
use crate::error::{Error, Result};
use crate::files;
use crate::network::{Cuts, Switch};
use crate::node::Node;
use crate::process::ProcessId;
use crate::sandbox::Sandbox;

/// What a cluster has when nothing else is asked for: enough for replicas to be apart.
pub const DEFAULT_NODES: u8 = 3;

/// A cluster, up or down. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    sandbox: Sandbox,
    name: String,
    record: Record,
}

/// What a cluster keeps over its starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    index: ClusterIndex,
    nodes: u8,
    /// Eight hexadecimal digits that tell it from the clusters of other sandboxes, where they meet: in control groups.
    id: String,
    /// The port of the machine's loopback that leads to the API server.
    api_port: u16,
}

impl Cluster {
    /// Starts a cluster, or goes on with one that was taken down, and waits until its nodes are ready for pods.
    ///
    /// When that does not succeed, what was started is ended again; logs stay.
    pub async fn up(sandbox: &Sandbox, name: &str, nodes: Option<u8>) -> Result<Self> {
        let cluster = Self::claim(sandbox, name, nodes).await?;
        if let Err(error) = cluster.start_all().await {
            cluster.down().await?;
            return Err(error);
        }
        Ok(cluster)
    }

    /// The cluster of this name, if there is one.
    pub(crate) fn load(sandbox: &Sandbox, name: &str) -> Result<Option<Self>> {
        let path = sandbox.clusters_directory().join(name).join("cluster.json");
        let record: Option<Record> = files::read_json(&path)?;
        Ok(record.map(|record| Self { sandbox: sandbox.clone(), name: name.to_owned(), record }))
    }

    /// Writes down that the cluster is there, with a number and a port that no other has.
    async fn claim(sandbox: &Sandbox, name: &str, nodes: Option<u8>) -> Result<Self> {
        check_name(name)?;
        if nodes.is_some_and(|n| !(1..=MAX_NODES).contains(&n)) {
            return Err(Error::input(format!("a cluster has 1 to {MAX_NODES} nodes")));
        }
        let _lock = sandbox.lock().await?;
        let clusters = sandbox.clusters()?;
        let mut record = if let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) {
            if cluster.is_up()? {
                return Err(Error::input(format!("{name} is up already")));
            }
            cluster.record.clone()
        } else {
            let taken = |index| clusters.iter().any(|cluster| cluster.record.index == index);
            let index = (0..MAX_CLUSTERS).map(ClusterIndex).find(|index| !taken(*index));
            Record {
                index: index.ok_or_else(|| Error::input(format!("a sandbox has at most {MAX_CLUSTERS} clusters")))?,
                nodes: DEFAULT_NODES,
                id: format!("{:08x}", rand::random::<u32>()),
                api_port: free_port()?,
            }
        };
        record.nodes = nodes.unwrap_or(record.nodes);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, record.api_port)).is_err() {
            record.api_port = free_port()?;
        }
        let cluster = Self { sandbox: sandbox.clone(), name: name.to_owned(), record };
        files::write_json(&cluster.path("cluster.json"), &cluster.record, files::PUBLIC)?;
        files::remove_dir(&cluster.path("run"))?;
        files::create_dir(&cluster.path("run"))?;
        Ok(cluster)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub(crate) fn index(&self) -> ClusterIndex {
        self.record.index
    }

    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    pub fn api_port(&self) -> u16 {
        self.record.api_port
    }

    pub(crate) fn node_count(&self) -> u8 {
        self.record.nodes
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.clusters_directory().join(&self.name).join(name)
    }

    /// Of what is lost when the cluster goes down.
    pub(crate) fn run_path(&self, name: &str) -> PathBuf {
        self.path("run").join(name)
    }

    /// The control group in which all its pods are.
    pub fn cgroup(&self) -> String {
        format!("sandbox-{}", self.record.id)
    }

    pub fn control_plane(&self) -> Node<'_> {
        Node::new(self, NodeNumber::CONTROL_PLANE)
    }

    /// The nodes without the control plane.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        (1..=self.record.nodes).map(|number| Node::new(self, NodeNumber(number)))
    }

    /// A node by its number, from 1.
    pub fn node(&self, number: u8) -> Result<Node<'_>> {
        if (1..=self.record.nodes).contains(&number) {
            return Ok(Node::new(self, NodeNumber(number)));
        }
        Err(Error::input(format!("{} has nodes {0}1 to {0}{}", self.name, self.record.nodes)))
    }

    pub(crate) fn switch(&self) -> Result<Switch> {
        let running = Switch::running(&self.path("run"), self.record.index)?;
        running.ok_or_else(|| Error::input(format!("{} is down: `sandbox up {0}` starts it", self.name)))
    }

    pub fn is_up(&self) -> Result<bool> {
        Ok(Switch::running(&self.path("run"), self.record.index)?.is_some())
    }

    /// A file with which kubectl on this machine reaches the cluster as its administrator.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The same for programs inside, on nodes and in pods of this cluster or of one that is linked with it.
    pub fn kubeconfig_inside_path(&self) -> PathBuf {
        self.path("kubeconfig.inside")
    }

    /// The directory with kubectl and the other programs that the cluster runs.
    pub async fn programs_path(&self) -> Result<PathBuf> {
        Ok(self.sandbox.programs().await?.distribution.directory().join("bin"))
    }

    pub fn kubeconfig(&self) -> Result<Kubeconfig> {
        let path = self.kubeconfig_path();
        Kubeconfig::read_from(&path).map_err(|source| Error::Kubeconfig { path, source: Box::new(source) })
    }

    /// A client on this machine, as the administrator.
    pub async fn client(&self) -> Result<Client> {
        // Another part of the process may have chosen before: then that choice stands.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = Config::from_custom_kubeconfig(self.kubeconfig()?, &KubeConfigOptions::default()).await;
        let path = self.kubeconfig_path();
        let config = config.map_err(|source| Error::Kubeconfig { path, source: Box::new(source) })?;
        Client::try_from(config).map_err(Error::kubernetes(format!("make a client of {}", self.name)))
    }

    /// Waits until the API server answers that it is ready, or has ended.
    pub(crate) async fn until_api_ready(&self, process: ProcessId) -> Result<()> {
        bootstrap::until_api_ready(self, process).await
    }

    pub(crate) async fn change_cuts(&self, change: impl FnOnce(&mut Cuts)) -> Result<()> {
        let _lock = self.sandbox.lock().await?;
        let programs = &self.sandbox.programs().await?.distribution;
        self.switch()?.change_cuts(programs, change).await
    }

    pub fn cuts(&self) -> Result<Cuts> {
        self.switch()?.cuts()
    }

    /// Cuts two clusters from each other: packets vanish, and no error comes back.
    pub async fn cut_link(&self, other: &Self) -> Result<()> {
        self.change_link(other, |cuts, name| {
            cuts.links.insert(name.to_owned());
        })
        .await
    }

    pub async fn heal_link(&self, other: &Self) -> Result<()> {
        self.change_link(other, |cuts, name| {
            cuts.links.remove(name);
        })
        .await
    }

    async fn change_link(&self, other: &Self, change: impl Fn(&mut Cuts, &str)) -> Result<()> {
        if self.name == other.name {
            return Err(Error::input("a link is between two clusters"));
        }
        self.change_cuts(|cuts| change(cuts, &other.name)).await?;
        other.change_cuts(|cuts| change(cuts, &self.name)).await
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Interfaces are named after clusters, and the kernel allows 15 characters for `link-` and a name or a name and a number.
fn check_name(name: &str) -> Result<()> {
    if (1..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(Error::input(format!("a cluster's name is one to eight letters a to z: {name:?}")))
}

fn free_port() -> Result<u16> {
    let path = Path::new("127.0.0.1");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::file("listen on", path))?;
    Ok(listener.local_addr().map_err(Error::file("listen on", path))?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_fit_interfaces() {
        for (name, expected) in [
            ("east", true),
            ("a", true),
            ("abcdefgh", true),
            ("abcdefghi", false),
            ("", false),
            ("East", false),
            ("a1", false),
            ("a/b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), expected, "{name}");
        }
    }
}
