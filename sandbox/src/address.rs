//! Who has which address.
//!
//! Everything here exists only inside the network namespaces of a sandbox, so the addresses are fixed by the number of
//! the cluster and have nothing in common with the machine's own, nor with those of another sandbox.
//!
//! | range | what |
//! |---|---|
//! | 10.(20+C).0.0/24 | the switch (.1), the control plane (.2), node N (.10+N) |
//! | 10.(60+C).N.0/24 | pods of node N |
//! | 10.(100+C).0.0/16 | services |
//! | 10.19.X.0/30 | the link of a pair of clusters |

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// How many clusters a sandbox can have: as many as the ranges above leave room for links between (16 × 16 pairs).
pub(crate) const MAX_CLUSTERS: u8 = 16;
/// How many nodes a cluster can have: enough for placement over zones, and what one machine still carries.
pub(crate) const MAX_NODES: u8 = 32;

/// The number of a cluster within its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ClusterIndex(pub(crate) u8);

/// The number of a node within its cluster, from 1; 0 is the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeNumber(pub(crate) u8);

impl NodeNumber {
    pub(crate) const CONTROL_PLANE: Self = Self(0);
}

impl ClusterIndex {
    pub(crate) fn switch(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 20 + self.0, 0, 1)
    }

    pub(crate) fn node(self, node: NodeNumber) -> Ipv4Addr {
        let host = match node {
            NodeNumber::CONTROL_PLANE => 2,
            NodeNumber(number) => 10 + number,
        };
        Ipv4Addr::new(10, 20 + self.0, 0, host)
    }

    pub(crate) fn nodes(self) -> String {
        format!("10.{}.0.0/24", 20 + self.0)
    }

    pub(crate) fn pods(self) -> String {
        format!("10.{}.0.0/16", 60 + self.0)
    }

    pub(crate) fn pods_of(self, node: NodeNumber) -> String {
        format!("10.{}.{}.0/24", 60 + self.0, node.0)
    }

    pub(crate) fn services(self) -> String {
        format!("10.{}.0.0/16", 100 + self.0)
    }

    /// Where the API server is for pods: the first address of the services.
    pub(crate) fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.0, 0, 1)
    }

    /// This cluster's end of its link to another, and the other's end.
    pub(crate) fn link(self, other: Self) -> (Ipv4Addr, Ipv4Addr) {
        let (low, high) = (self.0.min(other.0), self.0.max(other.0));
        let end = |host| Ipv4Addr::new(10, 19, low * MAX_CLUSTERS + high, host);
        if self.0 == low { (end(1), end(2)) } else { (end(2), end(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_link_agree() {
        let (a, b) = (ClusterIndex(1), ClusterIndex(14));
        let (mine, yours) = a.link(b);
        assert_eq!(b.link(a), (yours, mine));
        assert_eq!(mine, Ipv4Addr::new(10, 19, 30, 1));
    }

    #[test]
    fn ranges_of_all_clusters_are_apart() {
        let mut all = std::collections::BTreeSet::new();
        for index in (0..MAX_CLUSTERS).map(ClusterIndex) {
            for range in [index.nodes(), index.pods(), index.services()] {
                assert!(all.insert(range.clone()), "{range} twice");
            }
        }
        assert!(all.iter().all(|range| !range.starts_with("10.19.")));
        const { assert!(MAX_NODES <= 200, "the last node's address must fit into its range") };
    }
}
