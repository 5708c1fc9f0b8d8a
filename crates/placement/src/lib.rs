//! Placement: on which nodes, in which pools, the replicas of a volume are made.
//!
//! ```text
//! Cluster (nodes, pools, volumes) ─┐
//!                                  ├─► place ─► places, in the order in which they were chosen
//! Request (size, replicas, rules) ─┘       └──► refusal: why, for each rule and each node
//! ```
//! What a place must have: room, a node that takes replicas and has none of this volume, and with the others all required rules. Of those that do, each
//! replica gets the best one, given those before it: by preferred rules, then apart from the others in region, zone and rack, then where the share
//! of free room is largest, then where the fewest replicas are.
//!
//! # What holds
//!
//! * If there is a choice that keeps all required rules, one is found; the order of preference never leads into a dead end.
//! * The same arguments give the same places. There is no clock and no randomness.
//! * A refusal names every node and every rule that is in the way.
//! * What is not known to be apart counts as together: a node without a zone is not apart from any other in zones. A node without the label that a rule is
//!   about does not keep the rule.
//!
//! What is *absent*: the decision when replicas are moved; the reservation of room. Whoever carries a placement out finds out whether the room is still
//! there.

pub mod cluster;
mod measure;
mod preference;
pub mod refusal;
mod search;
pub mod strategy;

pub use cluster::{Cluster, Domains, Labels, Node, Place, PlacedVolume, Pool, Request};
pub use refusal::Refusal;
pub use search::{MOST_TRIES, place};
pub use strategy::{Enforcement, Expression, Operator, ReplicaRule, Scope, Strategy, VolumeRule};
