//! Looks at the snapshots of one replica, wherever it is.

use crate::net::{Line, Network};
use crate::replica::Replica;
use replication::look::{Look, Unseen};
use replication::message::Changed;
use replication::units::{NodeId, ReplicaId, VolumeId};
use std::sync::Arc;

/// Who tells of the snapshots of a replica. It is to be asked only for those that the record of the volume says it holds ([`replication::look`]).
pub struct Looking(Way);

enum Way {
    Here(Arc<Replica>),
    There(Box<Line>),
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The replica refuses.
    #[error(transparent)]
    Unseen(#[from] Unseen),
    /// It does not answer, or says what cannot be.
    #[error("it is not reached: {0}")]
    Away(String),
}

impl Looking {
    /// A replica of this node.
    #[must_use]
    pub fn here(replica: Arc<Replica>) -> Self {
        Self(Way::Here(replica))
    }

    /// A replica of another node.
    ///
    /// # Errors
    /// It is not reached, or its node does not know what looks are.
    pub async fn there(
        network: &Network,
        volume: VolumeId,
        replica: ReplicaId,
        node: &NodeId,
    ) -> Result<Self, LookError> {
        let line = Line::open(network, volume, replica, node).await;
        Ok(Self(Way::There(Box::new(line.map_err(|closed| LookError::Away(closed.story()))?))))
    }

    /// What it sees, a page of it: as much as the store finds at once. After an error it is not asked again.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn look(&mut self, look: &Look) -> Result<Changed, LookError> {
        let told = match &mut self.0 {
            Way::Here(replica) => replica.look(look).await?,
            Way::There(line) => line.look(look).await.map_err(|closed| LookError::Away(closed.story()))??,
        };
        if fits(look, &told) {
            Ok(told)
        } else {
            Err(LookError::Away("it tells of other blocks than it was asked for".into()))
        }
    }
}

/// Whether what was told can be: in ascending order, of the blocks that were asked for, and further than where that began.
fn fits(look: &Look, told: &Changed) -> bool {
    let (mut at, asked) = (look.blocks.start, look.blocks.end());
    let end = told.next.unwrap_or(asked);
    let goes_on = told.next.is_none_or(|next| at < next && next < asked);
    goes_on
        && told.ranges.iter().all(|range| {
            let fits = range.start >= at && range.count > 0 && range.end() <= end;
            at = range.end();
            fits
        })
}

#[cfg(test)]
mod tests {
    use super::{Changed, Look, fits};
    use replication::units::{Blocks, Epoch, SnapshotId};

    #[test]
    fn what_cannot_be_is_not_believed() {
        let blocks = Blocks { start: 10, count: 90 };
        let look = Look { of: (SnapshotId(1), Epoch(1)), since: None, blocks, most: 9 };
        let told = |ranges: &[(u64, u64)], next| {
            let ranges = ranges.iter().map(|(start, count)| Blocks { start: *start, count: *count }).collect();
            fits(&look, &Changed { ranges, next })
        };
        assert!(told(&[], None) && told(&[(10, 90)], None) && told(&[(10, 1), (11, 2), (50, 1)], Some(51)));
        assert!(told(&[], Some(11)) && told(&[(98, 1)], Some(99)));
        for (ranges, next) in [
            (vec![(9, 1)], None),
            (vec![(10, 91)], None),
            (vec![(20, u64::MAX)], None),
            (vec![(20, 0)], None),
            (vec![(20, 2), (21, 1)], None),
            (vec![(20, 2), (10, 1)], None),
            (vec![(20, 2)], Some(21)),
            // Who asks again from there would ask for ever, or leave something out.
            (vec![], Some(10)),
            (vec![], Some(9)),
            (vec![], Some(100)),
        ] {
            assert!(!told(&ranges, next), "{ranges:?} {next:?}");
        }
    }
}
