//! Where other nodes serve their replicas.

use api::StorageNode;
use kube::ResourceExt;
use replicas::Addresses;
use replication::units::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

/// Addresses as the `StorageNode`s say them. What was known stays known while the API server is away.
#[derive(Debug, Default)]
pub struct AddressBook(RwLock<BTreeMap<NodeId, SocketAddr>>);

impl AddressBook {
    /// Replaces what is known.
    pub(crate) fn learn<'a>(&self, nodes: impl Iterator<Item = &'a StorageNode>) {
        let address = |node: &StorageNode| node.status.as_ref()?.address.as_ref()?.parse().ok();
        let known = nodes.filter_map(|node| Some((NodeId::from(node.name_any().as_str()), address(node)?)));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known.collect();
    }
}

impl Addresses for AddressBook {
    fn of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }
}
