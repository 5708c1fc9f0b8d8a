//! Maps: which block of a volume or snapshot lies where.
//!
//! A map is a tree of pages ([`crate::format::node`]). Nodes on disk never change; what changes is copied into memory, with all nodes
//! above it, and written to new places with the next checkpoint. So every root that was ever on disk stays a whole map for as long as its nodes are
//! kept, which is all that a snapshot is.

mod freeze;
mod nodes;
mod tree;

pub(crate) use freeze::{Placed, freeze};
pub(crate) use nodes::Nodes;
pub(crate) use tree::{Leaf, Missing, NodeAt, Tree, index_in_leaf};
