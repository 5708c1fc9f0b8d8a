//! Nodes as this controller sees them, and as `placement` wants them.

use api::StoragePool;
use placement::{Cluster, Domains, Labels, Node, Place, PlacedVolume, Pool, Request, Strategy};
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
    /// What its Node in Kubernetes has.
    pub labels: Labels,
}

/// Everything that replicas are placed among.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The nodes that hold replicas.
    pub nodes: Vec<NodeView>,
    /// Other volumes, for rules about them; needed for a strategy that has some.
    pub volumes: Vec<PlacedVolume>,
}

/// What is asked of the places of replicas.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Bytes of a replica.
    pub bytes: u64,
    /// How many more.
    pub count: usize,
    /// The node that comes first, if it can be had.
    pub preferred: Option<&'a NodeId>,
    /// Nodes that have replicas which count for the spread.
    pub stay: &'a [NodeId],
    /// Nodes that have replicas which are to go.
    pub leave: &'a [NodeId],
    /// The volume's labels.
    pub labels: &'a Labels,
    /// The rules.
    pub strategy: &'a Strategy,
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
            domains: Domains {
                region: self.region.clone(),
                zone: self.zone.clone(),
                rack: Domains::of(&self.labels).rack,
            },
            labels: self.labels.clone(),
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

/// The nodes for more replicas of a volume.
///
/// # Errors
/// There are not enough. What is told has each node that is not taken.
pub fn place(asked: Asked, among: &Surroundings) -> Result<Vec<NodeId>, String> {
    let nodes = &among.nodes;
    if nodes.is_empty() {
        return Err("there are no nodes with storage; start `orlop node` with --cluster on some".into());
    }
    let cluster = Cluster { nodes: nodes.iter().map(NodeView::node).collect(), volumes: among.volumes.clone() };
    let of = |names: &[NodeId]| -> Vec<Place> {
        nodes.iter().filter(|node| names.contains(&node.name)).map(NodeView::place).collect()
    };
    let request = Request {
        size: asked.bytes,
        replicas: asked.count,
        labels: asked.labels.clone(),
        present: of(asked.stay),
        leaving: asked.leave.iter().map(|node| node.0.to_string()).collect(),
        strategy: asked.strategy.clone(),
    };
    let names = |places: Vec<Place>| places.into_iter().map(|place| NodeId::from(place.node.as_str()));
    if let Some(preferred) = asked.preferred {
        let mut alone = cluster.clone();
        // The others stay in sight: rules look at where they are.
        for node in alone.nodes.iter_mut().filter(|node| node.name != *preferred.0) {
            node.closed = Some("another one is preferred".into());
        }
        if placement::place(&alone, &Request { replicas: 1, ..request.clone() }).is_ok() {
            let mut rest = Request { replicas: asked.count.saturating_sub(1), ..request.clone() };
            rest.present.extend(of(std::slice::from_ref(preferred)));
            // With it, required rules may have no choice left.
            if let Ok(places) = placement::place(&cluster, &rest) {
                return Ok(std::iter::once(preferred.clone()).chain(names(places)).collect());
            }
        }
    }
    placement::place(&cluster, &request).map(|places| names(places).collect()).map_err(|refused| refused.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use placement::{Enforcement, Expression, Operator, ReplicaRule, Scope, VolumeRule};

    pub(in crate::controller) fn node(name: &str, zone: &str, free_bytes: u64) -> NodeView {
        NodeView {
            name: name.into(),
            silent_for: Duration::ZERO,
            dead_after: Duration::from_secs(10),
            is_drained: false,
            pools: vec![StoragePool { name: "pool".into(), bytes: 1 << 30, free_bytes, failed: false }],
            region: None,
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
            labels: Labels::new(),
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
        let among = Surroundings { nodes: nodes.to_vec(), volumes: Vec::new() };
        kept(&Strategy::default(), count, preferred.as_ref(), &taken, &among)
    }

    fn kept(
        strategy: &Strategy,
        count: usize,
        preferred: Option<&NodeId>,
        stay: &[NodeId],
        among: &Surroundings,
    ) -> Result<Vec<String>, String> {
        let labels = Labels::from([("app".to_owned(), "db".to_owned())]);
        let asked = Asked { bytes: 1 << 20, count, preferred, stay, leave: &[], labels: &labels, strategy };
        Ok(place(asked, among)?.iter().map(|node| node.0.to_string()).collect())
    }

    fn with(key: &str, value: &str) -> Vec<Expression> {
        vec![Expression { key: key.into(), operator: Operator::In(vec![value.into()]) }]
    }

    #[test]
    fn the_rules_of_a_strategy_count_more_than_the_preferred_node() {
        let mut among =
            Surroundings { nodes: ["a", "b", "c"].map(|name| node(name, "", 9 << 20)).to_vec(), volumes: vec![] };
        for (at, media) in [(0, "disk"), (1, "ssd"), (2, "ssd")] {
            among.nodes[at].labels.insert("media".into(), media.into());
        }
        let required = Enforcement::Required;
        let rule = ReplicaRule { enforcement: required, affected: None, scope: Scope::Match(with("media", "ssd")) };
        let fast = Strategy { replica_affinity: vec![rule], ..Strategy::default() };
        let preferred = NodeId::from("a");
        let mut found = kept(&fast, 2, Some(&preferred), &[], &among).unwrap();
        found.sort();
        assert_eq!(found, ["b", "c"]);
        let refused = kept(&fast, 3, None, &[], &among).unwrap_err();
        assert!(refused.contains("media In (ssd)") && refused.contains('a'), "{refused}");
        // With the preferred node first there would be none with the same media for the second.
        let rule = ReplicaRule { enforcement: required, affected: None, scope: Scope::Topology("media".into()) };
        let alike = Strategy { replica_affinity: vec![rule], ..Strategy::default() };
        let mut found = kept(&alike, 2, Some(&preferred), &[], &among).unwrap();
        found.sort();
        assert_eq!(found, ["b", "c"]);
        // Away from another volume.
        among.volumes = vec![PlacedVolume { labels: [("app".into(), "db".into())].into(), nodes: vec!["b".into()] }];
        let rule = VolumeRule { enforcement: required, affected: None, volumes: with("app", "db"), topology_key: None };
        let apart = Strategy { volume_anti_affinity: vec![rule], ..Strategy::default() };
        let mut found = kept(&apart, 2, None, &[], &among).unwrap();
        found.sort();
        assert_eq!(found, ["a", "c"]);
        // Near it, in the same zone: the preferred node is, though the other volume is not on it.
        for node in &mut among.nodes {
            node.labels.insert("zone".into(), "x".into());
        }
        let near = VolumeRule {
            enforcement: required,
            affected: None,
            volumes: with("app", "db"),
            topology_key: Some("zone".into()),
        };
        let near = Strategy { volume_affinity: vec![near], ..Strategy::default() };
        assert_eq!(kept(&near, 1, Some(&NodeId::from("c")), &[], &among).unwrap(), ["c"]);
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
