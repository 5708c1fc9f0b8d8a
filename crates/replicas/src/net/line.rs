//! From somebody who looks at snapshots to a replica on another node.

use super::limits::LOOK;
use super::link::Ends;
use super::stream::{Incoming, Outgoing};
use super::{Closed, Network};
use replication::look::{Look, Unseen};
use replication::message::Changed;
use replication::units::{AttachmentId, NodeId, ReplicaId, VolumeId};
use replication::wire::{LOOKS, Message};

/// Who looks is no attachment.
const NOBODY: AttachmentId = AttachmentId(0);

/// A connection that carries nothing but looks, one after the other.
pub(crate) struct Line {
    incoming: Incoming,
    outgoing: Outgoing,
    version: u16,
}

impl Line {
    pub(crate) async fn open(
        network: &Network,
        volume: VolumeId,
        replica: ReplicaId,
        node: &NodeId,
    ) -> Result<Self, Closed> {
        let ends = Ends { volume, attachment: NOBODY, replica, node: node.clone() };
        let greeted = tokio::time::timeout(network.limits.handshake, network.greet(&ends)).await;
        let (incoming, outgoing, version) = greeted.unwrap_or(Err(Closed::Slow("connecting")))?;
        if version < LOOKS { Err(Closed::Older(version)) } else { Ok(Self { incoming, outgoing, version }) }
    }

    /// Asks, and waits for the answer. What is broken off is not asked again here: an answer that comes later would be taken for another.
    pub(crate) async fn look(&mut self, look: &Look) -> Result<Result<Changed, Unseen>, Closed> {
        let seen = async {
            self.outgoing.send_one(&Message::Look(*look), self.version).await?;
            match self.incoming.message().await? {
                Message::Seen(seen) => Ok(seen),
                Message::Farewell(farewell) => Err(Closed::Refused(farewell)),
                _ => Err(Closed::Unexpected("what is no answer to a look")),
            }
        };
        tokio::time::timeout(LOOK, seen).await.unwrap_or(Err(Closed::Slow("looking at a snapshot")))
    }
}
