//! The quantities of the store, each with a type of its own.

use std::fmt;

/// Bytes of a block, the unit of volumes and pools alike.
pub const BLOCK: usize = 4096;
/// The longest read or write, in bytes: 32 MiB. A longer one is refused: it would hold up all others, and need room or memory that nobody else
/// gets meanwhile. Front ends announce less to their clients.
pub const MOST_REQUEST: usize = 32 << 20;
/// The same as a length on a device.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Places, epochs and block numbers have 48 bits on disk.
pub(crate) const MOST_48: u64 = (1 << 48) - 1;

/// Where a block lies in the pool. Place 0 is a superblock, so in the map it stands for "nowhere".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(pub(crate) u64);

impl Place {
    pub(crate) const NOWHERE: Self = Self(0);

    pub(crate) fn bytes(self) -> u64 {
        self.0 * BLOCK_BYTES
    }

    pub(crate) fn is_somewhere(self) -> bool {
        self != Self::NOWHERE
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of the pool", self.0)
    }
}

/// Places that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: Place,
    pub(crate) count: u32,
}

impl Run {
    pub(crate) fn one(start: Place) -> Self {
        Self { start, count: 1 }
    }

    pub(crate) fn end(self) -> u64 {
        self.start.0 + u64::from(self.count)
    }
}

/// A point in the history of a pool, given out by its counter: everything that is written to a volume between two of its snapshots is
/// born in the same epoch, and epochs only grow along a line of snapshots and clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A volume of a pool. Ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u64);

/// A snapshot of a pool. Ids are never used again, and no volume has the id of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}", self.0)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {}", self.0)
    }
}

/// What has a map: a volume, or a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreeId(pub(crate) u64);

impl TreeId {
    /// The catalog's own map, which no request can name.
    pub(crate) const CATALOG: Self = Self(0);
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CATALOG { f.write_str("the catalog") } else { write!(f, "volume or snapshot {}", self.0) }
    }
}

impl From<VolumeId> for TreeId {
    fn from(id: VolumeId) -> Self {
        Self(id.0)
    }
}

impl From<SnapshotId> for TreeId {
    fn from(id: SnapshotId) -> Self {
        Self(id.0)
    }
}

/// Blocks of a volume that follow each other, counted from its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks {
    /// The first one.
    pub start: u64,
    /// How many.
    pub count: u64,
}

impl Blocks {
    /// The block after the last one.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.count)
    }
}
