//! The seam to the store behind a replica.
//!
//! A [`Replica`](super::Replica) says what is to be stored, and is told when that is done; several operations may be under way, and may end in any order. The
//! store has the properties of this workspace's `volume` crate:
//!
//! * Every block has the **birth** that it was written, discarded or never touched with (epoch 0). `volume` has births of its own; a store over it
//!   begins a new one with each seal, and keeps which is which with the promise.
//! * A write that was **answered** is read by whoever reads afterwards, and survives the end of the process. It does not survive the end of the power
//!   until a flush that began after its answer is answered. A block is old or new then, with the birth that belongs to it, never torn.
//! * What an earlier process had asked for is done when the store is opened again, or never.
//! * What is not what was written is told as damage; nothing else is returned for it.
//! * A **snapshot** has all that was answered before it was asked for. It is there as a whole and durable when it is answered, and it is known by its id and
//!   epoch together: one that is there is not taken again. What came of one that was not answered is not known.
//! * A store that **grows** has zeros behind its old end, and is durably larger when that is answered.
//! * A **full** store does not answer changes until there is room; it fails nothing.

use crate::message::Changed;
use crate::units::{AttachmentId, Blocks, Digest, Epoch, Incarnation, SnapshotId};
use bytes::Bytes;

/// What a replica has promised, kept in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promise {
    /// The epoch that is sealed; no request of a lower one is executed any more.
    pub epoch: Epoch,
    /// For whom.
    pub attachment: Option<AttachmentId>,
    /// In which incarnation the replica was last told that it holds everything.
    pub whole: Option<Incarnation>,
}

/// What the store is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Make durable all that was answered before, then, as the last of it, this promise.
    Promise(Promise),
    /// Write blocks with this birth.
    Write {
        /// Which.
        blocks: Blocks,
        /// Their bytes.
        data: Bytes,
        /// In which epoch.
        birth: Epoch,
    },
    /// Make blocks read as zeros, with this birth.
    Discard {
        /// Which.
        blocks: Blocks,
        /// In which epoch.
        birth: Epoch,
    },
    /// Read blocks.
    Read {
        /// Which.
        blocks: Blocks,
    },
    /// Make durable all that was answered before.
    Flush,
    /// Which blocks have this birth or a later one.
    Changed {
        /// The birth.
        since: Epoch,
        /// From which block on.
        from: u64,
        /// How many ranges at most.
        most: u32,
    },
    /// Hash blocks.
    Digest {
        /// Which.
        blocks: Blocks,
    },
    /// Take a snapshot.
    Snapshot {
        /// Which.
        id: SnapshotId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Become as large as this, if it is smaller.
    Grow {
        /// How many blocks there are to be.
        blocks: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// What was read.
    Data(Bytes),
    /// What has changed.
    Changed(Changed),
    /// What the blocks hash to.
    Digest(Digest),
    /// Something else is there than what was written, or it cannot be read.
    Damaged {
        /// Where.
        blocks: Blocks,
        /// What the store says.
        reason: String,
    },
    /// It was not done, and nothing else is wrong: there is no room for one more.
    Refused {
        /// What the store says.
        reason: String,
    },
    /// Nothing more can be changed until the store is opened again.
    Failed {
        /// What the store says.
        reason: String,
    },
}
