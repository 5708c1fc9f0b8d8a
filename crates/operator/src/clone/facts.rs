//! What is known of a clone before anything is done about it.

use std::collections::{BTreeMap, BTreeSet};

use api::{ApplicationClone, ApplicationCloneStatus, Failure};
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::volume::Seen;
use crate::admission::Other;
use crate::claims::ClaimFacts;
use crate::restore::NamespaceState;
use crate::snapshots::Class;

/// Everything that the next step depends on.
pub(super) struct Gathered {
    /// The run, as it is now.
    pub(super) run: ApplicationClone,
    /// Its uid.
    pub(super) uid: String,
    /// Now.
    pub(super) now: Timestamp,
    /// What its stage needs.
    pub(super) facts: Facts,
}

/// What a stage needs.
#[allow(clippy::large_enum_variant, reason = "there is one of them in a reconcile")]
pub(super) enum Facts {
    /// It is over.
    Over,
    /// It is being deleted.
    Leaving,
    /// It must not go on; why. So nothing that it says of itself was followed.
    Barred(Failure),
    /// It has not begun.
    Preparing(Preparing),
    /// The volumes are made.
    Volumes {
        /// Whether the destination is there.
        destination: NamespaceState,
        /// What is seen of each volume.
        seen: Vec<Seen>,
    },
    /// The objects are to be made.
    Resources,
}

/// What is known of source and destination.
pub(super) struct Preparing {
    /// Why it is not looked at further for the moment.
    pub(super) waits: Option<String>,
    pub(super) source: Option<NamespaceState>,
    pub(super) destination: Option<NamespaceState>,
    pub(super) others: Vec<Other>,
    /// The claims that are selected, or what is wrong with the selection.
    pub(super) claims: Result<Vec<Claim>, String>,
    /// Claims that are in the destination.
    pub(super) existing: BTreeSet<String>,
    /// Pods in the destination, by the claims that they use.
    pub(super) users: BTreeMap<String, Vec<String>>,
    /// The classes of snapshots that there are.
    pub(super) classes: Vec<Class>,
    /// No other run that makes objects can begin until this one has, or waits.
    pub(super) admission: Option<OwnedMutexGuard<()>>,
}

/// A claim of the source.
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub(super) facts: ClaimFacts,
    /// Whether its class makes volumes only for a node that was chosen; nothing if there is no such class.
    pub(super) waits_for_a_node: Option<bool>,
    /// That node.
    pub(super) node: Option<String>,
}

impl Gathered {
    /// The status, as it was last written.
    pub(super) fn status(&self) -> ApplicationCloneStatus {
        self.run.status.clone().unwrap_or_default()
    }
}
