//! What there is, and what is wanted.

use crate::strategy::Strategy;
use std::collections::BTreeMap;

/// Labels of a node, a pool or a volume.
pub type Labels = BTreeMap<String, String>;

/// The label of a node's region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The label of a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label of a node's rack; Kubernetes has none.
pub const RACK: &str = "topology.orlop.io/rack";

/// Everything that can take replicas, and everything that is placed already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// All nodes, in any order; each has a name of its own.
    pub nodes: Vec<Node>,
    /// Other volumes, for rules about them. Not the one that is placed.
    pub volumes: Vec<PlacedVolume>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it shares its fate with.
    pub domains: Domains,
    /// Its labels.
    pub labels: Labels,
    /// Why it takes no replicas now, such as `it is being drained`.
    pub closed: Option<String>,
    /// Its pools; each has a name of its own within the node.
    pub pools: Vec<Pool>,
}

/// What a node shares its fate with, from the widest on. A part that is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains {
    /// Far apart.
    pub region: Option<String>,
    /// Apart in power and network, within a region.
    pub zone: Option<String>,
    /// Within a zone.
    pub rack: Option<String>,
}

impl Domains {
    /// What the labels of a node say.
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        let label = |key: &str| labels.get(key).filter(|value| !value.is_empty()).cloned();
        Self { region: label(REGION), zone: label(ZONE), rack: label(RACK) }
    }
}

/// Room for replicas on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its labels; where it and its node have the same one, its own counts.
    pub labels: Labels,
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free, less what must stay free.
    pub free: u64,
    /// How many replicas are in it.
    pub replicas: u32,
}

/// A volume that is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedVolume {
    /// Its labels.
    pub labels: Labels,
    /// The nodes of its replicas.
    pub nodes: Vec<String>,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Bytes that each replica may come to take.
    pub size: u64,
    /// How many replicas are to be placed, beside those that there are.
    pub replicas: usize,
    /// Labels of the volume: it may be what its own rules are about.
    pub labels: Labels,
    /// Where it has replicas that stay. They count in every rule; what they break already cannot be asked of them.
    pub present: Vec<Place>,
    /// Nodes that have a replica of it which leaves: they cannot take another one yet.
    pub leaving: Vec<String>,
    /// Rules.
    pub strategy: Strategy,
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// On which node.
    pub node: String,
    /// In which of its pools.
    pub pool: String,
}
