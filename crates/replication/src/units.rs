//! The quantities of the protocol, each with a type of its own.

use std::fmt;
use std::sync::Arc;

/// The fencing number of a volume: it grows with every attachment and every change of membership, one swap of the record at a time.
///
/// Whatever is stored in a replica is stored with the epoch in which it was written, its *birth*, so that what changed since an epoch is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The one that follows. Epochs are counted one by one, so 2^64 are never used up.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// A replicated volume of the cluster. Ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u128);

/// A copy of a volume in a pool. Ids are never used again, not even for a copy on the same node: one that was thrown away must not be taken for one
/// that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.0)
    }
}

/// A snapshot of a replicated volume. Ids are never used again: what a replica holds of one that is gone must not be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u128);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {:032x}", self.0)
    }
}

/// A snapshot that a replica has: which one, and in which epoch it was taken.
pub type HeldSnapshot = (SnapshotId, Epoch);

/// One attaching of a volume by one process: two attempts, even of the same process, have two ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId(pub u128);

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attachment {:x}", self.0)
    }
}

/// The name of a node, as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub Arc<str>);

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// One run of the process that serves a replica. A request names the run that it is meant for, so that what was sent to an earlier one is never
/// executed: not even a copy of it that the network kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// One stretch of time in which a replica's store has lost nothing that it answered. It changes when the machine may have lost its power, and stays when
/// the process alone has ended; on Linux the kernel's boot id does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

/// Counts the requests of one attachment to one replica. A request that is sent again keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The one that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How whoever asked for something knows it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// A point in time, in nanoseconds of a clock that only grows and that is this process's own: it means nothing to anybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// A length of time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }
}

impl std::ops::Add<Span> for Time {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
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

    /// Whether they have a block in common.
    #[must_use]
    pub fn overlap(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {} to {}", self.start, self.end())
    }
}

/// What the bytes of some blocks hash to, by a function that different bytes do not meet by chance (BLAKE3, cut to its first half).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);
