//! What the engine is asked, and what it answers.

use crate::error::Error;
use crate::units::{Blocks, Epoch, SnapshotId, TreeId, VolumeId};

/// A request.
#[derive(Debug)]
pub(crate) enum Request<M> {
    /// Fill the memory from this block on.
    Read { of: TreeId, start: u64, into: M },
    /// Write the memory; `sums` are the checksums of its blocks, computed by whoever asks so that this is done by many.
    Write { volume: VolumeId, start: u64, from: M, sums: Vec<u32>, durable: bool },
    /// These blocks shall read as zeros.
    Discard { volume: VolumeId, blocks: Blocks, durable: bool },
    /// Make durable what was answered before.
    Flush,
    /// Which blocks are data and which holes.
    Extents { of: TreeId, blocks: Blocks, most: usize },
    /// Which blocks were written or discarded after an epoch.
    Changed { of: TreeId, blocks: Blocks, since: Epoch, most: usize },
    /// Change the catalog, or the pool as a whole.
    Admin(Admin),
    /// Read and compare what belongs to this tree and none before it, from this block on.
    Scrub { of: TreeId, start: u64, most: usize },
    /// Read and compare the catalog with its map.
    ScrubCatalog,
    /// Read and compare what lies at fixed places, from this number on.
    ScrubFixed { start: u64, most: usize },
}

/// What is done at the instant of a checkpoint, and durable with it.
#[derive(Debug, Clone)]
pub(crate) enum Admin {
    Create {
        name: String,
        blocks: u64,
    },
    /// Of all these volumes at one instant.
    Snapshot {
        volumes: Vec<(VolumeId, String)>,
    },
    Clone {
        snapshot: SnapshotId,
        name: String,
    },
    /// A clone takes the volume's name and place, at one instant.
    Rollback {
        volume: VolumeId,
        snapshot: SnapshotId,
    },
    Delete {
        of: TreeId,
    },
    Resize {
        volume: VolumeId,
        blocks: u64,
    },
    /// What is written from now on is born later than everything before.
    BeginEpoch {
        volume: VolumeId,
    },
    GrowPool {
        blocks: u64,
    },
    /// Nothing but the checkpoint; the last one before the pool is closed says so.
    Checkpoint {
        clean: bool,
    },
}

/// A stretch of a volume that is all data or all holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Which blocks.
    pub blocks: Blocks,
    /// Whether something is stored; a hole reads as zeros.
    pub is_data: bool,
}

/// Some of a list that may be long: ask again from `next` on for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In ascending order.
    pub items: Vec<T>,
    /// Up to which block these are all; the end of what was asked for if nothing is left.
    pub next: u64,
}

/// What a piece of a scrub has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// What is lost or damaged, each with its error.
    pub faults: Vec<Error>,
    /// How many blocks were read.
    pub read: u64,
    /// Where to go on.
    pub next: u64,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Answer<M> {
    Done,
    Read(M),
    Extents(Page<Extent>),
    Changed(Page<Blocks>),
    Created(VolumeId),
    Snapshots(Vec<SnapshotId>),
    Began(Epoch),
    Scrubbed(Scrubbed),
}

/// What whoever runs a pool should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Writes wait for room; nothing is lost. Delete or discard something, or make the pool larger.
    Full,
    /// There is room again, and the writes go on.
    Resumed,
    /// What was deleted has given all its blocks back.
    Deleted(u64),
    /// Part of what was deleted, discarded or replaced cannot be given back, since its map is damaged: a repair finds it.
    Leaked(Error),
    /// The device refused to take data at this block; it was written elsewhere.
    Avoided {
        /// Which block of the pool.
        place: u64,
        /// What the system says.
        reason: String,
    },
    /// Something that was read is not what was written.
    Damage(Error),
    /// The pool takes no more changes.
    Failed(Error),
}
