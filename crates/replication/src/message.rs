//! What an attachment and a replica say to each other.
//!
//! Every request names its epoch, the run of the replica's process that it is meant for, and its place in the attachment's sequence. Networks may
//! lose, delay, reorder and double them.

use crate::units::{AttachmentId, Blocks, Digest, Epoch, Incarnation, Sequence, Session, SnapshotId};
use bytes::Bytes;

/// A request of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub attachment: AttachmentId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Of which run of the replica; a seal may go to any.
    pub session: Option<Session>,
    /// Its number; the same when it is sent again.
    pub sequence: Sequence,
    /// Changes with lower numbers have been answered and will not be sent again, so the replica may forget them, and must not execute them any more.
    pub done_below: Sequence,
    /// What is asked for.
    pub body: Body,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Take on this epoch, durably, and refuse all lower ones from now on (rule 1). Everything that was written before becomes durable with it.
    Seal,
    /// Say that the epoch is still this one (rule 4).
    Renew,
    /// Write whole blocks.
    Write {
        /// Which.
        blocks: Blocks,
        /// Their bytes.
        data: Bytes,
    },
    /// These blocks shall read as zeros.
    Discard {
        /// Which.
        blocks: Blocks,
    },
    /// Read whole blocks.
    Read {
        /// Which.
        blocks: Blocks,
    },
    /// Make durable all that was answered before.
    Flush,
    /// The same; and remember that the replica holds everything, for as long as its store loses nothing.
    Confirm,
    /// Which blocks were written or discarded in an epoch or later.
    Changed {
        /// The epoch.
        since: Epoch,
        /// From which block on.
        from: u64,
        /// How many ranges at most.
        most: u32,
    },
    /// What these blocks hash to.
    Digest {
        /// Which.
        blocks: Blocks,
    },
    /// Take a snapshot of all that was answered before, of this epoch; one that is there already is not taken again (rule 10).
    Snapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Have at least so many blocks, durably (rule 11).
    Grow {
        /// How many.
        blocks: u64,
    },
}

impl Body {
    /// Whether it must not be executed twice: a copy that comes late would bring old data back, or take a snapshot of what came later.
    #[must_use]
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Discard { .. } | Self::Snapshot { .. })
    }
}

/// An answer of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whose request.
    pub attachment: AttachmentId,
    /// Which request.
    pub sequence: Sequence,
    /// The epoch of the request.
    pub epoch: Epoch,
    /// Which run of the replica's process answers.
    pub session: Session,
    /// Since when its store has lost nothing.
    pub incarnation: Incarnation,
    /// What it says.
    pub body: Result<Reply, Refusal>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The epoch is sealed.
    Sealed {
        /// Its store has lost nothing since the replica was last told that it holds everything.
        is_whole: bool,
    },
    /// It is still this epoch; or: what was asked for is done.
    Done,
    /// What was read.
    Data(Bytes),
    /// What has changed.
    Changed(Changed),
    /// What the blocks hash to.
    Digest(Digest),
}

/// Some of what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// In ascending order.
    pub ranges: Vec<Blocks>,
    /// Up to which block these are all; `None` if nothing is left.
    pub next: Option<u64>,
}

/// Why a request was not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another attachment or membership has taken over (rule 1).
    #[error("{sealed} is sealed, and the request is of a lower one")]
    LowerEpoch {
        /// What is sealed.
        sealed: Epoch,
    },
    /// The epoch was not sealed here, or for another attachment.
    #[error("the epoch was not sealed here by this attachment; seal it first")]
    NotSealed,
    /// The process has been started anew since.
    #[error("the replica was started anew since; seal the epoch again")]
    EarlierSession,
    /// The attachment goes beyond what was agreed.
    #[error("more than {most} changes are under way; answers to older ones have to be awaited first", most = crate::limits::MOST_CHANGES)]
    TooMany,
    /// The blocks are not those of the volume, or the bytes not as many as the blocks; or there is no room for what is asked for.
    #[error("the request does not fit the volume: {reason}")]
    Unfit {
        /// In which way.
        reason: String,
    },
    /// What is stored is not what was written, or cannot be read.
    #[error("{blocks} cannot be read: {reason}")]
    Damaged {
        /// Which.
        blocks: Blocks,
        /// What the store says.
        reason: String,
    },
    /// The store takes no more changes until it is opened again.
    #[error("the store failed: {reason}")]
    Failed {
        /// What it says.
        reason: String,
    },
}
