//! What can be served: a volume or snapshot of a pool, or a volume that has replicas on several nodes.

use super::journal::Served;
use crate::device::{SnapshotNames, Stored};
use crate::qos::Limits;
use crate::store::Store;
use block::Device;
use replication::units::{AttachmentId, VolumeId};
use std::sync::Arc;
use volume::{SnapshotId, State};

/// What replicated volumes have in place of the name of a pool, which is the last part of a path and so never has a slash.
pub(crate) const REPLICATED: &str = "replicated/";

/// A volume or snapshot of a pool of this node.
pub(crate) struct Local {
    pub(crate) store: Arc<Store>,
    /// VOLUME, or VOLUME@SNAPSHOT.
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) limits: Limits,
}

impl Local {
    /// The same as something to be served.
    pub(crate) fn target(&self) -> Target {
        let source = Source::Stored { store: self.store.clone(), state: self.state };
        Target { name: self.name.clone(), source, limits: self.limits }
    }
}

/// What is to be served.
pub(crate) struct Target {
    /// VOLUME, or VOLUME@SNAPSHOT.
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) limits: Limits,
}

/// Where its bytes are.
pub(crate) enum Source {
    /// In a pool of this node.
    Stored { store: Arc<Store>, state: State },
    /// In replicas. `by` is the attachment that serves it.
    Replicated { volume: VolumeId, by: Option<AttachmentId>, bytes: u64, device: Arc<dyn Device> },
}

impl Source {
    pub(crate) fn pool(&self) -> &str {
        match self {
            Self::Stored { store, .. } => &store.name,
            Self::Replicated { .. } => REPLICATED,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Stored { state: State::Snapshot(_), .. })
    }

    pub(super) fn device(&self) -> Arc<dyn Device> {
        match self {
            Self::Stored { store, state } => {
                Arc::new(Stored::new(store.pool.clone(), *state, Arc::new(Names(store.clone()))))
            }
            Self::Replicated { device, .. } => device.clone(),
        }
    }

    /// What the next process has to know of it.
    pub(super) fn served(&self) -> Option<Served> {
        match self {
            Self::Stored { .. } => None,
            Self::Replicated { volume, by, bytes, .. } => Some(Served::new(*volume, *by, *bytes)),
        }
    }

    /// The begin of the name of a block device or socket, short enough for a loop device: names of volumes may be longer. It is made of ids, since several
    /// nodes may run on one kernel, as in containers. A volume that has been rolled back has another id, and it is detached while it is.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Stored { store, state } => {
                let id = match state {
                    State::Volume(id) => id.0,
                    State::Snapshot(id) => id.0,
                };
                let pool = store.pool.id()[..8].iter().fold(0_u64, |pool, byte| pool << 8 | u64::from(*byte));
                format!("{pool:016x}-{id}")
            }
            Self::Replicated { volume, .. } => label_of(*volume),
        }
    }
}

/// The same of a replicated volume.
pub(crate) fn label_of(volume: VolumeId) -> String {
    format!("{:032x}", volume.0)
}

/// Snapshots under their names within a volume.
struct Names(Arc<Store>);

impl SnapshotNames for Names {
    fn before(&self, state: State) -> Vec<String> {
        self.0.line(state).into_iter().map(|(name, _)| name).collect()
    }

    fn find(&self, state: State, name: &str) -> Option<SnapshotId> {
        self.0.line(state).into_iter().find(|(other, _)| other == name).map(|(_, id)| id)
    }
}
