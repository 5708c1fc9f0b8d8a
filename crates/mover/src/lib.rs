//! What runs in a mover pod: moves one volume between a mounted directory, or a device, and the repository.
//!
//! A mover gets a [`Job`], tells how far it is in lines of JSON, and ends with one [`Outcome`]. It decides nothing: which
//! volume, which parent and what to do about a failure is the operator's business. Its promises:
//!
//! * Of a backup that is `ok`, everything that it wrote has been read back whole from the repository; of what it took over from
//!   earlier recovery points, every page of the tree has been read, and every blob of content was found in the sealed directory of
//!   its pack. The bytes of those older blobs are read by `orlop repo check --read-data`.
//! * A restore that is `ok` has been compared with the repository byte by byte. Until then a volume with files carries a marker, so
//!   that a half-filled volume is never taken for a full one; a device has no place for one.

mod backup;
mod device;
mod failure;
mod job;
mod outcome;
mod packs;
mod process;
mod report;
mod restore;
mod volume;

pub use self::failure::{Failure, FailureKind};
pub use self::job::{Direction, Form, Job};
pub use self::outcome::{Backup, MESSAGE_BYTES, Outcome, Restore, Stored};
pub use self::packs::PackList;
pub use self::process::{run, run_process};
pub use self::report::{Lines, Phase};
pub use self::volume::MARKER_NAME;
