//! The volume engine's store: thin volumes with snapshots and clones in a pool, which is a file or a raw device.
//!
//! ```text
//! front ends ──► Pool: read, write, flush, discard, extents, changed; volumes, snapshots, clones
//!                  │  checksums and disk in the callers' threads or in workers
//!                  ▼
//!               engine: one owner, told what happened, saying what is to be done
//!                  ├── map: copy-on-write trees; block → place, birth epoch, checksum
//!                  ├── catalog: volumes and snapshots, and who owns what
//!                  ├── space: which blocks are used, free, or not yet free again
//!                  └── log: group commit
//!                  │
//!                  ▼
//!               Disk: a file, a device; in tests one that loses what was not flushed
//! ```
//! The bytes are in `docs/formats/volume-store.md`.
//!
//! # Invariants
//!
//! * **Live data is never overwritten.** A write goes to free blocks; what it replaces is free when no state of the past has it, and given out again when
//!   a checkpoint without it is durable and nobody reads it any more.
//! * **A flush that was answered is a fact.** All that was answered before it is in the log, flushed, or in a durable checkpoint.
//! * **What was answered survives the process.** A change is answered when the log has it, so a pool that is opened again while the machine runs on has it, flushed
//!   or not: the kernel and its file systems do not end with whoever serves them, and do not write again what they were told is written.
//! * **No map names data that may not be there.** A change is applied when its data is written, and a replay compares the data with its
//!   checksum unless it knows that it was flushed.
//! * **A checkpoint is all or nothing**: maps, catalog and free space are those of one instant, and the superblock that names them is written when
//!   they are durable. A snapshot is a root that one checkpoint has; it is taken at such an instant, of all its volumes at the same one.
//! * **Births only grow along a line.** So whoever replaces a block knows by one comparison whether a snapshot has it, and a diff passes over everything
//!   that is old enough, whole subtrees at once.
//! * **Nothing is returned that does not fit its checksum**, and the checksum is kept apart from the bytes, in what points to them.
//! * **A full pool loses nothing.** Writes wait. What frees room needs none: room for three checkpoints is never given to data.
//! * **After a failed flush nothing is acknowledged**, since nobody knows what the device has dropped. Opening the pool again
//!   finds out: it has the system's cache dropped first, which would show what could not be written as if it were there.
//! * Memory is bounded by configuration: nodes of maps, whether cached, changed or being written, all together; the log by its length; and two bits for
//!   each block of regions in use.
//!
//! What is *absent*: the engine has no clock, no threads, no locks and no way to wait; nothing here knows networks, replicas or Kubernetes; there is
//! no switch that breaks a rule in what is shipped (the simulation alone breaks rules).

mod catalog;
mod checksum;
mod disk;
mod engine;
mod error;
mod format;
mod map;
mod memory;
mod offline;
mod pool;
#[cfg(test)]
mod simulation;
mod space;
mod units;

pub use disk::{Disk, FileDisk};
pub use engine::{Counts, Extent, Notice, Page, Scrubbed, Shape};
pub use error::{Error, OpenError};
pub use format::catalog::MOST_NAME;
pub use format::superblock::VERSION;
pub use memory::{Buffer, Memory};
pub use offline::{Checked, Problem, Repaired, check, dump, repair};
pub use pool::{
    Access, LEAST_CACHE, Listener, Options, Pool, Reached, Since, SnapshotInfo, State, Usage, VolumeInfo, create, look,
};
pub use units::{BLOCK, Blocks, Epoch, MOST_REQUEST, SnapshotId, VolumeId};
