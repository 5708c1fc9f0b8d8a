//! What can go wrong, for whoever asks.

use crate::units::{Blocks, SnapshotId, VolumeId};
use std::io;

/// Why a pool was not made, opened or examined.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk did not do what it was asked.
    #[error("{action}: {source}")]
    Disk {
        /// What was to be done.
        action: String,
        /// What the system says.
        source: io::Error,
    },
    /// Another process, or another part of this one, has it open.
    #[error(
        "the pool {path} is in use by another process; stop that one first, since two that write into one pool destroy it"
    )]
    InUse {
        /// Where it is.
        path: String,
    },
    /// There is something else.
    #[error("no superblock of a pool is found; this is another file or device, or its begin was overwritten")]
    NotAPool,
    /// It is there already.
    #[error("there is a pool already; it is not overwritten")]
    Exists,
    /// A later program has written it.
    #[error(
        "the pool has format version {found}, and this program reads up to {supported}; use the program that wrote it, or a later one"
    )]
    Newer {
        /// The version of the pool.
        found: u32,
        /// What is understood here.
        supported: u32,
    },
    /// A part of it is missing.
    #[error(
        "the pool has {expected} blocks of 4 KiB, but the file or device has {found} now; bring its old size back before it is opened"
    )]
    Truncated {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A size that cannot be.
    #[error("{0}")]
    Unfit(String),
    /// What is needed to open it is damaged.
    #[error("{what} is damaged")]
    Damaged {
        /// Which part.
        what: String,
    },
    /// What was flushed after the last checkpoint is not all there.
    #[error("{what} is damaged, and what follows it in the log is lost with it")]
    LogDamaged {
        /// Which part.
        what: String,
    },
}

impl OpenError {
    pub(crate) fn disk(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Disk { action, source }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not there, or it is being deleted.
    #[error("there is no {0} in the pool")]
    NoVolume(VolumeId),
    /// It is not there, or it is being deleted.
    #[error("there is no {0} in the pool")]
    NoSnapshot(SnapshotId),
    /// Names are for one only.
    #[error("the name {0:?} is taken by another in this pool")]
    NameTaken(String),
    /// A name that cannot be.
    #[error("the name {0:?} is not of 1 to 127 bytes")]
    BadName(String),
    /// A size that cannot be.
    #[error("a volume cannot have {blocks} blocks of 4 KiB: {reason}")]
    BadSize {
        /// What was wanted.
        blocks: u64,
        /// Why not.
        reason: &'static str,
    },
    /// A length that is no number of blocks.
    #[error("{0} bytes are no whole number of blocks of 4096, or none at all")]
    Unaligned(usize),
    /// More at once than there can be.
    #[error("{bytes} bytes are more than one request may have here, which is {most}; ask for less at once")]
    TooLong {
        /// What was asked for.
        bytes: usize,
        /// What is possible.
        most: usize,
    },
    /// Outside of the volume.
    #[error("blocks {} to {} reach beyond the volume's {size}", blocks.start, blocks.end())]
    BeyondEnd {
        /// What was asked for.
        blocks: Blocks,
        /// How many blocks there are.
        size: u64,
    },
    /// The bytes are not those that were written.
    #[error(
        "block {block} of {of}, at block {place} of the pool, is not what was written: its checksum is another; read it from a replica or a backup"
    )]
    Corrupt {
        /// Whose it is.
        of: String,
        /// Which one.
        block: u64,
        /// Where it lies.
        place: u64,
    },
    /// The device does not give the bytes.
    #[error("block {block} of {of}, at block {place} of the pool, cannot be read: {reason}")]
    Unreadable {
        /// Whose it is.
        of: String,
        /// Which one.
        block: u64,
        /// Where it lies.
        place: u64,
        /// What the system says.
        reason: String,
    },
    /// A node of the map is lost, and with it where its blocks are.
    #[error("the map of {of} is lost for blocks {} to {}: the node at block {place} of the pool {reason}; restore them from a replica or a backup", blocks.start, blocks.end())]
    MapLost {
        /// Whose map.
        of: String,
        /// What cannot be found any more.
        blocks: Blocks,
        /// Where the node lies.
        place: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The device has no place that takes the bytes.
    #[error("the device refuses to write data at several places, last at block {place} of the pool: {reason}")]
    Unwritable {
        /// Where it was tried last.
        place: u64,
        /// What the system says.
        reason: String,
    },
    /// The log or a checkpoint could not be written. Nothing more is acknowledged until the pool is opened anew, since nobody knows what
    /// a device holds that has failed to flush.
    #[error(
        "the pool takes no more changes, since {reason}; open it again when the device is well, nothing that was flushed is lost"
    )]
    Failed {
        /// What happened.
        reason: String,
    },
    /// Two states that do not follow each other cannot be compared.
    #[error("{state} does not come from {snapshot}; only what a state has in common with one before it can be told")]
    Unrelated {
        /// What was to be compared.
        state: String,
        /// What with.
        snapshot: SnapshotId,
    },
    /// Not even a snapshot has room.
    #[error("the pool is full; delete or discard something, or make it larger")]
    Full,
    /// The catalog has an end.
    #[error("the pool has its {most} volumes and snapshots; delete some that are not needed")]
    TooMany {
        /// How many there can be.
        most: u64,
    },
    /// A pool cannot shrink, and has an end.
    #[error("the pool cannot have {blocks} blocks: {reason}")]
    BadPoolSize {
        /// What was wanted.
        blocks: u64,
        /// Why not.
        reason: &'static str,
    },
    /// The pool was closed before it came to it.
    #[error("the pool is closed")]
    Closed,
}
