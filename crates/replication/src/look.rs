//! What whoever serves nothing asks a replica: what is data in a snapshot, or what has changed since an older one. It is what a backup has to read.
//!
//! # What is told
//!
//! It may be too much, and is never too little:
//!
//! * On every replica that the record names as its holder, a snapshot has the blocks that the volume had at one instant ([`crate::record::snapshots`]). So what differs between two
//!   of them differs on each replica that holds both, and whichever of these is asked, nothing is missing. One that holds one of the two alone *must not* be asked: what
//!   it has of the other is something else, if it has it at all.
//! * A block that differs between two snapshots of one store was written or discarded between them, and the store knows that by its births ([`crate::replica::store`]). What was
//!   written there to make the replica equal with others is told, too, though it changed nothing for the user.
//! * What is no data reads as zeros.
//!
//! It is no part of what an attachment and its replicas have to say to each other: snapshots never change, so a look has no epoch and no session, and nothing waits for it.

use crate::units::{Blocks, HeldSnapshot};

/// A question about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Which one.
    pub of: HeldSnapshot,
    /// What has changed since this older one is to be told; if there is none, what is data.
    pub since: Option<HeldSnapshot>,
    /// In which blocks.
    pub blocks: Blocks,
    /// How many ranges at most, one or more.
    pub most: u32,
}

/// Why a replica does not tell what a snapshot has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// It does not have one of the two, or not so many blocks of it.
    #[error("it does not have what is asked for: {0}")]
    Absent(String),
    /// The one does not come from the other.
    #[error("there is no way from the one to the other: {0}")]
    Unrelated(String),
    /// Where the blocks are cannot be read.
    #[error("what it knows of the snapshot is damaged: {0}")]
    Damaged(String),
    /// Its store tells nothing just now.
    #[error("its pool does not tell: {0}")]
    Failed(String),
}
