//! Nodes as this controller sees them, and as `placement` wants them.

use api::StoragePool;
use placement::{Cluster, Domains, Labels, Node, Place, Pool, Request};
use replication::units::NodeId;
use std::time::Duration;

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeId,
    /// For how long it has not said that it lives.
    pub silent_for: Duration,
    /// After how long of that it is taken for dead.
    pub dead_after: Duration,
    /// It shall have no replicas.
    pub is_drained: bool,
    /// Its pools.
    pub pools: Vec<StoragePool>,
    /// The region that it is in.
    pub region: Option<String>,
    /// The zone that it is in.
    pub zone: Option<String>,
}

impl NodeView {
    /// It says that it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.silent_for < self.dead_after
    }

    fn closed(&self) -> Option<String> {
        if !self.is_alive() {
            Some(format!("it has not said that it lives for {} s", self.silent_for.as_secs()))
        } else if self.is_drained {
            Some("it is being drained".into())
        } else if self.pools.iter().all(|pool| pool.failed) {
            Some("none of its pools works".into())
        } else {
            None
        }
    }

    fn node(&self) -> Node {
        let pool = |pool: &StoragePool| Pool {
            name: pool.name.clone(),
            labels: Labels::new(),
            capacity: pool.bytes,
            free: pool.free_bytes,
            replicas: 0,
        };
        Node {
            name: self.name.0.to_string(),
            domains: Domains { region: self.region.clone(), zone: self.zone.clone(), rack: None },
            labels: Labels::new(),
            closed: self.closed(),
            pools: self.pools.iter().filter(|pool| !pool.failed).map(pool).collect(),
        }
    }

    /// Where a replica is on it; in which pool is the node's own matter.
    fn place(&self) -> Place {
        let pool = self.pools.first().map(|pool| pool.name.clone()).unwrap_or_default();
        Place { node: self.name.0.to_string(), pool }
    }
}

/// The nodes for `count` more replicas, of which `preferred` comes first, if it can be had. `stay` have replicas that count for the spread, `leave` have some
/// that are to go.
///
/// # Errors
/// There are not enough. What is told has each node that is not taken.
pub fn place(
    bytes: u64,
    count: usize,
    preferred: Option<&NodeId>,
    (stay, leave): (&[NodeId], &[NodeId]),
    nodes: &[NodeView],
) -> Result<Vec<NodeId>, String> {
    if nodes.is_empty() {
        return Err("there are no nodes with storage; start `orlop node` with --cluster on some".into());
    }
    let cluster = Cluster { nodes: nodes.iter().map(NodeView::node).collect(), volumes: Vec::new() };
    let of = |names: &[NodeId]| -> Vec<Place> {
        nodes.iter().filter(|node| names.contains(&node.name)).map(NodeView::place).collect()
    };
    let mut request = Request {
        size: bytes,
        replicas: count,
        present: of(stay),
        leaving: leave.iter().map(|node| node.0.to_string()).collect(),
        ..Request::default()
    };
    let mut chosen = Vec::new();
    if let Some(preferred) = preferred {
        let mut alone = cluster.clone();
        alone.nodes.retain(|node| node.name == *preferred.0);
        if placement::place(&alone, &Request { replicas: 1, ..request.clone() }).is_ok() {
            request.present.extend(of(std::slice::from_ref(preferred)));
            request.replicas -= 1;
            chosen.push(preferred.clone());
        }
    }
    let places = placement::place(&cluster, &request).map_err(|refused| refused.to_string())?;
    chosen.extend(places.iter().map(|place| NodeId::from(place.node.as_str())));
    Ok(chosen)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::controller) fn node(name: &str, zone: &str, free_bytes: u64) -> NodeView {
        NodeView {
            name: name.into(),
            silent_for: Duration::ZERO,
            dead_after: Duration::from_secs(10),
            is_drained: false,
            pools: vec![StoragePool { name: "pool".into(), bytes: 1 << 30, free_bytes, failed: false }],
            region: None,
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
        }
    }

    fn chosen(
        count: usize,
        preferred: Option<&str>,
        taken: &[&str],
        nodes: &[NodeView],
    ) -> Result<Vec<String>, String> {
        let taken: Vec<NodeId> = taken.iter().map(|name| NodeId::from(*name)).collect();
        let preferred = preferred.map(NodeId::from);
        let found = place(1 << 20, count, preferred.as_ref(), (&taken, &[]), nodes)?;
        Ok(found.iter().map(|node| node.0.to_string()).collect())
    }

    #[test]
    fn replicas_are_spread_over_zones_and_the_preferred_node_comes_first() {
        let mib = |count: u64| count << 20;
        let nodes =
            [node("a", "x", mib(90)), node("b", "x", mib(80)), node("c", "y", mib(10)), node("d", "z", mib(20))];
        assert_eq!(chosen(3, None, &[], &nodes).unwrap(), ["a", "d", "c"]);
        let near = chosen(2, Some("b"), &[], &nodes).unwrap();
        assert!(near[0] == "b" && near[1] != "a", "{near:?}");
        assert_eq!(chosen(1, None, &["a", "d"], &nodes).unwrap(), ["c"], "where there is none yet");
        assert_eq!(chosen(1, Some("e"), &[], &nodes).unwrap(), ["a"], "one that is not there is not waited for");
    }

    #[test]
    fn a_refusal_names_every_node_and_why() {
        let mut nodes = [node("a", "", 9), node("b", "", 9 << 20), node("c", "", 9 << 20), node("d", "", 9 << 20)];
        nodes[1].silent_for = Duration::from_secs(33);
        nodes[2].is_drained = true;
        nodes[3].pools[0].failed = true;
        let refused = chosen(1, None, &[], &nodes).unwrap_err();
        for said in ["a", "b", "33 s", "drained", "none of its pools works"] {
            assert!(refused.contains(said), "{refused}");
        }
        assert!(chosen(1, None, &[], &[]).unwrap_err().contains("--cluster"));
        assert!(chosen(1, Some("c"), &[], &nodes).is_err(), "a preferred one that is drained is not taken either");
    }
}
