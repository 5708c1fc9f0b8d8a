//! Snapshots are looked at in a replica of this node, or of another.

use crate::node::Node;
use replicas::{LookError, Looking};
use replication::look::Unseen;
use replication::units::{NodeId, ReplicaId, VolumeId};

impl Node {
    /// Who tells of the snapshots of a replica, which is on this node or on another.
    ///
    /// # Errors
    /// It is not there, or that node is not reached.
    pub async fn look_at(&self, volume: VolumeId, replica: ReplicaId, on: &NodeId) -> Result<Looking, LookError> {
        let inner = &self.replicated().map_err(|error| LookError::Away(error.story()))?.inner;
        if *on != inner.network.node {
            return Looking::there(&inner.network, volume, replica, on).await;
        }
        let absent = || Unseen::Absent(format!("{replica} is in no pool of this node, or cannot be used"));
        Ok(Looking::here(inner.holder.offered.find(volume, replica).ok_or_else(absent)?))
    }
}
